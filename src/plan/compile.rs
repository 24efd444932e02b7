//! Compiles spec, options and facts to a plan. This module alone knows all concerns: it passes each concern its part of the
//! spec and its facts, and puts their steps in order.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capability, Linux, LinuxIdMapping, LinuxIdMappingBuilder, Mount, Process, Spec,
};

use super::facts::{HostFacts, ProcessFacts};
use super::process::{self, ProcessKind};
use super::{ContainerPlan, ExecPlan, Script, Step};
use crate::error::{Error, Result};
use crate::hook::Point;
use crate::id::ContainerId;
use crate::identity::descriptors::PassedDescriptors;
use crate::namespace::Kind;
use crate::network::pasta;
use crate::network::plan::Mode;
use crate::spec::OperatorGrant;
use crate::volume::MountedVolume;
use crate::{cgroup, hook, limits, namespace, network, rootfs, spec};

/// Mount point of the notify socket's directory in the container, and the value of NOTIFY_SOCKET for sd_notify(3).
const NOTIFY_MOUNT: &str = "/run/notify";
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// Options of the command line and the runtime's environment.
#[derive(Debug, Clone)]
pub struct Options {
    pub bundle: PathBuf,
    /// Directory of the container in the state root.
    pub state_directory: PathBuf,
    /// Named volumes. Empty ones are filled with the files that they cover.
    pub volumes: Vec<MountedVolume>,
    pub no_pivot: bool,
    /// `--allow-host-mounts`.
    pub host_mounts: bool,
    pub new_keyring: bool,
    /// `--init`.
    pub init: bool,
    pub rootless_cgroups: bool,
    /// `--cgroup-manager disabled`.
    pub no_cgroup: bool,
    /// True if the runtime returns before the process ends.
    pub detach: bool,
    pub console_socket: Option<PathBuf>,
    pub passed: PassedDescriptors,
    /// Directory of the notify socket, mounted into the container if the caller has NOTIFY_SOCKET.
    pub notify_directory: Option<PathBuf>,
}

