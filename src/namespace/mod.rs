//! Namespaces: creates or joins them in the order that the kernel requires, and sets their values.
//!
//! # Theory of operation
//!
//! All new namespaces are created by the `clone3` of the container's first process, with four exceptions:
//!
//! * **cgroup**: its root is the cgroup of the task that creates it, which for `clone3` is the parent's. So the child unshares
//!   it after it has been moved to its cgroup.
//! * **time**: offsets can be written only while no task is in it. So the parent (or the relay) unshares it for its children,
//!   writes the offsets, then clones.
//! * **ipc in a user namespace**: its message queues belong to the user that creates it, which is not mapped at the clone.
//!   So the child unshares it after it became root.
//! * **pid by path**: setns(2) affects only the caller's *children*, so the parent joins and clones.
//!
//! The child itself joins the other namespaces. With a user namespace it cannot: a task in the user namespace is not permitted
//! to join namespaces that its parent owns, and new namespaces must be owned by it. Then a *relay* joins them, clones the
//! child as its sibling, and ends.

pub mod auto;
pub mod child;
pub mod parent;
pub mod plan;
mod sysctl;

use std::ffi::CString;
use std::fmt;

use oci_spec::runtime::LinuxNamespaceType;

/// Kind of namespace, named as in `/proc/<pid>/ns/`.
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

    /// Returns the file's name in `/proc/<pid>/ns/`.
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

    /// Returns the name in the OCI specification.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Net => "network",
            other => other.file(),
        }
    }

    /// Returns the key in runc's state.json, which node agents read.
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

/// Namespace to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: Kind,
    pub path: CString,
}

/// Content of `uid_map` and `gid_map` of a new user namespace, one line per entry.
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

/// Returns the host's id of the container's `id`.
pub fn host_id(map: &[Mapping], id: u32) -> Option<u32> {
    map.iter()
        .find(|m| id >= m.container && id - m.container < m.size)
        .and_then(|m| m.host.checked_add(id - m.container))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Join(Join),
    /// Become root of the user namespace, after its mappings were written or it was joined.
    BecomeRoot,
    /// Create the namespaces that clone3 cannot create.
    Unshare(Kind),
    /// Create a time namespace in the new user namespace of an ordinary user, with lines for `/proc/self/timens_offsets`.
    NewTime(Option<String>),
    Hostname(CString),
    Domainname(CString),
    /// Write a sysctl by its path in /proc (`sys/...`).
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
