//! Plans the namespaces of a container: created or joined, and by which process.

use std::collections::HashMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxTimeOffset};

use super::{Join, Kind, Mapping, Maps, Step, sysctl};
use crate::error::{Error, Result};
use crate::path::{c_path, c_string};

/// Facts about the namespaces that the config names by path.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// True if the joined network namespace is the runtime's own.
    pub joins_host_network: bool,
    /// Mappings of a user namespace that is joined by path.
    pub joined_maps: Option<Maps>,
    /// True if the user namespace that is joined by path denies setgroups(2).
    pub joined_denies_setgroups: bool,
    /// Open file of the network namespace that is joined, instead of the config's path.
    pub opened_network: Option<PathBuf>,
}

/// Fields and facts that the namespaces of a container depend on.
#[derive(Debug, Default)]
pub struct NamespaceRequest<'a> {
    pub namespaces: &'a [LinuxNamespace],
    pub uid_mappings: &'a [LinuxIdMapping],
    pub gid_mappings: &'a [LinuxIdMapping],
    pub time_offsets: Option<&'a HashMap<String, LinuxTimeOffset>>,
    pub hostname: Option<&'a str>,
    pub domainname: Option<&'a str>,
    pub sysctl: Option<&'a HashMap<String, String>>,
    /// True if the runtime is not root.
    pub rootless: bool,
    pub facts: Facts,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Flags for `clone3`: all new namespaces except cgroup and time.
    pub clone_flags: u64,
    pub new_time: bool,
    /// Lines for `/proc/self/timens_offsets`.
    pub time_offsets: Option<String>,
    /// True if a relay joins namespaces before the clone (see the theory of operation).
    pub relay: bool,
    /// True if the process is created non-dumpable. An ordinary user could not write its id mappings and clock offsets then.
    pub hidden: bool,
    /// Namespaces that the cloning process joins: `pid`, and with a relay all of them.
    pub joined_before_clone: Vec<Join>,
    /// Mappings of a new user namespace, which the parent writes.
    pub new_maps: Option<Maps>,
    /// Host ids of the container's ids, for a new or joined user namespace; `None` without one.
    pub maps: Option<Maps>,
    /// True if the user namespace denies setgroups(2). An unprivileged user that maps only its own group must deny it.
    pub denies_setgroups: bool,
    /// First steps of the child: join namespaces, become root, create the cgroup namespace.
    pub enter: Vec<Step>,
    /// Steps that set hostname and domainname.
    pub names: Vec<Step>,
    pub sysctls: Vec<Step>,
    present: Vec<(Kind, bool)>,
}

impl Plan {
    /// Returns true for a new or joined kind, which is not the runtime's.
    pub fn has(&self, kind: Kind) -> bool {
        self.present.iter().any(|(k, _)| *k == kind)
    }

    pub fn is_new(&self, kind: Kind) -> bool {
        self.present.contains(&(kind, true))
    }

    /// Returns the path of the joined namespace of a kind.
    pub fn joined(&self, kind: Kind) -> Option<&CStr> {
        let entered = self.enter.iter().filter_map(|step| match step {
            Step::Join(join) => Some(join),
            _ => None,
        });
        let mut joins = entered.chain(&self.joined_before_clone);
        joins.find(|join| join.kind == kind).map(|join| join.path.as_c_str())
    }

    /// Lists kinds that are not the runtime's; true for new ones.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, bool)> + '_ {
        self.present.iter().copied()
    }
}

/// Plans the namespaces of a container.
///
/// # Errors
///
/// A namespace is listed twice or has a relative path, or a setting needs a namespace that the config lacks.
pub fn plan(request: &NamespaceRequest<'_>) -> Result<Plan> {
    let mut plan = Plan { hidden: !request.rootless, ..Plan::default() };
    let mut joins = Vec::new();
    for namespace in request.namespaces {
        let kind = Kind::from_spec(namespace.typ());
        if plan.has(kind) {
            return Err(Error::config(format!(
                "malformed spec file: duplicated ns {:?}",
                kind.oci()
            )));
        }
        let path = namespace.path().as_deref().filter(|p| !p.as_os_str().is_empty());
        plan.present.push((kind, path.is_none()));
        match path {
            Some(path) => {
                let opened = request.facts.opened_network.as_deref();
                joins.push(join(kind, opened.filter(|_| kind == Kind::Net).unwrap_or(path))?);
            }
            None if kind == Kind::Time => plan.new_time = true,
            None if kind == Kind::Cgroup => {}
            None => plan.clone_flags |= kind.flag() as u64,
        }
    }
    // The user namespace last: the runtime may not be permitted to join the others from it.
    joins.sort_by_key(|j| j.kind == Kind::User);

    user_namespace(request, &mut plan)?;
    time_namespace(request, &mut plan)?;
    place_joins(joins, &mut plan);
    if plan.has(Kind::User) && plan.is_new(Kind::Ipc) {
        plan.clone_flags &= !(Kind::Ipc.flag() as u64);
        plan.enter.push(Step::Unshare(Kind::Ipc));
    }
    if plan.new_time && request.rootless && plan.is_new(Kind::User) {
        plan.new_time = false;
        plan.enter.push(Step::NewTime(plan.time_offsets.take()));
    }
    if plan.is_new(Kind::Cgroup) {
        plan.enter.push(Step::Unshare(Kind::Cgroup));
    }
    names(request, &mut plan)?;
    plan.sysctls =
        sysctl::plan(request.sysctl, &plan, request.facts.joins_host_network, request.domainname)?;
    Ok(plan)
}

