//! clone3(2) and fork(2), and the proof of one thread that they ask for.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::unistd::ForkResult;

use super::{Result, check};

/// `CLONE_INTO_CGROUP`. libc's constant of this name does not fit its own type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Proof that the calling process has one thread.
///
/// A new process gets a copy of the memory, but only the thread that clones. A lock that another thread holds would stay
/// locked in the copy for ever. Also, other threads would see changes of memory that the process shares with the
/// kernel, such as its environment.
///
/// The proof cannot be sent to another thread.
#[derive(Debug, Clone, Copy)]
pub struct SingleThread(PhantomData<*const ()>);

/// True in a program that promised to start no thread. Unit tests run one at a time (`--test-threads=1`), while the main
/// thread of the test program waits and holds no lock.
static PROMISED: AtomicBool = AtomicBool::new(cfg!(test));

impl SingleThread {
    /// Returns the proof, in a program whose `main` is defined by [`entry!`](crate::entry).
    ///
    /// # Panics
    ///
    /// In any other program, which may have threads.
    pub fn proof() -> Self {
        assert!(PROMISED.load(Relaxed), "the program may have threads: entry! defines no main");
        Self(PhantomData)
    }

    /// Lets [`proof`](Self::proof) succeed.
    ///
    /// # Safety
    ///
    /// The process has one thread, and never starts another one.
    pub(super) unsafe fn promise() {
        PROMISED.store(true, Relaxed);
    }
}

/// New process, as its parent sees it.
#[derive(Debug)]
pub struct Spawned {
    pub pid: libc::pid_t,
    pub pidfd: OwnedFd,
}

/// Runs `child` in a new process.
///
/// The process starts in the namespaces that `flags` creates. With `cgroup`, a cgroup2 directory (Linux 5.7), it starts
/// in that cgroup: moving it later would wait for an RCU grace period.
///
/// # Errors
///
/// An error of clone3(2).
pub fn clone3(
    _proof: SingleThread,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Spawned> {
    // SAFETY: the caller proved that the process has one thread.
    unsafe { clone_any(flags, cgroup, child) }
}

/// Does the same as [`clone3`] in a process that may have threads.
///
/// # Safety
///
/// The process has one thread, or `child` makes async-signal-safe calls only (signal-safety(7)).
pub(super) unsafe fn clone_any(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Spawned> {
    let mut pidfd: RawFd = -1;
    let mut flags = flags | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= INTO_CGROUP;
    }
    // SAFETY: clone_args consists of integers, for which zeros are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the child has the caller's exit signal, and the field must be 0.
    args.exit_signal =
        if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);

    // SAFETY: without CLONE_VM and a stack, the child runs on a copy of this stack in a copy of this address space,
    // like after fork(2). The caller answers for locks of other threads. `args` outlives the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        child();
    }
    // SAFETY: on success, CLONE_PIDFD has stored a new descriptor, which has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid: pid as libc::pid_t, pidfd })
}

/// Forks the process. Returns the child in the parent, and `None` in the child.
///
/// # Errors
///
/// An error of fork(2) or pidfd_open(2).
pub fn fork(_proof: SingleThread) -> Result<Option<Spawned>> {
    // SAFETY: the caller proved that the process has one thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(None),
        // The child is not reaped yet, so no other process can have its pid.
        ForkResult::Parent { child } => super::pidfd::open(child.as_raw())
            .map(|pidfd| Some(Spawned { pid: child.as_raw(), pidfd })),
    }
}

/// Ends the calling process without exit handlers, which belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}
