//! `wait`: blocks until a container has ended.

use super::inspect;
use crate::error::{Error, OsContext, Result};
use crate::id::ContainerId;
use crate::state::{Ending, Exit, Store, observe, wait_for_ending};
use crate::sys;

/// Waits for the container's end and returns it. The process that recorded the end has ended, too, so the container's
/// network is released.
///
/// # Errors
///
/// No process records the end of the container, or that process was killed.
pub fn wait(store: &Store, id: &ContainerId) -> Result<Exit> {
    let slot = store.open(id)?;
    let record = inspect::record(&slot, id)?;
    let lost = match wait_for_ending(&slot)? {
        Ending::Recorded(exit) => return Ok(exit),
        Ending::Lost => "the process that waited for its end was killed",
        Ending::Unattended | Ending::Awaited => {
            "the process that waits for its end is its caller's"
        }
    };
    if let Some(init) = observe(&slot, &record)?.init() {
        sys::pidfd::wait_end(init, -1).os("poll", "pidfd")?;
    }
    let text = format!("the exit status of container {id} is not known: {lost}");
    Err(Error::state(text).hint("`aril run -d --rootfs` and `aril run --keep` record it"))
}
