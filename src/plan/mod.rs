//! What a container, or a process in one, will be: decided whole, before the first effect.
//!
//! [`compile`] turns a spec, options and facts about the host into a [`ContainerPlan`] or an
//! [`ExecPlan`]; every error in the input surfaces there. The child's part is a list of [`Step`]s,
//! which [`show`] prints, the timeline measures and errors name.

pub mod compile;
pub mod edits;
pub mod facts;
pub mod process;
pub mod show;

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::id::ContainerId;
use crate::identity::descriptors::Passed;
use crate::identity::environment::Environment;
use crate::limits::{IdSet, Rlimit};
use crate::sys::tty::Size;
use crate::{
    cgroup, console, hook, identity, landlock, limits, namespace, network, rootfs, seccomp,
};

/// One thing that the child does.
#[derive(Debug)]
pub enum Step {
    Namespace(namespace::Step),
    Network(network::Step),
    Rootfs(rootfs::Step),
    /// The parent runs prestart and createRuntime.
    RuntimeHooks,
    /// createContainer: in the container's namespaces, before the pivot.
    ContainerHooks,
    Terminal(Option<Size>),
    Limits(limits::Step),
    /// The parent sets the rlimits: in a user namespace the child may not raise any.
    Rlimits(Vec<Rlimit>),
    Identity(identity::Step),
    /// Rules are made; they are enforced when the process is let go.
    Landlock(landlock::Ruleset),
    /// Those that came with the fork, before a filter can stop it.
    CloseDescriptors,
    Seccomp(seccomp::Filter),
    /// HOME, if the environment has none.
    Home,
    /// `args[0]`, as the user who will run it.
    LookUpProgram,
    /// Joins the namespaces of the running container that wait until then.
    Enter,
}

impl Step {
    /// The step in the words of an error.
    pub fn attempt(&self) -> String {
        match self {
            Self::Rootfs(step) => step.attempt(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(step) => step.fmt(f),
            Self::Network(step) => step.fmt(f),
            Self::Rootfs(step) => step.fmt(f),
            Self::RuntimeHooks => f.write_str("wait for prestart and createRuntime hooks"),
            Self::ContainerHooks => f.write_str("run createContainer hooks"),
            Self::Terminal(None) => f.write_str("make the terminal"),
            Self::Terminal(Some(size)) => {
                write!(f, "make the terminal, {} rows by {} columns", size.rows, size.columns)
            }
            Self::Limits(step) => step.fmt(f),
            Self::Rlimits(limits) => {
                f.write_str("rlimits")?;
                limits.iter().try_for_each(|limit| write!(f, " {limit}"))
            }
            Self::Identity(step) => step.fmt(f),
            Self::Landlock(ruleset) => ruleset.fmt(f),
            Self::CloseDescriptors => f.write_str("close what the program does not get"),
            Self::Seccomp(filter) => filter.fmt(f),
            Self::Home => f.write_str("find HOME"),
            Self::LookUpProgram => f.write_str("look up the program"),
            Self::Enter => f.write_str("enter the container"),
        }
    }
}

/// What the child does and becomes.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: Vec<Step>,
    pub hooks: hook::Plan,
    pub program: Program,
    /// Descriptors above 2 that the program gets.
    pub passed: Passed,
    /// Where the terminal goes, if there is one.
    pub console: Option<console::Plan>,
    /// For the parent to set; the steps hold them for [`Step::Rlimits`] too.
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub seccomp_listener: Option<seccomp::Listener>,
}

impl Script {
    /// A volume that is not empty after all.
    pub fn keep_as_it_is(&mut self, source: &Path) {
        for step in &mut self.steps {
            if let Step::Rootfs(rootfs::Step::Bind(bind)) = step
                && bind.source.path.as_bytes() == source.as_os_str().as_bytes()
            {
                bind.fill = false;
            }
        }
    }

    /// The root, if it is made of layers.
    pub fn overlay(&self) -> Option<&rootfs::overlay::Overlay> {
        self.rootfs_steps().find_map(|step| match step {
            rootfs::Step::Overlay(overlay) => Some(&**overlay),
            _ => None,
        })
    }

    /// Whether the root is mounted in the caller's mount namespace.
    pub fn mounts_for_caller(&self) -> bool {
        self.rootfs_steps().any(|step| matches!(step, rootfs::Step::AttachRoot { .. }))
    }

    /// The steps that prepare the process, and those that confine it: the filter, and what follows it.
    /// They come after `start`, so that Aril makes no system calls under the filter but capset(2) and
    /// execve(2). A filter with a listener cannot wait: the agent has the listener from `create`.
    pub fn preparation_and_confinement(&self) -> (&[Step], &[Step]) {
        let filter = self.steps.iter().position(|step| matches!(step, Step::Seccomp(_)));
        self.steps.split_at(filter.unwrap_or(self.steps.len()))
    }

    pub fn filter(&self) -> Option<&seccomp::Filter> {
        self.steps.iter().find_map(|step| match step {
            Step::Seccomp(filter) => Some(filter),
            _ => None,
        })
    }

    /// For the debug log, with the flags as seccomp(2) takes them.
    pub fn note_filter(&self) {
        if let Some(filter) = self.filter() {
            crate::time::note(format_args!("seccomp filter flags: {}", filter.flags));
        }
    }

    /// Whether the filter has a listener, which the parent takes.
    pub fn notifies(&self) -> bool {
        self.filter().is_some_and(seccomp::Filter::notifies)
    }

    pub fn landlock(&self) -> Option<&landlock::Ruleset> {
        self.steps.iter().find_map(|step| match step {
            Step::Landlock(ruleset) => Some(ruleset),
            _ => None,
        })
    }

    pub fn rootfs_steps(&self) -> impl Iterator<Item = &rootfs::Step> {
        self.steps.iter().filter_map(|step| match step {
            Step::Rootfs(step) => Some(step),
            _ => None,
        })
    }
}

/// Without `argv` none is executed: see [`crate::init::child::main`].
#[derive(Debug, Default)]
pub struct Program {
    pub argv: Vec<CString>,
    pub environment: Environment,
    pub uid: u32,
    /// As a child of Aril's init: see [`crate::init::reaper`].
    pub under_init: bool,
}

#[derive(Debug)]
pub struct ContainerPlan {
    pub id: ContainerId,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub namespaces: namespace::plan::Plan,
    pub cgroup: cgroup::Plan,
    pub rdt: Option<limits::rdt::Plan>,
    pub net_devices: Vec<network::device::Device>,
    pub network: Option<network::plan::Attachment>,
    pub names: Option<network::names::Names>,
    pub script: Script,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct ExecPlan {
    pub script: Script,
    /// CPUs of this process before it clones the one of the exec.
    pub initial_affinity: Option<IdSet>,
    pub warnings: Vec<String>,
}
