//! Creates, changes, joins and removes groups of resctrl.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;

use super::{Group, Plan, Resctrl, schemas};
use crate::error::{Context, Error, OsContext, Result};
use crate::id::HostPid;

/// Finds the mount of resctrl and lists its groups. `None` if it is not mounted.
///
/// # Errors
///
/// An error of reading /proc/self/mountinfo or the mount point.
pub fn find() -> Result<Option<Resctrl>> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(path).os("read", path)?;
    mounted_in(&text).map(|root| groups(Path::new(root))).transpose()
}

fn groups(root: &Path) -> Result<Resctrl> {
    let entries = std::fs::read_dir(root).os("open", root.display())?.flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let groups = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    Ok(Resctrl { root: root.to_owned(), groups })
}

fn mounted_in(mountinfo: &str) -> Option<&str> {
    let line = mountinfo.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4)
}

/// Directories of groups that this process created, which are removed if the creation of the container fails.
#[must_use]
#[derive(Debug, Default)]
pub struct CreatedGroups(Vec<PathBuf>);

/// Creates the groups, or checks existing ones, and writes their schemata.
///
/// # Errors
///
/// An existing group has other schemata, or the kernel rejects the schemata or has no free group (`ENOSPC`). Created
/// directories are removed.
pub fn prepare(plan: &Plan) -> Result<CreatedGroups> {
    let mut created = CreatedGroups::default();
    let prepared = prepare_in(plan, &mut created).map_err(|e| explained(&plan.root, e));
    prepared.inspect_err(|_| created.undo()).map(|()| created)
}

fn prepare_in(plan: &Plan, created: &mut CreatedGroups) -> Result<()> {
    let group = &plan.group;
    if plan.make {
        created.add(&group.path)?;
    }
    let schemata = group.path.join("schemata");
    if !plan.compare.is_empty() {
        let text = std::fs::read_to_string(&schemata).os("read", schemata.display())?;
        if let Some(line) = plan.compare.iter().find(|line| !contains(&text, line)) {
            return Err(Error::config(format!(
                "intelRdt: group {} exists with a schemata other than {line}",
                group.path.display()
            ))
            .hint("use another closID, or remove l3CacheSchema and memBwSchema"));
        }
    }
    if !plan.schemata.is_empty() {
        let text = plan.schemata.join("\n") + "\n";
        write(&schemata, &text)?;
    }
    match &group.monitor {
        Some(monitor) => created.add(monitor),
        None => Ok(()),
    }
}

impl CreatedGroups {
    fn add(&mut self, path: &Path) -> Result<()> {
        std::fs::create_dir(path).os("mkdir", path.display()).context(|| "intelRdt".to_owned())?;
        self.0.push(path.to_owned());
        Ok(())
    }

    /// Removes the created directories. Errors are ignored.
    pub fn undo(&self) {
        // An earlier error is the one to report.
        self.0.iter().rev().for_each(|path| drop(std::fs::remove_dir(path)));
    }
}

/// Checks that the host supports the schemata of an update. Errors are in runc's words.
///
/// # Errors
///
/// The update has a schema that the host does not support.
pub fn check(host: Option<&Resctrl>, rdt: &LinuxIntelRdt) -> Result<()> {
    for (schema, kind, what) in [
        (rdt.l3_cache_schema(), "L3", "CAT: l3 cache"),
        (rdt.mem_bw_schema(), "MB", "MBA: memory bandwidth"),
    ] {
        let there = host.is_some_and(|host| host.root.join("info").join(kind).exists());
        if schema.is_some() && !there {
            return Err(Error::config(format!("Intel RDT/{what} schema is not enabled")).hint(
                "mount it on a processor with Intel RDT: mount -t resctrl resctrl /sys/fs/resctrl",
            ));
        }
    }
    Ok(())
}

/// Writes other schemata to an existing group.
///
/// # Errors
///
/// A schema is invalid, or the kernel rejects it.
pub fn change(group: &Group, host: &Resctrl, rdt: &LinuxIntelRdt) -> Result<()> {
    let text = schemas(rdt)?.join("\n") + "\n";
    write(&group.path.join("schemata"), &text).map_err(|e| explained(&host.root, e))
}

/// Moves the process into the group, then into its monitoring group. The kernel requires this order.
///
/// # Errors
///
/// An error of write(2) to `tasks`.
pub fn join(group: &Group, pid: HostPid) -> Result<()> {
    [Some(&group.path), group.monitor.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|directory| write(&directory.join("tasks"), &pid.to_string()))
}

/// Removes the directories that belong to the container. A missing directory is not an error.
///
/// # Errors
///
/// An error of rmdir(2) other than `ENOENT`.
pub fn remove(group: &Group) -> Result<()> {
    [group.monitor.as_ref(), Some(&group.path).filter(|_| group.own)]
        .into_iter()
        .flatten()
        .try_for_each(|path| match std::fs::remove_dir(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other.os("rmdir", path.display()),
        })
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text)
        .os("write", file.display())
        .context(|| format!("intelRdt: {}", text.trim_end().replace('\n', " ")))
}

/// Adds resctrl's description of its last error as a hint.
fn explained(root: &Path, error: Error) -> Error {
    match std::fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(text) if text.trim() != "ok" => error.hint(format!("resctrl says: {}", text.trim())),
        _ => error,
    }
}

/// Returns true if `text` contains all values of the line `wanted`, such as `MB:0=20;1=70`. It may contain others too.
fn contains(text: &str, wanted: &str) -> bool {
    let Some((name, wanted)) = wanted.split_once(':') else { return false };
    let found = text.lines().filter_map(|line| line.trim_start().split_once(':'));
    let mut found = found.filter(|(other, _)| *other == name.trim());
    found.next().is_some_and(|(_, found)| {
        wanted.split(';').all(|wanted| found.split(';').any(|found| same(found, wanted)))
    })
}

