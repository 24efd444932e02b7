//! Chooses ids for a user namespace that no other container has, from the ranges of /etc/subuid and /etc/subgid.
//!
//! Root uses the ranges of the user `containers`, as Podman does, or of `root`. The rootfs is then mounted with mapped owners,
//! without chown(2). For an ordinary user the container's root is the user's own id, which owns the rootfs, and the others
//! are the user's subordinate ids.

use serde::{Deserialize, Serialize};

use super::{Mapping, Maps};
use crate::error::{Error, Result};

/// Default number of ids of a container.
const SIZE: u32 = 65_536;

/// Range of host ids that begins at `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub start: u32,
    pub size: u32,
}

impl Range {
    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.size)
    }

    fn overlaps(self, other: Self) -> bool {
        u64::from(self.start) < other.end() && u64::from(other.start) < self.end()
    }
}

/// Ranges that a container has until its record is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub uids: Range,
    pub gids: Range,
}

/// Caller, and the ranges that it may use.
#[derive(Debug, Default)]
pub struct Grants {
    /// Uid and gid of an ordinary user; `None` for root.
    pub own: Option<(u32, u32)>,
    /// Names of the caller in the files, for error texts.
    pub name: String,
    pub uids: Vec<Range>,
    pub gids: Vec<Range>,
}

/// Parses `auto` or `auto:SIZE`. Returns the number of ids.
///
/// # Errors
///
/// The text has another form, or the size is zero.
pub fn size(value: &str) -> Result<u32> {
    let size = match value.split_once(':') {
        None if value == "auto" => Some(SIZE),
        Some(("auto", size)) => size.parse().ok().filter(|size| *size > 1),
        _ => None,
    };
    size.ok_or_else(|| {
        Error::config(format!("userns {value:?}: want auto or auto:SIZE, with a SIZE of 2 or more"))
    })
}

/// Returns the ranges of `names` in /etc/subuid or /etc/subgid, which have lines `name:start:count`.
pub fn granted(text: &str, names: &[&str]) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(':');
            let name = parts.next()?;
            let range = Range { start: parts.next()?.parse().ok()?, size: clamped(parts.next()?)? };
            names.contains(&name).then_some(range)
        })
        .collect()
}

