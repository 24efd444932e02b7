//! Encodes the resource usage of a container for containerd's clients: `io.containerd.cgroups.v1.Metrics` or
//! `v2.Metrics`, by the host's cgroup version. Numbers are fields of these messages; names are the kernel's.

use std::collections::BTreeMap;
use std::path::Path;

use super::wire::{Any, Writer};
use crate::cgroup::stats::{self, Counter, IoEntry, LimitedCounter, Pressure, Stats, UNLIMITED};
use crate::cgroup::{Paths, Version, stored};
use crate::error::Result;

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// Names in `memory.stat` for fields 1 to 31 of v2's MemoryStat.
const MEMORY_STAT: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

/// Names in `memory.stat` for fields 1 to 32 of v1's MemoryStat.
const MEMORY_STAT_V1: [&str; 32] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "total_cache",
    "total_rss",
    "total_rss_huge",
    "total_mapped_file",
    "total_dirty",
    "total_writeback",
    "total_pgpgin",
    "total_pgpgout",
    "total_pgfault",
    "total_pgmajfault",
    "total_inactive_anon",
    "total_active_anon",
    "total_inactive_file",
    "total_active_file",
    "total_unevictable",
];

/// Reads the metrics. `None` if the cgroup does not exist.
///
/// # Errors
///
/// A file of the cgroup cannot be read.
pub fn read(paths: &Paths) -> Result<Option<Any>> {
    if !paths.values().any(|dir| dir.exists()) {
        return Ok(None);
    }
    let stats = stats::read(paths)?;
    let kills = stored::oom_kills(paths)?;
    Ok(Some(match (Version::of(paths), paths.get("")) {
        (Version::V2, Some(dir)) => Any::new(V2, v2(&stats, &Files(dir)).finish()),
        _ => Any::new(V1, v1(&stats, kills).finish()),
    }))
}

/// Writes numbers in the order of their fields, from 1.
fn numbers(names: &[&str], values: &BTreeMap<String, u64>) -> Writer {
    let value = |name: &str| values.get(name).copied().unwrap_or_default();
    (1..).zip(names).fold(Writer::new(), |writer, (field, name)| writer.number(field, value(name)))
}

fn v1(stats: &Stats, oom_kills: u64) -> Writer {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    let cpu = Writer::new()
        .message(
            1,
            Writer::new()
                .number(1, usage.total)
                .number(2, usage.kernel)
                .number(3, usage.user)
                .packed(4, &usage.percpu),
        )
        .message(
            2,
            Writer::new()
                .number(1, throttling.periods)
                .number(2, throttling.throttled_periods)
                .number(3, throttling.throttled_time),
        );
    let entry = |counter: &LimitedCounter| {
        let Counter { usage, max, failcnt } = counter.counter;
        let entry = Writer::new().number(1, counter.limit).number(2, usage);
        entry.number(3, max).number(4, failcnt)
    };
    let memory = numbers(&MEMORY_STAT_V1, &stats.memory.raw)
        .message(33, entry(&stats.memory.usage))
        .message(34, entry(&stats.memory.swap))
        .message(35, entry(&stats.memory.kernel))
        .message(36, entry(&stats.memory.kernel_tcp));
    let pids = Writer::new().number(1, stats.pids.current).number(2, stats.pids.limit);
    stats
        .hugetlb
        .iter()
        .fold(Writer::new(), |writer, (size, counter)| {
            let Counter { usage, max, failcnt } = *counter;
            let huge = Writer::new().number(1, usage).number(2, max);
            writer.message(1, huge.number(3, failcnt).bytes(4, size))
        })
        .message(2, pids)
        .message(3, cpu)
        .message(4, memory)
        .message(5, blkio(stats))
        .message(9, Writer::new().number(3, oom_kills))
}

fn blkio(stats: &Stats) -> Writer {
    let io = &stats.blkio;
    let tables = [
        &io.io_service_bytes_recursive,
        &io.io_serviced_recursive,
        &io.io_queue_recursive,
        &io.io_service_time_recursive,
        &io.io_wait_time_recursive,
        &io.io_merged_recursive,
        &io.io_time_recursive,
        &io.sectors_recursive,
    ];
    let entry = |entry: &IoEntry| {
        let writer = Writer::new().bytes(1, &entry.op).number(3, entry.major);
        writer.number(4, entry.minor).number(5, entry.value)
    };
    let all = (1..).zip(tables).flat_map(|(field, table)| table.iter().map(move |e| (field, e)));
    all.fold(Writer::new(), |writer, (field, e)| writer.message(field, entry(e)))
}

/// Files of cgroup v2 without a field in [`Stats`].
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        match self.text(name).trim() {
            "max" => UNLIMITED,
            number => number.parse().unwrap_or_default(),
        }
    }

    fn keyed(&self, name: &str) -> BTreeMap<String, u64> {
        let text = self.text(name);
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }
}

