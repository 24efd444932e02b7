//! Removes what a container owns on the host, by its record: for a create that failed, `delete`, the end of a container
//! that is not kept, and `reconcile`.

use super::effect::{self, Effect};
use super::{hooks, processes};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::hook;
use crate::state::{Record, Slot, observe};
use crate::time::step;

/// Kills the container's processes, then removes the container.
pub(super) fn kill_and_remove(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) -> Result<()> {
    processes::end_all(&observe(slot, record)?, record)?;
    remove(slot, record, warn)
}

/// Removes a container whose init has ended.
pub(super) fn after_end(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) -> Result<()> {
    if processes::may_outlive_init(record) {
        cgroup::stored::kill_all(&record.cgroup_paths)?;
    }
    remove(slot, record, warn)
}

/// Removes a container whose processes have ended, then runs the poststop hooks that it was created with.
pub(super) fn remove(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) -> Result<()> {
    let stored = hooks::stored(slot, record).unwrap_or_else(|e| {
        warn(&format!("poststop hooks: {e}"));
        Default::default()
    });
    run(slot, record, &stored, warn)
}

/// Undoes every effect, removes the state directory, and runs the poststop hooks. `warn` gets a message for each failed
/// hook. All effects are tried and errors are collected, unless an effect fails that stops the rollback.
pub(super) fn run(
    slot: &Slot,
    record: &Record,
    poststop: &hook::Plan,
    warn: &dyn Fn(&str),
) -> Result<()> {
    let mut errors = Vec::new();
    for effect in effect::of(record) {
        match effect.undo(slot, record) {
            Err(e) if effect.keeps_the_rest() => return Err(e),
            other => errors.extend(other.err()),
        }
    }
    step("release network, layers and limits");
    errors.extend(slot.remove().err());
    step("remove the state directory");
    hooks::run_poststop(poststop, record, warn);
    step("run the poststop hooks");
    first(errors)
}

/// Undoes the effects that a kept container does not need after its end, up to the first error.
pub(super) fn disconnect(slot: &Slot, record: &Record) -> Result<()> {
    let mut effects = effect::of(record).filter(|effect| effect.ends_with_processes());
    effects.try_for_each(|effect: Effect| effect.undo(slot, record))
}

/// Returns the record without the effects that a reboot has ended: other containers may have cgroups of these names.
pub(super) fn of_this_boot(mut record: Record, boot: &str) -> Record {
    if !record.boot.is_empty() && record.boot != boot {
        record.forget_cgroups();
    }
    record
}

/// Joins errors to one: the first, followed by the texts of the others.
fn first(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    let others: Vec<_> = errors.map(|e| e.to_string()).collect();
    if others.is_empty() {
        return Err(first);
    }
    Err(Error::system(format!("{first}; and: {}", others.join("; and: "))))
}
