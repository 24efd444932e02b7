//! What the host says about identities.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::{FileStat, fstat};
use nix::unistd::fchown;
use oci_spec::runtime::Process;

use super::plan::SecurityModules;

/// Asks only for the modules that one of the processes has a label for: the answers cost reads.
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

/// Gives the standard streams that are pipes to `uid`, so that a process in a user namespace can open
/// /dev/stdout: the owner of the caller's pipe has no ID there, and none of its capabilities count.
/// Files and terminals stay the caller's. What cannot be given stays as it is, too.
pub fn give_pipes(uid: u32) {
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

/// The kernel offers selinuxfs only while SELinux is enabled.
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
        || fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.ends_with("\tselinuxfs")))
}
