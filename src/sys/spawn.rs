//! A clone that becomes another image: for programs that the runtime runs itself.
//!
//! std's Command is not used: it looks the path up by PATH, and hands on the signals that we block.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::ForkResult;

use super::clone::{Spawned, clone3, exit_now};
use super::process::{self, Vector};
use super::{Errno, Result, pidfd, signal};

/// What to execute, ready for the kernel.
pub struct Image<'a> {
    pub path: &'a CStr,
    pub argv: Vector<'a>,
    pub env: Vector<'a>,
    /// Changed to in the child only.
    pub cwd: Option<&'a CStr>,
}

/// What only some children need.
#[derive(Default, Clone, Copy)]
pub struct Extras<'a> {
    /// Become the child's descriptors 3, 4 and so on.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// The child is killed when its parent dies.
    pub dies_with_parent: bool,
    /// The child leads a session of its own.
    pub session: bool,
    /// Joined by the child.
    pub namespaces: &'a [BorrowedFd<'a>],
}

/// Which of the child's calls was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Before there was a child.
    Spawn(Errno),
    Chdir(Errno),
    Exec(Errno),
}

pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}

/// Returns when the child has become its image. `stdio` are above 2 and close on execve.
pub fn spawn(image: &Image, stdio: [BorrowedFd; 3]) -> std::result::Result<Spawned, Refusal> {
    spawn_with(image, stdio, Extras::default())
}

/// The same with [`Extras`].
pub fn spawn_with(
    image: &Image,
    stdio: [BorrowedFd; 3],
    extras: Extras,
) -> std::result::Result<Spawned, Refusal> {
    let (report, refusal) = pipe().map_err(Refusal::Spawn)?;
    // Out of the way of the numbers that the child's descriptors get.
    let above = 3 + extras.descriptors.len() as RawFd;
    let raised = |fd: BorrowedFd| raise(fd, above).map_err(Refusal::Spawn);
    let refusal = match extras.descriptors {
        [] => refusal,
        // The first one is closed by that, or the end of the report would never come.
        _ => raised(refusal.as_fd()).inspect(|_| drop(refusal))?,
    };
    let further: Vec<OwnedFd> =
        extras.descriptors.iter().map(|fd| raised(*fd)).collect::<std::result::Result<_, _>>()?;
    let become_it = || become_or_report(image, stdio, &further, extras, &refusal);
    let child = clone(become_it).map_err(Refusal::Spawn)?;
    drop(refusal);
    match read_refusal(&report) {
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
    // SAFETY: the kernel just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raised) })
}

/// A seccomp profile may refuse clone3, whose flags no filter can read, and allow fork.
fn clone(become_it: impl Fn() -> Infallible) -> Result<Spawned> {
    match clone3(0, None, &become_it) {
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        other => return other,
    }
    // SAFETY: as for clone3: this process has one thread.
    let pid = match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => never(&become_it),
        ForkResult::Parent { child } => child,
    };
    match pidfd::open(pid.as_raw()) {
        Ok(pidfd) => Ok(Spawned { pid: pid.as_raw(), pidfd }),
        Err(errno) => {
            // Its only child that is not reaped yet: the pid cannot be anybody else's.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(errno)
        }
    }
}

/// The child.
fn become_or_report(
    image: &Image,
    stdio: [BorrowedFd; 3],
    further: &[OwnedFd],
    extras: Extras,
    refusal: &OwnedFd,
) -> Infallible {
    let (call, errno) = become_image(image, stdio, further, extras);
    let message = (call << 32 | errno as i64).to_ne_bytes();
    // A report that cannot be written looks like success, and the exit status tells.
    let _ = nix::unistd::write(refusal, &message);
    exit_now(127)
}

const CHDIR: i64 = 1;
const EXEC: i64 = 2;

fn become_image(
    image: &Image,
    stdio: [BorrowedFd; 3],
    further: &[OwnedFd],
    extras: Extras,
) -> (i64, Errno) {
    if let Err(errno) = signal::reset() {
        return (EXEC, errno);
    }
    process::restore_soft_limits(|_| false);
    if let Err(errno) = detach_or_bind(extras) {
        return (EXEC, errno);
    }
    let further = further.iter().map(AsFd::as_fd);
    for (standard, fd) in stdio.into_iter().chain(further).enumerate() {
        // SAFETY: this process is about to become another image or to exit, so no owner of the
        // standard descriptors is left to be surprised.
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

fn detach_or_bind(extras: Extras) -> Result<()> {
    if extras.session {
        nix::unistd::setsid()?;
    }
    if extras.dies_with_parent {
        process::set_parent_death_signal(libc::SIGKILL)?;
    }
    for namespace in extras.namespaces {
        super::namespace::setns(*namespace, 0)?;
    }
    Ok(())
}

/// In a function of its own, for a call that does not return is the last of its block.
fn never(become_it: &impl Fn() -> Infallible) -> ! {
    become_it();
    exit_now(127)
}

fn read_refusal(report: &OwnedFd) -> Option<Refusal> {
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

/// Runs `body` in a fork, for tests of what cannot be undone. Its status is whether that succeeded.
#[cfg(test)]
pub fn in_child(body: impl FnOnce()) -> pidfd::Ended {
    // SAFETY: glibc's fork leaves its allocator usable in the child of a threaded process; the
    // child takes no other lock that a test's thread could hold, and ends in _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: as above.
            unsafe { libc::_exit(outcome.is_err().into()) }
        }
        ForkResult::Parent { child } => {
            let child = pidfd::open(child.as_raw()).unwrap();
            pidfd::wait(child.as_fd(), true).unwrap().unwrap()
        }
    }
}
