//! Applies options of `run` and `create` to a spec, without system calls.
//!
//! With `--rootfs`, Aril makes the spec itself ([`default_spec`]). With a bundle, options have priority over its
//! config.json.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxResources,
    Mount, PosixRlimit, Process, Spec, User,
};

use super::defaults;
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// Options as the user gave them. An option that was not given changes nothing.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Edits {
    /// Set if Aril makes the spec itself.
    pub default_spec: Option<DefaultSpec>,
    /// Program and its arguments. Empty for those of the spec.
    pub args: Vec<String>,
    /// Limits without devices. Fields that are not set do not change.
    pub limits: Option<Box<LinuxResources>>,
    pub env: Vec<String>,
    pub workdir: Option<PathBuf>,
    pub user: Option<Account>,
    pub hostname: Option<String>,
    pub read_only: bool,
    pub tty: Option<bool>,
    /// Names with or without `CAP_`, in any case, or `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub mounts: Vec<Mount>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    pub devices: Vec<Device>,
    /// True to bind-mount devices, because the container cannot create device nodes.
    pub binds_devices: bool,
    /// Supplementary groups in addition to those of the user.
    pub groups: Vec<u32>,
    pub rlimits: Vec<PosixRlimit>,
    pub sysctls: Vec<(String, String)>,
}

/// Device of the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Path on the host.
    pub source: PathBuf,
    /// Device node in the container.
    pub node: LinuxDevice,
    /// Access: letters of `rwm`.
    pub access: String,
}

/// Data of a spec that Aril makes itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DefaultSpec {
    pub root: PathBuf,
    /// Name of the container, which becomes its host name.
    pub name: String,
    /// Masked paths that depend on the host's hardware, in addition to those of every container.
    pub masked: Vec<String>,
}

/// User by IDs, with its groups.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

impl Edits {
    /// Applies the options.
    ///
    /// # Errors
    ///
    /// The spec lacks `process`, a capability is unknown, or there is no tmpfs at /dev/shm to set the size of.
    pub fn apply(&self, spec: &mut Spec) -> Result<()> {
        if let Some(defaults) = &self.default_spec {
            default_spec(spec, defaults)?;
        }
        self.set_root(spec);
        self.set_mounts(spec);
        self.set_shm_size(spec)?;
        self.set_limits(spec)?;
        self.set_devices(spec);
        self.set_sysctls(spec);
        if let Some(name) = &self.hostname {
            spec.set_hostname(Some(name.clone()));
        }
        let mut process = spec
            .process()
            .clone()
            .ok_or_else(|| Error::config("process property must not be empty"))?;
        self.set_process(&mut process)?;
        spec.set_process(Some(process));
        self.set_seccomp_profile(spec)
    }

    fn set_root(&self, spec: &mut Spec) {
        if self.read_only
            && let Some(root) = spec.root_mut()
        {
            root.set_readonly(Some(true));
        }
    }

    /// Adds the mounts. One with the destination of a mount of the config replaces it.
    fn set_mounts(&self, spec: &mut Spec) {
        if self.mounts.is_empty() {
            return;
        }
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.retain(|old| !self.mounts.iter().any(|new| new.destination() == old.destination()));
        mounts.extend(self.mounts.iter().cloned());
        spec.set_mounts(Some(mounts));
    }

