//! Ends a container's processes, before its effects on the host are undone (see [`super::rollback`]).

use std::os::fd::{AsFd, BorrowedFd};

use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::state::{Observed, Phase, Record, boot_id};
use crate::sys;

/// Time to wait for the end of a killed process, which may dump core or release memory.
const DEATH_MS: i32 = 10_000;

/// Kills init after a failed hook, and waits for its end.
pub(super) fn kill(init: BorrowedFd<'_>) {
    let _ = sys::pidfd::send_signal(init, libc::SIGKILL);
    let _ = sys::pidfd::wait_end(init, DEATH_MS);
}

/// Kills init and all other processes in the container's cgroup, and waits for the end of init.
pub(super) fn end_all(observed: &Observed, record: &Record) -> Result<()> {
    if let Some(init) = observed.init() {
        match sys::pidfd::send_signal(init, libc::SIGKILL) {
            Ok(()) | Err(sys::Errno::ESRCH) => {}
            Err(errno) => return Err(Error::os("kill", record.init_process_pid, errno)),
        }
    }
    // A private pid namespace ends with its init, unless init is frozen (v1) or was never created.
    if observed.init().is_none()
        || !record.private_pid_namespace
        || matches!(observed, Observed::Paused(_))
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

/// Kills processes that are left in the cgroup after the end of init. Returns true if there were any.
pub(super) fn kill_rest(record: &Record) -> Result<bool> {
    // After a reboot the cgroup does not exist, or belongs to another container.
    let earlier_boot = !record.boot.is_empty() && boot_id()? != record.boot;
    if earlier_boot || cgroup::stored::pids(&record.cgroup_paths)?.is_empty() {
        return Ok(false);
    }
    cgroup::stored::kill_all(&record.cgroup_paths).map(|()| true)
}

/// Ends a stopped container's processes that outlived init in its cgroup, as runc and crun do.
pub(super) fn end_rest(record: &Record) -> Result<()> {
    if !record.private_pid_namespace {
        kill_rest(record)?;
    }
    Ok(())
}

/// Returns true if processes can outlive init: without a private pid namespace, or after a killed create.
pub(super) fn may_outlive_init(record: &Record) -> bool {
    !record.private_pid_namespace || record.phase == Phase::Creating
}
