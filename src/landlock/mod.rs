//! Landlock: restricts what the container's programs may do with files, TCP ports, and processes outside their
//! Landlock domain. `docs/landlock.md` describes the annotation for users.
//!
//! # Theory of operation
//!
//! [`plan::plan`] turns the annotation and the running kernel's ABI version into a [`Ruleset`]. What the kernel
//! cannot restrict is an error or a warning, depending on the annotation's `mode`. The child creates the ruleset
//! while it is privileged ([`child::make`]), with paths opened beneath its new root. It enforces the ruleset
//! ([`child::enforce`]) when no remaining step of setup could violate it: after the gate, before a seccomp filter,
//! which need not allow the call, and before execve. Enforcement requires no_new_privs, so a ruleset sets it.
//!
//! Access that a ruleset handles is denied unless a rule allows it. Each process that enforces a ruleset starts its
//! own domain: an `exec` process is not in the domain of the container's init process.

pub mod child;
pub mod parent;
pub mod plan;

use std::ffi::CString;
use std::fmt;

use crate::sys::landlock::Handled;

/// Ruleset that the child creates. Its `Display` is the step's line in `aril plan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Landlock ABI version of the kernel.
    pub version: u32,
    pub handled: Handled,
    pub paths: Vec<PathRule>,
    pub ports: Vec<PortRule>,
    /// A missing path is an error; otherwise it gets no rule.
    pub required: bool,
}

/// Access that is allowed beneath a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// Path in the container.
    pub path: CString,
    pub access: u64,
}

/// Access that is allowed on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    pub port: u16,
    pub access: u64,
}

/// `LANDLOCK_ACCESS_FS_*`
mod fs {
    pub const EXECUTE: u64 = 1;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    /// Creation and removal of entries of every kind.
    pub const CHANGE_DIR: u64 = 0x1ff0;
    /// Renaming and linking between directories.
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;

    /// Access rights that apply to files other than directories.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// `LANDLOCK_ACCESS_NET_*`
mod net {
    pub const BIND_TCP: u64 = 1;
    pub const CONNECT_TCP: u64 = 1 << 1;
}

/// `LANDLOCK_SCOPE_*`
mod scope {
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1;
    pub const SIGNAL: u64 = 1 << 1;
}

impl Ruleset {
    /// Lists what is restricted, in the annotation's words.
    pub fn restricts(&self) -> String {
        let Handled { fs, net, scoped } = self.handled;
        let words: Vec<_> = [
            (fs, u64::MAX, "files"),
            (net, net::BIND_TCP, "tcp bind"),
            (net, net::CONNECT_TCP, "tcp connect"),
            (scoped, scope::ABSTRACT_UNIX_SOCKET, "abstract unix sockets"),
            (scoped, scope::SIGNAL, "signals"),
        ]
        .into_iter()
        .filter_map(|(handled, bit, word)| (handled & bit != 0).then_some(word))
        .collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (paths, ports) = (self.paths.len(), self.ports.len());
        write!(f, "landlock version {}: {}; ", self.version, self.restricts())?;
        write!(f, "{paths} rules for paths, {ports} for ports")
    }
}
