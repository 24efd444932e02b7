//! `kill`: sends a signal to a container.

use super::processes;
use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::id::ContainerId;
use crate::state::{Observed, Record, Store};
use crate::sys::{self, Errno};
use crate::time::step;

/// Sends the signal. `all` accepts a stopped container, and kills the processes that are left in its cgroup.
///
/// # Errors
///
/// The container does not exist, or does not run and `all` is false.
pub fn kill(store: &Store, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    // Without the lock, so that a create with a hanging hook can be killed.
    let slot = store.open(id)?;
    let (record, observed) = super::inspect::look(&slot, id)?;
    let rest = signal == libc::SIGKILL && !record.private_pid_namespace;
    let Some(init) = observed.init() else {
        // Other processes may have outlived init.
        let killed = rest && processes::kill_rest(&record)?;
        return if killed || all { Ok(()) } else { Err(not_running()) };
    };
    match sys::pidfd::send_signal(init, signal) {
        Err(Errno::ESRCH) if all || rest => Ok(()),
        Err(Errno::ESRCH) => Err(not_running()),
        other => other.os("kill", record.init_process_pid),
    }?;
    step(format_args!("send signal {signal} to init"));
    if rest {
        return cgroup::stored::kill_all(&record.cgroup_paths);
    }
    if signal == libc::SIGKILL && matches!(observed, Observed::Paused(_)) {
        thaw(&record)?;
    }
    Ok(())
}

/// Error text that containerd and CRI-O look for.
pub(super) fn not_running() -> Error {
    Error::state("container not running")
}

/// Thaws the container: a frozen task of cgroup v1 does not die before.
fn thaw(record: &Record) -> Result<()> {
    cgroup::freezer::thaw(&record.cgroup_paths)
}
