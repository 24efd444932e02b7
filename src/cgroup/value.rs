//! Checks values that both cgroup versions share.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxRdma};

use super::Write;
use crate::error::{Error, Result};

/// Returns the value of a signed limit: absent and 0 change nothing, -1 removes the limit.
///
/// # Errors
///
/// The value is below -1.
pub fn bytes(what: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(n) if n < -1 => Err(Error::config(format!("invalid {what}: {n}"))),
        some => Ok(some),
    }
}

/// Checks a weight of block I/O: absent and 0 change nothing.
///
/// # Errors
///
/// The weight exceeds 1000.
pub fn weight(value: Option<u16>) -> Result<Option<u16>> {
    match value {
        None | Some(0) => Ok(None),
        // The kernel's range. The specification begins at 10, as did BFQ's and CFQ's predecessor.
        some @ Some(1..=1000) => Ok(some),
        Some(w) => Err(Error::config(format!("invalid blkio weight: {w} (valid range is 1-1000)"))),
    }
}

/// Checks the size, which becomes part of a file's name.
///
/// # Errors
///
/// The text is not a number with KB, MB or GB.
pub fn page_size(size: &str) -> Result<&str> {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(size);
    }
    let text = format!("invalid hugepage size {size:?}: must be a number and KB, MB or GB");
    Err(Error::config(text))
}

/// Returns the writes of `cpuset.cpus` and `cpuset.mems`.
pub fn cpuset(cpu: &LinuxCpu) -> Vec<Write> {
    let write = |file: &'static str, list: &Option<String>| {
        let list = list.as_ref().filter(|l| !l.is_empty())?;
        Some(Write::new("cpuset", file, list))
    };
    write("cpuset.cpus", cpu.cpus()).into_iter().chain(write("cpuset.mems", cpu.mems())).collect()
}

/// Returns the line of `rdma.max` for one device.
pub fn rdma(device: &str, limit: &LinuxRdma) -> String {
    let mut line = device.to_owned();
    if let Some(n) = limit.hca_handles() {
        line.push_str(&format!(" hca_handle={n}"));
    }
    if let Some(n) = limit.hca_objects() {
        line.push_str(&format!(" hca_object={n}"));
    }
    line
}

/// Sorts the entries: JSON objects have no order, Aril's writes have one.
pub fn sorted<T>(map: &Option<HashMap<String, T>>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().flatten().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}
