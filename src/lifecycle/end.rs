//! Handles the end of a container for which a process of Aril waits.

use std::time::SystemTime;

use super::rollback;
use crate::cgroup;
use crate::error::Result;
use crate::state::{Exit, Record, Slot};
use crate::sys::pidfd::Ended;
use crate::time::rfc3339;

/// Returns the end of an init process with a program that was executed at `started`. `record` is the container's, if it can
/// be read.
pub(super) fn exit(ended: Ended, started: SystemTime, record: Option<&Record>) -> Exit {
    let kills = record.map(|record| cgroup::stored::oom_kills(&record.cgroup_paths));
    Exit {
        status: ended.code(),
        signal: match ended {
            Ended::Signaled(signal) => Some(signal),
            Ended::Exited(_) => None,
        },
        oom_killed: kills.is_some_and(|kills| kills.is_ok_and(|kills| kills > 0)),
        started: rfc3339(started),
        finished: rfc3339(SystemTime::now()),
    }
}

/// Releases the address and published ports of a container that has ended and is kept. The caller holds the lock of the
/// slot.
pub(super) fn disconnect(slot: &Slot, mut record: Record) -> Result<()> {
    rollback::disconnect(slot, &record)?;
    if record.network.is_none() {
        return Ok(());
    }
    record.network = None;
    slot.write(&record)
}