/// Compiles the plan of a container.
///
/// # Errors
///
/// The spec or an option is invalid, or this host cannot run it.
pub fn container(
    id: &ContainerId,
    spec: &Spec,
    grant: &OperatorGrant,
    options: &Options,
    facts: &HostFacts,
) -> Result<ContainerPlan> {
    spec::validate(spec)?;
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else {
        return Err(Error::config("process and linux must be specified"));
    };
    let namespaces = namespaces(spec, linux, facts)?;
    let cgroup = cgroup::plan(&cgroup::CgroupRequest {
        id: id.as_str(),
        cgroups_path: linux.cgroups_path().as_deref(),
        resources: linux.resources().as_ref(),
        layout: &facts.cgroups,
        owner: cgroup_owner(spec, process, &namespaces),
        rootless: options.rootless_cgroups,
        none: options.no_cgroup,
        may_use_devices: !facts.process.rootless && !facts.in_user_namespace,
        systemd: facts.systemd.as_ref().map(|manager| cgroup::systemd::plan::UnitRequest {
            manager,
            annotations: &grant.systemd,
        }),
    })?;
    let names = network::names::plan(&network::names::NamesRequest {
        extensions: grant,
        hostname: spec.hostname().as_deref(),
        mounts: spec.mounts().as_deref().unwrap_or(&[]),
        mount_namespace: namespaces.has(Kind::Mount),
        impossible: &facts.no_place_for,
    })?;
    let mut own: Vec<_> = options.notify_directory.iter().map(|d| notify_mount(d)).collect();
    own.extend(names.iter().flat_map(|names| names.mounts(&options.state_directory)));
    let rootfs = rootfs(spec, grant, options, facts, &namespaces, &cgroup, &own)?;
    let mut compiled = process::compile(&process::ProcessRequest {
        id,
        process,
        kind: ProcessKind::Init {
            notify: options.notify_directory.is_some().then_some(NOTIFY_VARIABLE),
            stub: options.init,
        },
        linux,
        new_keyring: options.new_keyring,
        detach: options.detach,
        console_socket: options.console_socket.as_deref(),
        passed: options.passed,
        user_namespace: namespaces.has(Kind::User),
        denies_setgroups: namespaces.denies_setgroups,
        grant,
        facts: &facts.process,
    })?;
    let hooks = hook::plan::plan(spec.hooks().as_ref())?;
    let network = network::plan::attachment(grant, facts.process.rootless)?;
    let mut wait = network.as_ref().map(|_| Step::Network(network::Step::WaitForLink));

    let mut steps = Vec::with_capacity(128);
    steps.extend(namespaces.enter.iter().cloned().map(Step::Namespace));
    if namespaces.is_new(Kind::Net) {
        steps.push(Step::Network(network::Step::LoopbackUp));
    }
    steps.extend(namespaces.names.iter().cloned().map(Step::Namespace));
    steps.extend(rootfs.enter.into_iter().map(Step::Rootfs));
    if [Point::Prestart, Point::CreateRuntime].iter().any(|p| !hooks.at(*p).is_empty()) {
        steps.push(Step::RuntimeHooks);
    }
    if !hooks.at(Point::CreateContainer).is_empty() {
        steps.extend(wait.take());
        steps.push(Step::ContainerHooks);
    }
    steps.extend(rootfs.pivot.into_iter().map(Step::Rootfs));
    steps.extend(compiled.terminal.take());
    steps.extend(compiled.make_cwd.take());
    if !namespaces.sysctls.is_empty() {
        steps.extend(wait.take());
    }
    steps.extend(namespaces.sysctls.iter().cloned().map(Step::Namespace));
    steps.extend(rootfs.restrict.into_iter().map(Step::Rootfs));
    steps.append(&mut compiled.steps);

    let mut warnings = compiled.warnings;
    warnings.extend(cgroup.warnings.iter().cloned());
    warnings.extend(rootfs.warnings);
    if options.no_cgroup && !namespaces.has(Kind::User) && may_make_devices(process) {
        warnings.push(
            "--cgroup-manager=disabled: no device filter is in force, and CAP_MKNOD lets the container \
             make and open any device of the host"
                .to_owned(),
        );
    }
    let no_place = facts.no_place_for.iter().filter(|_| names.is_some());
    warnings.extend(no_place.map(|place| {
        format!("{place} stays as it is: the rootfs has none, and none can be made in it")
    }));
    let rdt = rdt(id, linux, facts)?;
    let net_devices = network::device::plan::plan(&network::device::plan::DeviceRequest {
        devices: linux.net_devices().as_ref(),
        private_network: namespaces.has(Kind::Net) && !facts.namespaces.joins_host_network,
        rootless: facts.process.rootless,
    })?;
    Ok(ContainerPlan {
        id: id.clone(),
        bundle: options.bundle.clone(),
        rootfs: facts.rootfs.clone(),
        namespaces,
        cgroup,
        rdt,
        net_devices,
        network,
        shares_network: match network::plan::mode(grant)? {
            Some(Mode::Container(id)) => Some(id),
            _ => None,
        },
        pasta: pasta::is_wanted(grant),
        names,
        state_directory: options.state_directory.clone(),
        notify_directory: options.notify_directory.clone(),
        volumes: options.volumes.clone(),
        script: Script { steps, hooks, ..compiled.script },
        warnings,
    })
}

fn may_make_devices(process: &Process) -> bool {
    let bounding = process.capabilities().as_ref().and_then(|all| all.bounding().as_ref());
    bounding.is_some_and(|set| set.contains(&Capability::Mknod))
}

fn rdt(id: &ContainerId, linux: &Linux, facts: &HostFacts) -> Result<Option<limits::rdt::Plan>> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
    limits::rdt::plan(limits::rdt::RdtRequest {
        id: id.as_str(),
        rdt,
        host: facts.resctrl.as_ref(),
    })
    .map(Some)
}

/// Options of an exec.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    pub detach: bool,
    /// True if the container's user namespace denies setgroups(2).
    pub denies_setgroups: bool,
    pub console_socket: Option<PathBuf>,
    pub passed: PassedDescriptors,
}

/// Compiles `process` for a running container that was made from `spec` and `grant`.
///
/// # Errors
///
/// The process is invalid.
pub fn exec(
    id: &ContainerId,
    spec: &Spec,
    grant: &OperatorGrant,
    process: &Process,
    options: &ExecOptions,
    facts: &ProcessFacts,
) -> Result<ExecPlan> {
    spec::validate_process(process)?;
    let (Some(container), Some(linux)) = (spec.process(), spec.linux()) else {
        return Err(Error::config("the stored config has no process"));
    };
    let user_namespace = spec::has_namespace(spec, oci_spec::runtime::LinuxNamespaceType::User);
    let mut compiled = process::compile(&process::ProcessRequest {
        id,
        process,
        kind: ProcessKind::Exec { container },
        linux,
        new_keyring: true,
        detach: options.detach,
        console_socket: options.console_socket.as_deref(),
        passed: options.passed,
        user_namespace,
        denies_setgroups: options.denies_setgroups,
        grant,
        facts,
    })?;
    let mut steps: Vec<_> = compiled.terminal.take().into_iter().collect();
    steps.append(&mut compiled.steps);
    Ok(ExecPlan {
        script: Script { steps, ..compiled.script },
        initial_affinity: compiled.initial_affinity,
        warnings: compiled.warnings,
    })
}