/// Parses a count. 4294967296 is accepted, with which users mean all ids.
fn clamped(count: &str) -> Option<u32> {
    let count: u64 = count.parse().ok()?;
    Some(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Chooses ids that no other container has.
///
/// # Errors
///
/// No range of that size is free.
pub fn choose(grants: &Grants, taken: &[Claim], size: u32) -> Result<Claim> {
    let wanted = if grants.own.is_some() { size - 1 } else { size };
    let find = |file: &str, ranges: &[Range], of: fn(&Claim) -> Range| {
        let taken: Vec<Range> = taken.iter().map(of).collect();
        first_free(ranges, &taken, wanted).ok_or_else(|| none_free(file, grants, ranges, wanted))
    };
    Ok(Claim {
        uids: find("/etc/subuid", &grants.uids, |claim| claim.uids)?,
        gids: find("/etc/subgid", &grants.gids, |claim| claim.gids)?,
    })
}

fn first_free(granted: &[Range], taken: &[Range], size: u32) -> Option<Range> {
    granted.iter().find_map(|grant| {
        // A free range begins at the start of a granted range, or at the end of a used one.
        let mut starts: Vec<u64> = taken.iter().map(|range| range.end()).collect();
        starts.push(grant.start.into());
        starts.sort_unstable();
        starts.into_iter().find_map(|start| {
            let range = Range { start: u32::try_from(start).ok()?, size };
            let inside = range.start >= grant.start && range.end() <= grant.end();
            (inside && !taken.iter().any(|other| range.overlaps(*other))).then_some(range)
        })
    })
}

#[cold]
fn none_free(file: &str, grants: &Grants, ranges: &[Range], wanted: u32) -> Error {
    let name = &grants.name;
    let all: u64 = ranges.iter().map(|range| u64::from(range.size)).sum();
    if all == 0 {
        let text = format!("userns auto: {file} grants no ids to {name}");
        return Error::system(text).hint(format!(
            "add a line such as {name}:1000000:1000000 to /etc/subuid and /etc/subgid"
        ));
    }
    Error::system(format!(
        "userns auto: {file} grants {all} ids to {name}, and no {wanted} in a row are free"
    ))
    .hint("delete containers that are not needed, ask for fewer (auto:SIZE), or grant more")
}

/// Maps `own` to `container`, and the ids around it to granted ids.
pub fn default_map(container: u32, own: u32, granted: Option<Range>) -> Vec<Mapping> {
    let Range { start, size } = granted.unwrap_or(Range { start: 0, size: 0 });
    let below = container.min(size);
    let maps = [
        Mapping { container: 0, host: start, size: below },
        Mapping { container, host: own, size: 1 },
        Mapping {
            container: container.saturating_add(1),
            host: start.saturating_add(below),
            size: size - below,
        },
    ];
    maps.into_iter().filter(|map| map.size > 0).collect()
}

/// Returns mappings of the container's ids from 0.
pub fn maps(grants: &Grants, claim: &Claim) -> Maps {
    let map = |own: Option<u32>, range: Range| {
        let Range { start, size } = range;
        match own {
            None => vec![Mapping { container: 0, host: start, size }],
            Some(own) => vec![
                Mapping { container: 0, host: own, size: 1 },
                Mapping { container: 1, host: start, size },
            ],
        }
    };
    Maps {
        uid: map(grants.own.map(|(uid, _)| uid), claim.uids),
        gid: map(grants.own.map(|(_, gid)| gid), claim.gids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, size: u32) -> Range {
        Range { start, size }
    }

    fn both(range: Range) -> Claim {
        Claim { uids: range, gids: range }
    }

    fn grants(ranges: &[Range], own: Option<(u32, u32)>) -> Grants {
        Grants { own, name: "x".into(), uids: ranges.to_vec(), gids: ranges.to_vec() }
    }

    #[test]
    fn default_maps() {
        let map = |container, own, granted| {
            let maps = default_map(container, own, granted);
            maps.iter().map(|m| (m.container, m.host, m.size)).collect::<Vec<_>>()
        };
        assert_eq!(map(0, 0, None), [(0, 0, 1)]);
        assert_eq!(map(0, 7, Some(range(1000, 10))), [(0, 7, 1), (1, 1000, 10)]);
        assert_eq!(map(3, 7, Some(range(1000, 10))), [(0, 1000, 3), (3, 7, 1), (4, 1003, 7)]);
        assert_eq!(map(30, 7, Some(range(1000, 10))), [(0, 1000, 10), (30, 7, 1)]);
    }

    #[test]
    fn sizes() {
        assert_eq!(size("auto").unwrap(), 65_536);
        assert_eq!(size("auto:1000").unwrap(), 1000);
        for wrong in ["", "auto:", "auto:0", "auto:1", "auto:x", "host", "auto:-1"] {
            assert!(
                size(wrong).unwrap_err().to_string().contains("want auto or auto:SIZE"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_the_files_grant() {
        let text = "# x\nroot:5:6\nx:100000:65536\n7:1:2\nx:bad:1\nx:9\n x:200000:4294967296\n";
        let all = [range(100_000, 65_536), range(200_000, u32::MAX)];
        assert_eq!(granted(text, &["x"]), all);
        assert_eq!(granted(text, &["y", "7"]), [range(1, 2)]);
    }

    #[test]
    fn nobody_elses() {
        let some = grants(&[range(100, 20), range(1000, 30)], None);
        let mut taken = Vec::new();
        for expected in [100, 110, 1000, 1010, 1020] {
            let claim = choose(&some, &taken, 10).unwrap();
            assert_eq!(claim.uids, range(expected, 10));
            taken.push(claim);
        }
        let refused = choose(&some, &taken, 10).unwrap_err().to_string();
        assert_eq!(
            refused,
            "userns auto: /etc/subuid grants 50 ids to x, and no 10 in a row are free"
        );
        // A freed range is used again by a container of its size.
        taken.remove(1);
        assert_eq!(choose(&some, &taken, 7).unwrap().uids, range(110, 7));
        assert!(choose(&some, &taken, 11).is_err());
        let none = choose(&grants(&[], None), &[], 10).unwrap_err();
        assert_eq!(none.to_string(), "userns auto: /etc/subuid grants no ids to x");
    }

    #[test]
    fn a_user_is_root_inside() {
        let theirs = grants(&[range(100, 20)], Some((7, 8)));
        let claim = choose(&theirs, &[both(range(50, 55))], 11).unwrap();
        let maps = maps(&theirs, &claim);
        assert_eq!(maps.uid[0], Mapping { container: 0, host: 7, size: 1 });
        assert_eq!(maps.gid[0], Mapping { container: 0, host: 8, size: 1 });
        assert_eq!(maps.uid[1], Mapping { container: 1, host: 105, size: 10 });
    }
}
