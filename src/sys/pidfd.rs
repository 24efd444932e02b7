//! Processes by file descriptor: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2), and waitid(2) on a pidfd.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, Result, check};

/// Opens a pidfd of the process `pid`.
///
/// # Errors
///
/// `ESRCH` if the process does not exist, or another error of pidfd_open(2).
pub fn open(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: the arguments are integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the descriptor is new and has no other owner. Pidfds are always close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process of `pidfd`; 0 only checks for it. Another process with a reused pid never gets the
/// signal.
///
/// # Errors
///
/// `ESRCH` if the process has been reaped, or another error of pidfd_send_signal(2).
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the arguments are integers and a null siginfo, with which the kernel acts like kill(2).
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

/// Duplicates descriptor `fd` of the process of `pidfd` (Linux 5.6).
///
/// # Errors
///
/// An error of pidfd_getfd(2).
pub fn getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: the arguments are integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the descriptor is new, close-on-exec, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// End of a process: an exit status or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    /// Returns the exit status as shells report it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Reaps the child of `pidfd`. With `block` false, returns `None` while the child runs.
///
/// # Errors
///
/// `ECHILD` if the process is not a child of the caller, or another error of waitid(2).
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>> {
    let options = if block { 0 } else { libc::WNOHANG };
    let reaped = wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, options)?;
    Ok(reaped.map(|(_, ended)| ended))
}

/// Reaps any child that has ended. `None` if all children run.
///
/// # Errors
///
/// `ECHILD` if there are no children.
pub fn wait_any() -> Result<Option<(libc::pid_t, Ended)>> {
    wait_id(libc::P_ALL, 0, libc::WNOHANG)
}

fn wait_id(
    kind: libc::idtype_t,
    id: libc::id_t,
    options: i32,
) -> Result<Option<(libc::pid_t, Ended)>> {
    loop {
        // SAFETY: siginfo_t is plain data, for which zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the call writes `info`, which lives across it.
        let ret = unsafe { libc::waitid(kind, id, &raw mut info, options | libc::WEXITED) };
        match check(ret.into()) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        // SAFETY: waitid has filled the SIGCHLD members, or left the zeros.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok(match (pid, info.si_code) {
            (0, _) => None,
            (pid, libc::CLD_EXITED) => Some((pid, Ended::Exited(status))),
            (pid, _) => Some((pid, Ended::Signaled(status))),
        });
    }
}

/// Waits until the process of `pidfd` has ended, also if it is not a child. Returns false on time-out.
///
/// # Errors
///
/// An error of poll(2).
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
