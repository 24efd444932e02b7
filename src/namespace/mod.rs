//! Namespaces: which are made, which are joined, in what order, and what is set inside them.
//!
//! # Theory of operation
//!
//! All new namespaces come into being in the one `clone3` that makes the container's first process,
//! with four exceptions that the kernel forces:
//!
//! * **cgroup**: its root is the cgroup of the task that makes it, and `clone3` still counts the
//!   parent's, so the child unshares it once it lives in its own cgroup.
//! * **time**: offsets can be written only while no task is inside, so the parent (or the relay)
//!   unshares it for its children, writes them, and clones after.
//! * **ipc in a user namespace**: its message queues belong to who makes it, and at the clone that is
//!   an id that is not mapped; the child unshares it once it is root there.
//! * **pid by path**: joining changes the caller's *children* only, so the parent joins and clones.
//!
//! Joined namespaces are entered by the child itself. Where a user namespace is involved that fails:
//! a task that is inside it may no longer join namespaces owned outside, and new namespaces must be
//! owned by it. Then a *relay* does the joining, clones the child as its own sibling, and ends.

pub mod auto;
pub mod child;
pub mod parent;
pub mod plan;
mod sysctl;

use std::ffi::CString;
use std::fmt;

use oci_spec::runtime::LinuxNamespaceType;

/// A namespace kind, by the name that `/proc/<pid>/ns/` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cgroup,
    Ipc,
    Mount,
    Net,
    Pid,
    Time,
    User,
    Uts,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Cgroup,
        Self::Ipc,
        Self::Mount,
        Self::Net,
        Self::Pid,
        Self::Time,
        Self::User,
        Self::Uts,
    ];

    pub fn flag(self) -> i32 {
        match self {
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Net => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Time => crate::sys::namespace::TIME,
            Self::User => libc::CLONE_NEWUSER,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }

    /// The file's name under `/proc/<pid>/ns/`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    /// The name that the OCI specification uses.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Net => "network",
            other => other.file(),
        }
    }

    /// The key in runc's state.json, which node agents read.
    pub fn record_key(self) -> &'static str {
        match self {
            Self::Cgroup => "NEWCGROUP",
            Self::Ipc => "NEWIPC",
            Self::Mount => "NEWNS",
            Self::Net => "NEWNET",
            Self::Pid => "NEWPID",
            Self::Time => "NEWTIME",
            Self::User => "NEWUSER",
            Self::Uts => "NEWUTS",
        }
    }

    fn from_spec(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Network => Self::Net,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Time => Self::Time,
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Uts => Self::Uts,
        }
    }
}

/// A namespace to enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: Kind,
    pub path: CString,
}

/// `uid_map` and `gid_map` of a new user namespace, one line an entry, ready to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps {
    pub uid: Vec<Mapping>,
    pub gid: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// The host's id behind the container's `id`.
pub fn host_id(map: &[Mapping], id: u32) -> Option<u32> {
    map.iter()
        .find(|m| id >= m.container && id - m.container < m.size)
        .and_then(|m| m.host.checked_add(id - m.container))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Join(Join),
    /// Root of the user namespace, new (its maps are written by then) or joined.
    BecomeRoot,
    /// What cannot come into being with the process.
    Unshare(Kind),
    /// A time namespace of an ordinary user's, with lines for `/proc/self/timens_offsets`: only in
    /// the new user namespace is there the right to make it.
    NewTime(Option<String>),
    Hostname(CString),
    Domainname(CString),
    /// A value under `/proc/sys`, by its path in /proc (`sys/...`).
    Sysctl {
        key: CString,
        value: Vec<u8>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(join) => {
                write!(f, "join {} namespace {}", join.kind.oci(), join.path.to_string_lossy())
            }
            Self::BecomeRoot => f.write_str("become root of the user namespace"),
            Self::NewTime(_) => f.write_str("new time namespace"),
            Self::Unshare(kind) => write!(f, "new {} namespace", kind.oci()),
            Self::Hostname(name) => write!(f, "hostname {}", name.to_string_lossy()),
            Self::Domainname(name) => write!(f, "domainname {}", name.to_string_lossy()),
            Self::Sysctl { key, value } => write!(
                f,
                "sysctl {} = {}",
                key.to_string_lossy().trim_start_matches("sys/"),
                String::from_utf8_lossy(value)
            ),
        }
    }
}
