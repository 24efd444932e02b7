//! What the host says about identities.

use std::fs;
use std::path::Path;

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

pub fn apparmor_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// The kernel offers selinuxfs only while SELinux is enabled.
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
        || fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.ends_with("\tselinuxfs")))
}
