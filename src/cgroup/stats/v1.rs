//! Reads statistics from the files of cgroup v1.

use std::collections::BTreeMap;

use super::{
    BlkIo, Counter, Cpu, CpuSet, CpuUsage, Files, IoEntry, LimitedCounter, Memory, Pids, Stats,
    Throttling, text,
};
use crate::cgroup::Paths;
use crate::error::Result;

/// Unit of `cpuacct.stat`: the kernel's USER_HZ is 100 on every supported architecture.
const TICK: u64 = 1_000_000_000 / 100;

/// Reads the statistics of cgroup v1.
///
/// # Errors
///
/// A file exists and cannot be read.
pub fn read(paths: &Paths) -> Result<Stats> {
    let files = |controller| paths.get(controller).map(|dir| Files(dir));
    let mut stats = Stats::default();
    if let Some(files) = files("cpuacct") {
        stats.cpu.usage = usage(files)?;
    }
    if let Some(files) = files("cpu") {
        stats.cpu = Cpu { throttling: throttling(files)?, ..stats.cpu };
    }
    if let Some(files) = files("cpuset") {
        stats.cpuset = cpuset(files)?;
    }
    if let Some(files) = files("memory") {
        stats.memory = memory(files)?;
    }
    if let Some(files) = files("pids") {
        stats.pids = pids(files)?;
    }
    if let Some(files) = files("blkio") {
        stats.blkio = blkio(files)?;
    }
    if let Some(files) = files("hugetlb") {
        stats.hugetlb = hugetlb(files)?;
    }
    Ok(stats)
}

fn usage(files: Files<'_>) -> Result<CpuUsage> {
    let ticks = text::keyed(&files.text("cpuacct.stat")?);
    let time = |key| ticks.get(key).copied().unwrap_or(0).saturating_mul(TICK);
    let (percpu_user, percpu_kernel) = per_cpu(&files.text("cpuacct.usage_all")?);
    Ok(CpuUsage {
        total: files.number("cpuacct.usage")?.unwrap_or(0),
        percpu: text::row(&files.text("cpuacct.usage_percpu")?),
        percpu_kernel,
        percpu_user,
        kernel: time("system"),
        user: time("user"),
    })
}

/// Parses a head, then lines of `CPU USER SYSTEM`: the times in user mode and in the kernel.
fn per_cpu(usage_all: &str) -> (Vec<u64>, Vec<u64>) {
    let times = usage_all.lines().skip(1).filter_map(|line| match text::row(line)[..] {
        [_, user, system] => Some((user, system)),
        _ => None,
    });
    times.unzip()
}

fn throttling(files: Files<'_>) -> Result<Throttling> {
    let stat = text::keyed(&files.text("cpu.stat")?);
    let value = |key| stat.get(key).copied().unwrap_or(0);
    Ok(Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    })
}

fn cpuset(files: Files<'_>) -> Result<CpuSet> {
    let number = |name: &str| Ok(files.number(&format!("cpuset.{name}"))?.unwrap_or(0));
    let level = files.text("cpuset.sched_relax_domain_level")?;
    Ok(CpuSet {
        cpus: text::list(&files.text("cpuset.cpus")?),
        cpu_exclusive: number("cpu_exclusive")?,
        mems: text::list(&files.text("cpuset.mems")?),
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    })
}

fn memory(files: Files<'_>) -> Result<Memory> {
    let raw = text::keyed(&files.text("memory.stat")?);
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: limited(files, "memory")?,
        swap: limited(files, "memory.memsw")?,
        kernel: limited(files, "memory.kmem")?,
        kernel_tcp: limited(files, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn limited(files: Files<'_>, prefix: &str) -> Result<LimitedCounter> {
    Ok(LimitedCounter {
        limit: files.number(&format!("{prefix}.limit_in_bytes"))?.unwrap_or(0),
        counter: counter(files, prefix)?,
    })
}

fn counter(files: Files<'_>, prefix: &str) -> Result<Counter> {
    let number = |name: &str| Ok(files.number(&format!("{prefix}.{name}"))?.unwrap_or(0));
    Ok(Counter {
        usage: number("usage_in_bytes")?,
        max: number("max_usage_in_bytes")?,
        failcnt: number("failcnt")?,
    })
}

fn pids(files: Files<'_>) -> Result<Pids> {
    Ok(Pids {
        current: files.number("pids.current")?.unwrap_or(0),
        limit: files.text("pids.max")?.trim().parse().unwrap_or(0),
    })
}

/// Reads the files of block I/O. The disk's scheduler decides which files count: BFQ has files of its own, and with a
/// scheduler that does not count, the files of throttling do.
fn blkio(files: Files<'_>) -> Result<BlkIo> {
    let entries = |name: &str| Ok(text::blkio(&files.text(name)?));
    for scheduler in ["blkio.bfq", "blkio"] {
        let of = |name: &str| entries(&format!("{scheduler}.{name}_recursive"));
        let serviced: Vec<IoEntry> = of("io_serviced")?;
        if !serviced.is_empty() {
            return Ok(BlkIo {
                io_service_bytes_recursive: of("io_service_bytes")?,
                io_serviced_recursive: serviced,
                io_queue_recursive: of("io_queued")?,
                io_service_time_recursive: of("io_service_time")?,
                io_wait_time_recursive: of("io_wait_time")?,
                io_merged_recursive: of("io_merged")?,
                io_time_recursive: of("time")?,
                sectors_recursive: of("sectors")?,
                psi: None,
            });
        }
    }
    Ok(BlkIo {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes_recursive")?,
        io_serviced_recursive: entries("blkio.throttle.io_serviced_recursive")?,
        ..BlkIo::default()
    })
}

fn hugetlb(files: Files<'_>) -> Result<BTreeMap<String, Counter>> {
    let sizes = files.page_sizes("usage_in_bytes").into_iter();
    sizes
        .map(|size| {
            // Since Linux 5.7 reserved pages count.
            let reserved = format!("hugetlb.{size}.rsvd");
            let has = files.number(&format!("{reserved}.usage_in_bytes"))?.is_some();
            let prefix = if has { reserved } else { format!("hugetlb.{size}") };
            Ok((size, counter(files, &prefix)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_each_cpu() {
        let text = "cpu user system\n0 5 6\n1 7 8\n";
        assert_eq!(per_cpu(text), (vec![5, 7], vec![6, 8]));
        assert_eq!(per_cpu(""), (vec![], vec![]));
    }
}
