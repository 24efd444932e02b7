//! Compiles `linux.cgroupsPath` and `linux.resources` to directories and writes. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::devices::Filter;
use super::layout::{Hierarchy, MOUNT, clean};
use super::{Driver, Layout, Paths, Step, Version, Write, systemd, v1, v2};
use crate::error::{Error, Result};

/// Settings of the config and of the command line that decide the cgroup.
pub struct CgroupRequest<'a> {
    pub id: &'a str,
    pub cgroups_path: Option<&'a Path>,
    pub resources: Option<&'a LinuxResources>,
    pub layout: &'a Layout,
    /// Host user to which the container's cgroup is delegated, on cgroup v2.
    pub owner: Option<u32>,
    /// True with rootless cgroups (`--rootless`): the container continues without cgroups that are not permitted.
    pub rootless: bool,
    /// True if no cgroup is created: the container stays in its caller's.
    pub none: bool,
    /// True if the caller can create and open device nodes: root of the initial user namespace.
    pub may_use_devices: bool,
    /// systemd and annotations for `--systemd-cgroup`.
    pub systemd: Option<systemd::plan::UnitRequest<'a>>,
}

/// Directories, limits and device filter of a container, decided before the clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub driver: Driver,
    pub version: Version,
    /// Paths for the record of intent.
    pub paths: Paths,
    /// Directories to create, one in each hierarchy.
    pub targets: Vec<Target>,
    /// Steps of the child, in order: [`super::child::run`].
    pub steps: Vec<Step>,
    /// Writes before the first process joins.
    pub before_join: Vec<Write>,
    /// Writes before the container's program runs.
    pub writes: Vec<Write>,
    pub devices: Filter,
    pub owner: Option<u32>,
    pub rootless: bool,
    /// True if no path was requested: without the permission to create the cgroup, the container has none.
    pub optional: bool,
    pub warnings: Vec<String>,
}

impl Plan {
    /// Returns the memory limit in bytes. The last write counts, as in the kernel.
    pub fn memory_limit(&self) -> Option<u64> {
        let is_limit = |w: &&Write| matches!(&*w.file, "memory.max" | "memory.limit_in_bytes");
        self.writes.iter().rfind(is_limit)?.value.parse().ok()
    }
}

/// Directory of the container in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Names of the hierarchy in [`Paths`].
    pub names: Vec<String>,
    pub mount: PathBuf,
    pub dir: PathBuf,
}

impl Target {
    /// Returns true for the cgroup2 hierarchy.
    pub fn is_version2(&self) -> bool {
        self.names.iter().all(String::is_empty)
    }

    /// Returns true if the hierarchy has this v1 controller.
    pub fn carries(&self, controller: &str) -> bool {
        self.names.iter().any(|n| n == controller)
    }
}

/// Compiles the limits that `update` changes; device rules are never among them.
///
/// # Errors
///
/// A value is out of range, or the cgroup version has no equivalent of it.
pub fn limits(version: Version, resources: &LinuxResources) -> Result<Vec<Write>> {
    match version {
        Version::V2 => v2::writes(resources),
        Version::V1 => {
            let mut writes = v1::before_join(resources);
            writes.extend(v1::writes(resources)?);
            Ok(writes)
        }
    }
}

/// Plans the cgroup of a container.
///
/// # Errors
///
/// The path or a limit is invalid, a controller for a limit is missing, or device rules could not be enforced.
pub fn plan(input: &CgroupRequest) -> Result<Plan> {
    if input.none {
        return Ok(without_cgroup(input));
    }
    let place = input.systemd.as_ref();
    let place =
        place.map(|s| systemd::plan::place(input.id, input.cgroups_path, s.manager)).transpose()?;
    let path = match &place {
        Some(place) => Some(&*place.cgroup),
        None => input.cgroups_path.filter(|p| !p.as_os_str().is_empty()),
    };
    let targets = targets(input, path)?;
    let paths: Paths =
        targets.iter().flat_map(|t| t.names.iter().map(|n| (n.clone(), t.dir.clone()))).collect();
    let version = version(input.layout);
    if version == Version::V1 && input.systemd.as_ref().is_some_and(|s| s.manager.user) {
        return Err(Error::system("a user's systemd cannot make cgroups on a cgroup v1 host")
            .hint("boot with systemd.unified_cgroup_hierarchy=1, or leave --systemd-cgroup out"));
    }
    let optional = input.rootless && path.is_none();
    if targets.is_empty() && !optional {
        return Err(Error::system("no cgroup mount found in mountinfo")
            .hint("mount cgroup2 at /sys/fs/cgroup: mount -t cgroup2 none /sys/fs/cgroup"));
    }

    let by_systemd = input.systemd.as_ref().and(input.resources).map(systemd::properties::kept);
    let (before_join, writes) = match (by_systemd.as_ref().or(input.resources), version) {
        (None, _) => (Vec::new(), Vec::new()),
        (Some(r), Version::V2) => (Vec::new(), v2::writes(r)?),
        (Some(r), Version::V1) => (v1::before_join(r), v1::writes(r)?),
    };
    if version == Version::V1 {
        require_mounted(before_join.iter().chain(&writes), &paths)?;
    }
    let rules = input.resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let devices = Filter::compile(rules)?;
    if version == Version::V1 && input.may_use_devices && !devices.permits_all() {
        require_device_controller(&paths)?;
    }
    let driver = match (&place, &input.systemd) {
        (Some(place), Some(asked)) => {
            let writes = before_join.iter().chain(&writes);
            let unit = systemd::plan::unit(place, asked, version, writes, &devices)?;
            Driver::Systemd(unit)
        }
        _ => Driver::Cgroupfs,
    };
    Ok(Plan {
        owner: input.owner.filter(|_| version == Version::V2),
        driver,
        version,
        steps: steps(&targets),
        targets,
        paths,
        before_join,
        writes,
        devices,
        rootless: input.rootless,
        optional,
        warnings: warnings(version, input.resources),
    })
}

