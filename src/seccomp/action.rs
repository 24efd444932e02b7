//! What a filter answers.

use std::fmt;

use oci_spec::runtime::LinuxSeccompAction as SpecAction;

/// A `SECCOMP_RET_*` with its 16 bits of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(u32);

impl Action {
    /// For an architecture that the profile does not name.
    pub const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    /// For a system call that the profile's author could not know.
    pub const ENOSYS: Self = Self(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    /// `errno` is used by ERRNO and TRACE, which default to EPERM; the kernel takes 16 bits.
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

    /// Whether `action` has a number to give: config-linux.md refuses one for any other.
    pub fn takes_errno(action: SpecAction) -> bool {
        matches!(action, SpecAction::ScmpActErrno | SpecAction::ScmpActTrace)
    }

    /// The operand of the filter's return instruction.
    pub fn code(self) -> u32 {
        self.0
    }

    /// Whether an unknown system call reaches the kernel (or a tracer), which then says ENOSYS
    /// itself.
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
