//! Reads the resource usage of a container's cgroup, in one snapshot.
//!
//! Names, units and nesting are those of runc's `events`, which engines decode for both cgroup versions: bytes,
//! nanoseconds, and on cgroup v2 the values in the fields of v1. A missing limit is [`UNLIMITED`], because v1 has no
//! other value for it. [`v1`] and [`v2`] read files, [`text`] parses them.
//!
//! ```text
//! cgroup files --v1::read or v2::read--> Stats --serde--> JSON of `aril events` and `aril stats`
//! ```

mod text;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::{Paths, Version, file};
use crate::error::Result;

/// Value of a limit that is not set.
pub const UNLIMITED: u64 = u64::MAX;

/// Statistics of one container, as JSON in the form of runc's `events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: CpuSet,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlkIo,
    /// Huge pages by size, such as `2MB`.
    pub hugetlb: BTreeMap<String, Counter>,
}

/// Statistics of the cpu controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// Throttling by the CPU quota; times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Statistics of v1; on cgroup v2 all are zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory usage in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: LimitedCounter,
    /// Memory and swap together.
    pub swap: LimitedCounter,
    pub kernel: LimitedCounter,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: LimitedCounter,
    /// Values of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

impl Memory {
    /// Memory that is not reclaimed easily: without inactive pages of files.
    pub fn working_set(&self) -> u64 {
        let names = ["total_inactive_file", "inactive_file"];
        let idle = names.iter().find_map(|name| self.raw.get(*name)).copied().unwrap_or(0);
        self.usage.usage.saturating_sub(idle)
    }
}

/// A usage with its limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LimitedCounter {
    pub limit: u64,
    #[serde(flatten)]
    pub counter: Counter,
}

impl std::ops::Deref for LimitedCounter {
    type Target = Counter;

    fn deref(&self) -> &Counter {
        &self.counter
    }
}

/// A usage, its maximum, and the number of failures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counter {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// Number of times that the limit was reached.
    pub failcnt: u64,
}

/// Number of processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Limit; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block I/O of all devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<IoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

impl BlkIo {
    /// Bytes of all devices by operation: `Read` or `Write`.
    pub fn bytes(&self, op: &str) -> u64 {
        self.io_service_bytes_recursive.iter().filter(|e| e.op == op).map(|e| e.value).sum()
    }
}

/// A value of one device and operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Pressure stall information: share of the time in which some, or all, tasks waited.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub some: Stalled,
    pub full: Stalled,
}

/// Percentages of the last 10, 60 and 300 seconds, and the total in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stalled {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reads the statistics. A file that does not exist counts as zero.
///
/// # Errors
///
/// A file exists and cannot be read.
pub fn read(paths: &Paths) -> Result<Stats> {
    let mut stats = match Version::of(paths) {
        Version::V1 => v1::read(paths)?,
        Version::V2 => v2::read(paths)?,
    };
    // Every cgroup of v2 has these files, also that of a container on a hybrid host.
    if let Some(unified) = paths.get("").map(|dir| Files(dir)) {
        stats.cpu.psi = unified.pressure("cpu.pressure")?;
        stats.memory.psi = unified.pressure("memory.pressure")?;
        stats.blkio.psi = unified.pressure("io.pressure")?;
    }
    Ok(stats)
}

/// Files of one cgroup.
#[derive(Clone, Copy)]
struct Files<'a>(&'a Path);

impl Files<'_> {
    /// Reads a file; empty if it does not exist.
    fn text(self, name: &str) -> Result<String> {
        match file::read_all(&self.0.join(name)) {
            // Accounting was switched off at boot.
            Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => Ok(String::new()),
            other => Ok(other?.unwrap_or_default()),
        }
    }

    fn number(self, name: &str) -> Result<Option<u64>> {
        Ok(text::number(&self.text(name)?))
    }

    fn pressure(self, name: &str) -> Result<Option<Pressure>> {
        Ok(text::pressure(&self.text(name)?))
    }

    /// Lists the page sizes of `hugetlb.SIZE.<suffix>`.
    fn page_sizes(self, suffix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let size = |name: String| {
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.strip_suffix('.')?;
            (!size.contains('.')).then(|| size.to_owned())
        };
        names.filter_map(size).collect()
    }
}
