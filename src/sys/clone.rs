//! clone3(2).

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::ForkResult;

use super::{Result, check};

/// libc's constant of this name does not fit its own type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// A new process, as its parent sees it.
#[derive(Debug)]
pub struct Spawned {
    pub pid: libc::pid_t,
    pub pidfd: OwnedFd,
}

/// Runs `child` in a new process, in the namespaces that `flags` creates and, with `cgroup` (a
/// directory of cgroup2, Linux 5.7), born in that cgroup: it never has to be moved, which would wait
/// for an RCU grace period.
///
/// `child` gets a copy of the whole address space. That is sound because the process that calls is
/// single-threaded: `aril` never starts a thread (`runtime-tests/tests/tidy.rs` looks for
/// `std::thread`), so no lock can be held by a thread that does not exist in the copy.
pub fn clone3(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Spawned> {
    let mut pidfd: RawFd = -1;
    let mut flags = flags | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= INTO_CGROUP;
    }
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the signal is the caller's own and must not be given.
    args.exit_signal =
        if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);

    // SAFETY: no CLONE_VM and no stack: the child runs on a copy of this stack, in a copy of this
    // single-threaded address space (see above), like fork(2). `args` outlives the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        child();
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor, owned by nobody else, on success.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid: pid as libc::pid_t, pidfd })
}

/// fork(2): the child, as its parent sees it; `None` in the child.
pub fn fork() -> Result<Option<Spawned>> {
    // SAFETY: as for [`clone3`]: this process has one thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(None),
        // Not reaped yet: the pid cannot be another process's.
        ForkResult::Parent { child } => super::pidfd::open(child.as_raw())
            .map(|pidfd| Some(Spawned { pid: child.as_raw(), pidfd })),
    }
}

/// Ends the calling process without running exit handlers, which belong to the parent's copy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}