    fn set_shm_size(&self, spec: &mut Spec) -> Result<()> {
        let Some(size) = self.shm_size else { return Ok(()) };
        let is_shm = |mount: &&mut Mount| {
            mount.destination() == Path::new("/dev/shm") && mount.typ().as_deref() == Some("tmpfs")
        };
        let mount = spec.mounts_mut().iter_mut().flatten().find(is_shm);
        let mount = mount.ok_or_else(|| {
            Error::new(
                Kind::Usage,
                "cannot apply --shm-size: the container has no tmpfs at /dev/shm",
            )
        })?;
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| !option.starts_with("size="));
        options.push(format!("size={size}"));
        mount.set_options(Some(options));
        Ok(())
    }

    /// Adds a device rule for each device, and a device node or a bind mount.
    fn set_devices(&self, spec: &mut Spec) {
        if self.devices.is_empty() {
            return;
        }
        let Some(linux) = spec.linux_mut() else { return };
        let mut nodes = linux.devices().clone().unwrap_or_default();
        let mut resources = linux.resources().clone().unwrap_or_else(no_resources);
        let mut rules = resources.devices().clone().unwrap_or_default();
        for Device { node, access, .. } in &self.devices {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true)
                .set_typ(Some(node.typ()))
                .set_major(Some(node.major()))
                .set_minor(Some(node.minor()))
                .set_access(Some(access.clone()));
            rules.push(rule);
            nodes.retain(|other| other.path() != node.path());
            nodes.extend((!self.binds_devices).then(|| node.clone()));
        }
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources)).set_devices(Some(nodes));
        if self.binds_devices {
            let mounts = spec.mounts_mut().get_or_insert_default();
            mounts.extend(self.devices.iter().map(Device::mount));
        }
    }

    fn set_sysctls(&self, spec: &mut Spec) {
        if let (false, Some(linux)) = (self.sysctls.is_empty(), spec.linux_mut()) {
            let mut sysctls = linux.sysctl().clone().unwrap_or_default();
            sysctls.extend(self.sysctls.iter().cloned());
            linux.set_sysctl(Some(sysctls));
        }
    }

    fn set_limits(&self, spec: &mut Spec) -> Result<()> {
        let (Some(asked), Some(linux)) = (&self.limits, spec.linux_mut()) else { return Ok(()) };
        let resources = linux.resources().clone().unwrap_or_else(no_resources);
        let encode = |resources: &LinuxResources| {
            serde_json::to_value(resources)
                .map_err(|e| Error::config(format!("encode the limits: {e}")))
        };
        let mut merged = encode(&resources)?;
        merge(&mut merged, encode(asked)?);
        let merged = super::load::reread(&merged);
        let merged = merged.map_err(|e| Error::config(format!("merge the limits: {e}")))?;
        linux.set_resources(Some(merged));
        Ok(())
    }

    fn set_process(&self, process: &mut Process) -> Result<()> {
        if !self.args.is_empty() {
            process.set_args(Some(self.args.clone()));
        }
        if !self.env.is_empty() {
            let mut env = process.env().clone().unwrap_or_default();
            let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
            env.retain(|old| !self.env.iter().any(|new| name(new) == name(old)));
            env.extend(self.env.iter().cloned());
            process.set_env(Some(env));
        }
        if let Some(directory) = &self.workdir {
            process.set_cwd(directory.clone());
        }
        if let Some(tty) = self.tty {
            process.set_terminal(Some(tty));
        }
        if let Some(account) = &self.user {
            let mut user = User::default();
            user.set_uid(account.uid).set_gid(account.gid);
            if !account.additional_gids.is_empty() {
                user.set_additional_gids(Some(account.additional_gids.clone()));
            }
            process.set_user(user);
        }
        if !self.groups.is_empty() {
            let mut user = process.user().clone();
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.groups);
            groups.sort_unstable();
            groups.dedup();
            user.set_additional_gids(Some(groups));
            process.set_user(user);
        }
        if !self.rlimits.is_empty() {
            let mut limits = process.rlimits().clone().unwrap_or_default();
            for new in &self.rlimits {
                limits.retain(|old| old.typ() != new.typ());
                limits.push(*new);
            }
            process.set_rlimits(Some(limits));
        }
        self.set_capabilities(process)
    }

    /// Sets the capabilities. A user other than root has them only in the bounding set, as after execve(2).
    fn set_capabilities(&self, process: &mut Process) -> Result<()> {
        let edited = !self.cap_add.is_empty() || !self.cap_drop.is_empty();
        if !edited && self.user.is_none() {
            return Ok(());
        }
        let had = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone());
        let set = capabilities(had.unwrap_or_default(), &self.cap_add, &self.cap_drop)?;
        let held = if process.user().uid() == 0 { set.clone() } else { Capabilities::new() };
        process.set_capabilities(Some(sets(set, held)));
        Ok(())
    }

    /// Sets the default seccomp profile for the capabilities, so that it allows the system calls that they are for.
    fn set_seccomp_profile(&self, spec: &mut Spec) -> Result<()> {
        if self.default_spec.is_none() {
            return Ok(());
        }
        let held =
            spec.process().as_ref().and_then(|p| p.capabilities().as_ref()?.bounding().clone());
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(Some(defaults::profile(&held.unwrap_or_default())?));
        }
        Ok(())
    }
}

impl Device {
    fn mount(&self) -> Mount {
        let mut mount = Mount::default();
        let options = strings(&["bind", "nosuid", "noexec"]);
        mount
            .set_destination(self.node.path().clone())
            .set_source(Some(self.source.clone()))
            .set_typ(Some("bind".to_owned()))
            .set_options(Some(options));
        mount
    }
}

/// Merges the fields of `asked` into `into`.
fn merge(into: &mut Value, asked: Value) {
    match (into, asked) {
        (Value::Object(into), Value::Object(asked)) => {
            for (key, value) in asked {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, asked) => *into = asked,
    }
}

/// Returns resources without the devices of oci-spec's default.
fn no_resources() -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources
}

