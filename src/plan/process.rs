//! Compiles a process, the container's first or an exec's: identity, privileges, program.

use std::path::Path;

use oci_spec::runtime::{Linux, Process};

use super::facts::ProcessFacts;
use super::{Program, Script, Step};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::identity::descriptors::PassedDescriptors;
use crate::identity::{environment, executable};
use crate::limits::{IdSet, Rlimit};
use crate::spec::OperatorGrant;
use crate::{console, hook, identity, landlock, limits, seccomp};

/// Kind of process.
#[derive(Debug, Clone, Copy)]
pub enum ProcessKind<'a> {
    Init {
        notify: Option<&'a str>,
        /// True if Aril's init process runs the program as its child.
        stub: bool,
    },
    /// Container's process, which has the values that the exec leaves out.
    Exec { container: &'a Process },
}

#[derive(Debug)]
pub struct ProcessRequest<'a> {
    pub id: &'a ContainerId,
    pub process: &'a Process,
    pub kind: ProcessKind<'a>,
    pub linux: &'a Linux,
    pub new_keyring: bool,
    pub detach: bool,
    pub console_socket: Option<&'a Path>,
    pub passed: PassedDescriptors,
    pub user_namespace: bool,
    /// Id mappings of that user namespace.
    pub denies_setgroups: bool,
    pub grant: &'a OperatorGrant,
    pub facts: &'a ProcessFacts,
}

/// Steps of a process in groups, which the caller puts in order.
#[derive(Debug)]
pub struct Compiled {
    pub script: Script,
    pub terminal: Option<Step>,
    /// Steps after pivot_root(2), while the root is writable.
    pub make_cwd: Option<Step>,
    /// Steps after the rootfs is complete.
    pub steps: Vec<Step>,
    pub initial_affinity: Option<IdSet>,
    pub warnings: Vec<String>,
}

/// Compiles the steps and the program of a process.
///
/// # Errors
///
/// The process is invalid, or this host cannot run it.
pub fn compile(input: &ProcessRequest<'_>) -> Result<Compiled> {
    let container = match input.kind {
        ProcessKind::Init { .. } => None,
        ProcessKind::Exec { container } => Some(container),
    };
    let console = console::plan::plan(&console::TerminalRequest {
        process: input.process,
        detach: input.detach,
        socket: input.console_socket,
    })?;
    let identity = identity::plan::plan(&identity::IdentityRequest {
        id: input.id.as_str(),
        process: input.process,
        container,
        new_keyring: input.new_keyring,
        confined: input.grant.landlock.is_some(),
        keep_groups: input.grant.keep_groups,
        held: (!input.user_namespace).then_some(input.facts.capabilities),
        user_namespace: input.user_namespace,
        rootless: input.facts.rootless,
        setgroups_allowed: input.facts.setgroups_allowed && !input.denies_setgroups,
        modules: input.facts.security,
    })?;
    let limits = limits::plan::plan(&limits::LimitsRequest {
        process: input.process,
        container,
        personality: input.linux.personality().as_ref(),
        memory_policy: input.linux.memory_policy().as_ref(),
        cpuset: sets_cpus(input.linux),
    })?;
    let seccomp = seccomp(input.linux)?;
    let rules = input.grant.landlock.as_deref();
    let landlock = rules.map(|text| landlock::plan::plan(text, landlock::parent::version()));
    let landlock = landlock.transpose()?;
    let program = program(input)?;

    let mut warnings = identity.warnings;
    warnings.extend(limits.warnings);
    warnings.extend(landlock.iter().filter_map(|plan| plan.warning.clone()));
    let (filter, listener) = match seccomp {
        None => (None, None),
        Some(plan) => {
            warnings.extend(unknown_syscalls(plan.unknown, input.grant)?);
            (Some(plan.filter), plan.listener)
        }
    };
    let order = Order {
        early: identity.early,
        late: identity.late,
        no_new_privileges: identity.no_new_privileges,
        limits: limits.steps,
        rlimits: &limits.rlimits,
        ruleset: landlock.and_then(|plan| plan.ruleset),
        filter,
        needs_home: program.environment.needs_home,
        user_namespace: input.user_namespace,
    };
    Ok(Compiled {
        terminal: console.as_ref().map(|plan| Step::Terminal(plan.size)),
        make_cwd: identity.make_cwd.map(Step::Identity),
        steps: order.steps(),
        script: Script {
            steps: Vec::new(),
            hooks: hook::Plan::default(),
            program,
            passed: input.passed,
            console,
            rlimits: limits.rlimits,
            oom_score_adj: limits.oom_score_adj,
            seccomp_listener: listener,
        },
        initial_affinity: limits.initial_affinity,
        warnings,
    })
}

