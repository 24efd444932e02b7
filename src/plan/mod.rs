//! Plan of a container, or of a process in one, complete before the first effect.
//!
//! [`compile`] turns a spec, options and facts about the host into a [`ContainerPlan`] or an
//! [`ExecPlan`]; every error in the input surfaces there. The child's part is a list of [`Step`]s,
//! which [`show`] prints, the timeline measures and errors name.

pub mod compile;
pub mod edits;
pub mod effect;
pub mod facts;
pub mod process;
pub mod show;

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use crate::id::ContainerId;
use crate::identity::descriptors::PassedDescriptors;
use crate::identity::environment::Environment;
use crate::limits::{IdSet, Rlimit};
use crate::sys::tty::Size;
use crate::volume::MountedVolume;
use crate::{
    cgroup, console, hook, identity, landlock, limits, namespace, network, rootfs, seccomp,
};

/// One action of the child.
#[derive(Debug)]
pub enum Step {
    Namespace(namespace::Step),
    Network(network::Step),
    Rootfs(rootfs::Step),
    /// The parent runs prestart and createRuntime.
    RuntimeHooks,
    /// Run createContainer hooks in the container's namespaces, before pivot_root(2).
    ContainerHooks,
    Terminal(Option<Size>),
    Limits(limits::Step),
    /// The parent sets the rlimits: in a user namespace the child cannot raise them.
    Rlimits(Vec<Rlimit>),
    Identity(identity::Step),
    /// Create the Landlock ruleset. It is enforced at `start`.
    Landlock(landlock::Ruleset),
    /// Close inherited descriptors, before a filter can reject the call.
    CloseDescriptors,
    Seccomp(seccomp::Filter),
    /// Set HOME if the environment has none.
    Home,
    /// Look up `args[0]` as the user that will execute it.
    LookUpProgram,
    /// Join the remaining namespaces of the running container.
    Enter,
}

impl Step {
    /// Returns the step in the words of an error.
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

/// Script of the child: its steps and its program.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: Vec<Step>,
    pub hooks: hook::Plan,
    pub program: Program,
    /// Number of descriptors above 2 that the program gets.
    pub passed: PassedDescriptors,
    /// Terminal of the program, and the socket or process that gets its master. `None` without a terminal.
    pub console: Option<console::Plan>,
    /// Resource limits that the parent sets. [`Step::Rlimits`] has them, too.
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub seccomp_listener: Option<seccomp::Listener>,
}

impl Script {
    /// Returns the overlay, if the root is made of layers.
    pub fn overlay(&self) -> Option<&rootfs::overlay::Overlay> {
        self.rootfs_steps().find_map(|step| match step {
            rootfs::Step::Overlay(overlay) => Some(&**overlay),
            _ => None,
        })
    }

    /// Returns true if the root is mounted in the caller's mount namespace.
    pub fn mounts_for_caller(&self) -> bool {
        self.rootfs_steps().any(|step| matches!(step, rootfs::Step::AttachRoot { .. }))
    }

    /// Splits the steps into those before `start` and those after: the filter, and the steps that follow it. So Aril makes no
    /// system calls under the filter but capset(2) and execve(2). A filter with a listener is loaded before `start`, because
    /// the agent gets the listener from `create`.
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

    /// Returns the filter's line of the debug log, with the flags of seccomp(2).
    pub fn note_filter(&self) {
        if let Some(filter) = self.filter() {
            crate::time::note(format_args!("seccomp filter flags: {}", filter.flags));
        }
    }

    /// Returns true if the filter has a listener, which the parent receives.
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

/// Program to execute; none without `argv`: see [`crate::init::child::main`].
#[derive(Debug, Default)]
pub struct Program {
    pub argv: Vec<CString>,
    pub environment: Environment,
    pub uid: u32,
    /// True if the program runs as a child of Aril's init: see [`crate::init::reaper`].
    pub under_init: bool,
}

#[derive(Debug)]
pub struct ContainerPlan {
    pub id: ContainerId,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// Directory of the container in the state root.
    pub state_directory: PathBuf,
    /// Directory of the notify socket, if the caller has NOTIFY_SOCKET.
    pub notify_directory: Option<PathBuf>,
    pub volumes: Vec<MountedVolume>,
    pub namespaces: namespace::plan::Plan,
    pub cgroup: cgroup::Plan,
    pub rdt: Option<limits::rdt::Plan>,
    pub net_devices: Vec<network::device::Device>,
    pub network: Option<network::plan::Attachment>,
    /// Container whose network namespace is joined.
    pub shares_network: Option<ContainerId>,
    /// True if pasta connects the network namespace of an ordinary user.
    pub pasta: bool,
    pub names: Option<network::names::Names>,
    pub script: Script,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct ExecPlan {
    pub script: Script,
    /// CPUs to which this process is bound before it clones the process of the exec.
    pub initial_affinity: Option<IdSet>,
    pub warnings: Vec<String>,
}
