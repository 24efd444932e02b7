//! Detects cgroups into which no process can be cloned, and moves processes there instead.
//!
//! The kernel (6.12 and 6.18, at least) kills a child that is cloned into a cgroup, as one that `cgroup.kill` has
//! missed, if that file was written a different number of times there than in the cgroup of the cloning process. A
//! runtime whose own cgroup was killed once, and is still in use, cannot clone into any new one: the child is dead
//! before its first instruction. The child is cloned in the runtime's cgroup then, and moved.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::error::{OsContext, Result};
use crate::sys::clone::{SingleThread, clone3, exit_now};
use crate::sys::pidfd::{self, Ended};

/// Returns true if a child dies in the cgroup, by cloning another one that does nothing.
pub fn kills_child(dir: &OwnedFd) -> bool {
    let Ok(child) = clone3(SingleThread::proof(), 0, Some(dir.as_fd()), || exit_now(0)) else {
        return false;
    };
    matches!(pidfd::wait(child.pidfd.as_fd(), true), Ok(Some(Ended::Signaled(libc::SIGKILL))))
}

/// Moves a process that waits. The kernel sleeps for a grace period.
///
/// # Errors
///
/// `cgroup.procs` rejects the process.
pub fn move_into(dir: &OwnedFd, pid: i32) -> Result<()> {
    const NAME: &str = "cgroup.procs";
    let procs = openat(dir, NAME, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let procs = procs.os("open", NAME)?;
    write(&procs, pid.to_string().as_bytes()).map(drop).os("write", NAME)
}
