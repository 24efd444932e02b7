//! `stats`: samples the resource usage of containers.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::events::live;
use crate::cgroup::stats::{self, Pressure, Stats};
use crate::error::{Kind, Result};
use crate::id::ContainerId;
use crate::state::Store;

/// Sample of one container, relative to the sample before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    pub id: String,
    /// CPU usage in per cent of one CPU.
    pub cpu_percent: f64,
    /// Memory in bytes, without inactive file pages.
    pub memory: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Bytes read from and written to disks since the container's start.
    pub io_read: u64,
    pub io_written: u64,
    pub pids: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    pub pressure: Pressures,
}

/// Pressure: per cent of the last 10 seconds in which a process waited. `None` if the kernel does not report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressures {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

/// Takes samples repeatedly.
#[derive(Debug)]
pub struct Watcher<'a> {
    store: &'a Store,
    /// Containers to sample; empty for all.
    named: Vec<ContainerId>,
    /// Time and CPU time of each container's last sample.
    before: BTreeMap<ContainerId, (Instant, u64)>,
}

impl<'a> Watcher<'a> {
    /// Checks that each named container is running.
    ///
    /// # Errors
    ///
    /// A container does not run.
    pub fn begin(store: &'a Store, named: Vec<ContainerId>) -> Result<Self> {
        let mut watcher = Self { store, named, before: BTreeMap::new() };
        for id in &watcher.named {
            live(store, id)?;
        }
        watcher.look()?;
        Ok(watcher)
    }

    /// Lists the running containers. `list` reports those that cannot be read.
    ///
    /// # Errors
    ///
    /// The state root cannot be read.
    pub fn look(&mut self) -> Result<Vec<Usage>> {
        let ids = if self.named.is_empty() { self.store.ids()? } else { self.named.clone() };
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        let mut usages = Vec::new();
        for id in ids {
            let Some(stats) = self.stats(&id)? else { continue };
            let cpu = stats.cpu.usage.total;
            let since = self.before.get(&id).map(|(then, used)| {
                let nanoseconds = now.duration_since(*then).as_nanos();
                (u64::try_from(nanoseconds).unwrap_or(u64::MAX), cpu.saturating_sub(*used))
            });
            usages.push(usage(id.as_str(), &stats, since));
            seen.insert(id, (now, cpu));
        }
        self.before = seen;
        Ok(usages)
    }

    fn stats(&self, id: &ContainerId) -> Result<Option<Stats>> {
        match live(self.store, id) {
            Ok((record, _)) => stats::read(&record.cgroup_paths).map(Some),
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::State) => Ok(None),
            Err(_) if self.named.is_empty() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns true if none of the named containers is left.
    pub fn is_over(&self) -> bool {
        !self.named.is_empty() && self.before.is_empty()
    }
}

/// Computes CPU usage. `since`: nanoseconds of time, and of CPU time in it.
fn usage(id: &str, stats: &Stats, since: Option<(u64, u64)>) -> Usage {
    let cpu_percent = match since {
        Some((time, cpu)) if time > 0 => cpu as f64 / time as f64 * 100.0,
        _ => 0.0,
    };
    let some = |pressure: &Option<Pressure>| pressure.as_ref().map(|p| p.some.avg10);
    Usage {
        id: id.to_owned(),
        cpu_percent: (cpu_percent * 100.0).round() / 100.0,
        memory: stats.memory.working_set(),
        memory_limit: limit(stats.memory.usage.limit),
        io_read: stats.blkio.bytes("Read"),
        io_written: stats.blkio.bytes("Write"),
        pids: stats.pids.current,
        pids_limit: limit(stats.pids.limit),
        pressure: Pressures {
            cpu: some(&stats.cpu.psi),
            memory: some(&stats.memory.psi),
            io: some(&stats.blkio.psi),
        },
    }
}

/// Value of cgroup v1 for unlimited: the largest number of whole pages.
fn limit(value: u64) -> Option<u64> {
    const MORE_THAN_ANYBODY_HAS: u64 = 1 << 62;
    (1..MORE_THAN_ANYBODY_HAS).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::stats::{Stalled, UNLIMITED};

    #[test]
    fn per_cent_of_one_cpu() {
        let percent = |since| usage("x", &Stats::default(), since).cpu_percent;
        assert_eq!(percent(None), 0.0);
        assert_eq!(percent(Some((0, 5))), 0.0);
        assert_eq!(percent(Some((2000, 500))), 25.0);
        assert_eq!(percent(Some((1000, 2000))), 200.0);
        assert_eq!(percent(Some((3000, 1000))), 33.33);
    }

    #[test]
    fn what_people_call_used() {
        let mut stats = Stats::default();
        stats.memory.usage.counter.usage = 100;
        stats.memory.usage.limit = UNLIMITED;
        stats.memory.raw.insert("inactive_file".into(), 40);
        stats.pids.limit = 7;
        let stalled = Stalled { avg10: 1.5, ..Stalled::default() };
        stats.cpu.psi = Some(Pressure { some: stalled, ..Pressure::default() });
        let usage = usage("x", &stats, None);
        assert_eq!((usage.memory, usage.memory_limit), (60, None));
        assert_eq!(usage.pids_limit, Some(7));
        assert_eq!((usage.pressure.cpu, usage.pressure.io), (Some(1.5), None));
        assert_eq!(limit(9_223_372_036_854_771_712), None);
        assert_eq!(limit(0), None);
    }
}
