//! `delete`: whatever is left of a container goes.

use super::{network, undo};
use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::state::{Phase, Record, Slot, Status, Store, observe};

/// Needs the state directory alone: bundle and rootfs may be gone. With `force`, whatever the state,
/// and a container that does not exist is no error. `warn` hears of hooks that fail.
pub fn delete(store: &Store, id: &ContainerId, force: bool, warn: &dyn Fn(&str)) -> Result<()> {
    if force {
        interrupt_create(store, id);
    }
    match store.lock(id) {
        Err(e) if e.kind() == Kind::NotFound && force => Ok(()),
        other => delete_locked(&other?, id, force, warn),
    }
}

/// With the slot's lock held.
fn delete_locked(slot: &Slot, id: &ContainerId, force: bool, warn: &dyn Fn(&str)) -> Result<()> {
    let record = match slot.read() {
        Ok(Some(record)) => record,
        // Killed before it wrote a record, or a record that nobody can read any more.
        Ok(None) => return without_record(slot, id, force),
        Err(_) if force => return without_record(slot, id, force),
        Err(e) => return Err(e),
    };
    stop(slot, &record, id, force)?;
    undo::destroy(slot, &record, warn)
}

fn without_record(slot: &Slot, id: &ContainerId, force: bool) -> Result<()> {
    network::release_without_record(slot, id)?;
    slot.remove()?;
    if force {
        Ok(())
    } else {
        Err(Error::new(Kind::NotFound, format!("container does not exist: {id}")))
    }
}

fn stop(slot: &Slot, record: &Record, id: &ContainerId, force: bool) -> Result<()> {
    let observed = observe(slot, record)?;
    match observed.status {
        Status::Stopped if !force => return Ok(()),
        Status::Stopped | Status::Creating | Status::Created => {}
        status if !force => {
            return Err(Error::state(format!(
                "cannot delete container {id} that is not stopped: {status}"
            ))
            .hint("stop it first, or use --force"));
        }
        _ => {}
    }
    undo::end_all(&observed, record)
}

/// A create that another process is still at holds the lock; once its init is dead it gives up and
/// undoes what it did.
fn interrupt_create(store: &Store, id: &ContainerId) {
    let Ok(slot) = store.open(id) else { return };
    if let Ok(Some(record)) = slot.read()
        && record.phase == Phase::Creating
    {
        // If this fails, the lock below says so.
        let _ = cgroup::stored::kill_all(&record.cgroup_paths);
    }
}