fn version(layout: &Layout) -> Version {
    match layout {
        Layout::Unified { .. } => Version::V2,
        Layout::Legacy { .. } => Version::V1,
    }
}

/// Plans a container without a cgroup of its own: settings that need one are left out, with a warning.
fn without_cgroup(input: &CgroupRequest) -> Plan {
    let asked = input.resources.is_some_and(|resources| {
        let mut limits = resources.clone();
        limits.set_devices(None);
        limits != LinuxResources::default()
    });
    let told = "--cgroup-manager=disabled: the limits of linux.resources are not in force";
    Plan {
        driver: Driver::Cgroupfs,
        version: version(input.layout),
        paths: Paths::new(),
        targets: Vec::new(),
        steps: Vec::new(),
        before_join: Vec::new(),
        writes: Vec::new(),
        devices: Filter::default(),
        owner: None,
        rootless: input.rootless,
        optional: true,
        warnings: if asked { vec![told.to_owned()] } else { Vec::new() },
    }
}

fn targets(input: &CgroupRequest, path: Option<&Path>) -> Result<Vec<Target>> {
    let hierarchies = match input.layout {
        Layout::Unified { own } => {
            // The runtime's own cgroup contains processes, so no controller can be enabled for its children. A path
            // that is relative to it is resolved beside it.
            let own = own.as_deref().unwrap_or(Path::new("/"));
            let base = own.parent().unwrap_or(own);
            &[Hierarchy { names: vec![String::new()], mount: MOUNT.into(), own: base.into() }][..]
        }
        Layout::Legacy { hierarchies } => hierarchies,
    };
    hierarchies
        .iter()
        .map(|h| {
            let inner = match path {
                Some(path) if path.is_absolute() => clean(path),
                Some(path) => join(&h.own, path),
                None => join(&h.own, Path::new(input.id)),
            };
            if inner == Path::new("/") {
                let path = path.unwrap_or(Path::new("")).display();
                return Err(Error::config(format!(
                    "invalid cgroupsPath {:?}: it is the root cgroup",
                    path.to_string()
                )));
            }
            let dir = join(&h.mount, &inner);
            Ok(Target { names: h.names.clone(), mount: h.mount.clone(), dir })
        })
        .collect()
}

/// Returns the path below `base`; the path cannot lead out of it.
fn join(base: &Path, path: &Path) -> PathBuf {
    let path = clean(path);
    base.join(path.strip_prefix("/").unwrap_or(&path))
}

fn steps(targets: &[Target]) -> Vec<Step> {
    let legacy = targets.iter().filter(|t| !t.is_version2());
    legacy.enumerate().map(|(index, t)| Step::Join { index, path: t.dir.clone() }).collect()
}

/// Returns true if the controller is available. On v1 it is, if a hierarchy is mounted for it.
fn require_mounted<'a>(writes: impl Iterator<Item = &'a Write>, paths: &Paths) -> Result<()> {
    for write in writes.filter(|w| w.needs_controller()) {
        let controller = &*write.controller;
        if !paths.contains_key(controller) {
            let text =
                format!("cannot set {controller} limit: container could not join or create cgroup");
            return Err(Error::system(text).hint(format!(
                "no cgroup v1 hierarchy with the controller {controller} is mounted below \
                 {MOUNT}: mount one, or take {} out of linux.resources",
                write.file
            )));
        }
    }
    Ok(())
}

