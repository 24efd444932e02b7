//! The systemd driver: the container's cgroup is that of a transient scope.
//!
//! # Theory of operation
//!
//! systemd owns the cgroup tree of its host and gives parts of it away: a scope with `Delegate=yes`
//! is a cgroup that it makes, keeps and removes, and whose inside it leaves alone. `cgroupsPath` is
//! `slice:prefix:name` and names the scope `prefix-name.scope`.
//!
//! A scope is made around a process that exists: systemd moves it by its pid, and sleeps for an RCU
//! grace period (8 to 16 ms on an idle host). It is refused without a process to move, even if that
//! is there already. But it is systemd's sleep, and none of ours:
//!
//! 1. The cgroup is made by us, where systemd will look for it, and the first process is born in it:
//!    exactly as without systemd ([`super::parent::create`]).
//! 2. [`parent::start`] asks for the scope around that process, which has begun with its mounts
//!    meanwhile. One message, with all properties; the limits are among them, so that systemd never
//!    writes others than we do.
//! 3. systemd answers when it has the unit, and goes on to move the process, which we do not wait
//!    for. Only where it would write a limit that is not ours do we wait for the end of its job,
//!    and have the last word ([`Unit::settles`]).
//!
//! A user may not clone into a cgroup if they may not move a process from their own to it: from a
//! login session to their systemd's tree, for one. There the first process is born beside us, and
//! held until systemd has moved it ([`super::parent::Created::moves`]).
//!
//! **The end.** A scope goes by itself when its cgroup is empty, and with `CollectMode` a failed one
//! too. `delete` sees whether it has gone, by the unit's file, and only if not asks for it, before it
//! removes the cgroup: systemd hears of no cgroup's end that is removed before it has looked. A
//! systemd that is dead is no hindrance.
//!
//! **The connection** ([`bus`]) leads to systemd itself where it may, so that no bus daemon is in
//! between. It is used for one exchange and closed.

pub mod bus;
mod devices;
mod message;
pub mod parent;
pub mod plan;
mod properties;
mod text;
mod value;

use std::fmt;
use std::path::PathBuf;

pub use value::Value;

/// The systemd that makes the scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// That of a user rather than that of the host.
    pub user: bool,
    /// Its cgroup, within the hierarchy.
    pub cgroup: PathBuf,
    /// The text of `/proc/devices`, by which it calls groups of devices.
    pub devices: String,
}

/// The scope of a container, or a slice if its name says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// Of a user's systemd.
    pub user: bool,
    pub properties: Vec<Property>,
    /// Limits of memory that setting up would not fit into: see [`super::memory`].
    pub tight: Vec<Property>,
    /// systemd will write something that is not ours to a file of ours: what it does must be over
    /// before we write.
    pub settles: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// Left out if this systemd is too old for it.
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
    /// A slice is made around nothing.
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

/// `aril plan`: the unit, then its properties.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.user { "the user's systemd" } else { "systemd" };
        write!(f, "cgroup: {whose} makes {}:", self.name)?;
        self.properties.iter().try_for_each(|property| write!(f, " {property}"))
    }
}
