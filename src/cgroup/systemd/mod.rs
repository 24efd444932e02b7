//! The systemd driver: the container's cgroup is that of a transient scope.
//!
//! # Theory of operation
//!
//! systemd owns the host's cgroup tree and delegates parts of it: a scope with `Delegate=yes` is a cgroup that systemd
//! creates, keeps and removes, without changing its content. `cgroupsPath` is `slice:prefix:name` and names the scope
//! `prefix-name.scope`.
//!
//! systemd creates a scope around an existing process, which it moves by pid, and sleeps for an RCU grace period (8 to
//! 16 ms on an idle host). It requires a process even if that is in the cgroup already. systemd sleeps, but Aril does
//! not:
//!
//! 1. Aril creates the cgroup at the path that systemd will use, and clones the first process into it, as without
//!    systemd ([`super::parent::create`]).
//! 2. [`parent::start`] requests the scope around that process, which sets up its mounts at the same time. One message
//!    contains all properties, with the limits, so that systemd never writes other limits than Aril.
//! 3. systemd answers when it has the unit, then moves the process. Aril waits for the end of that job only if systemd
//!    would write a different limit, and writes its own limit after it ([`Unit::settles`]).
//!
//! ```text
//! aril:    create cgroup -> clone3 into it -> StartTransientUnit -> limits, Run
//! systemd:                                    accept, reply -> move process -> write limits
//! ```
//!
//! A user may not clone into a cgroup without permission to move a process there from the user's own cgroup, for
//! example from a login session to the tree of the user's systemd. Then the first process is cloned in the runtime's
//! cgroup, and waits until systemd has moved it ([`super::parent::Created::moves`]).
//!
//! **Removal.** systemd removes a scope when its cgroup is empty, and with `CollectMode` also a failed one. `delete`
//! looks for the unit's file; if it exists, `delete` requests the removal before it removes the cgroup, because
//! systemd does not notice a cgroup that is removed before it has looked. A systemd that does not answer is no error.
//!
//! **Connection.** [`bus`] connects to systemd itself if that is permitted, without a bus daemon. A connection is used
//! for one exchange and closed.

pub mod bus;
mod devices;
mod message;
pub mod parent;
pub mod plan;
pub mod properties;
mod text;
mod value;

use std::fmt;
use std::path::PathBuf;

pub use value::Value;

/// systemd instance that creates the scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// True for the systemd of a user, false for that of the host.
    pub user: bool,
    /// Cgroup of systemd, within the hierarchy.
    pub cgroup: PathBuf,
    /// Text of `/proc/devices`, which has the names of groups of devices.
    pub devices: String,
}

/// Scope of a container, or slice if its name says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// True for a unit of a user's systemd.
    pub user: bool,
    pub properties: Vec<Property>,
    /// Memory limits that the setup would exceed: see [`super::memory`].
    pub tight: Vec<Property>,
    /// True if systemd will write a different value to one of Aril's files: its job must end before Aril writes.
    pub settles: bool,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// Properties that are left out if this systemd is too old for them.
    pub recent: bool,
}

impl Property {
    fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { name: name.into(), value: value.into(), recent: false }
    }

    fn recent(self) -> Self {
        Self { recent: true, ..self }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl Unit {
    /// A slice contains no process of its own.
    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    fn slice(&self) -> Option<&str> {
        self.properties.iter().find_map(|p| match &p.value {
            Value::String(slice) if p.name == "Slice" => Some(&**slice),
            _ => None,
        })
    }
}

/// Formats the unit, then its properties, for `aril plan`.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.user { "the user's systemd" } else { "systemd" };
        write!(f, "cgroup: {whose} makes {}:", self.name)?;
        self.properties.iter().try_for_each(|property| write!(f, " {property}"))
    }
}
