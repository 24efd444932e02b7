//! Checks and compiles the request for a container, before any effect on the host.
//!
//! `create`, `run`, `plan` and `explain` share these functions, so they cannot disagree:
//!
//! ```text
//! settle    config.json, policy, options -> the config with the operator's changes, and an OperatorGrant
//! prepare   + facts of the host          -> the plan
//! ```
//!
//! Nothing changes the config or the plan afterwards. The stored config is the one that was planned.

use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType;

use super::handover::Handover;
use super::network::Shared;
use super::timeline::Timeline;
use super::userns::Choice;
use super::{network, notify, userns};
use crate::error::{Error, Kind, Result};
use crate::fs::process;
use crate::id::ContainerId;
use crate::network::pasta;
use crate::plan::compile::{self, Options};
use crate::plan::facts::{HostFacts, Systemd};
use crate::plan::{ContainerPlan, Step};
use crate::seccomp::report::Refusals;
use crate::spec::grant::Policy;
use crate::spec::{self, Config, Extensions, OperatorGrant, has_namespace};
use crate::state::{NOTIFY, Store};
use crate::volume::MountedVolume;

/// Request for a container, by the command line.
#[derive(Debug)]
pub struct ContainerRequest {
    pub id: ContainerId,
    /// Bundle directory, absolute.
    pub bundle: PathBuf,
    /// Config to use instead of the bundle's: changed by options, or made without a bundle.
    pub config: Option<Config>,
    /// Named volumes that the config mounts.
    pub volumes: Vec<MountedVolume>,
    pub handover: Handover,
    pub no_pivot: bool,
    /// `--allow-host-mounts`.
    pub host_mounts: bool,
    pub new_keyring: bool,
    /// True if Aril's init process runs the program as its child.
    pub init: bool,
    /// systemd that creates the cgroup, with `--systemd-cgroup`.
    pub systemd: Option<Systemd>,
    pub rootless_cgroups: bool,
    /// `--cgroup-manager disabled`.
    pub no_cgroup: bool,
    pub timeline: bool,
    /// Requests of options that a config cannot have.
    pub extensions: Extensions,
    /// Annotations of the config that have an effect.
    pub policy: Policy,
}

/// Use of a prepared request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A container is created. `detach`: the runtime returns before the process ends. `seccomp_report`: the system calls
    /// that the seccomp profile rejects are counted.
    Create { detach: bool, seccomp_report: bool },
    /// The plan is shown, and changes nothing. A config that only root can run is planned as for root.
    Show,
}

/// Config and permissions of a request.
#[derive(Debug)]
pub struct Settled {
    pub config: Config,
    pub grant: OperatorGrant,
    /// Annotations without effect.
    pub warnings: Vec<String>,
    /// Ids of `--userns auto`.
    pub(super) ids: Option<Choice>,
    /// Network namespace of another container.
    pub(super) shared: Option<Shared>,
}

/// Request that was checked and compiled.
#[derive(Debug)]
pub struct Prepared {
    pub settled: Settled,
    pub plan: ContainerPlan,
    /// Report of the seccomp profile, if it was requested.
    pub(super) refusals: Option<Refusals>,
}

/// Reads the config, decides which annotations have an effect, and sets what options and annotations request in the config.
///
/// # Errors
///
/// The config cannot be read, or an annotation or option is invalid or contradicts it.
pub fn settle(store: &Store, request: &ContainerRequest, purpose: Purpose) -> Result<Settled> {
    let mut config = match &request.config {
        Some(config) => config.clone(),
        None => spec::load(&request.bundle)?,
    };
    let annotations = config.spec.annotations().iter().flatten();
    let systemd = request.systemd.is_some();
    let admitted = request.policy.admit(annotations, &request.extensions, systemd)?;
    let grant = admitted.grant;
    if pasta::is_wanted(&grant) {
        let privileged = nix::unistd::geteuid().is_root() && !process::in_user_namespace();
        pasta::plan::edit(config.change(), privileged)?;
    }
    let ids = userns::choose(store, &mut config, &grant, purpose != Purpose::Show)?;
    let shared = network::edit(store, &mut config, &grant)?;
    config.encode_changes()?;
    Ok(Settled { config, grant, warnings: admitted.warnings, ids, shared })
}

/// Compiles the request. Every error of the config and the options is found here.
///
/// # Errors
///
/// The config or an option is invalid, or this host cannot run it.
pub fn prepare(
    store: &Store,
    request: &ContainerRequest,
    purpose: Purpose,
    time: &mut Timeline,
) -> Result<Prepared> {
    request.handover.passed.check()?;
    let settled = settle(store, request, purpose)?;
    time.mark("load config.json");
    let Settled { config: Config { spec, .. }, grant, .. } = &settled;
    let mut facts = HostFacts::gather(spec, grant, &request.bundle, request.systemd)?;
    facts.namespaces.opened_network = settled.shared.as_ref().and_then(Shared::opened);
    if purpose == Purpose::Show {
        facts.process.rootless &= has_namespace(spec, LinuxNamespaceType::User);
    }
    time.mark("look at the host");
    let options = request.options(store, purpose);
    let mut plan = compile::container(&request.id, spec, grant, &options, &facts)?;
    let refusals = match purpose {
        Purpose::Create { seccomp_report: true, .. } => Some(counted(&mut plan)?),
        _ => None,
    };
    time.mark("plan");
    Ok(Prepared { settled, plan, refusals })
}

/// Lets the seccomp filter report the system calls that the profile rejects.
fn counted(plan: &mut ContainerPlan) -> Result<Refusals> {
    if notify::wanted() {
        return Err(Error::new(
            Kind::Usage,
            "--seccomp-report cannot be used where NOTIFY_SOCKET is set",
        ));
    }
    let filter = plan.script.steps.iter_mut().find_map(|step| match step {
        Step::Seccomp(filter) => Some(filter),
        _ => None,
    });
    let none = || Error::config("--seccomp-report: the config has no seccomp profile");
    Refusals::watch(filter.ok_or_else(none)?)
}

impl Prepared {
    /// Messages for odd but accepted values.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        let Settled { config, warnings, .. } = &self.settled;
        config.warnings.iter().chain(warnings).chain(&self.plan.warnings)
    }
}

impl ContainerRequest {
    fn options(&self, store: &Store, purpose: Purpose) -> Options {
        let state_directory = store.root().join(&self.id);
        let create = purpose != Purpose::Show;
        Options {
            bundle: self.bundle.clone(),
            volumes: self.volumes.clone(),
            no_pivot: self.no_pivot,
            host_mounts: self.host_mounts,
            new_keyring: self.new_keyring,
            init: self.init,
            rootless_cgroups: self.rootless_cgroups,
            no_cgroup: self.no_cgroup,
            detach: matches!(purpose, Purpose::Create { detach: true, .. }),
            console_socket: self.handover.console_socket.clone(),
            passed: self.handover.passed,
            notify_directory: (create && notify::wanted()).then(|| state_directory.join(NOTIFY)),
            state_directory,
        }
    }
}
