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

/// Blocks every signal, so that none is lost between a clone and the loop that reads [`descriptor`].
pub fn block_all() -> Result<()> {
    let set = full_set();
    // SAFETY: reads one initialised set; the old mask is not asked for.
    check(
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }.into(),
    )
    .map(drop)
}

/// What a daemon may have left ignored, or nohup, or a script's shell for what it puts in the background;
/// exec resets handlers, but not these. The container has a session of its own: no terminal of the
/// caller's signals it. Where a disposition cannot be set, KILL and STOP, it is the default.
const STANDARD: std::ops::RangeInclusive<i32> = 1..=31;

/// Default dispositions and an empty mask: what a container's first program expects to start with.
pub fn reset() -> Result<()> {
    for signal in STANDARD {
        default(signal);
    }
    unblock_all()
}

/// The same for a process that waits for its program: what asks it to end ends it, although it may be
/// the first of its pid namespace, which the kernel protects from signals without a handler. execve
/// resets the handlers.
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

/// Ends with the status that shells give to a signal.
extern "C" fn end_by(signal: libc::c_int) {
    // SAFETY: ends the process at once, and runs nothing of it.
    unsafe { libc::_exit(128 + signal) }
}

/// An empty mask.
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

/// Takes one signal out of the mask.
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

/// The default disposition for one signal.
pub fn default(signal: i32) {
    // SAFETY: SIG_DFL is a valid disposition for every signal; where it may not be set (KILL, STOP)
    // the kernel answers EINVAL and nothing changes.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// A descriptor that becomes readable when a (blocked) signal arrives.
pub fn descriptor() -> Result<OwnedFd> {
    let set = full_set();
    // SAFETY: reads one initialised set.
    let fd = check(
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }
            .into(),
    )?;
    // SAFETY: a new descriptor of ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The next pending signal's number, if there is one.
pub fn next(descriptor: BorrowedFd<'_>) -> Result<Option<i32>> {
    // SAFETY: signalfd_siginfo is plain integers.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the kernel writes at most `size` bytes into `info`.
    match check(unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut info).cast(), size) } as _) {
        Ok(_) => Ok(Some(info.ssi_signo as i32)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Any signal, real-time ones and 0 included, to a process that is known to be there: a child that is
/// not reaped yet.
pub fn send(pid: libc::pid_t, signal: i32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}
