//! Compiles `cgroupsPath` and annotations to the unit and its place. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Manager, Property, Unit, Value, devices, properties, text};
use crate::cgroup::devices::Filter;
use crate::cgroup::{Version, Write};
use crate::error::{Error, Result};
use crate::spec::annotation::SYSTEMD;

/// Requests of a container for its unit, besides limits.
pub struct UnitRequest<'a> {
    pub manager: &'a Manager,
    /// Annotations that set properties and are allowed.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Place of a unit.
pub struct Place {
    pub slice: String,
    /// Name of the container in the unit's name.
    pub container: String,
    /// Name of the unit.
    pub name: String,
    /// Cgroup, absolute within a hierarchy.
    pub cgroup: PathBuf,
}

/// Parses `cgroupsPath`, `slice:prefix:name`, to the unit's place.
///
/// # Errors
///
/// The path has another form, or a name contains invalid characters.
pub fn place(id: &str, cgroups_path: Option<&Path>, manager: &Manager) -> Result<Place> {
    let path = cgroups_path.map(Path::to_string_lossy).unwrap_or_default();
    let default = if manager.user { "user.slice" } else { "system.slice" };
    let (slice, container, name) = match path.split(':').collect::<Vec<_>>()[..] {
        [""] => (default, id, format!("runc-{id}.scope")),
        [slice, prefix, name] => {
            let slice = if slice.is_empty() { default } else { slice };
            let is_slice = name.ends_with(".slice");
            let unit = if is_slice { name.to_owned() } else { format!("{prefix}-{name}.scope") };
            (slice, name, unit)
        }
        _ => {
            return Err(Error::config(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got {path:?} instead"
            ))
            .hint("the engine is configured for cgroupfs and calls with --systemd-cgroup"));
        }
    };
    check_name(&name)?;
    let mut cgroup = manager.cgroup.clone();
    cgroup.extend(levels(slice)?);
    cgroup.push(&name);
    Ok(Place { slice: slice.to_owned(), container: container.to_owned(), name, cgroup })
}

/// Returns the directories of a slice. Its name contains those of its ancestors: `a-b.slice` is in `a.slice`.
///
/// # Errors
///
/// The name is not that of a slice.
pub fn levels(slice: &str) -> Result<Vec<String>> {
    let invalid = || Error::config(format!("invalid slice name: {slice}"));
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.contains('/'));
    let stem = stem.ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(Vec::new()); // The root slice.
    }
    if stem.split('-').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(invalid());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

/// Checks the name by systemd's rule, which also excludes paths.
fn check_name(name: &str) -> Result<()> {
    const LONGEST: usize = 255;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.len() > LONGEST || !name.chars().all(allowed) {
        return Err(Error::config(format!("invalid unit name {name:?}"))
            .hint("systemd allows letters, digits and :-_.\\@ in at most 255 characters"));
    }
    Ok(())
}

/// Plans the unit at `place`, without the process.
///
/// # Errors
///
/// An annotation has a value that cannot be parsed, or a property has the wrong type.
pub fn unit<'a>(
    place: &Place,
    input: &UnitRequest,
    version: Version,
    writes: impl IntoIterator<Item = &'a Write>,
    filter: &Filter,
) -> Result<Unit> {
    let description = format!("libcontainer container {}", place.container);
    let mut all = vec![Property::new("Description", description)];
    if place.name.ends_with(".slice") {
        all.push(Property::new("Wants", Value::strings([&*place.slice])));
    } else {
        all.push(Property::new("Slice", &*place.slice));
        all.push(Property::new("Delegate", true));
        // By default systemd stops the scope when the kernel has killed one of its processes.
        all.push(Property::new("OOMPolicy", "continue").recent());
    }
    let io = match version {
        Version::V1 => "BlockIOAccounting",
        Version::V2 => "IOAccounting",
    };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        all.push(Property::new(accounting, true));
    }
    // The scope is not stopped early in a shutdown: engines would lose the container.
    all.push(Property::new("DefaultDependencies", false));
    // A failed unit would stay, and block its name.
    all.push(Property::new("CollectMode", "inactive-or-failed"));
    for property in annotated(input.annotations)? {
        properties::set(&mut all, property);
    }
    let writes: Vec<&Write> = writes.into_iter().collect();
    let is_tight = writes.iter().any(|w| properties::is_tight(w));
    let (late, early): (Vec<_>, Vec<_>) =
        writes.into_iter().partition(|w| is_tight && w.is_memory());
    // On v1 systemd moves the process in hierarchies in which Aril writes limits at the same time.
    let settles = version == Version::V1
        || !late.is_empty()
        || early.iter().any(|w| properties::disagrees(w));
    let limits = properties::of_writes(early);
    let devices = devices::properties(filter, &input.manager.devices);
    limits.into_iter().chain(devices).for_each(|p| properties::set(&mut all, p));
    Ok(Unit {
        name: place.name.clone(),
        user: input.manager.user,
        properties: all,
        tight: properties::of_writes(late),
        settles,
    })
}

fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let given = annotations
        .iter()
        .filter_map(|(key, value)| Some((key, key.strip_prefix(SYSTEMD)?, value)));
    given.map(|(key, name, value)| annotation(key, name, value)).collect()
}

fn annotation(key: &str, name: &str, value: &str) -> Result<Property> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        let why = "a property's name is three or more ASCII letters";
        return Err(Error::config(format!("annotation {key} name incorrect: {why}")));
    }
    let wrong =
        |why: String| Error::config(format!("annotation {key}={value} value parse error: {why}"));
    let parsed = text::parse(value).map_err(wrong)?;
    // TimeoutStopSec, but not a name that merely ends in these letters.
    let seconds =
        name.strip_suffix("Sec").filter(|s| s.ends_with(|c: char| c.is_ascii_lowercase()));
    match seconds {
        Some(stem) => {
            Ok(Property::new(format!("{stem}USec"), microseconds(&parsed).map_err(wrong)?))
        }
        None => Ok(Property::new(name, parsed)),
    }
}

fn microseconds(seconds: &Value) -> std::result::Result<u64, String> {
    const SECOND: u64 = 1_000_000;
    let whole = match *seconds {
        Value::Byte(n) => Some(n.into()),
        Value::Int16(n) => n.try_into().ok(),
        Value::Uint16(n) => Some(n.into()),
        Value::Int32(n) => n.try_into().ok(),
        Value::Uint32(n) => Some(n.into()),
        Value::Int64(n) => n.try_into().ok(),
        Value::Uint64(n) => Some(n),
        Value::Double(n) if n >= 0.0 => return Ok((n * SECOND as f64) as u64),
        _ => None,
    };
    whole
        .and_then(|n: u64| n.checked_mul(SECOND))
        .ok_or_else(|| format!("{seconds} is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(user: bool) -> Manager {
        let cgroup = if user { "/user.slice/user-7.slice/user@7.service" } else { "/" };
        Manager { user, cgroup: cgroup.into(), devices: String::new() }
    }

    fn at(path: &str, user: bool) -> std::result::Result<String, String> {
        place("box", Some(Path::new(path)), &manager(user))
            .map(|p| format!("{} {}", p.slice, p.cgroup.display()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn places() {
        for (path, expected) in [
            ("", "system.slice /system.slice/runc-box.scope"),
            ("a.slice:p:n", "a.slice /a.slice/p-n.scope"),
            (":p:n", "system.slice /system.slice/p-n.scope"),
            ("-.slice:p:n", "-.slice /p-n.scope"),
            (
                "kube-pods-x_1.slice:cri:n",
                "kube-pods-x_1.slice /kube.slice/kube-pods.slice/kube-pods-x_1.slice/cri-n.scope",
            ),
            ("a.slice:p:a-n.slice", "a.slice /a.slice/a-n.slice"),
        ] {
            assert_eq!(at(path, false).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(
            at("", true).unwrap(),
            "user.slice /user.slice/user-7.slice/user@7.service/user.slice/runc-box.scope"
        );
    }

    #[test]
    fn no_places() {
        let format = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                      cgroups, got";
        for path in ["/a/b", "a", "a:b", "a.slice:b:c:d"] {
            assert_eq!(at(path, false).unwrap_err(), format!("{format} {path:?} instead"));
        }
        for slice in
            [".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "..-a.slice", "a/b.slice"]
        {
            let text = format!("invalid slice name: {slice}");
            assert_eq!(at(&format!("{slice}:p:n"), false).unwrap_err(), text);
        }
        for name in ["../x", "x y", "a+b"] {
            assert_eq!(
                at(&format!("a.slice:p:{name}"), false).unwrap_err(),
                format!("invalid unit name \"p-{name}.scope\"")
            );
        }
    }

    #[test]
    fn tight_memory_is_limited_later() {
        let manager = manager(false);
        let input = UnitRequest { manager: &manager, annotations: &BTreeMap::new() };
        let place = place("box", None, &manager).unwrap();
        for (limit, late) in [("1000000", 2), ("100000000", 0), ("max", 0)] {
            let writes = [
                Write::new("memory", "memory.swap.max", 0),
                Write::new("memory", "memory.max", limit),
                Write::new("pids", "pids.max", 1),
            ];
            let unit = unit(&place, &input, Version::V2, &writes, &Filter::default()).unwrap();
            assert_eq!((unit.tight.len(), unit.settles), (late, late > 0), "{limit}");
            assert!(unit.properties.iter().any(|p| p.name == "TasksMax"));
        }
    }

    fn unit_with(annotations: &[(&str, &str)]) -> std::result::Result<Vec<String>, String> {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(k, v)| (format!("{SYSTEMD}{k}"), v.to_string())).collect();
        let manager = manager(false);
        let input = UnitRequest { manager: &manager, annotations: &annotations };
        let place = place("box", Some(Path::new("a.slice:p:n")), &manager).unwrap();
        let writes = [Write::new("memory", "memory.max", 100_000_000)];
        unit(&place, &input, Version::V2, &writes, &Filter::default())
            .map(|unit| unit.properties.iter().map(Property::to_string).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn properties_of_a_scope() {
        assert_eq!(
            unit_with(&[]).unwrap(),
            [
                "Description=\"libcontainer container n\"",
                "Slice=\"a.slice\"",
                "Delegate=yes",
                "OOMPolicy=\"continue\"",
                "MemoryAccounting=yes",
                "CPUAccounting=yes",
                "IOAccounting=yes",
                "TasksAccounting=yes",
                "DefaultDependencies=no",
                "CollectMode=\"inactive-or-failed\"",
                "MemoryMax=100000000",
                "DevicePolicy=\"strict\"",
                "DeviceAllow=[]",
            ]
        );
    }

    #[test]
    fn annotations_are_properties() {
        let all = unit_with(&[
            ("CollectMode", "'inactive'"),
            ("TimeoutStopSec", "uint64 5"),
            ("RuntimeMaxSec", "1.5"),
            ("After", "['x.service']"),
            ("DefaultDependencies", "true"),
            ("FooSEC", "3"),
        ])
        .unwrap();
        for property in [
            "CollectMode=\"inactive\"",
            "TimeoutStopUSec=5000000",
            "RuntimeMaxUSec=1500000",
            "After=[\"x.service\"]",
            "DefaultDependencies=yes",
            "FooSEC=3",
        ] {
            assert!(all.iter().any(|p| p == property), "{property}: {all:?}");
        }
        assert_eq!(all.iter().filter(|p| p.starts_with("CollectMode")).count(), 1);
    }

    #[test]
    fn wrong_annotations() {
        for (name, value, text) in [
            ("Ab", "1", "Ab name incorrect: a property's name is three or more ASCII letters"),
            ("A-bc", "1", "A-bc name incorrect: a property's name is three or more ASCII letters"),
            (
                "CollectMode",
                "inactive",
                "CollectMode=inactive value parse error: unexpected \"inactive\", wanted a value",
            ),
            (
                "TimeoutStopSec",
                "'5'",
                "TimeoutStopSec='5' value parse error: \"5\" is no number of seconds",
            ),
            (
                "TimeoutStopSec",
                "-5",
                "TimeoutStopSec=-5 value parse error: -5 is no number of seconds",
            ),
        ] {
            let got = unit_with(&[(name, value)]).unwrap_err();
            assert_eq!(got, format!("annotation {SYSTEMD}{text}"));
        }
    }
}