/// Running container for which mounts are compiled.
#[derive(Debug)]
pub struct Running<'a> {
    /// Config of the container.
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub mounts: &'a [Mount],
    pub maps: &'a namespace::Maps,
    /// Namespaces of the container, as `CLONE_NEW*`.
    pub kinds: i32,
    /// True if the caller is not root.
    pub rootless: bool,
    /// True if the caller is in a user namespace.
    pub in_user_namespace: bool,
}

/// Compiles the script that opens the sources on the host, then mounts them in the container. It executes no program.
///
/// # Errors
///
/// A mount is invalid for a running container.
pub fn added_mounts(running: &Running<'_>) -> Result<(Script, Vec<String>)> {
    let has = |kind: Kind| running.kinds & kind.flag() != 0;
    let linux = running.spec.linux().as_ref();
    let uid_mappings = as_in_config(&running.maps.uid);
    let gid_mappings = as_in_config(&running.maps.gid);
    let mut input = rootfs::plan::RootfsRequest::of_running(running.bundle, running.rootfs);
    input.mounts = running.mounts;
    input.user_namespace = has(Kind::User) || running.in_user_namespace;
    input.foreign_network = has(Kind::User) && !has(Kind::Net);
    input.rootless = running.rootless;
    if has(Kind::User) {
        (input.uid_mappings, input.gid_mappings) = (&uid_mappings, &gid_mappings);
    }
    input.mount_label = linux.and_then(|linux| linux.mount_label().as_deref());
    let addition = rootfs::plan::running::addition(&input)?;
    let mut steps = Vec::new();
    if has(Kind::User) {
        steps.push(Step::Namespace(namespace::Step::Unshare(Kind::Mount)));
    }
    steps.extend(addition.sources.into_iter().map(Step::Rootfs));
    Ok((inside(steps, addition.mounts), addition.warnings))
}

/// Compiles the script that removes mounts of the container.
///
/// # Errors
///
/// A destination is the root, or invalid.
pub fn removed_mounts(rootfs: &Path, mounts: &[Mount]) -> Result<Script> {
    Ok(inside(Vec::new(), rootfs::plan::running::removal(rootfs, mounts)?))
}

fn inside(mut steps: Vec<Step>, inside: Vec<rootfs::Step>) -> Script {
    steps.extend([Step::Enter, Step::Rootfs(rootfs::Step::OpenRoot { path: c"/".into() })]);
    steps.extend(inside.into_iter().map(Step::Rootfs));
    Script { steps, ..Script::default() }
}

fn namespaces(spec: &Spec, linux: &Linux, facts: &HostFacts) -> Result<namespace::plan::Plan> {
    namespace::plan::plan(&namespace::plan::NamespaceRequest {
        namespaces: linux.namespaces().as_deref().unwrap_or(&[]),
        uid_mappings: linux.uid_mappings().as_deref().unwrap_or(&[]),
        gid_mappings: linux.gid_mappings().as_deref().unwrap_or(&[]),
        time_offsets: linux.time_offsets().as_ref(),
        hostname: spec.hostname().as_deref(),
        domainname: spec.domainname().as_deref(),
        sysctl: linux.sysctl().as_ref(),
        rootless: facts.process.rootless,
        facts: facts.namespaces.clone(),
    })
}

/// Owner of the container's cgroup: the container's user, if the container has a cgroup namespace and can write to its
/// cgroup.
fn cgroup_owner(spec: &Spec, process: &Process, namespaces: &namespace::plan::Plan) -> Option<u32> {
    let writable = |mount: &Mount| {
        let kind = mount.typ().as_deref();
        let options = mount.options().as_deref().unwrap_or_default();
        mount.destination() == Path::new(cgroup::layout::MOUNT)
            && matches!(kind, Some("cgroup" | "cgroup2"))
            && !options.iter().any(|option| option == "ro")
    };
    let delegated = namespaces.is_new(Kind::Cgroup) && spec.mounts().iter().flatten().any(writable);
    let uid = process.user().uid();
    let host = match &namespaces.maps {
        Some(maps) => namespace::host_id(&maps.uid, uid)?,
        None => uid,
    };
    (delegated && host != 0).then_some(host)
}