fn sets(bounding: Capabilities, held: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// Drops capabilities, then adds capabilities. `ALL` applies before single names.
fn capabilities(had: Capabilities, add: &[String], drop: &[String]) -> Result<Capabilities> {
    let mut set = had;
    if drop.iter().any(|name| is_all(name)) {
        set.clear();
    }
    if add.iter().any(|name| is_all(name)) {
        set = defaults::every_capability();
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set.remove(&capability(name)?);
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set.insert(capability(name)?);
    }
    Ok(set)
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("all")
}

fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(full.into()).map_err(|_| {
        Error::new(Kind::Usage, format!("{name:?} is not the name of a capability"))
            .hint("use a name such as NET_ADMIN, or ALL")
    })
}

/// Sets the defaults of a container without a config.json: capabilities and masked paths as engines set them, a
/// writable root, no terminal.
fn default_spec(spec: &mut Spec, defaults: &DefaultSpec) -> Result<()> {
    spec.set_hostname(Some(defaults.name.chars().take(LONGEST_HOSTNAME).collect()));
    if let Some(place) = spec.root_mut() {
        place.set_path(defaults.root.clone()).set_readonly(Some(false));
    }
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(false)).set_rlimits(None).set_no_new_privileges(Some(false));
        let all = capabilities(Capabilities::new(), &strings(&defaults::CAPABILITIES), &[])?;
        process.set_capabilities(Some(sets(all.clone(), all)));
    }
    if let Some(linux) = spec.linux_mut() {
        let mut masked = linux.masked_paths().clone().unwrap_or_default();
        masked.extend(
            strings(&defaults::MASKED)
                .into_iter()
                .chain(defaults.masked.iter().cloned())
                .filter(|path| !masked.contains(path))
                .collect::<Vec<_>>(),
        );
        linux.set_masked_paths(Some(masked));
    }
    Ok(())
}