fn join(kind: Kind, path: &Path) -> Result<Join> {
    if !path.is_absolute() {
        return Err(Error::config(format!(
            "linux.namespaces: path {path:?} of the {} namespace is not absolute",
            kind.oci()
        )));
    }
    Ok(Join { kind, path: c_path("linux.namespaces: path", path)? })
}

fn user_namespace(request: &NamespaceRequest<'_>, plan: &mut Plan) -> Result<()> {
    let maps = Maps { uid: mappings(request.uid_mappings), gid: mappings(request.gid_mappings) };
    let given = !maps.uid.is_empty() || !maps.gid.is_empty();
    if !plan.has(Kind::User) {
        if request.rootless {
            return Err(Error::config("rootless container requires user namespaces")
                .hint("`aril spec --rootless` writes a config.json with one"));
        }
        return Ok(());
    }
    if plan.is_new(Kind::User) {
        if maps.uid.is_empty() || maps.gid.is_empty() {
            return Err(Error::config(
                "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
            )
            .hint("give linux.uidMappings and linux.gidMappings"));
        }
        for (field, map) in [("uidMappings", &maps.uid), ("gidMappings", &maps.gid)] {
            if super::host_id(map, 0).is_none() {
                return Err(Error::config(format!(
                    "linux.{field}: the container's id 0 is not mapped"
                )));
            }
        }
        plan.denies_setgroups =
            request.rootless && matches!(maps.gid[..], [Mapping { size: 1, .. }]);
        plan.new_maps = Some(maps.clone());
        plan.maps = Some(maps);
        return Ok(());
    }
    let actual = request.facts.joined_maps.clone().unwrap_or_default();
    if given && actual != maps {
        return Err(Error::config(
            "user namespaces enabled, but both namespace path and non-matching mapping specified",
        ));
    }
    plan.maps = Some(actual);
    plan.denies_setgroups = request.facts.joined_denies_setgroups;
    Ok(())
}

fn mappings(spec: &[LinuxIdMapping]) -> Vec<Mapping> {
    spec.iter()
        .map(|m| Mapping { container: m.container_id(), host: m.host_id(), size: m.size() })
        .collect()
}

fn time_namespace(request: &NamespaceRequest<'_>, plan: &mut Plan) -> Result<()> {
    let Some(offsets) = request.time_offsets.filter(|o| !o.is_empty()) else { return Ok(()) };
    if !plan.has(Kind::Time) {
        return Err(Error::config(
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        ));
    }
    if !plan.new_time {
        return Err(Error::config(
            "time namespace enabled, but both namespace path and time offsets specified - you may only provide one",
        ));
    }
    let mut lines = String::new();
    for clock in ["monotonic", "boottime"] {
        if let Some(offset) = offsets.get(clock) {
            let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            lines.push_str(&format!("{clock} {secs} {nanos}\n"));
        }
    }
    if let Some(unknown) = offsets.keys().find(|k| !matches!(k.as_str(), "monotonic" | "boottime"))
    {
        return Err(Error::config(format!(
            "linux.timeOffsets: unknown clock {unknown:?} (monotonic and boottime have offsets)"
        )));
    }
    plan.time_offsets = Some(lines);
    Ok(())
}

fn place_joins(joins: Vec<Join>, plan: &mut Plan) {
    let joins_user = joins.iter().any(|j| j.kind == Kind::User);
    plan.relay = joins_user || (plan.is_new(Kind::User) && !joins.is_empty());
    for join in joins {
        if plan.relay || join.kind == Kind::Pid {
            plan.joined_before_clone.push(join);
        } else {
            plan.enter.push(Step::Join(join));
        }
    }
    if plan.has(Kind::User) {
        plan.enter.insert(0, Step::BecomeRoot);
    }
}

