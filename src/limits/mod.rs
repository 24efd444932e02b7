//! What the process may use, and how the kernel schedules it: rlimits, oom_score_adj, scheduler,
//! I/O priority, CPU affinity, memory policy, personality; its share of caches and bandwidth is in [`rdt`].
//!
//! # Theory of operation
//!
//! [`plan::plan`] sorts `process` and `linux` into two kinds. What only the runtime may do (raising
//! a hard limit or lowering oom_score_adj needs CAP_SYS_RESOURCE of the *initial* user namespace,
//! which a container in its own has not got) the parent does to the child by its pid, see
//! [`parent`]: rlimits last, when the child is ready, so that they hamper no setup. The rest are
//! [`Step`]s that the child takes right before seccomp, after it has entered its cgroup: a cpuset
//! decides which CPUs an affinity can mean.

pub mod child;
pub mod parent;
pub mod plan;
pub mod rdt;
mod set;

use std::fmt;

use crate::sys::process::SchedAttr;

pub use plan::{Input, Plan};
pub use set::IdSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Where the child may set its own: not in a user namespace.
    Rlimit(Rlimit),
    /// None: every CPU that the cpuset allows.
    CpuAffinity(Option<IdSet>),
    Scheduler {
        attr: SchedAttr,
        /// The container has a cpuset, which some policies cannot be used with.
        cpuset: bool,
    },
    IoPriority {
        class: u32,
        level: u32,
    },
    Personality(u32),
    MemoryPolicy {
        /// With the mode flags.
        mode: u32,
        nodes: IdSet,
    },
}

/// A resource limit of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`, the number.
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
