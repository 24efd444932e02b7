//! `delete`: removes a container and its effects on the host.

use super::{inspect, network, processes, rollback};
use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::state::{Observed, Phase, Record, Slot, Store, boot_id, observe};

/// Deletes a container by its state directory; bundle and rootfs may be missing. `force` accepts every status, and a
/// container that does not exist. `warn` gets a message for each failed hook.
///
/// # Errors
///
/// The container does not exist, or runs and `force` is false; an effect that cannot be undone.
pub fn delete(store: &Store, id: &ContainerId, force: bool, warn: &dyn Fn(&str)) -> Result<()> {
    if force {
        interrupt_create(store, id);
    }
    match store.lock(id) {
        Err(e) if e.kind() == Kind::NotFound && force => Ok(()),
        other => delete_locked(&other?, id, force, warn),
    }
}

/// The caller holds the lock of the slot.
fn delete_locked(slot: &Slot, id: &ContainerId, force: bool, warn: &dyn Fn(&str)) -> Result<()> {
    let record = match slot.read() {
        Ok(Some(record)) => record,
        // The create was killed before it wrote a record, or the record is damaged.
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

/// Deletes by the intent, because the record cannot be read. If the intent cannot be read either, nothing is removed while
/// there are cgroups that may be the container's.
fn damaged(slot: &Slot, id: &ContainerId, why: Error, warn: &dyn Fn(&str)) -> Result<()> {
    let Ok(Some(mut intent)) = slot.read_intent() else { return unknown(slot, id, why, warn) };
    if boot_id()? != intent.boot {
        // The cgroups do not exist, or belong to another container.
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
    match &observed {
        Observed::Stopped if !force => return processes::end_rest(record),
        Observed::Stopped | Observed::Creating(_) | Observed::Created(_) => {}
        Observed::Running(_) | Observed::Paused(_) if !force => {
            return Err(Error::state(format!(
                "cannot delete container {id} that is not stopped: {}",
                observed.status()
            ))
            .hint("stop it first, or use --force"));
        }
        _ => {}
    }
    processes::end_all(&observed, record)
}

/// Kills the init process of a create that is still running. That create then fails, undoes its effects and releases the
/// lock.
fn interrupt_create(store: &Store, id: &ContainerId) {
    let Ok(slot) = store.open(id) else { return };
    if let Ok(Some(record)) = slot.read()
        && record.phase == Phase::Creating
    {
        // If this fails, taking the lock below fails, too.
        let _ = cgroup::stored::kill_all(&record.cgroup_paths);
    }
}
