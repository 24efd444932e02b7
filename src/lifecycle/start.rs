//! `start`: opens the gate of a created container.

use std::os::fd::BorrowedFd;

use super::{inspect, notify, undo};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::hook::Point;
use crate::id::ContainerId;
use crate::init::gate;
use crate::state::{Observed, Record, Slot, Status, Store, observe};

pub fn start(store: &Store, id: &ContainerId) -> Result<()> {
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    let observed = observe(&slot, &record)?;
    let stopped = |e| why_it_stopped(e, &record);
    allowed(observed.status).map_err(stopped)?;
    let notify = notify::Socket::bind(slot.path())?;
    open_gate(&slot, &observed).map_err(stopped)?;
    slot.remove_fifo()?;
    let Some(init) = observed.init() else { return Ok(()) };
    poststart(&slot, &record, init)?;
    drop(slot);
    notify.map_or(Ok(()), |socket| socket.forward(init, record.init_process_pid))
}

fn allowed(status: Status) -> Result<()> {
    Err(Error::state(match status {
        Status::Created => return Ok(()),
        Status::Stopped => "cannot start a container that has stopped",
        Status::Running => "cannot start an already running container",
        Status::Paused => "cannot start a container in the paused state",
        Status::Creating => "cannot start a container that is still being created",
    }))
}

fn open_gate(slot: &Slot, observed: &Observed) -> Result<()> {
    let passed = match observed.init() {
        Some(init) => gate::open_for(&slot.fifo(), init)?,
        None => false,
    };
    if passed { Ok(()) } else { allowed(Status::Stopped) }
}

/// A process that waited for its start may have been killed meanwhile: its memory limit is in force.
fn why_it_stopped(error: Error, record: &Record) -> Error {
    match cgroup::memory::what_oom_ended(&record.cgroup_paths) {
        Some(why) => error.hint(why),
        None => error,
    }
}

/// A poststart hook that fails ends the container (runtime-spec 1.3).
pub(super) fn poststart(slot: &Slot, record: &Record, init: BorrowedFd<'_>) -> Result<()> {
    let hooks = inspect::stored_hooks(slot, record)?;
    let pid = Some(record.init_process_pid);
    inspect::run_hooks(Point::Poststart, &hooks, record, Status::Running, pid)
        .inspect_err(|_| undo::kill(init))
}