/// Compares two values without leading zeros: the kernel writes `0=0ff` for `0=ff`.
fn same(a: &str, b: &str) -> bool {
    let read = |text: &str| {
        let (domain, value) = text.split_once('=')?;
        let value = value.trim().to_ascii_lowercase();
        Some((domain.trim().to_owned(), value.trim_start_matches('0').to_owned()))
    };
    read(a).is_some() && read(a) == read(b)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{RdtRequest, plan};
    use super::*;

    /// Directory with the layout of resctrl. The kernel creates the files of a new group; here the test creates them,
    /// and [`Tree::drop`] removes them.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let name = format!("aril-resctrl-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            std::fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
            std::fs::create_dir_all(root.join("info")).unwrap();
            std::fs::write(root.join("gold/schemata"), "    L3:0=0ff;1=00f\n    MB:0= 20\n")
                .unwrap();
            std::fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
            Self(root)
        }

        fn plan(&self, rdt: Value) -> Plan {
            let rdt = serde_json::from_value(rdt).unwrap();
            let host = groups(&self.0).unwrap();
            plan(RdtRequest { id: "c1", rdt: &rdt, host: Some(&host) }).unwrap()
        }

        fn text(&self, file: &str) -> String {
            std::fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_group_of_its_own() {
        let tree = Tree::new("own");
        let plan = tree.plan(json!({"l3CacheSchema": "L3:0=f", "schemata": ["MB:0=10"]}));
        let created = prepare(&plan).unwrap();
        join(&plan.group, HostPid(77)).unwrap();
        assert_eq!(tree.text("c1/schemata"), "L3:0=f\nMB:0=10\n");
        assert_eq!(tree.text("c1/tasks"), "77");
        // Files that resctrl removes with their directory.
        for file in ["schemata", "tasks"] {
            std::fs::remove_file(tree.0.join("c1").join(file)).unwrap();
        }
        remove(&plan.group).unwrap();
        remove(&plan.group).unwrap();
        assert!(!tree.0.join("c1").exists());
        drop(created);
    }

    #[test]
    fn a_group_of_others_stays_but_for_its_monitor() {
        let tree = Tree::new("shared");
        let plan = tree.plan(json!({"closID": "gold", "enableMonitoring": true,
                                    "l3CacheSchema": "L3:1=f;0=FF", "memBwSchema": "MB:0=20"}));
        let created = prepare(&plan).unwrap();
        assert!(tree.0.join("gold/mon_groups/c1").is_dir());
        join(&plan.group, HostPid(78)).unwrap();
        assert_eq!(tree.text("gold/tasks"), tree.text("gold/mon_groups/c1/tasks"));
        std::fs::remove_file(tree.0.join("gold/mon_groups/c1/tasks")).unwrap();
        remove(&plan.group).unwrap();
        assert!(tree.0.join("gold").is_dir() && !tree.0.join("gold/mon_groups/c1").exists());
        drop(created);
    }

    #[test]
    fn a_group_that_decides_otherwise() {
        let tree = Tree::new("other");
        for schema in ["L3:0=fe", "L3:2=f", "L2:0=f"] {
            let plan = tree.plan(json!({"closID": "gold", "l3CacheSchema": schema}));
            let text = prepare(&plan).unwrap_err().to_string();
            assert!(text.ends_with(&format!("a schemata other than {schema}")), "{text}");
        }
    }

    #[test]
    fn what_resctrl_refuses_is_undone_and_explained() {
        let tree = Tree::new("full");
        std::fs::remove_dir(tree.0.join("gold/mon_groups")).unwrap();
        std::fs::write(tree.0.join("info/last_cmd_status"), "Out of RMIDs\n").unwrap();
        let plan = tree.plan(json!({"closID": "gold", "enableMonitoring": true}));
        let error = prepare(&plan).unwrap_err();
        assert_eq!(error.advice(), Some("resctrl says: Out of RMIDs"));
        let mut plan = tree.plan(json!({"enableMonitoring": true}));
        plan.group.monitor = Some(tree.0.join("nowhere/c1"));
        assert!(prepare(&plan).unwrap_err().to_string().starts_with("intelRdt: mkdir"));
        assert!(!tree.0.join("c1").exists(), "the first directory is gone again");
    }

    #[test]
    fn an_update_of_what_the_host_has() {
        let tree = Tree::new("update");
        let host = groups(&tree.0).unwrap();
        let group = tree.plan(json!({"closID": "gold"})).group;
        let rdt: LinuxIntelRdt =
            serde_json::from_value(json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=10"}))
                .unwrap();
        for (kind, missing) in [
            ("info/L3", Some("Intel RDT/CAT: l3 cache schema is not enabled")),
            ("info/MB", Some("Intel RDT/MBA: memory bandwidth schema is not enabled")),
            ("info/L3_MON", None),
        ] {
            let refused = check(Some(&host), &rdt).err().map(|e| e.to_string());
            assert_eq!(refused.as_deref(), missing);
            std::fs::create_dir(tree.0.join(kind)).unwrap();
        }
        assert!(check(None, &rdt).is_err());
        change(&group, &host, &rdt).unwrap();
        assert_eq!(tree.text("gold/schemata"), "L3:0=f\nMB:0=10\n");
    }

    #[test]
    fn the_mount_point() {
        let line = "52 25 0:45 / /sys/fs/resctrl rw,relatime shared:26 - resctrl resctrl rw\n";
        assert_eq!(mounted_in(line), Some("/sys/fs/resctrl"));
        assert_eq!(mounted_in(&line.replace("- resctrl", "- tmpfs")), None);
    }
}
