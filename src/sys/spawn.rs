//! Starts other programs: hooks, nft, pasta and so on.
//!
//! std's Command is not used, because it looks the path up by PATH, and the child would inherit the blocked signals.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::ForkResult;

use super::clone::{Spawned, clone_any, exit_now};
use super::process::{self, Vector};
use super::{Errno, Result, pidfd, signal};

/// Program to execute, with data that is ready for the kernel.
pub struct Image<'a> {
    pub path: &'a CStr,
    pub argv: Vector<'a>,
    pub env: Vector<'a>,
    /// Working directory of the child.
    pub cwd: Option<&'a CStr>,
}

/// Settings that only some children need.
#[derive(Default, Clone, Copy)]
pub struct SpawnOptions<'a> {
    /// Descriptors that become 3, 4 and so on in the child.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// True if the kernel kills the child when its parent ends.
    pub dies_with_parent: bool,
    /// True if the child becomes the leader of a new session.
    pub session: bool,
    /// Namespaces that the child joins.
    pub namespaces: &'a [BorrowedFd<'a>],
}

/// Failed call of a spawn.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Call before the child existed.
    Spawn(Errno),
    Chdir(Errno),
    Exec(Errno),
}

/// Creates a pipe: the end to read from, and the end to write to.
///
/// # Errors
///
/// An error of pipe2(2).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}

/// Starts a program, and returns after the child's execve(2). The descriptors `stdio` are above 2 and close-on-exec.
///
/// # Errors
///
/// The call of the parent or of the child that failed.
pub fn spawn(image: &Image, stdio: [BorrowedFd; 3]) -> std::result::Result<Spawned, Refusal> {
    spawn_with(image, stdio, SpawnOptions::default())
}

/// Does the same as [`spawn`] with more settings.
///
/// # Errors
///
/// The errors of [`spawn`].
pub fn spawn_with(
    image: &Image,
    stdio: [BorrowedFd; 3],
    options: SpawnOptions,
) -> std::result::Result<Spawned, Refusal> {
    let (report, refusal) = pipe().map_err(Refusal::Spawn)?;
    // Numbers above those that the child's descriptors get.
    let above = 3 + options.descriptors.len() as RawFd;
    let raised = |fd: BorrowedFd| raise(fd, above).map_err(Refusal::Spawn);
    let refusal = match options.descriptors {
        [] => refusal,
        // The original must be closed, because the reader waits until all copies are closed.
        _ => raised(refusal.as_fd()).inspect(|_| drop(refusal))?,
    };
    let descriptors: Vec<OwnedFd> =
        options.descriptors.iter().map(|fd| raised(*fd)).collect::<std::result::Result<_, _>>()?;
    let child = || become_or_report(image, stdio, &descriptors, options, &refusal);
    // SAFETY: the child runs on prepared data. It makes system calls and calls of signal(3), and none of them allocates or
    // takes a lock.
    let child = unsafe { clone(child) }.map_err(Refusal::Spawn)?;
    drop(refusal);
    match read_report(&report) {
        None => Ok(child),
        Some(refused) => {
            let _ = pidfd::wait(child.pidfd.as_fd(), true);
            Err(refused)
        }
    }
}

fn raise(fd: BorrowedFd, above: RawFd) -> Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, fcntl};
    let raised = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
    // SAFETY: the kernel has just created this descriptor, and no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(raised) })
}

/// Clones the process. A seccomp profile may reject clone3, whose flags no filter can read, and allow fork.
///
/// # Safety
///
/// `child` makes async-signal-safe calls only.
unsafe fn clone(child: impl Fn() -> Infallible) -> Result<Spawned> {
    // SAFETY: the caller answers for `child`.
    match unsafe { clone_any(0, None, &child) } {
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        other => return other,
    }
    // SAFETY: the same.
    let pid = match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => run(&child),
        ForkResult::Parent { child } => child,
    };
    match pidfd::open(pid.as_raw()) {
        Ok(pidfd) => Ok(Spawned { pid: pid.as_raw(), pidfd }),
        Err(errno) => {
            // The child is not reaped yet, so no other process can have its pid.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(errno)
        }
    }
}

/// Runs in the child: executes the program, or reports the failed call to the parent.
fn become_or_report(
    image: &Image,
    stdio: [BorrowedFd; 3],
    descriptors: &[OwnedFd],
    options: SpawnOptions,
    refusal: &OwnedFd,
) -> Infallible {
    let (call, errno) = become_image(image, stdio, descriptors, options);
    let message = (call << 32 | errno as i64).to_ne_bytes();
    // If the report cannot be written, the parent sees success, and the exit status shows the failure.
    let _ = nix::unistd::write(refusal, &message);
    exit_now(127)
}

const CHDIR: i64 = 1;
const EXEC: i64 = 2;

fn become_image(
    image: &Image,
    stdio: [BorrowedFd; 3],
    descriptors: &[OwnedFd],
    options: SpawnOptions,
) -> (i64, Errno) {
    if let Err(errno) = signal::reset() {
        return (EXEC, errno);
    }
    process::restore_soft_limits(|_| false);
    if let Err(errno) = apply(options) {
        return (EXEC, errno);
    }
    let descriptors = descriptors.iter().map(AsFd::as_fd);
    for (standard, fd) in stdio.into_iter().chain(descriptors).enumerate() {
        // SAFETY: this process is about to execute another program or to exit, so no owner uses the standard
        // descriptors afterwards.
        if unsafe { libc::dup2(fd.as_raw_fd(), standard as RawFd) } < 0 {
            return (EXEC, Errno::last());
        }
    }
    if let Some(cwd) = image.cwd
        && let Err(errno) = nix::unistd::chdir(cwd)
    {
        return (CHDIR, errno);
    }
    (EXEC, process::execve(image.path, &image.argv, &image.env))
}

fn apply(options: SpawnOptions) -> Result<()> {
    if options.session {
        nix::unistd::setsid()?;
    }
    if options.dies_with_parent {
        process::set_parent_death_signal(libc::SIGKILL)?;
    }
    for namespace in options.namespaces {
        super::namespace::setns(*namespace, 0)?;
    }
    Ok(())
}

/// Calls a function that does not return. In a function of its own, because code after such a call is unreachable.
fn run(child: &impl Fn() -> Infallible) -> ! {
    child();
    exit_now(127)
}

fn read_report(report: &OwnedFd) -> Option<Refusal> {
    let mut bytes = [0; 8];
    let length = loop {
        match nix::unistd::read(report, &mut bytes) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    if length != Ok(bytes.len()) {
        return None;
    }
    let message = i64::from_ne_bytes(bytes);
    let errno = Errno::from_raw(message as i32);
    Some(match message >> 32 {
        CHDIR => Refusal::Chdir(errno),
        _ => Refusal::Exec(errno),
    })
}

/// Runs `body` in a forked child, for tests of changes that cannot be undone. The child's status is 0 if `body`
/// succeeds.
#[cfg(test)]
pub fn in_child(body: impl FnOnce()) -> pidfd::Ended {
    // SAFETY: glibc's fork leaves its allocator usable in the child of a process with threads. The child takes no other
    // lock that a thread of the tests could hold, and ends with _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: _exit(2) has no preconditions.
            unsafe { libc::_exit(outcome.is_err().into()) }
        }
        ForkResult::Parent { child } => {
            let child = pidfd::open(child.as_raw()).unwrap();
            pidfd::wait(child.as_fd(), true).unwrap().unwrap()
        }
    }
}
