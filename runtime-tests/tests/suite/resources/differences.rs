//! The one place for what differs from the peer's and stands, with its reason.

use runtime_tests::Runtime;
use serde_json::Value;

use super::{Settings, table::Row};

/// A setting that reads otherwise after one of the calls.
struct Seen<'a> {
    row: &'a Row,
    file: &'a str,
    /// After the update.
    late: bool,
    theirs: &'a str,
    ours: &'a str,
}

/// What older peers do otherwise.
struct Known {
    /// The release of runc that does as aril does.
    until: (u32, u32, u32),
    applies: fn(&Seen) -> bool,
    reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        until: (1, 3, 2),
        applies: |seen| {
            seen.file.starts_with("cpu.weight")
                && seen.row.all("shares").any(|shares| {
                    let (old, new) = (old_weight(shares), new_weight(shares));
                    match seen.file {
                        "cpu.weight" => {
                            seen.theirs == old.to_string() && seen.ours == new.to_string()
                        }
                        // The kernel's own reading of the weight.
                        _ => nice(seen.theirs) >= nice(seen.ours),
                    }
                })
        },
        reason: "cpu.shares became cpu.weight in a straight line, which made 39 of the default, \
                 1024, of which the kernel's default, 100, is meant",
    },
    Known {
        until: (1, 4, 0),
        applies: |seen| {
            let quota = |text: &str| text.split(' ').next().and_then(|q| q.parse::<i64>().ok());
            let file = seen.file == "cpu.max" || seen.file.ends_with("cpu.cfs_quota_us");
            let (theirs, ours) = (quota(seen.theirs), quota(seen.ours));
            file && seen.row.all("quota").any(|q| Some(q) == theirs) && theirs < ours
        },
        reason: "a quota of fractions of a percent was in the file until systemd wrote its own",
    },
    Known {
        until: (1, 2, 0),
        applies: |seen| seen.row.all("idle").next().is_some() && seen.file.contains("cpu."),
        reason: "cpu.idle was not known",
    },
    Known {
        until: (1, 2, 0),
        applies: |seen| seen.row.all("burst").next().is_some() && seen.file.contains("burst"),
        reason: "cpu.burst was not known",
    },
    Known {
        until: (1, 2, 0),
        applies: |seen| seen.file.contains(".rsvd."),
        reason: "reservations of huge pages, which are what a program sees refused, were not limited",
    },
    Known {
        until: (1, 2, 0),
        applies: |seen| seen.late && seen.file == "memory.max" && seen.row.name == "unified wins",
        reason: "update wrote nothing of the stored limits that it was not told of",
    },
    Known {
        until: (1, 3, 0),
        applies: |seen| {
            let throttle = seen.file == "io.max" || seen.file.contains("blkio.throttle.");
            seen.late && throttle && seen.row.update["blockIO"].is_object()
        },
        reason: "update left the rates of disks as they were",
    },
];

/// Rows that ours refuses, and the peer takes.
const REFUSED: &[(&str, &str)] = &[
    ("io weight of no meaning", "the range of weights in the specification ends at 1000"),
    (
        "an update below what is used",
        "checkBeforeUpdate, which runc knows since 1.2: before, the container was killed",
    ),
];

/// Lines, one for each file that reads otherwise than it should.
pub fn between(
    row: &Row,
    peer: &Runtime,
    late: bool,
    theirs: &Settings,
    ours: &Settings,
) -> Vec<String> {
    let version = version(peer);
    let mut lines = Vec::new();
    for (file, theirs) in theirs {
        let Some(ours) = ours.get(file) else {
            lines.push(format!("{file}: only the peer's is there"));
            continue;
        };
        let seen = Seen { row, file, late, theirs, ours };
        if theirs != ours && !KNOWN.iter().any(|k| version < k.until && (k.applies)(&seen)) {
            lines.push(format!("{file}: peer {theirs:?}, ours {ours:?}"));
        }
    }
    let more = ours.keys().filter(|file| !theirs.contains_key(*file));
    lines.extend(more.map(|file| format!("{file}: only ours is there")));
    lines
}

pub fn refused_by_us_alone(row: &Row) -> bool {
    REFUSED.iter().any(|(name, _)| row.name == *name)
}

/// `runc version 1.1.5+ds1`. Of another runtime nothing is known.
fn version(peer: &Runtime) -> (u32, u32, u32) {
    let number = peer.version.strip_prefix("runc version ").unwrap_or("99");
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

impl Row {
    /// The numbers of this name in both requests.
    fn all(&self, name: &str) -> impl Iterator<Item = i64> {
        let mut found = Vec::new();
        for request in [&self.create, &self.update] {
            collect(request, name, &mut found);
        }
        found.into_iter()
    }
}

fn collect(value: &Value, name: &str, found: &mut Vec<i64>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name).and_then(Value::as_i64));
            fields.values().for_each(|value| collect(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

fn old_weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// A quadratic through (2, 1), (1024, 100) and (262144, 10000) in logarithms.
fn new_weight(shares: i64) -> i64 {
    let l = (shares as f64).log2();
    10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as i64
}

fn nice(text: &str) -> i64 {
    text.parse().expect("a nice value")
}

#[test]
fn the_formulas() {
    assert_eq!([2, 512, 1024, 262_144].map(old_weight), [1, 20, 39, 10_000]);
    assert_eq!([512, 1024].map(new_weight), [59, 100]);
}

#[test]
fn every_difference_has_a_reason() {
    assert!(KNOWN.iter().all(|known| known.reason.len() > 10));
    assert!(REFUSED.iter().all(|(_, reason)| reason.len() > 10));
}

#[test]
fn a_difference_is_shown_with_its_file() {
    let row = Row {
        name: "",
        needs: &[],
        create: serde_json::json!({"cpu": {"shares": 1024}}),
        update: Value::Null,
    };
    let settings = |weight: &str| Settings::from([("cpu.weight".to_owned(), weight.to_owned())]);
    let peer = |version: &str| Runtime {
        path: "".into(),
        name: "runc".into(),
        version: format!("runc version {version}"),
    };
    let old = peer("1.1.15+ds1");
    let lines = |peer: &Runtime, theirs: &str, ours: &str| {
        between(&row, peer, false, &settings(theirs), &settings(ours))
    };
    assert!(lines(&old, "39", "100").is_empty());
    assert_eq!(lines(&old, "39", "101"), ["cpu.weight: peer \"39\", ours \"101\""]);
    assert_eq!(lines(&old, "100", "39").len(), 1, "not the other way round");
    assert_eq!(lines(&peer("1.3.2"), "39", "100").len(), 1, "nor of a newer peer");
}
