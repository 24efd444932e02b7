//! `pause` and `resume`: freeze and thaw a container.

use super::{inspect, kill};
use crate::cgroup::freezer;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::state::{Observed, Store, observe};
use crate::time::step;

/// Freezes a container, also a created one.
///
/// # Errors
///
/// The container does not run, or cannot be frozen.
pub fn pause(store: &Store, id: &ContainerId) -> Result<()> {
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    match observe(&slot, &record)? {
        Observed::Created(_) | Observed::Running(_) => {
            freezer::refuse_left(&record.cgroup_paths, record.init_process_pid.0)?;
            freezer::freeze(&record.cgroup_paths).inspect(|()| step("freeze the cgroup"))
        }
        Observed::Creating(_) | Observed::Paused(_) | Observed::Stopped => Err(kill::not_running()),
    }
}

/// Thaws a paused container.
///
/// # Errors
///
/// The container is not paused, or cannot be thawed.
pub fn resume(store: &Store, id: &ContainerId) -> Result<()> {
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    match observe(&slot, &record)? {
        Observed::Paused(_) => {
            freezer::thaw(&record.cgroup_paths).inspect(|()| step("thaw the cgroup"))
        }
        _ => Err(Error::state("container not paused")),
    }
}
