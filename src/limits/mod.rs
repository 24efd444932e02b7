//! Limits and scheduling of the process: rlimits, oom_score_adj, scheduler, I/O priority, CPU affinity, memory policy,
//! personality. Cache and memory bandwidth are in [`rdt`].
//!
//! # Theory of operation
//!
//! [`plan::plan`] divides `process` and `linux` into two kinds. The parent sets limits that need privileges, by the child's
//! pid, see [`parent`]: raising a hard limit or lowering oom_score_adj needs CAP_SYS_RESOURCE in the *initial* user namespace.
//! It sets rlimits last, when the child is ready, because they would affect the setup. The others are [`Step`]s that the
//! child runs right before seccomp. It is in its cgroup then, and the cpuset determines the CPUs of an affinity.

pub mod child;
pub mod parent;
pub mod plan;
pub mod rdt;
mod set;

use std::fmt;

use crate::sys::process::SchedAttr;

pub use plan::{LimitsRequest, Plan};
pub use set::IdSet;

/// Step of the child that sets one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Set a resource limit. For a child in a user namespace, the parent sets it.
    Rlimit(Rlimit),
    /// Set the CPU affinity. `None` for every CPU of the cpuset.
    CpuAffinity(Option<IdSet>),
    Scheduler {
        attr: SchedAttr,
        /// True if the container has a cpuset, with which some policies cannot be used.
        cpuset: bool,
    },
    IoPriority {
        class: u32,
        level: u32,
    },
    Personality(u32),
    MemoryPolicy {
        /// Mode with its flags.
        mode: u32,
        nodes: IdSet,
    },
}

/// Resource limit of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Number of the resource, `RLIMIT_*`.
    pub resource: u32,
    pub name: &'static str,
    pub soft: u64,
    pub hard: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rlimit(limit) => write!(f, "rlimit {limit}"),
            Self::CpuAffinity(None) => f.write_str("cpu affinity all"),
            Self::CpuAffinity(Some(cpus)) => write!(f, "cpu affinity {cpus}"),
            Self::Scheduler { attr, .. } => {
                write!(f, "scheduler policy {} flags {:#x}", attr.policy, attr.flags)?;
                write!(f, " nice {} priority {}", attr.nice, attr.priority)?;
                let SchedAttr { runtime, deadline, period, .. } = attr;
                write!(f, " runtime {runtime} deadline {deadline} period {period}")
            }
            Self::IoPriority { class, level } => {
                write!(f, "io priority class {class} level {level}")
            }
            Self::Personality(persona) => write!(f, "personality {persona:#x}"),
            Self::MemoryPolicy { mode, nodes } => {
                write!(f, "memory policy mode {mode:#x} nodes {nodes}")
            }
        }
    }
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.name, self.soft, self.hard)
    }
}
