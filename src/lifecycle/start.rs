//! `start`: starts a created container.

use std::os::fd::BorrowedFd;

use super::{foreground, hooks, inspect, notify, processes, rollback};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::hook::Point;
use crate::id::ContainerId;
use crate::init::gate;
use crate::state::{Created, Observed, Record, Slot, Status, Store, observe};
use crate::time::step;

/// Starts the container. `warn` gets a message if the host's notify socket does not answer.
///
/// # Errors
///
/// The container is not created, its process has ended, or a poststart hook fails.
pub fn start(store: &Store, id: &ContainerId, warn: &dyn Fn(&str)) -> Result<()> {
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    let stopped = |e| why_it_stopped(e, &record);
    let created = created(observe(&slot, &record)?).map_err(stopped)?;
    let notify = notify::Socket::bind(slot.path(), record.init_process_pid)?;
    open_gate(&slot, &created).map_err(stopped)?;
    slot.remove_fifo()?;
    step("let the container's program start");
    let init = created.0.init();
    poststart(&slot, &record, init).inspect_err(|_| destroyed(&slot, &record, warn))?;
    step("run the poststart hooks");
    drop(slot);
    let pid = record.init_process_pid;
    notify.map_or(Ok(()), |socket| foreground::until_ready(pid, init, None, socket, warn))
}

/// Deletes the container after a failed poststart hook, and runs its poststop hooks: step 12 of the specification's
/// lifecycle. The processes have ended.
fn destroyed(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) {
    if let Err(error) = rollback::after_end(slot, record, warn) {
        warn(&format!("remove the container after its poststart hook failed: {error}"));
    }
}

fn created(observed: Observed) -> Result<Created> {
    Err(Error::state(match observed {
        Observed::Created(created) => return Ok(created),
        Observed::Stopped => STOPPED,
        Observed::Running(_) => "cannot start an already running container",
        Observed::Paused(_) => "cannot start a container in the paused state",
        Observed::Creating(_) => "cannot start a container that is still being created",
    }))
}

const STOPPED: &str = "cannot start a container that has stopped";

fn open_gate(slot: &Slot, created: &Created) -> Result<()> {
    let passed = gate::open_for(&slot.fifo(), created.0.init())?;
    if passed { Ok(()) } else { Err(Error::state(STOPPED)) }
}

/// Returns an OOM error if the waiting process was killed by its memory limit.
fn why_it_stopped(error: Error, record: &Record) -> Error {
    match cgroup::memory::describe_oom_kills(&record.cgroup_paths) {
        Some(why) => error.hint(why),
        None => error,
    }
}

/// Runs the poststart hooks. A failed one ends the container (runtime-spec 1.3).
pub(super) fn poststart(slot: &Slot, record: &Record, init: BorrowedFd<'_>) -> Result<()> {
    let stored = hooks::stored(slot, record)?;
    let pid = Some(record.init_process_pid);
    hooks::run(Point::Poststart, &stored, record, Status::Running, pid)
        .inspect_err(|_| processes::kill(init))
}
