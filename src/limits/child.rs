//! Sets limits of the calling process.

use super::{IdSet, Step};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::sys::{Errno, process};

/// Bit at which the class of an I/O priority begins.
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// Runs one step.
///
/// # Errors
///
/// The kernel rejects the system call of the step, or a scheduler policy cannot be used with a cpuset.
pub fn run(step: &Step) -> ChildResult<()> {
    match step {
        Step::Rlimit(limit) => {
            process::prlimit(0, limit.resource, limit.soft, limit.hard).during("prlimit")
        }
        Step::CpuAffinity(None) => {
            process::sched_setaffinity(0, IdSet::all().mask()).during("sched_setaffinity")
        }
        Step::CpuAffinity(Some(cpus)) => {
            process::sched_setaffinity(0, cpus.mask()).during("sched_setaffinity")
        }
        Step::Scheduler { attr, cpuset } => match process::sched_setattr(attr) {
            Err(Errno::EPERM) if *cpuset => {
                Err(Fault::refused("process scheduler can't be used together with AllowedCPUs"))
            }
            other => other.during("error setting scheduler: sched_setattr"),
        },
        Step::IoPriority { class, level } => {
            process::ioprio_set(class << IOPRIO_CLASS_SHIFT | level).during("ioprio_set")
        }
        Step::Personality(persona) => process::personality(*persona).during("personality"),
        Step::MemoryPolicy { mode, nodes } => {
            process::set_mempolicy(*mode, nodes.mask()).during("set_mempolicy")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Ended;
    use crate::sys::process::SchedAttr;
    use crate::sys::spawn::in_child;

    #[test]
    fn the_kernel_takes_them() {
        let end = in_child(|| {
            let batch =
                SchedAttr { policy: libc::SCHED_BATCH as u32, nice: 5, ..Default::default() };
            for step in [
                Step::CpuAffinity(Some(IdSet::parse("cpus", "0").unwrap())),
                Step::CpuAffinity(None),
                Step::Scheduler { attr: batch, cpuset: false },
                Step::IoPriority { class: 3, level: 0 },
                Step::Personality(8),
            ] {
                run(&step).unwrap();
            }
            // The kernel may be built without NUMA.
            for (mode, nodes) in [(2, "0"), (0, "")] {
                let nodes = IdSet::parse("nodes", nodes).unwrap_or_default();
                let answer = run(&Step::MemoryPolicy { mode, nodes });
                assert!(answer.is_ok() || answer.unwrap_err().errno == Errno::ENOSYS);
            }
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            // nice and policy, by proc_pid_stat(5) less the two fields before the `)`.
            assert_eq!((fields[16], fields[38]), ("5", "3"));
        });
        assert_eq!(end, Ended::Exited(0));
    }
}
