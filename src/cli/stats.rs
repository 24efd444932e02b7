//! Table that `stats` prints.

use super::output::aligned;
use crate::lifecycle::stats::{Pressures, Usage};

/// Escape sequence that moves the cursor to the first line and clears the screen.
pub const CLEAR: &str = "\x1b[H\x1b[J";

const HEAD: [&str; 7] = [
    "ID",
    "CPU %",
    "MEM USED / LIMIT",
    "MEM %",
    "IO READ / WRITTEN",
    "PIDS",
    "PRESSURE CPU MEM IO",
];

pub fn table(usages: &[Usage]) -> String {
    let head = HEAD.map(str::to_owned);
    aligned(&std::iter::once(head).chain(usages.iter().map(row)).collect::<Vec<_>>())
}

fn row(usage: &Usage) -> [String; 7] {
    let share = usage.memory_limit.map(|limit| usage.memory as f64 / limit as f64 * 100.0);
    let pids = match usage.pids_limit {
        Some(limit) => format!("{} / {limit}", usage.pids),
        None => usage.pids.to_string(),
    };
    [
        usage.id.clone(),
        percent(Some(usage.cpu_percent)),
        format!("{} / {}", bytes(usage.memory), usage.memory_limit.map_or("-".into(), bytes)),
        percent(share),
        format!("{} / {}", bytes(usage.io_read), bytes(usage.io_written)),
        pids,
        pressure(&usage.pressure),
    ]
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.2}"))
}

fn pressure(pressure: &Pressures) -> String {
    let [cpu, memory, io] = [pressure.cpu, pressure.memory, pressure.io].map(percent);
    format!("{cpu} {memory} {io}")
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n}B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (3 << 30, "3.0GiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn a_table() {
        let usage = Usage {
            id: "web".into(),
            cpu_percent: 12.5,
            memory: 1 << 20,
            memory_limit: Some(4 << 20),
            io_read: 0,
            io_written: 4096,
            pids: 3,
            pids_limit: None,
            pressure: Pressures { cpu: Some(0.1), memory: None, io: Some(0.0) },
        };
        let table = table(&[usage]);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").filter(|c| !c.is_empty()).collect())
            .collect();
        let cells: Vec<&str> = lines[1].iter().map(|cell| cell.trim()).collect();
        assert_eq!(lines[0].len(), HEAD.len());
        assert_eq!(
            cells,
            ["web", "12.50", "1.0MiB / 4.0MiB", "25.00", "0B / 4.0KiB", "3", "0.10 - 0.00"]
        );
    }
}
