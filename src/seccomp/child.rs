//! Loads the filter.

use std::os::fd::OwnedFd;

use super::Filter;
use crate::error::fault::{Attempt, ChildResult};
use crate::sys;

/// Loads the filter. Returns the listener if the filter notifies. The caller has no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
///
/// The kernel, or an outer filter, rejects prctl(2) or seccomp(2).
pub fn load(filter: &Filter) -> ChildResult<Option<OwnedFd>> {
    if filter.flags == 0 {
        // prctl has the same effect without flags, and an outer sandbox is more likely to allow it.
        sys::seccomp::set_mode(&filter.program).during("prctl(PR_SET_SECCOMP)")?;
        return Ok(None);
    }
    sys::seccomp::set_mode_filter(&filter.program, filter.flags).during("seccomp")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::errno::Errno;
    use nix::unistd::getsid;
    use serde_json::{Value, json};

    use super::*;
    use crate::seccomp::{parent, plan};

    /// Loads the filter in a new thread, with which the filter ends.
    #[expect(clippy::disallowed_methods, reason = "a test: the filter ends with its thread")]
    fn in_thread(profile: Value, then: impl FnOnce(Option<OwnedFd>) + Send + 'static) {
        let spec = serde_json::from_value(profile).unwrap();
        let filter = plan::compile(&spec, &parent::facts()).unwrap().filter;
        let loading = thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            then(load(&filter).unwrap());
        });
        loading.join().unwrap();
    }

    #[test]
    fn the_kernel_takes_and_obeys_a_filter() {
        // Without flags the filter is loaded by prctl, with flags by seccomp.
        for flags in [json!([]), json!(null), json!(["SECCOMP_FILTER_FLAG_LOG"])] {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
                "syscalls": [{"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                    "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]}]});
            in_thread(profile, |listener| {
                assert!(listener.is_none());
                assert_eq!(getsid(None), Err(Errno::from_raw(77)));
                assert!(getsid(Some(nix::unistd::getpid())).is_ok());
            });
        }
    }

    #[test]
    fn a_notifying_filter_has_a_listener() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "syscalls": [{"names": ["getsid"], "action": "SCMP_ACT_NOTIFY"}]});
        in_thread(profile, |listener| {
            drop(listener.unwrap());
            assert_eq!(getsid(None), Err(Errno::ENOSYS), "the listener is closed");
        });
    }
}
