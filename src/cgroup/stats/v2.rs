//! Reads statistics from the files of cgroup v2, in the terms of v1.

use std::collections::BTreeMap;

use super::{
    BlkIo, Counter, Cpu, CpuUsage, Files, LimitedCounter, Memory, Pids, Stats, Throttling,
    UNLIMITED, text,
};
use crate::cgroup::Paths;
use crate::error::Result;

/// Reads the statistics of cgroup v2.
///
/// # Errors
///
/// A file exists and cannot be read.
pub fn read(paths: &Paths) -> Result<Stats> {
    let Some(files) = paths.get("").map(|dir| Files(dir)) else { return Ok(Stats::default()) };
    Ok(Stats {
        cpu: cpu(&files.text("cpu.stat")?),
        memory: memory(files)?,
        pids: pids(files)?,
        blkio: blkio(&files.text("io.stat")?),
        hugetlb: hugetlb(files)?,
        ..Stats::default()
    })
}

fn cpu(stat: &str) -> Cpu {
    let stat = text::keyed(stat);
    let value = |key| stat.get(key).copied().unwrap_or(0);
    let time = |key| value(key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: time("usage_usec"),
            kernel: time("system_usec"),
            user: time("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: time("throttled_usec"),
        },
        psi: None,
    }
}

fn memory(files: Files<'_>) -> Result<Memory> {
    let raw = text::keyed(&files.text("memory.stat")?);
    let events = text::keyed(&files.text("memory.events")?);
    let usage = LimitedCounter {
        limit: files.number("memory.max")?.unwrap_or(0),
        counter: Counter {
            usage: files.number("memory.current")?.unwrap_or(0),
            max: files.number("memory.peak")?.unwrap_or(0),
            failcnt: events.get("max").copied().unwrap_or(0),
        },
    };
    let swap = (files.number("memory.swap.current")?, files.number("memory.swap.max")?);
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        swap: with_swap(&usage, swap),
        usage,
        raw,
        ..Memory::default()
    })
}

/// v1 counts and limits memory and swap together.
fn with_swap(memory: &LimitedCounter, swap: (Option<u64>, Option<u64>)) -> LimitedCounter {
    let (Some(current), Some(max)) = swap else { return LimitedCounter::default() };
    let unlimited = [memory.limit, max].contains(&UNLIMITED);
    LimitedCounter {
        limit: if unlimited { UNLIMITED } else { memory.limit.saturating_add(max) },
        counter: Counter { usage: memory.usage.saturating_add(current), ..Counter::default() },
    }
}

fn pids(files: Files<'_>) -> Result<Pids> {
    let current = match files.number("pids.current")? {
        Some(current) => current,
        // Without the controller, the visible processes are counted.
        None => files.text("cgroup.procs")?.lines().count() as u64,
    };
    Ok(Pids { current, limit: files.text("pids.max")?.trim().parse().unwrap_or(0) })
}

fn blkio(io_stat: &str) -> BlkIo {
    let (bytes, operations) = text::io_stat(io_stat);
    BlkIo {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: operations,
        ..BlkIo::default()
    }
}

fn hugetlb(files: Files<'_>) -> Result<BTreeMap<String, Counter>> {
    let sizes = files.page_sizes("current").into_iter();
    sizes
        .map(|size| {
            // Since Linux 5.7 reserved pages count.
            let reserved = files.number(&format!("hugetlb.{size}.rsvd.current"))?;
            let plain = files.number(&format!("hugetlb.{size}.current"))?;
            let events = text::keyed(&files.text(&format!("hugetlb.{size}.events"))?);
            let counter = Counter {
                usage: reserved.or(plain).unwrap_or(0),
                max: 0,
                failcnt: events.get("max").copied().unwrap_or(0),
            };
            Ok((size, counter))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_become_nanoseconds() {
        let text = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\n\
            throttled_usec 9\n";
        let cpu = cpu(text);
        assert_eq!((cpu.usage.total, cpu.usage.user, cpu.usage.kernel), (5000, 3000, 2000));
        let t = cpu.throttling;
        assert_eq!((t.periods, t.throttled_periods, t.throttled_time), (7, 1, 9000));
    }

    #[test]
    fn memory_and_swap_together() {
        let counter = |limit, usage| LimitedCounter {
            limit,
            counter: Counter { usage, ..Counter::default() },
        };
        let memory = counter(100, 40);
        assert_eq!(with_swap(&memory, (Some(2), Some(50))), counter(150, 42));
        assert_eq!(with_swap(&memory, (Some(2), Some(UNLIMITED))).limit, UNLIMITED);
        assert_eq!(with_swap(&counter(UNLIMITED, 1), (Some(0), Some(0))).limit, UNLIMITED);
        assert_eq!(with_swap(&memory, (None, None)), LimitedCounter::default());
    }
}
