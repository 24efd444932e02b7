//! Landlock: what the container's programs may do with files, TCP ports, and processes that are not
//! confined with them. `docs/landlock.md` is the page for those who write the annotation.
//!
//! # Theory of operation
//!
//! [`plan::plan`] turns the annotation and the interface's version of the running kernel into a
//! [`Ruleset`]; what the kernel cannot restrict is an error or a warning, as the annotation's `mode`
//! says. The child makes the ruleset while it is still privileged ([`child::make`]), with the paths
//! opened beneath its new root, and confines itself ([`child::enforce`]) when nothing is left that its
//! own rules could stop: after the gate, before a seccomp filter that need not allow the call, and
//! before execve. Confinement takes no_new_privs, which a ruleset therefore brings with it.
//!
//! What a ruleset handles is denied unless a rule allows it. Each process that confines itself is a
//! domain of its own: that of an `exec` is no part of the container's first.

pub mod child;
pub mod parent;
pub mod plan;

use std::ffi::CString;
use std::fmt;

use crate::sys::landlock::Handled;

/// What the child makes. Its `Display` is the step's line in `aril plan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Of the kernel's interface.
    pub version: u32,
    pub handled: Handled,
    pub paths: Vec<PathRule>,
    pub ports: Vec<PortRule>,
    /// A path that is not there is an error rather than a rule less.
    pub required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// As the container sees it.
    pub path: CString,
    pub access: u64,
}

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
    /// Removing and making entries of every kind.
    pub const CHANGE_DIR: u64 = 0x1ff0;
    /// Renaming and linking from one directory to another.
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;

    /// What can be allowed of something that is no directory.
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
    /// What is restricted, in the annotation's words.
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
