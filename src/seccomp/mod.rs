//! Compiles a seccomp profile to a BPF program, and loads it.
//!
//! A profile (`linux.seccomp`) names system calls, conditions on their arguments, and actions. [`plan::compile`] turns
//! it into the program that the kernel runs before each system call. It does not use libseccomp, but decides like it:
//!
//! - A name stands for a number on each architecture ([`syscalls`]). A rule is void on an architecture without the
//!   system call. On i386 a rule may apply to `socketcall` or `ipc` too.
//! - If several rules name one system call, the first one without conditions decides. Among rules with conditions, the
//!   most specific one decides ([`clause`]).
//! - A number above the highest one that the profile names gets ENOSYS, not the default action. The author of the
//!   profile could not know such calls, and C libraries fall back only on ENOSYS. A profile whose default action allows
//!   unknown calls does not need this.
//! - A call of an architecture that the profile does not name kills the thread. The native architecture always counts
//!   as named.
//!
//! The child loads the program last ([`child::load`]), right before startContainer hooks and execve, so that the filter
//! does not affect Aril's own calls. A filter with a rule that notifies is loaded before the container is created.
//! Loading it returns the listener. The parent duplicates the listener with pidfd_getfd(2), because the filter may deny
//! sendmsg(2), and sends it to the agent ([`parent::send_listener`]).

mod action;
mod arch;
mod bpf;
pub mod child;
mod clause;
pub mod coverage;
pub mod parent;
pub mod plan;
mod profile;
#[cfg(any(test, fuzzing))]
pub mod reference;
pub mod report;
mod syscalls;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use libc::sock_filter;

pub use action::Action;
pub use arch::Arch;

/// Filter that the child loads. `aril plan` prints its `Display` text.
#[derive(Debug, Clone)]
pub struct Filter {
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
    summary: Summary,
}

/// Properties of the profile for the text of the filter.
#[derive(Debug, Clone)]
struct Summary {
    default: Action,
    /// Number of system calls of the native architecture that rules decide.
    syscalls: usize,
    arches: Vec<Arch>,
}

/// Agent that answers calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Socket of the agent.
    pub path: PathBuf,
    /// `listenerMetadata`, which the agent gets.
    pub metadata: Option<String>,
}

impl Filter {
    /// Returns true if loading the filter returns a listener.
    pub fn notifies(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { default, syscalls, arches } = &self.summary;
        write!(f, "seccomp: default {default}, {syscalls} syscalls, archs")?;
        for arch in arches {
            write!(f, " {arch}")?;
        }
        write!(f, ", {} instructions", self.program.len())
    }
}
