//! Ends a container's processes, before what it owns on the host is removed (see [`super::rollback`]).

use std::os::fd::{AsFd, BorrowedFd};

use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::state::{Observed, Phase, Record, Status, boot_id};
use crate::sys;

/// How long a killed process may take to die: it may have a core to write, or memory to give back.
const DEATH_MS: i32 = 10_000;

/// Kills init, whose hook failed, and waits for its death.
pub(super) fn kill(init: BorrowedFd<'_>) {
    let _ = sys::pidfd::send_signal(init, libc::SIGKILL);
    let _ = sys::pidfd::wait_end(init, DEATH_MS);
}

/// Kills init and everything else in the container's cgroup, and waits for init's death.
pub(super) fn end_all(observed: &Observed, record: &Record) -> Result<()> {
    if let Some(init) = observed.init() {
        match sys::pidfd::send_signal(init, libc::SIGKILL) {
            Ok(()) | Err(sys::Errno::ESRCH) => {}
            Err(errno) => return Err(Error::os("kill", record.init_process_pid, errno)),
        }
    }
    // A pid namespace of its own dies with its init, except where that is frozen (v1) or was never
    // made.
    if observed.init().is_none()
        || !record.private_pid_namespace
        || observed.status == Status::Paused
    {
        cgroup::stored::kill_all(&record.cgroup_paths)?;
    }
    if let Some(init) = observed.init()
        && !sys::pidfd::wait_end(init.as_fd(), DEATH_MS).os("poll", "pidfd")?
    {
        return Err(Error::state("container init still running"));
    }
    Ok(())
}

/// Kills what a container left in its cgroup when its init ended, and says whether there was anything.
pub(super) fn kill_rest(record: &Record) -> Result<bool> {
    // After the machine has been started anew the cgroup is nobody's, or another container's.
    let earlier_boot = !record.boot.is_empty() && boot_id()? != record.boot;
    if earlier_boot || cgroup::stored::pids(&record.cgroup_paths)?.is_empty() {
        return Ok(false);
    }
    cgroup::stored::kill_all(&record.cgroup_paths).map(|()| true)
}

/// A container that has stopped: what shares its cgroup and outlived init ends too, as with runc and crun.
pub(super) fn end_rest(record: &Record) -> Result<()> {
    if !record.private_pid_namespace {
        kill_rest(record)?;
    }
    Ok(())
}

/// Whether processes can outlive init. A pid namespace of its own dies with it. A create that was
/// killed may not have got so far.
pub(super) fn may_outlive_init(record: &Record) -> bool {
    !record.private_pid_namespace || record.phase == Phase::Creating
}