fn sets_cpus(linux: &Linux) -> bool {
    let cpu = linux.resources().as_ref().and_then(|r| r.cpu().as_ref());
    cpu.and_then(|c| c.cpus().as_ref()).is_some_and(|cpus| !cpus.is_empty())
}

fn seccomp(linux: &Linux) -> Result<Option<seccomp::plan::Plan>> {
    let Some(profile) = linux.seccomp().as_ref() else { return Ok(None) };
    seccomp::plan::compile(profile, &seccomp::parent::facts()).map(Some)
}

/// Returns the warning about a profile with unknown system calls.
fn unknown_syscalls(names: Option<String>, grant: &OperatorGrant) -> Result<Option<String>> {
    match names {
        Some(names) if grant.known_syscalls_only => {
            Err(Error::config(format!("seccomp: unknown syscalls: {names}")))
        }
        names => Ok(names.map(|names| format!("unknown seccomp syscalls ignored: {names}"))),
    }
}

fn program(input: &ProcessRequest<'_>) -> Result<Program> {
    let mut variables = input.process.env().clone().unwrap_or_default();
    variables.extend(input.passed.variables());
    if let ProcessKind::Init { notify: Some(variable), .. } = input.kind {
        variables.push(variable.to_owned());
    }
    Ok(Program {
        argv: executable::argv(input.process.args().as_deref())?,
        environment: environment::plan(&variables)?,
        uid: input.process.user().uid(),
        under_init: matches!(input.kind, ProcessKind::Init { stub: true, .. }),
    })
}

/// Orders the steps that change privileges.
struct Order<'a> {
    early: Vec<identity::Step>,
    late: Vec<identity::Step>,
    no_new_privileges: bool,
    limits: Vec<limits::Step>,
    rlimits: &'a [Rlimit],
    ruleset: Option<landlock::Ruleset>,
    filter: Option<seccomp::Filter>,
    needs_home: bool,
    user_namespace: bool,
}

impl Order<'_> {
    /// The filter is loaded last, so that a profile need not allow what Aril does. Loading it takes
    /// CAP_SYS_ADMIN or no_new_privs (seccomp(2)): without the latter, the process keeps that
    /// capability until the filter is loaded, and one capset(2) is made under it.
    fn steps(mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        steps.extend(self.limits.into_iter().map(Step::Limits));
        if self.needs_home {
            steps.push(Step::Home);
        }
        steps.extend(self.early.into_iter().map(Step::Identity));
        if self.user_namespace && !self.rlimits.is_empty() {
            steps.push(Step::Rlimits(self.rlimits.to_vec()));
        } else {
            let own = self.rlimits.iter().copied().map(limits::Step::Rlimit);
            steps.extend(own.map(Step::Limits));
        }
        steps.extend(self.ruleset.map(Step::Landlock));
        steps.push(Step::CloseDescriptors);
        let privileged = self.filter.is_some() && !self.no_new_privileges;
        let reduced = privileged.then(|| keep_administration(&mut self.late)).flatten();
        steps.extend(self.late.into_iter().map(Step::Identity));
        steps.push(Step::LookUpProgram);
        steps.extend(self.filter.map(Step::Seccomp));
        steps.extend(reduced.map(Step::Identity));
        steps
    }
}

/// Adds CAP_SYS_ADMIN to the capabilities that the process has before the filter. Returns the step that drops it again,
/// unless the config grants it.
fn keep_administration(late: &mut [identity::Step]) -> Option<identity::Step> {
    let administration = caps::Capability::CAP_SYS_ADMIN.bitmask();
    let sets = late.iter_mut().find_map(|step| match step {
        identity::Step::Capabilities(sets) => Some(sets),
        _ => None,
    })?;
    let configured = *sets;
    sets.permitted |= administration;
    sets.effective |= administration;
    (configured != *sets).then_some(identity::Step::ReducedCapabilities(configured))
}
