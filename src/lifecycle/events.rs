//! `events`: prints statistics of a container periodically, and its OOM events.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::inspect;
use crate::cgroup::oom::Watch;
use crate::cgroup::stats::{self, Stats};
use crate::error::{Error, OsContext, Result};
use crate::fs::process;
use crate::id::ContainerId;
use crate::limits::rdt;
use crate::state::{Record, Store, observe};
use crate::sys::Errno;

#[derive(Debug)]
pub enum Event {
    Stats(Box<Sample>),
    Oom,
}

#[derive(Debug, Default)]
pub struct Sample {
    pub cgroup: Stats,
    pub intel_rdt: rdt::stats::Stats,
}

/// Reads the resource usage of a running container.
///
/// # Errors
///
/// The container does not run, or its cgroup cannot be read.
pub fn sample(store: &Store, id: &ContainerId) -> Result<Sample> {
    let (record, _) = live(store, id)?;
    counted(&record)?;
    read(&record)
}

fn read(record: &Record) -> Result<Sample> {
    let intel_rdt = match &record.intel_rdt {
        None => None,
        Some(group) => {
            rdt::parent::find()?.map(|host| rdt::stats::read(group, &host)).transpose()?
        }
    };
    let mut cgroup = stats::read(&record.cgroup_paths)?;
    if record.cgroup_paths.is_empty() && record.private_pid_namespace {
        // A container of an ordinary user without a cgroup has no statistics.
        cgroup.pids.current = process::in_pid_namespace_of(record.init_process_pid).len() as u64;
    }
    Ok(Sample { cgroup, intel_rdt: intel_rdt.unwrap_or_default() })
}

/// Rejects a container that has left its cgroup: zeros would be wrong.
fn counted(record: &Record) -> Result<()> {
    let mut dirs = record.cgroup_paths.values();
    match dirs.clone().next() {
        Some(dir) if !dirs.any(|dir| dir.exists()) => Err(Error::state(format!(
            "cannot read what container {} uses: its cgroup {} was removed",
            record.id,
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Prints events until the container stops.
///
/// # Errors
///
/// The container does not run, or `tell` fails.
pub fn follow(
    store: &Store,
    id: &ContainerId,
    interval: Duration,
    tell: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let (record, init) = live(store, id)?;
    counted(&record)?;
    let mut watch = Watch::begin(&record.cgroup_paths)?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(&init, watch.as_ref(), next)?;
        // Read even if init has ended: an OOM kill may be the reason.
        if let Some(watch) = &mut watch
            && watch.happened()?
        {
            tell(Event::Oom)?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell(Event::Stats(Box::new(read(&record)?)))?;
            next = Instant::now() + interval;
        }
    }
}

/// Record of the container, and a pidfd of init.
pub(super) fn live(store: &Store, id: &ContainerId) -> Result<(Record, OwnedFd)> {
    let slot = store.open(id)?;
    let record = inspect::record(&slot, id)?;
    match observe(&slot, &record)?.into_live() {
        Some(live) => Ok((record, live.into_init())),
        None => Err(Error::state(format!("container with id {id} is not running"))),
    }
}

/// Waits for an event or the interval. Returns true if init has ended.
fn wait(init: &OwnedFd, watch: Option<&Watch>, until: Instant) -> Result<bool> {
    let mut polled = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    polled.extend(watch.map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up, to avoid a busy loop in the last millisecond.
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
    match poll(&mut polled, timeout.unwrap_or(PollTimeout::MAX)) {
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).os("poll", "pidfd"),
        Ok(_) => Ok(polled[0].revents().is_some_and(|r| !r.is_empty())),
    }
}
