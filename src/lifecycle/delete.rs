//! `delete`: whatever is left of a container goes.

use super::{inspect, network, processes, rollback};
use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::state::{Phase, Record, Slot, Status, Store, boot_id, observe};

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
        Err(e) if force => return damaged(slot, id, e, warn),
        Err(e) => {
            let advice = format!("`aril delete --force {id}` removes what its create intended");
            return Err(e.context(format!("container {id}")).hint(advice));
        }
    };
    stop(slot, &record, id, force)?;
    crate::time::step("end the container's processes");
    rollback::remove(slot, &record, warn)
}

/// By what create intended, for the record cannot be read. Where that cannot be read either, nothing is
/// removed while there are cgroups that look like the container's.
fn damaged(slot: &Slot, id: &ContainerId, why: Error, warn: &dyn Fn(&str)) -> Result<()> {
    let Ok(Some(mut intent)) = slot.read_intent() else { return unknown(slot, id, why, warn) };
    if boot_id()? != intent.boot {
        // Its cgroups are gone, or another container's.
        intent.forget_cgroups();
    } else if intent.rootless && !cgroup::stored::exist(&intent.cgroup_paths) {
        return Err(lost(slot, id, why, "it has no cgroup by which its processes could be found"));
    }
    warn(&format!("container {id}: {why}: what its create intended is removed"));
    rollback::kill_and_remove(slot, &intent, warn)
}

fn unknown(slot: &Slot, id: &ContainerId, why: Error, warn: &dyn Fn(&str)) -> Result<()> {
    let config = inspect::stored_config(slot).ok();
    let linux = config.as_ref().and_then(|config| config.spec.linux().as_ref());
    let place = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let found = cgroup::stored::named(id.as_str(), place);
    if !found.is_empty() {
        let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
        return Err(lost(
            slot,
            id,
            why,
            &format!("these cgroups may be its: {}", found.join(", ")),
        ));
    }
    warn(&format!(
        "container {id}: {why}: there is no cgroup of its name; its directory is removed"
    ));
    without_record(slot, id, true)
}

fn lost(slot: &Slot, id: &ContainerId, why: Error, what: &str) -> Error {
    let advice = format!(
        "{what}; end its processes, remove its cgroups, then the directory {}",
        slot.path().display()
    );
    why.context(format!("cannot delete container {id}, and nothing of it was removed")).hint(advice)
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
        Status::Stopped if !force => return processes::end_rest(record),
        Status::Stopped | Status::Creating | Status::Created => {}
        status if !force => {
            return Err(Error::state(format!(
                "cannot delete container {id} that is not stopped: {status}"
            ))
            .hint("stop it first, or use --force"));
        }
        _ => {}
    }
    processes::end_all(&observed, record)
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