fn rootfs(
    spec: &Spec,
    grant: &OperatorGrant,
    options: &Options,
    facts: &HostFacts,
    namespaces: &namespace::plan::Plan,
    cgroup: &cgroup::Plan,
    extra: &[Mount],
) -> Result<rootfs::Plan> {
    let unspecified = || Error::config("process and linux must be specified");
    let linux = spec.linux().as_ref().ok_or_else(unspecified)?;
    let hierarchies = hierarchies(cgroup);
    let volumes: Vec<_> = options.volumes.iter().map(MountedVolume::source).collect();
    let mount_point = Path::new(cgroup::layout::MOUNT);
    let maps = namespaces.maps.as_ref();
    let uid_mappings = maps.map(|maps| as_in_config(&maps.uid)).unwrap_or_default();
    let gid_mappings = maps.map(|maps| as_in_config(&maps.gid)).unwrap_or_default();
    rootfs::plan::plan(&rootfs::plan::RootfsRequest {
        bundle: &options.bundle,
        rootfs: &facts.rootfs,
        overlay: rootfs::overlay::plan::OverlayRequest {
            layers: grant.layers.as_deref(),
            upper: grant.upper.as_deref(),
            show: grant.show.as_deref(),
            root: &facts.rootfs,
            bundle: &options.bundle,
            state_directory: &options.state_directory,
            privileged: !facts.process.rootless && !facts.in_user_namespace,
            uid_mappings: linux.uid_mappings().as_deref().unwrap_or(&[]),
            gid_mappings: linux.gid_mappings().as_deref().unwrap_or(&[]),
            owners: &facts.layer_owners,
        },
        readonly: spec.root().as_ref().is_some_and(|r| r.readonly().unwrap_or(false)),
        mounts: spec.mounts().as_deref().unwrap_or(&[]),
        extra,
        fill: &volumes,
        devices: linux.devices().as_deref().unwrap_or(&[]),
        masked_paths: linux.masked_paths().as_deref().unwrap_or(&[]),
        readonly_paths: linux.readonly_paths().as_deref().unwrap_or(&[]),
        propagation: linux.rootfs_propagation().as_deref(),
        mount_namespace: namespaces.has(Kind::Mount),
        callers: facts.callers_mounts,
        host_mounts: options.host_mounts,
        own_user_namespace: namespaces.has(Kind::User),
        user_namespace: namespaces.has(Kind::User) || facts.in_user_namespace,
        foreign_network: namespaces.is_new(Kind::User) && !namespaces.has(Kind::Net),
        foreign_ipc: namespaces.is_new(Kind::User) && !namespaces.has(Kind::Ipc),
        rootless: facts.process.rootless,
        uid_mappings: &uid_mappings,
        gid_mappings: &gid_mappings,
        map_root: grant.userns.is_some(),
        cgroup: match cgroup.version {
            cgroup::Version::V1 => rootfs::plan::CgroupView::Legacy(&hierarchies),
            cgroup::Version::V2 => rootfs::plan::CgroupView::Unified(
                cgroup
                    .paths
                    .get("")
                    .filter(|_| namespaces.has(Kind::Cgroup))
                    .map_or(mount_point, PathBuf::as_path),
            ),
        },
        no_pivot: options.no_pivot,
        mount_label: linux.mount_label().as_deref().filter(|label| !label.is_empty()),
        kcore: facts.kcore,
    })
}

/// The config of a container that joins a user namespace may leave out the mappings.
fn as_in_config(map: &[namespace::Mapping]) -> Vec<LinuxIdMapping> {
    let entry = |m: &namespace::Mapping| {
        let entry = LinuxIdMappingBuilder::default();
        let entry = entry.container_id(m.container).host_id(m.host).size(m.size);
        entry.build().expect("all three are given")
    };
    map.iter().map(entry).collect()
}

fn hierarchies(cgroup: &cgroup::Plan) -> Vec<rootfs::plan::HierarchyView> {
    cgroup
        .targets
        .iter()
        // On a hybrid host the process is in a cgroup of cgroup2, too, which runc does not show.
        .filter(|target| !target.is_version2())
        .filter_map(|target| {
            let name = target.mount.file_name()?.to_string_lossy().into_owned();
            let aliases = if target.names.len() > 1 { target.names.clone() } else { Vec::new() };
            Some(rootfs::plan::HierarchyView { own: target.dir.clone(), name, aliases })
        })
        .collect()
}

/// Mounts the directory, because the socket is bound later.
fn notify_mount(directory: &Path) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(NOTIFY_MOUNT.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(directory.to_owned()))
        .set_options(Some(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec()));
    mount
}