/// Rejects a container without a device filter: by default it may create device nodes, so it could open every device
/// of the host.
fn require_device_controller(paths: &Paths) -> Result<()> {
    if paths.contains_key("devices") {
        return Ok(());
    }
    let text = format!(
        "cannot restrict the container's devices: no cgroup v1 hierarchy with the devices controller \
         is mounted below {MOUNT}: mountpoint for devices not found"
    );
    Err(Error::system(text).hint(format!(
        "mount one: mkdir -p {MOUNT}/devices && mount -t cgroup -o devices cgroup {MOUNT}/devices"
    )))
}

fn warnings(version: Version, resources: Option<&LinuxResources>) -> Vec<String> {
    match (version, resources) {
        (Version::V2, Some(r)) => {
            let ignored = v2::ignored(r).into_iter();
            let ignored = ignored
                .map(|name| format!("linux.resources.{name} has no meaning on cgroup v2: ignored"));
            ignored.chain(contradiction(version, r)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns warnings, in runc's words, for limits that exclude each other.
pub fn contradiction(version: Version, resources: &LinuxResources) -> Option<String> {
    let given_up = version == Version::V2 && v2::gives_up_weight(resources);
    given_up.then(|| "unable to apply both cpu.weight and cpu.idle, ignoring cpu.weight".to_owned())
}

/// Formats one line for each effect, in order.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directories: BTreeMap<&Path, ()> =
            self.targets.iter().map(|t| (t.dir.as_path(), ())).collect();
        for dir in directories.keys() {
            writeln!(f, "cgroup: make {}", dir.display())?;
        }
        if let Some(owner) = self.owner {
            writeln!(f, "cgroup: delegate to user {owner}")?;
        }
        if let Driver::Systemd(unit) = &self.driver {
            writeln!(f, "{unit}")?;
        }
        let (late, early): (Vec<_>, Vec<_>) = self.writes.iter().partition(|w| w.is_memory());
        for write in self.before_join.iter().chain(early) {
            writeln!(f, "{write}")?;
        }
        writeln!(f, "{}", self.devices)?;
        late.into_iter().try_for_each(|write| writeln!(f, "{write}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unified(own: &str) -> Layout {
        Layout::Unified { own: Some(own.into()) }
    }

    fn hybrid() -> Layout {
        let hierarchy = |names: &[&str], mount: &str, own: &str| Hierarchy {
            names: names.iter().map(|n| n.to_string()).collect(),
            mount: mount.into(),
            own: own.into(),
        };
        Layout::Legacy {
            hierarchies: vec![
                hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/"),
                hierarchy(&["memory"], "/sys/fs/cgroup/memory", "/own"),
                hierarchy(&["devices"], "/sys/fs/cgroup/devices", "/"),
                hierarchy(&[""], "/sys/fs/cgroup/unified", "/"),
            ],
        }
    }

    fn planned(layout: &Layout, path: Option<&str>, resources: serde_json::Value) -> Result<Plan> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        plan(&CgroupRequest {
            id: "box",
            cgroups_path: path.map(Path::new),
            resources: Some(&resources),
            layout,
            owner: None,
            rootless: false,
            none: false,
            may_use_devices: true,
            systemd: None,
        })
    }

    fn path_of(layout: &Layout, path: Option<&str>) -> PathBuf {
        planned(layout, path, json!({})).unwrap().paths[""].clone()
    }

    #[test]
    fn paths_on_cgroup2() {
        let layout = unified("/user.slice/session");
        for (path, expected) in [
            (None, "/sys/fs/cgroup/user.slice/box"),
            (Some(""), "/sys/fs/cgroup/user.slice/box"),
            (Some("/a/b"), "/sys/fs/cgroup/a/b"),
            (Some("a/b"), "/sys/fs/cgroup/user.slice/a/b"),
            (Some("/a/../../etc"), "/sys/fs/cgroup/etc"),
            (Some("../../etc"), "/sys/fs/cgroup/user.slice/etc"),
            (Some("/kube.slice:cri:id"), "/sys/fs/cgroup/kube.slice:cri:id"),
            (Some("kube.slice:cri:id"), "/sys/fs/cgroup/user.slice/kube.slice:cri:id"),
        ] {
            assert_eq!(path_of(&layout, path), Path::new(expected), "{path:?}");
        }
        assert_eq!(path_of(&unified("/"), None), Path::new("/sys/fs/cgroup/box"));
        for path in ["/", "/..", "/a/.."] {
            let text = planned(&layout, Some(path), json!({})).unwrap_err().to_string();
            assert_eq!(text, format!("invalid cgroupsPath {path:?}: it is the root cgroup"));
        }
    }

    #[test]
    fn paths_on_a_hybrid_host_are_those_of_runc() {
        let at = |path| {
            let paths = planned(&hybrid(), path, json!({})).unwrap().paths;
            paths.iter().map(|(n, p)| format!("{n}={}", p.display())).collect::<Vec<_>>()
        };
        assert_eq!(
            at(None),
            [
                "=/sys/fs/cgroup/unified/box",
                "cpu=/sys/fs/cgroup/cpu,cpuacct/box",
                "cpuacct=/sys/fs/cgroup/cpu,cpuacct/box",
                "devices=/sys/fs/cgroup/devices/box",
                "memory=/sys/fs/cgroup/memory/own/box",
            ]
        );
        assert_eq!(at(Some("a"))[4], "memory=/sys/fs/cgroup/memory/own/a");
        assert_eq!(at(Some("/a"))[4], "memory=/sys/fs/cgroup/memory/a");
    }

    #[test]
    fn one_step_for_each_v1_hierarchy() {
        let steps = planned(&hybrid(), None, json!({})).unwrap().steps;
        let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
        assert_eq!(
            steps,
            [
                "join cgroup /sys/fs/cgroup/cpu,cpuacct/box",
                "join cgroup /sys/fs/cgroup/memory/own/box",
                "join cgroup /sys/fs/cgroup/devices/box"
            ]
        );
        assert!(planned(&unified("/"), None, json!({})).unwrap().steps.is_empty());
    }

    #[test]
    fn a_controller_without_hierarchy() {
        let e = planned(&hybrid(), None, json!({"pids": {"limit": 3}})).unwrap_err();
        assert_eq!(
            e.to_string(),
            "cannot set pids limit: container could not join or create cgroup"
        );
        assert!(e.advice().unwrap().contains("take pids.max out of linux.resources"));
        // No requests for what is so anyway.
        let lifted = json!({"memory": {"limit": -1}});
        assert!(planned(&hybrid(), None, lifted).is_ok());
    }

    #[test]
    fn devices_are_restricted_or_nothing_starts() {
        let Layout::Legacy { mut hierarchies } = hybrid() else { panic!("not legacy") };
        hierarchies.retain(|h| h.names != ["devices"]);
        let layout = Layout::Legacy { hierarchies };
        let e = planned(&layout, None, json!({})).unwrap_err();
        assert!(e.to_string().ends_with("mountpoint for devices not found"), "{e}");
        assert!(e.advice().unwrap().contains("mount -t cgroup -o devices"));
        let all = json!({"devices": [{"allow": true, "access": "rwm"}]});
        assert!(planned(&layout, None, all).is_ok());
        let unprivileged = CgroupRequest {
            id: "box",
            cgroups_path: None,
            resources: None,
            layout: &layout,
            owner: None,
            rootless: false,
            none: false,
            may_use_devices: false,
            systemd: None,
        };
        assert!(plan(&unprivileged).is_ok());
    }

    #[test]
    fn a_host_without_cgroups() {
        let none = Layout::Legacy { hierarchies: vec![] };
        let e = planned(&none, None, json!({})).unwrap_err();
        assert_eq!(e.to_string(), "no cgroup mount found in mountinfo");
        let rootless = CgroupRequest {
            id: "box",
            cgroups_path: None,
            resources: None,
            layout: &none,
            owner: None,
            rootless: true,
            none: false,
            may_use_devices: false,
            systemd: None,
        };
        assert!(plan(&rootless).unwrap().paths.is_empty());
        let limited = serde_json::from_value(json!({"pids": {"limit": 1}})).unwrap();
        let disabled =
            CgroupRequest { rootless: false, none: true, resources: Some(&limited), ..rootless };
        let without_cgroup = plan(&disabled).unwrap();
        assert!(
            without_cgroup.paths.is_empty()
                && without_cgroup.writes.is_empty()
                && without_cgroup.targets.is_empty()
        );
        assert!(without_cgroup.warnings[0].contains("linux.resources are not in force"));
    }

    #[test]
    fn a_plan_as_text() {
        let plan = planned(
            &unified("/"),
            Some("/a"),
            json!({"memory": {"limit": 5, "swappiness": 1}, "pids": {"limit": 6}, "devices": [{"allow": true, "access": "rwm"}]}),
        )
        .unwrap();
        assert_eq!(
            plan.to_string(),
            "cgroup: make /sys/fs/cgroup/a\ncgroup: pids.max = 6\ncgroup: devices: allow all\n\
             cgroup: memory.max = 5\n"
        );
        assert_eq!(plan.memory_limit(), Some(5));
        assert_eq!(
            plan.warnings,
            ["linux.resources.memory.swappiness has no meaning on cgroup v2: ignored"]
        );
    }
}
