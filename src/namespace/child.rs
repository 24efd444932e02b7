//! Enters namespaces, sets names and sysctls, in the new process.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;

use super::{Join, Step};
use crate::error::fault::{Attempt, ChildResult};
use crate::fs::Proc;
use crate::sys;
use crate::sys::open::open;

/// Runs a step. `proc` is the host's procfs: the kernel resolves sysctls by the namespaces of the task that opens them, and
/// the container cannot have mounted over it.
///
/// # Errors
///
/// The kernel rejects the step.
pub fn run(step: &Step, proc: &Proc) -> ChildResult<()> {
    match step {
        Step::Join(join) => enter(join, &open_namespace(join)?),
        Step::BecomeRoot => become_root(),
        Step::NewTime(offsets) => new_time(offsets.as_deref()),
        Step::Unshare(kind) => sys::namespace::unshare(kind.flag()).during("unshare"),
        Step::Hostname(name) => sys::namespace::sethostname(name).during("sethostname"),
        Step::Domainname(name) => sys::namespace::setdomainname(name).during("setdomainname"),
        Step::Sysctl { key, value } => proc.write(key, value).during("write"),
    }
}

/// Creates a time namespace and enters it. unshare(2) creates it for children; execve(2) enters it since Linux 6.1.
fn new_time(offsets: Option<&str>) -> ChildResult<()> {
    sys::namespace::unshare(sys::namespace::TIME).during("unshare CLONE_NEWTIME")?;
    if let Some(lines) = offsets {
        // The /proc files of a non-dumpable process belong to the host's root. Only processes with privileges in the
        // new user namespace could access it, and no other process is in it.
        sys::process::set_dumpable(true).during("prctl PR_SET_DUMPABLE")?;
        let file = open(c"/proc/self/timens_offsets", OFlag::O_WRONLY | OFlag::O_CLOEXEC);
        let written = file.and_then(|file| nix::unistd::write(&file, lines.as_bytes()));
        sys::process::set_dumpable(false).during("prctl PR_SET_DUMPABLE")?;
        written.during("write /proc/self/timens_offsets")?;
    }
    let own = open(c"/proc/self/ns/time_for_children", OFlag::O_RDONLY | OFlag::O_CLOEXEC);
    let own = own.during("open /proc/self/ns/time_for_children")?;
    sys::namespace::setns(own.as_fd(), sys::namespace::TIME).during("setns time")
}

/// Becomes root of the user namespace that was entered.
///
/// # Errors
///
/// The user namespace maps no ID 0.
pub fn become_root() -> ChildResult<()> {
    sys::process::set_gid(0).during("setresgid 0")?;
    sys::process::set_uid(0).during("setresuid 0")
}

/// Opens a namespace file.
///
/// # Errors
///
/// The path cannot be opened.
pub fn open_namespace(join: &Join) -> ChildResult<OwnedFd> {
    open(join.path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC).during("open")
}

/// Joins an open namespace.
///
/// # Errors
///
/// The file is no namespace of the kind, or the process lacks privileges.
pub fn enter(join: &Join, namespace: &OwnedFd) -> ChildResult<()> {
    sys::namespace::setns(namespace.as_fd(), join.kind.flag()).during("setns")
}