fn v2(stats: &Stats, files: &Files) -> Writer {
    let cpu_stat = files.keyed("cpu.stat");
    let burst = |name: &str| cpu_stat.get(name).copied().unwrap_or_default();
    let cpu = numbers(
        &["usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"],
        &cpu_stat,
    )
    .optional(7, stats.cpu.psi.as_ref().map(pressure))
    .number(8, burst("nr_bursts"))
    .number(9, burst("burst_usec"));
    let memory = numbers(&MEMORY_STAT, &stats.memory.raw)
        .number(32, stats.memory.usage.usage)
        .number(33, stats.memory.usage.limit)
        .number(34, files.number("memory.swap.current"))
        .number(35, files.number("memory.swap.max"))
        .number(36, stats.memory.usage.max)
        .number(37, files.number("memory.swap.peak"))
        .optional(38, stats.memory.psi.as_ref().map(pressure));
    let events = ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];
    let events = numbers(&events, &files.keyed("memory.events"));
    let pids = Writer::new().number(1, stats.pids.current).number(2, files.number("pids.max"));
    let blkio = &stats.blkio;
    let io = io(&blkio.io_service_bytes_recursive, &blkio.io_serviced_recursive)
        .optional(2, blkio.psi.as_ref().map(pressure));
    let metrics = Writer::new()
        .message(1, pids)
        .message(2, cpu)
        .message(4, memory)
        .optional(5, rdma(&files.text("rdma.current"), &files.text("rdma.max")))
        .message(6, io);
    stats
        .hugetlb
        .iter()
        .fold(metrics, |writer, (size, counter)| {
            let huge = Writer::new().number(1, counter.usage).number(2, counter.max);
            writer.message(7, huge.bytes(3, size).number(4, counter.failcnt))
        })
        .message(8, events)
}

fn pressure(pressure: &Pressure) -> Writer {
    [(1, pressure.some), (2, pressure.full)].into_iter().fold(
        Writer::new(),
        |all, (field, part)| {
            let data = Writer::new()
                .fraction(1, part.avg10)
                .fraction(2, part.avg60)
                .fraction(3, part.avg300)
                .number(4, part.total);
            all.message(field, data)
        },
    )
}

/// Reads the adapters. `None` without a device or without the controller.
fn rdma(current: &str, limit: &str) -> Option<Writer> {
    // The message has 32 bits: larger numbers count as no limit.
    let number = |word: &str| word.parse::<u32>().unwrap_or(u32::MAX);
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |name: &str| {
            let mut words = rest.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(key, _)| *key == name).map_or(0, |(_, value)| number(value))
        };
        let entry = Writer::new().bytes(1, device).number(2, value("hca_handle").into());
        Some(entry.number(3, value("hca_object").into()))
    };
    let entries = [(1, current), (2, limit)]
        .into_iter()
        .flat_map(|(field, text)| text.lines().filter_map(entry).map(move |entry| (field, entry)));
    let all = entries.fold(Writer::new(), |all, (field, entry)| all.message(field, entry));
    (all != Writer::new()).then_some(all)
}

/// Writes one entry for each device.
fn io(bytes: &[IoEntry], operations: &[IoEntry]) -> Writer {
    let mut devices: BTreeMap<(u64, u64), [u64; 4]> = BTreeMap::new();
    for (first, table) in [(0, bytes), (2, operations)] {
        for entry in table {
            let write = usize::from(entry.op == "Write");
            devices.entry((entry.major, entry.minor)).or_default()[first + write] = entry.value;
        }
    }
    devices.into_iter().fold(Writer::new(), |writer, ((major, minor), values)| {
        let entry = Writer::new().number(1, major).number(2, minor);
        writer.message(1, (3..).zip(values).fold(entry, |entry, (field, v)| entry.number(field, v)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::wire::Message;

    fn entry(minor: u64, op: &str, value: u64) -> IoEntry {
        IoEntry { major: 8, minor, op: op.into(), value }
    }

    #[test]
    fn devices_have_one_entry_each() {
        let bytes = [entry(0, "Read", 1), entry(0, "Write", 2), entry(16, "Write", 9)];
        let written = io(&bytes, &[entry(0, "Read", 3), entry(0, "Write", 4)]).finish();
        let message = Message::parse(&written).unwrap();
        let rows: Vec<Vec<u64>> = message
            .all(1)
            .map(|bytes| {
                let device = Message::parse(bytes).unwrap();
                (1..=6).map(|field| device.number(field)).collect()
            })
            .collect();
        assert_eq!(rows, [vec![8, 0, 1, 2, 3, 4], vec![8, 16, 0, 9, 0, 0]]);
    }

    #[test]
    fn pressures_and_adapters() {
        let some = stats::Stalled { avg10: 2.5, avg60: 0.0, avg300: 1.0, total: 9 };
        let written = pressure(&Pressure { some, full: stats::Stalled::default() }).finish();
        let data = Message::parse(&written).unwrap().message(1).unwrap();
        assert_eq!(f64::from_bits(data.number(1)), 2.5);
        assert_eq!((data.number(2), data.number(4)), (0, 9));
        let current = "mlx4_0 hca_handle=2 hca_object=2000\n";
        let written = rdma(current, "mlx4_0 hca_handle=3 hca_object=max\n").unwrap().finish();
        let message = Message::parse(&written).unwrap();
        let row = |field| {
            let entry = message.message(field).unwrap();
            (entry.text(1).unwrap().to_owned(), entry.number(2), entry.number(3))
        };
        assert_eq!(row(1), ("mlx4_0".into(), 2, 2000));
        assert_eq!(row(2), ("mlx4_0".into(), 3, u32::MAX.into()));
        assert_eq!(rdma("", ""), None);
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_picture() {
        let paths = Paths::from([(String::new(), "/nonexistent/cgroup".into())]);
        assert_eq!(read(&paths).unwrap(), None);
    }
}
