//! pidfd_open(2), pidfd_send_signal(2), waitid(2) on a pidfd, pidfd_getfd(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, Result, check};

pub fn open(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor of ours alone; pidfds are always close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` (0 probes) to the process behind `pidfd`, which cannot have been replaced by
/// another of the same number.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: integers and a null siginfo, which means "as kill(2) would".
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// A copy of descriptor `fd` of the process behind `pidfd` (Linux 5.6).
pub fn getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: a new descriptor of ours alone, close-on-exec by the call's definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    /// The shell's convention: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Reaps the child behind `pidfd`. With `block` false, `None` while it still runs.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>> {
    let options = if block { 0 } else { libc::WNOHANG };
    let reaped = wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, options)?;
    Ok(reaped.map(|(_, ended)| ended))
}

/// Reaps any child that has ended, if there is one; ECHILD if there are no children.
pub fn wait_any() -> Result<Option<(libc::pid_t, Ended)>> {
    wait_id(libc::P_ALL, 0, libc::WNOHANG)
}

fn wait_id(
    kind: libc::idtype_t,
    id: libc::id_t,
    options: i32,
) -> Result<Option<(libc::pid_t, Ended)>> {
    loop {
        // SAFETY: siginfo_t is plain data, for which zeroes are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is written by the call and lives across it.
        let ret = unsafe { libc::waitid(kind, id, &raw mut info, options | libc::WEXITED) };
        match check(ret.into()) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        // SAFETY: waitid filled the SIGCHLD members, or left the zeroes we put there.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok(match (pid, info.si_code) {
            (0, _) => None,
            (pid, libc::CLD_EXITED) => Some((pid, Ended::Exited(status))),
            (pid, _) => Some((pid, Ended::Signaled(status))),
        });
    }
}

/// Waits until the process behind `pidfd` has ended, whoever its parent is; false on time-out.
pub fn wait_end(pidfd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one pollfd that lives across the call.
        match check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) }.into()) {
            Err(Errno::EINTR) => continue,
            other => return other.map(|n| n > 0),
        }
    }
}
