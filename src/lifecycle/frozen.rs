//! Freezes a container while its files are read.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::cgroup::freezer;
use crate::error::{Error, OsContext, Result};
use crate::state::{Observed, Record};
use crate::sys::clone::{SingleThread, Spawned};
use crate::sys::pidfd::Ended;
use crate::sys::{self, Errno};

/// Frozen container. A child thaws it on drop, and when this process ends in any other way, also by SIGKILL.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Pipe to the child, which waits for its end.
    held: Option<OwnedFd>,
    child: Spawned,
}

/// Freezes a running container. A paused container stays paused. A container without a cgroup cannot be frozen.
pub(super) fn freeze(record: &Record, observed: &Observed) -> Result<Option<Frozen>> {
    let runs = matches!(observed, Observed::Running(_) | Observed::Created(_));
    if !runs || record.cgroup_paths.is_empty() {
        return Ok(None);
    }
    let (wait, held) = sys::spawn::pipe().os("pipe2", "")?;
    let child = sys::clone::clone3(SingleThread::proof(), 0, None, || {
        // The child's copy of this end would keep it waiting for ever, and copies of other pipes their readers.
        let number = wait.as_raw_fd().cast_unsigned();
        let _ = sys::process::close_range(0, number - 1);
        let _ = sys::process::close_range(number + 1, u32::MAX);
        // A terminal's interrupt must not end the child.
        let _ = sys::signal::block_all();
        let _ = nix::unistd::setsid();
        let _ = nix::unistd::read(&wait, &mut [0]);
        let thawed = freezer::thaw(&record.cgroup_paths);
        sys::clone::exit_now(thawed.map_or_else(exit_status, |()| 0))
    })
    .os("clone3", "")?;
    let frozen = Frozen { held: Some(held), child };
    freezer::freeze(&record.cgroup_paths)?;
    Ok(Some(frozen))
}

/// Errno of an error, which the parent reads as the child's exit status.
fn exit_status(error: Error) -> i32 {
    error.errno().map_or(libc::EIO, |errno| errno as i32)
}

impl Frozen {
    /// Thaws the container, and returns the result.
    pub(super) fn thaw(mut self) -> Result<()> {
        self.release().map_err(|e| {
            e.context("let the container go on").hint("`aril resume` lets a container go on")
        })
    }

    fn release(&mut self) -> Result<()> {
        if self.held.take().is_none() {
            return Ok(());
        }
        let ended = sys::pidfd::wait(self.child.pidfd.as_fd(), true).os("waitid", "")?;
        match ended {
            Some(Ended::Exited(0)) | None => Ok(()),
            Some(Ended::Exited(code)) => Err(Error::os("thaw", "", Errno::from_raw(code))),
            Some(Ended::Signaled(signal)) => Err(Error::system(format!(
                "the process that thaws it was killed by signal {signal}"
            ))),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Reached only after an earlier error, which is the one to report.
        let _ = self.release();
    }
}
