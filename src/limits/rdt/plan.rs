//! Plans the groups and schemata of `linux.intelRdt`, without system calls.

use oci_spec::runtime::LinuxIntelRdt;

use super::{Group, Plan, Resctrl};
use crate::error::{Error, Result};

/// Fields and facts that the groups of a container depend on.
pub struct RdtRequest<'a> {
    /// ID of the container.
    pub id: &'a str,
    pub rdt: &'a LinuxIntelRdt,
    /// Mounted resctrl. `None` if it is not mounted.
    pub host: Option<&'a Resctrl>,
}

/// Plans the group of a container.
///
/// # Errors
///
/// resctrl is not mounted, `closID` is not the name of a group, a schema is invalid, or the named group does not exist
/// and has no schemata.
pub fn plan(request: RdtRequest<'_>) -> Result<Plan> {
    let rdt = request.rdt;
    let Resctrl { root, groups } = request.host.ok_or_else(|| {
        Error::config("intelRdt is specified in config, but Intel RDT is not enabled").hint(
            "mount it on a processor with Intel RDT: mount -t resctrl resctrl /sys/fs/resctrl",
        )
    })?;
    let class = rdt.clos_id().as_deref().filter(|id| !id.is_empty());
    let name = match class {
        None => request.id,
        Some(name @ ("." | ".." | "info" | "mon_groups" | "mon_data")) => return Err(bad(name)),
        Some(name) if name != "/" && name.contains(['/', '\n', '\0']) => return Err(bad(name)),
        Some(name) => name,
    };
    // `/` is the default group.
    let path = if name == "/" { root.clone() } else { root.join(name) };
    let exists = name == "/" || groups.iter().any(|group| group == name);
    let schemas = schemas(rdt)?;
    let mut schemata = schemas.clone();
    for line in rdt.schemata().iter().flatten() {
        schemata.push(one_line("schemata", line)?);
    }
    if class.is_some() && schemata.is_empty() && !exists {
        return Err(Error::config(format!(
            "intelRdt: there is no group {} for closID {name:?}",
            path.display()
        ))
        .hint("create the group, or set schemata with which Aril creates it"));
    }
    let monitored = rdt.enable_monitoring().unwrap_or(false);
    let monitor = monitored.then(|| path.join("mon_groups").join(request.id));
    Ok(Plan {
        root: root.clone(),
        make: !exists,
        compare: if class.is_some() && exists { schemas } else { Vec::new() },
        schemata,
        group: Group { own: class.is_none() && !exists, path, monitor },
    })
}

fn bad(name: &str) -> Error {
    Error::config(format!("intelRdt: closID {name:?} is not the name of a group"))
}

/// Returns the lines of `l3CacheSchema` and `memBwSchema`, in this order.
///
/// # Errors
///
/// A schema has more than one line, or `memBwSchema` does not start with `MB:`.
pub fn schemas(rdt: &LinuxIntelRdt) -> Result<Vec<String>> {
    let given = |schema: &Option<String>| schema.clone().filter(|text| !text.is_empty());
    let mut lines = Vec::new();
    if let Some(cache) = given(rdt.l3_cache_schema()) {
        lines.push(one_line("l3CacheSchema", &cache)?);
    }
    if let Some(bandwidth) = given(rdt.mem_bw_schema()) {
        if !bandwidth.starts_with("MB:") {
            return Err(Error::config(format!(
                "intelRdt: memBwSchema {bandwidth:?} does not start with MB:"
            )));
        }
        lines.push(one_line("memBwSchema", &bandwidth)?);
    }
    Ok(lines)
}

fn one_line(field: &str, text: &str) -> Result<String> {
    if text.contains(['\n', '\0']) {
        return Err(Error::config(format!("intelRdt: {field} {text:?} is not one line")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn planned(rdt: Value, exists: bool) -> Result<Plan> {
        let rdt = serde_json::from_value(rdt).unwrap();
        let groups = if exists {
            vec!["c1".to_owned(), "gold".to_owned(), "g".to_owned()]
        } else {
            Vec::new()
        };
        let host = Resctrl { root: "/r".into(), groups };
        plan(RdtRequest { id: "c1", rdt: &rdt, host: Some(&host) })
    }

    #[test]
    fn whose_group_it_is() {
        for (rdt, exists, path, own, make) in [
            (json!({}), false, "/r/c1", true, true),
            (json!({}), true, "/r/c1", false, false),
            (json!({"closID": "/"}), true, "/r", false, false),
            (json!({"closID": "gold"}), true, "/r/gold", false, false),
            (json!({"closID": "gold", "schemata": ["L3:0=f"]}), false, "/r/gold", false, true),
        ] {
            let plan = planned(rdt.clone(), exists).unwrap();
            assert_eq!(plan.group.path, Path::new(path), "{rdt}");
            assert_eq!((plan.group.own, plan.make), (own, make), "{rdt}");
            assert_eq!(plan.group.monitor, None);
        }
        let plan = planned(json!({"enableMonitoring": true, "closID": "g"}), true).unwrap();
        assert_eq!(plan.group.monitor.as_deref(), Some(Path::new("/r/g/mon_groups/c1")));
        assert_eq!(plan.to_string(), "join resctrl group /r/g, monitored");
    }

    #[test]
    fn schemata_come_last() {
        let rdt = json!({"schemata": ["L2:0=3", "MB:0=20"], "memBwSchema": "MB:0=70",
                         "l3CacheSchema": "L3:0=7f0", "closID": "gold"});
        let plan = planned(rdt, true).unwrap();
        assert_eq!(plan.schemata, ["L3:0=7f0", "MB:0=70", "L2:0=3", "MB:0=20"]);
        assert_eq!(plan.compare, ["L3:0=7f0", "MB:0=70"]);
    }

    #[test]
    fn what_is_refused() {
        for (rdt, words) in [
            (json!({"closID": "gold"}), "no group /r/gold"),
            (json!({"closID": ".."}), "closID \"..\""),
            (json!({"closID": "a/b"}), "closID \"a/b\""),
            (json!({"memBwSchema": "L3:0=1"}), "does not start with MB:"),
            (json!({"memBwSchema": "MB:0=1\nL3:0=1"}), "memBwSchema"),
            (json!({"l3CacheSchema": "L3:0=1\n"}), "l3CacheSchema"),
            (json!({"schemata": ["a", "b\nc"]}), "schemata"),
        ] {
            let text = planned(rdt, false).unwrap_err().to_string();
            assert!(text.starts_with("intelRdt: ") && text.contains(words), "{text}");
        }
        let rdt = LinuxIntelRdt::default();
        let text = plan(RdtRequest { id: "c1", rdt: &rdt, host: None }).unwrap_err().to_string();
        assert!(text.contains("Intel RDT is not enabled"), "{text}");
    }
}
