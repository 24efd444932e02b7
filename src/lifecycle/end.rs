//! The end of a container that a process of ours waits for.

use std::time::SystemTime;

use super::rollback;
use crate::cgroup;
use crate::error::Result;
use crate::state::{Exit, Record, Slot};
use crate::sys::pidfd::Ended;
use crate::time::rfc3339;

/// What is recorded of the end of an init process whose program was executed at `started`. `record`: the
/// container's, if it can be read.
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

/// Releases the network of a container that has ended and is kept: its address, and its published ports.
/// With the slot's lock held.
pub(super) fn disconnect(slot: &Slot, mut record: Record) -> Result<()> {
    rollback::disconnect(slot, &record)?;
    if record.network.is_none() {
        return Ok(());
    }
    record.network = None;
    slot.write(&record)
}