/// Maximum length of a host name in Linux.
const LONGEST_HOSTNAME: usize = 64;

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        serde_json::from_str(
            r#"{"ociVersion":"1.3.0","root":{"path":"rootfs"},"hostname":"h",
                "mounts":[{"destination":"/proc","type":"proc"},{"destination":"/data","type":"tmpfs"}],
                "process":{"args":["sh"],"cwd":"/","env":["A=1","PATH=/bin"],"user":{"uid":0,"gid":0},
                    "capabilities":{"bounding":["CAP_KILL","CAP_CHOWN"],"effective":["CAP_KILL"],
                        "permitted":["CAP_KILL"]}},
                "linux":{"resources":{"pids":{"limit":5}}}}"#,
        )
        .unwrap()
    }

    fn edited(edits: Edits) -> Spec {
        let mut spec = spec();
        edits.apply(&mut spec).unwrap();
        spec
    }

    #[test]
    fn nothing_asked_is_nothing_changed() {
        assert_eq!(edited(Edits::default()), spec());
    }

    #[test]
    fn process() {
        let spec = edited(Edits {
            args: strings(&["ls", "-l"]),
            env: strings(&["A=2", "B=3"]),
            workdir: Some("/tmp".into()),
            tty: Some(true),
            ..Edits::default()
        });
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_deref(), Some(&strings(&["ls", "-l"])[..]));
        assert_eq!(process.env().as_deref(), Some(&strings(&["PATH=/bin", "A=2", "B=3"])[..]));
        assert_eq!((process.terminal(), process.cwd().to_str()), (Some(true), Some("/tmp")));
    }

    #[test]
    fn limits_keep_what_is_beside_them() {
        let asked = r#"{"memory":{"limit":1048576},"cpu":{"quota":150000}}"#;
        let limits = Some(Box::new(serde_json::from_str(asked).unwrap()));
        let edits = Edits { limits, ..Edits::default() };
        let spec = edited(edits);
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
        assert_eq!(resources.cpu().clone().unwrap().quota(), Some(150_000));
        assert_eq!(resources.pids().unwrap().limit(), 5);
    }

    #[test]
    fn devices() {
        let mut node = LinuxDevice::default();
        node.set_path("/dev/x".into()).set_major(10).set_minor(229);
        let device = Device { source: "/dev/fuse".into(), node, access: "rw".into() };
        for binds_devices in [false, true] {
            let devices = vec![device.clone()];
            let spec = edited(Edits { devices, binds_devices, ..Edits::default() });
            let linux = spec.linux().as_ref().unwrap();
            let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
            assert_eq!((rules.len(), rules[0].access().as_deref()), (1, Some("rw")));
            assert_eq!(linux.devices().as_ref().unwrap().len(), usize::from(!binds_devices));
            let mounts = spec.mounts().as_ref().unwrap();
            let bound = mounts.iter().find(|m| m.destination() == Path::new("/dev/x"));
            assert_eq!(bound.is_some(), binds_devices);
        }
    }

    #[test]
    fn groups_limits_sysctls_and_shared_memory() {
        let limit = |soft: &str| {
            let limit = r#"{"type":"RLIMIT_NPROC","soft":SOFT,"hard":9}"#;
            serde_json::from_str::<PosixRlimit>(&limit.replace("SOFT", soft)).unwrap()
        };
        let edits = Edits {
            groups: vec![7, 5, 7],
            rlimits: vec![limit("1"), limit("2")],
            sysctls: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            ..Edits::default()
        };
        let spec = edited(edits);
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[5, 7][..]));
        assert_eq!(process.rlimits().as_deref(), Some(&[limit("2")][..]));
        assert_eq!(spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap()["a"], "2");
        let shm = Edits { shm_size: Some(1 << 20), ..Edits::default() };
        assert!(shm.apply(&mut self::spec()).is_err(), "there is none");
        let mut with = self::spec();
        let mount = r#"{"destination":"/dev/shm","type":"tmpfs","options":["nosuid","size=64k"]}"#;
        with.mounts_mut().as_mut().unwrap().push(serde_json::from_str(mount).unwrap());
        shm.apply(&mut with).unwrap();
        let options = with.mounts().as_ref().unwrap().last().unwrap().options().clone().unwrap();
        assert_eq!(options, ["nosuid", "size=1048576"]);
    }

    #[test]
    fn a_mount_replaces_one_of_the_same_place() {
        let mut mount = Mount::default();
        mount.set_destination("/data".into()).set_source(Some("/srv".into()));
        let spec = edited(Edits { mounts: vec![mount.clone()], ..Edits::default() });
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!((mounts.len(), &mounts[1]), (2, &mount));
    }

    #[test]
    fn capabilities_by_any_spelling() {
        let of = |add: &[&str], drop: &[&str]| {
            let edits =
                Edits { cap_add: strings(add), cap_drop: strings(drop), ..Edits::default() };
            let spec = edited(edits);
            let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
            let mut names: Vec<_> =
                sets.effective().iter().flatten().map(ToString::to_string).collect();
            names.sort();
            assert_eq!(sets.bounding(), sets.effective());
            names
        };
        assert_eq!(of(&["net_admin"], &["CAP_KILL"]), ["CHOWN", "NET_ADMIN"]);
        assert_eq!(of(&["chown"], &["all"]), ["CHOWN"]);
        assert_eq!(of(&["ALL"], &["sys_admin"]).len(), 40);
        let wrong = Edits { cap_add: strings(&["fly"]), ..Edits::default() };
        assert!(wrong.apply(&mut spec()).unwrap_err().to_string().contains("\"fly\""));
    }

    #[test]
    fn who_is_not_root_holds_nothing() {
        let account = Account { uid: 8, gid: 8, additional_gids: vec![9] };
        let spec = edited(Edits { user: Some(account), ..Edits::default() });
        let process = spec.process().as_ref().unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
        assert!(sets.effective().as_ref().unwrap().is_empty());
        assert_eq!((process.user().uid(), process.user().gid()), (8, 8));
    }

    #[test]
    fn the_default_profile_depends_on_the_capabilities() {
        let allowed = |edits: Edits| {
            let mut spec = spec();
            let default_spec = Some(DefaultSpec {
                root: "/image".into(),
                name: "name".into(),
                masked: strings(&["/sys/hot"]),
            });
            let edits = Edits { default_spec, ..edits };
            edits.apply(&mut spec).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            assert_eq!(spec.root().as_ref().unwrap().path().to_str(), Some("/image"));
            let profile = linux.seccomp().as_ref().unwrap();
            let masked = linux.masked_paths().as_ref().unwrap();
            assert!(
                ["/proc/interrupts", "/sys/hot"]
                    .iter()
                    .all(|path| masked.contains(&path.to_string()))
            );
            profile.syscalls().as_ref().unwrap()[0].names().clone()
        };
        let plain = allowed(Edits::default());
        assert!(!plain.contains(&"mount".to_owned()) && !plain.contains(&"bpf".to_owned()));
        let admin = allowed(Edits { cap_add: strings(&["SYS_ADMIN"]), ..Edits::default() });
        assert!(admin.contains(&"mount".to_owned()) && !admin.contains(&"kexec_load".to_owned()));
    }
}
