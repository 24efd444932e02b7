//! Where nobody can be born, and what to do then.
//!
//! The kernel (6.12 and 6.18, at least) takes a child that is cloned into a cgroup for one that
//! `cgroup.kill` has missed, if that file was written another number of times there than in the
//! cloner's own cgroup. A runtime whose own cgroup was killed once, and is still in use, cannot clone
//! into any new one: the child is dead before its first instruction. It is born beside us then, and
//! moved.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::error::{OsContext, Result};
use crate::sys::clone::{clone3, exit_now};
use crate::sys::pidfd::{self, Ended};

/// Asked when a child has died there and nobody knows why: another one, which does nothing, tells.
pub fn dies_in(dir: &OwnedFd) -> bool {
    let Ok(child) = clone3(0, Some(dir.as_fd()), || exit_now(0)) else { return false };
    matches!(pidfd::wait(child.pidfd.as_fd(), true), Ok(Some(Ended::Signaled(libc::SIGKILL))))
}

/// Moves a process that waits for it, for which the kernel sleeps for a grace period.
pub fn join(dir: &OwnedFd, pid: i32) -> Result<()> {
    const NAME: &str = "cgroup.procs";
    let procs = openat(dir, NAME, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let procs = procs.os("open", NAME)?;
    write(&procs, pid.to_string().as_bytes()).map(drop).os("write", NAME)
}