fn names(request: &NamespaceRequest<'_>, plan: &mut Plan) -> Result<()> {
    for (what, name) in [("hostname", request.hostname), ("domainname", request.domainname)] {
        let Some(name) = name.filter(|n| !n.is_empty()) else { continue };
        if !plan.has(Kind::Uts) {
            return Err(Error::config(format!(
                "unable to set {what} without a private UTS namespace"
            )));
        }
        // The kernel's limit, __NEW_UTS_LEN.
        if name.len() > 64 {
            return Err(Error::config(format!("{what} {name:?} is longer than 64 bytes")));
        }
        // Programs write the host name to files line by line, so a line break is rejected.
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::config(format!(
                "invalid {what} {name:?}: it contains white space or a control character"
            )));
        }
        let c_name = c_string(what, name.as_bytes())?;
        plan.names.push(if what == "hostname" {
            Step::Hostname(c_name)
        } else {
            Step::Domainname(c_name)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(json: &str) -> Vec<LinuxNamespace> {
        serde_json::from_str(json).unwrap()
    }

    fn maps(json: &str) -> Vec<LinuxIdMapping> {
        serde_json::from_str(json).unwrap()
    }

    fn refused(request: &NamespaceRequest<'_>) -> String {
        plan(request).unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_one_clone() {
        let ns = namespaces(
            r#"[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}]"#,
        );
        let plan = plan(&NamespaceRequest {
            namespaces: &ns,
            hostname: Some("h"),
            ..NamespaceRequest::default()
        })
        .unwrap();
        let all = libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNS;
        assert_eq!(plan.clone_flags, all as u64);
        assert!(!plan.relay);
        assert_eq!(plan.enter, [Step::Unshare(Kind::Cgroup)]);
        assert_eq!(plan.names[0].to_string(), "hostname h");
    }

    #[test]
    fn a_joined_pid_namespace_is_joined_by_the_parent() {
        let ns = namespaces(
            r#"[{"type":"pid","path":"/proc/1/ns/pid"},{"type":"network","path":"/run/n"},{"type":"mount"}]"#,
        );
        let plan =
            plan(&NamespaceRequest { namespaces: &ns, ..NamespaceRequest::default() }).unwrap();
        assert!(!plan.relay);
        assert_eq!(plan.joined_before_clone[0].kind, Kind::Pid);
        assert_eq!(plan.enter[0].to_string(), "join network namespace /run/n");
        assert!(plan.has(Kind::Net) && !plan.is_new(Kind::Net));
    }

    #[test]
    fn a_user_namespace_with_joins_needs_the_relay() {
        let ns = namespaces(r#"[{"type":"user"},{"type":"ipc"},{"type":"network","path":"/n"}]"#);
        let one = maps(r#"[{"containerID":0,"hostID":1000,"size":1}]"#);
        let request = NamespaceRequest {
            namespaces: &ns,
            uid_mappings: &one,
            gid_mappings: &one,
            ..NamespaceRequest::default()
        };
        let plan = plan(&request).unwrap();
        assert!(plan.relay);
        assert_eq!(plan.enter, [Step::BecomeRoot, Step::Unshare(Kind::Ipc)]);
        assert_eq!(plan.clone_flags, libc::CLONE_NEWUSER as u64);
        assert_eq!(super::super::host_id(&plan.maps.unwrap().uid, 0), Some(1000));
    }

    #[test]
    fn refusals() {
        let twice = namespaces(r#"[{"type":"pid"},{"type":"pid"}]"#);
        assert!(
            refused(&NamespaceRequest { namespaces: &twice, ..NamespaceRequest::default() })
                .contains("duplicated ns")
        );
        let user = namespaces(r#"[{"type":"user"}]"#);
        assert!(
            refused(&NamespaceRequest { namespaces: &user, ..NamespaceRequest::default() })
                .contains("no namespace path to join nor mappings")
        );
        let one = maps(r#"[{"containerID":0,"hostID":1000,"size":1}]"#);
        assert!(
            plan(&NamespaceRequest {
                uid_mappings: &one,
                gid_mappings: &one,
                ..NamespaceRequest::default()
            })
            .is_ok()
        );
        let rootless = NamespaceRequest { rootless: true, ..NamespaceRequest::default() };
        assert_eq!(refused(&rootless), "rootless container requires user namespaces");
        assert_eq!(
            refused(&NamespaceRequest { hostname: Some("x"), ..NamespaceRequest::default() }),
            "unable to set hostname without a private UTS namespace"
        );
        let relative = namespaces(r#"[{"type":"pid","path":"x"}]"#);
        assert!(
            refused(&NamespaceRequest { namespaces: &relative, ..NamespaceRequest::default() })
                .contains("not absolute")
        );
    }
}
