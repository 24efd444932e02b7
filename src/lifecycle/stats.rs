//! `stats`: what containers use, for people to look at.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::events::live;
use crate::cgroup::stats::{self, Pressure, Stats};
use crate::error::{Kind, Result};
use crate::id::ContainerId;
use crate::state::Store;

/// Of one container, since the last look at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    pub id: String,
    /// 100 is one CPU, all of the time.
    pub cpu_percent: f64,
    /// Without the pages of files that nobody has used lately.
    pub memory: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// From and to disks, in bytes, since the container started.
    pub io_read: u64,
    pub io_written: u64,
    pub pids: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    pub pressure: Pressures,
}

/// Per cent of the last 10 seconds in which some process waited; none where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressures {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

/// Looks again and again.
#[derive(Debug)]
pub struct Watcher<'a> {
    store: &'a Store,
    /// All that there are, if none is named.
    named: Vec<ContainerId>,
    /// When it was last looked at a container, and the CPU time that it had used by then.
    before: BTreeMap<ContainerId, (Instant, u64)>,
}

impl<'a> Watcher<'a> {
    /// Each of those that are named must run.
    pub fn begin(store: &'a Store, named: Vec<ContainerId>) -> Result<Self> {
        let mut watcher = Self { store, named, before: BTreeMap::new() };
        for id in &watcher.named {
            live(store, id)?;
        }
        watcher.look()?;
        Ok(watcher)
    }

    /// Those that run now. One that cannot be read is for `list` to complain of.
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

    /// None of those that were named is left.
    pub fn is_over(&self) -> bool {
        !self.named.is_empty() && self.before.is_empty()
    }
}

/// `since`: nanoseconds of time, and of CPU time in it.
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

/// v1's "unlimited" is the largest number of whole pages.
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
