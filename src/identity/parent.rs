//! Reads which security modules the host has, and changes the owner of pipes.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::{FileStat, fstat};
use nix::unistd::fchown;
use oci_spec::runtime::Process;

use super::plan::SecurityModules;

/// Returns the enabled security modules. It reads only about modules for which one of the processes has a label.
pub fn security_modules<'a>(
    processes: impl Iterator<Item = &'a Process> + Clone,
) -> SecurityModules {
    let labelled = |field: fn(&Process) -> &Option<String>| {
        processes.clone().any(|p| field(p).as_deref().is_some_and(|label| !label.is_empty()))
    };
    SecurityModules {
        apparmor: labelled(Process::apparmor_profile) && apparmor_enabled(),
        selinux: labelled(Process::selinux_label) && selinux_enabled(),
    }
}

/// Changes the owner of standard streams that are pipes to `uid`, so that a process in a user namespace can open
/// /dev/stdout.
///
/// Without this, the owner of the caller's pipe has no ID in the namespace, and the capabilities of the process do not
/// apply to the pipe. The owner of files and terminals does not change. Errors are ignored.
pub fn change_pipe_owner(uid: u32) {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_pipe = |stat: FileStat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
        if fstat(fd).is_ok_and(is_pipe) {
            let _ = fchown(fd, Some(uid.into()), None);
        }
    }
}

pub fn apparmor_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Returns true if SELinux is enabled. The kernel has selinuxfs only then.
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
        || fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.ends_with("\tselinuxfs")))
}
