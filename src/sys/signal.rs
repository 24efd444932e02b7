//! Signal masks and dispositions, signalfd(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check};

fn full_set() -> libc::sigset_t {
    // SAFETY: sigfillset initialises the whole set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// Blocks all signals, so that none is lost between a clone and the loop that reads [`descriptor`].
///
/// # Errors
///
/// An error of sigprocmask(2).
pub fn block_all() -> Result<()> {
    let set = full_set();
    // SAFETY: the call reads one initialised set, and does not return the old mask.
    check(
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }.into(),
    )
    .map(drop)
}

/// Signals whose dispositions are reset.
///
/// A daemon, nohup, or a shell that starts a background process may have ignored some of them. execve(2) resets
/// handlers, but not ignored signals. The container has its own session, so the caller's terminal sends it no signals.
/// The dispositions of KILL and STOP cannot be changed, and are always the default.
const STANDARD: std::ops::RangeInclusive<i32> = 1..=31;

/// Sets default dispositions and an empty mask, which the container's program expects.
///
/// # Errors
///
/// An error of sigprocmask(2).
pub fn reset() -> Result<()> {
    for signal in STANDARD {
        default(signal);
    }
    unblock_all()
}

/// Does the same as [`reset`] for a process that waits before execve(2), which HUP, INT, TERM and QUIT shall end.
///
/// The process may be the first one of its pid namespace, which the kernel protects from signals without a handler. So
/// these signals get a handler, which execve(2) resets.
///
/// # Errors
///
/// An error of sigprocmask(2).
pub fn reset_until_exec() -> Result<()> {
    for signal in STANDARD {
        match signal {
            libc::SIGHUP | libc::SIGINT | libc::SIGTERM | libc::SIGQUIT => {
                let handler = end_by as extern "C" fn(libc::c_int);
                // SAFETY: the handler calls nothing but _exit, which is async-signal-safe.
                unsafe { libc::signal(signal, handler as libc::sighandler_t) };
            }
            other => default(other),
        }
    }
    unblock_all()
}

/// Ends the process with the exit status that shells report for a signal.
extern "C" fn end_by(signal: libc::c_int) {
    // SAFETY: _exit(2) ends the process at once, without exit handlers.
    unsafe { libc::_exit(128 + signal) }
}

/// Sets an empty mask.
///
/// # Errors
///
/// An error of sigprocmask(2).
pub fn unblock_all() -> Result<()> {
    // SAFETY: sigemptyset initialises the set that sigprocmask then reads.
    check(
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
        }
        .into(),
    )
    .map(drop)
}

/// Removes one signal from the mask.
///
/// # Errors
///
/// An error of sigprocmask(2).
pub fn unblock(signal: i32) -> Result<()> {
    // SAFETY: sigemptyset initialises the set that sigaddset changes and sigprocmask then reads.
    check(
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
        }
        .into(),
    )
    .map(drop)
}

/// Sets the default disposition of one signal.
pub fn default(signal: i32) {
    // SAFETY: SIG_DFL is a valid disposition for every signal. For KILL and STOP the kernel returns EINVAL, and nothing
    // changes.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Opens a descriptor that becomes readable when a blocked signal arrives.
///
/// # Errors
///
/// An error of signalfd(2).
pub fn descriptor() -> Result<OwnedFd> {
    let set = full_set();
    // SAFETY: the call reads one initialised set.
    let fd = check(
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }
            .into(),
    )?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Returns the number of the next pending signal. `None` if there is none.
///
/// # Errors
///
/// An error of read(2).
pub fn next(descriptor: BorrowedFd<'_>) -> Result<Option<i32>> {
    // SAFETY: signalfd_siginfo consists of integers, for which zeros are valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the kernel writes at most `size` bytes into `info`.
    match check(unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut info).cast(), size) } as _) {
        Ok(_) => Ok(Some(info.ssi_signo as i32)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends any signal, also a real-time signal or 0, to a child that is not reaped yet.
///
/// # Errors
///
/// An error of kill(2).
pub fn send(pid: libc::pid_t, signal: i32) -> Result<()> {
    // SAFETY: the arguments are integers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}
