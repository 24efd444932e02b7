//! `kill`: a signal to a container.

use super::processes;
use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::id::ContainerId;
use crate::state::{Record, Status, Store};
use crate::sys::{self, Errno};
use crate::time::step;

/// `all`: a container that has stopped is no error; what it left in its cgroup is killed.
pub fn kill(store: &Store, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    // Without the lock: a create that hangs in a hook must be killable.
    let slot = store.open(id)?;
    let (record, observed) = super::inspect::look(&slot, id)?;
    let rest = signal == libc::SIGKILL && !record.private_pid_namespace;
    let Some(init) = observed.init() else {
        // Its other processes may have outlived it.
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
    if signal == libc::SIGKILL && observed.status == Status::Paused {
        thaw(&record)?;
    }
    Ok(())
}

/// containerd and CRI-O look for these words.
pub(super) fn not_running() -> Error {
    Error::state("container not running")
}

/// A frozen task of cgroup v1 does not die before it is thawed.
fn thaw(record: &Record) -> Result<()> {
    cgroup::freezer::thaw(&record.cgroup_paths)
}
