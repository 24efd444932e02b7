//! Actions of a filter.

use std::fmt;

use oci_spec::runtime::LinuxSeccompAction as SpecAction;

/// Action: a `SECCOMP_RET_*` with its 16 bits of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(u32);

impl Action {
    /// Action for an architecture that the profile does not name.
    pub const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    /// Action for a system call that the author of the profile could not know.
    pub const ENOSYS: Self = Self(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    /// Converts an action of the specification. ERRNO and TRACE use `errno`, of which the kernel uses 16 bits. The
    /// default is EPERM.
    pub fn from_spec(action: SpecAction, errno: Option<u32>) -> Self {
        let data = errno.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
        Self(match action {
            SpecAction::ScmpActKill | SpecAction::ScmpActKillThread => {
                libc::SECCOMP_RET_KILL_THREAD
            }
            SpecAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            SpecAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
            SpecAction::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
            SpecAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
            SpecAction::ScmpActTrace => libc::SECCOMP_RET_TRACE | data,
            SpecAction::ScmpActLog => libc::SECCOMP_RET_LOG,
            SpecAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        })
    }

    /// Returns true if `action` has an error number. config-linux.md forbids one for other actions.
    pub fn takes_errno(action: SpecAction) -> bool {
        matches!(action, SpecAction::ScmpActErrno | SpecAction::ScmpActTrace)
    }

    /// Returns the operand of the filter's return instruction.
    pub fn code(self) -> u32 {
        self.0
    }

    /// Returns true if an unknown system call reaches the kernel (or a tracer), which returns ENOSYS itself.
    pub fn is_permissive(self) -> bool {
        matches!(
            self.0 & libc::SECCOMP_RET_ACTION_FULL,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0 & libc::SECCOMP_RET_DATA;
        match self.0 & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_KILL_THREAD => f.write_str("KILL_THREAD"),
            libc::SECCOMP_RET_KILL_PROCESS => f.write_str("KILL_PROCESS"),
            libc::SECCOMP_RET_TRAP => f.write_str("TRAP"),
            libc::SECCOMP_RET_ERRNO => write!(f, "ERRNO({data})"),
            libc::SECCOMP_RET_USER_NOTIF => f.write_str("NOTIFY"),
            libc::SECCOMP_RET_TRACE => write!(f, "TRACE({data})"),
            libc::SECCOMP_RET_LOG => f.write_str("LOG"),
            libc::SECCOMP_RET_ALLOW => f.write_str("ALLOW"),
            other => write!(f, "{other:#x}"),
        }
    }
}
