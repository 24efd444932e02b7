//! `linux.intelRdt`: caches and memory bandwidth, by groups of the resctrl file system.
//!
//! # Theory of operation
//!
//! A group is a directory of resctrl; a process is in the group whose `tasks` names it, and what it
//! clones is born there. [`plan()`] decides the directories; the parent makes them, with the record
//! written before, and writes the child's pid into `tasks` while the child sets itself up. Who named
//! the group (`closID`) owns it, even if it was made for this container; only a group by the
//! container's id is removed with it, and so is its monitoring group.

pub mod parent;
mod plan;
pub mod stats;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use plan::{Input, plan, schemas};

/// What the host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resctrl {
    /// Where it is mounted.
    pub root: PathBuf,
    /// The directories there.
    pub groups: Vec<String>,
}

/// What a record keeps of it, for `exec` and `delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub path: PathBuf,
    /// Goes with the container.
    pub own: bool,
    /// The monitoring group below, which does too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where resctrl is mounted.
    pub root: PathBuf,
    pub group: Group,
    /// It is not there yet.
    pub make: bool,
    /// Of a group that is there already: what its schemata must say.
    pub compare: Vec<String>,
    /// Lines for `schemata`, in order.
    pub schemata: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.make { "make" } else { "join" };
        write!(f, "{verb} resctrl group {}", self.group.path.display())?;
        self.schemata.iter().try_for_each(|line| write!(f, " {line}"))?;
        if self.group.monitor.is_some() {
            f.write_str(", monitored")?;
        }
        Ok(())
    }
}
