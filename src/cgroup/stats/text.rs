//! Parses the texts of the kernel's statistics. Unknown lines are left out: a newer kernel may have more.

use std::collections::BTreeMap;

use super::{IoEntry, Pressure, Stalled, UNLIMITED};

/// Parses a number or `max`.
pub fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(UNLIMITED),
        n => n.parse().ok(),
    }
}

/// Parses lines of `key value`.
pub fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Parses numbers that are separated by white space.
pub fn row(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// Parses a list such as `0-2,7`.
pub fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Parses two lines of `some|full avg10=.. avg60=.. avg300=.. total=..`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut found = false;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let stalled = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        found = true;
        fields.filter_map(|field| field.split_once('=')).for_each(|f| set(stalled, f));
    }
    found.then_some(pressure)
}

fn set(stalled: &mut Stalled, (key, value): (&str, &str)) {
    let share = || value.parse().unwrap_or_default();
    match key {
        "avg10" => stalled.avg10 = share(),
        "avg60" => stalled.avg60 = share(),
        "avg300" => stalled.avg300 = share(),
        "total" => stalled.total = value.parse().unwrap_or_default(),
        _ => {}
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Parses v1's lines of `MAJOR:MINOR [OP] VALUE`. A total without a device is left out.
pub fn blkio(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = device(fields.next()?)?;
        let rest: Vec<&str> = fields.collect();
        let (op, value) = match rest[..] {
            [op, value] => (op, value),
            [value] => ("", value),
            _ => return None,
        };
        Some(IoEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Parses cgroup v2's lines of `MAJOR:MINOR key=value...` to (bytes, operations).
pub fn io_stat(text: &str) -> (Vec<IoEntry>, Vec<IoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(device) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            table.push(IoEntry { major, minor, op: op.to_owned(), value });
        }
    }
    (bytes, operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(major: u64, minor: u64, op: &str, value: u64) -> IoEntry {
        IoEntry { major, minor, op: op.to_owned(), value }
    }

    #[test]
    fn numbers_and_lists() {
        assert_eq!(number("17\n"), Some(17));
        assert_eq!(number("max\n"), Some(UNLIMITED));
        assert_eq!(number(""), None);
        assert_eq!(row("1 2 \n"), [1, 2]);
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list("\n").is_empty());
        let keyed = keyed("nr_periods 3\nodd\nword x\nthrottled_usec 4\n");
        assert_eq!(keyed.into_values().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn pressures() {
        let text =
            "some avg10=0.12 avg60=1.00 avg300=99.99 total=42\nfull avg10=0.00 total=7 new=1\n";
        let p = pressure(text).unwrap();
        assert_eq!(p.some, Stalled { avg10: 0.12, avg60: 1.0, avg300: 99.99, total: 42 });
        assert_eq!(p.full, Stalled { total: 7, ..Stalled::default() });
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn block_io_of_v1() {
        let text = "8:0 Read 4096\n8:0 Total 4096\n8:16 77\nTotal 4173\n";
        assert_eq!(
            blkio(text),
            [entry(8, 0, "Read", 4096), entry(8, 0, "Total", 4096), entry(8, 16, "", 77)]
        );
    }

    #[test]
    fn block_io_of_cgroup2() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 \n";
        let (bytes, operations) = io_stat(text);
        assert_eq!(bytes, [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2)]);
        assert_eq!(operations, [entry(8, 0, "Read", 3), entry(8, 0, "Write", 4)]);
    }
}
