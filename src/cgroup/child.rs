//! Joins v1 cgroups, in the container's process.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::write;

use crate::cgroup::Step;
use crate::error::fault::{Attempt, ChildResult};

/// Joins the cgroups. Runs in the child while it has one thread: writing 0, the process itself, to `tasks` needs no
/// lock that waits for a grace period, unlike `cgroup.procs` or a pid.
///
/// `tasks` are those of [`super::parent::Created`].
///
/// # Errors
///
/// A `tasks` file rejects the process: ENOSPC if a cpuset is empty.
pub fn run(step: &Step, tasks: &[Option<OwnedFd>]) -> ChildResult<()> {
    let Step::Join { index, .. } = step;
    let Some(tasks) = tasks.get(*index).and_then(Option::as_ref) else {
        return Ok(()); // A rootless container continues without this cgroup.
    };
    let written = write(tasks, b"0");
    // v1 answers ENOSPC if the cpuset has no CPU or memory node to run on.
    written.and_then(|n| if n == 1 { Ok(()) } else { Err(Errno::EIO) }).during("write tasks")
}
