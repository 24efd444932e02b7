//! Which system calls the container may make.
//!
//! A profile (`linux.seccomp`) names system calls, conditions on their arguments and actions. From
//! it [`plan::compile`] makes the program that the kernel runs before each system call, without
//! libseccomp but deciding as it does:
//!
//! - A name is a number on each architecture ([`syscalls`]); where the architecture has no such
//!   call the rule is void there, and i386 gets a second rule for `socketcall` and `ipc`.
//! - Of several rules for one system call, one without conditions decides, the earliest of them; of
//!   those with conditions the more specific ([`clause`]).
//! - Above the highest number that the profile names, the answer is ENOSYS rather than the default:
//!   its author could not know those calls, and C libraries fall back on ENOSYS only. Profiles whose
//!   default lets unknown calls through need no such answer.
//! - An architecture that the profile does not name is killed; the native one is always named.
//!
//! The child loads the program last ([`child::load`]), right before startContainer hooks and execve,
//! where it cannot be in Aril's own way. With a rule that notifies, it is loaded before the container is
//! created: loading returns the listener, which the parent fetches (no message that the filter could
//! stop) and hands to the agent ([`parent::hand_over`]).

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

/// What the child loads. Its `Display` is the step's line in `aril plan`.
#[derive(Debug, Clone)]
pub struct Filter {
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
    outline: Outline,
}

/// What the program came from.
#[derive(Debug, Clone)]
struct Outline {
    default: Action,
    /// System calls of the native architecture that rules decide.
    syscalls: usize,
    arches: Vec<Arch>,
}

/// The agent that answers for calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub path: PathBuf,
    pub metadata: Option<String>,
}

impl Filter {
    /// Whether loading returns a listener.
    pub fn notifies(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outline { default, syscalls, arches } = &self.outline;
        write!(f, "seccomp: default {default}, {syscalls} syscalls, archs")?;
        for arch in arches {
            write!(f, " {arch}")?;
        }
        write!(f, ", {} instructions", self.program.len())
    }
}
