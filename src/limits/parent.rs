//! Sets those limits of the child that need the runtime's privileges, by the child's pid.

use std::ffi::CString;

use super::{IdSet, Rlimit};
use crate::error::{Context, OsContext, Result};
use crate::fs::Proc;
use crate::id::HostPid;
use crate::sys::process;

/// Sets the rlimits. It is called when the child is ready, because the child's setup needs descriptors and memory.
///
/// # Errors
///
/// The kernel rejects a limit: raising a hard limit needs CAP_SYS_RESOURCE.
pub fn set_rlimits(pid: HostPid, limits: &[Rlimit]) -> Result<()> {
    limits.iter().try_for_each(|limit| {
        process::prlimit(pid.0, limit.resource, limit.soft, limit.hard)
            .os("prlimit", limit)
            .context(|| format!("error setting rlimit type {}", limit.resource))
    })
}

/// Sets oom_score_adj. It is called before the child changes its user: the kernel rejects it for another user's
/// process.
///
/// # Errors
///
/// An error of write(2): `EACCES` if the score is lowered without CAP_SYS_RESOURCE.
pub fn set_oom_score_adj(proc: &Proc, pid: HostPid, score: i32) -> Result<()> {
    let path = format!("{}/oom_score_adj", pid.0);
    // A number has no NUL byte.
    let name = CString::new(path.as_str()).unwrap_or_default();
    proc.write(&name, score.to_string().as_bytes())
        .os("write", format!("/proc/{path}"))
        .context(|| format!("set oom_score_adj {score}"))
}

/// Sets the CPU affinity of this process, which the exec process inherits before it joins the cgroup.
///
/// # Errors
///
/// `EINVAL` if none of the CPUs is available.
pub fn set_initial_affinity(cpus: &IdSet) -> Result<()> {
    process::sched_setaffinity(0, cpus.mask())
        .os("sched_setaffinity", cpus)
        .context(|| "error setting initial CPU affinity".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Ended;
    use crate::sys::spawn::in_child;

    fn own_pid() -> HostPid {
        HostPid(nix::unistd::getpid().as_raw())
    }

    #[test]
    fn limits_reach_the_process() {
        let end = in_child(|| {
            let (resource, name) = (libc::RLIMIT_CORE, "RLIMIT_CORE");
            let zero = Rlimit { resource, name, soft: 0, hard: 0 };
            set_rlimits(own_pid(), &[zero]).unwrap();
            let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
            let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
            assert_eq!(core.split_whitespace().nth(4), Some("0"));

            set_oom_score_adj(&Proc::of_the_host().unwrap(), own_pid(), 1000).unwrap();
            assert_eq!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), "1000\n");
        });
        assert_eq!(end, Ended::Exited(0));
    }

    #[test]
    fn a_refused_limit_is_named() {
        let limit = Rlimit { resource: 99, name: "RLIMIT_X", soft: 0, hard: 0 };
        assert_eq!(
            set_rlimits(own_pid(), &[limit]).unwrap_err().to_string(),
            "error setting rlimit type 99: prlimit RLIMIT_X 0:0: invalid argument"
        );
    }
}
