//! `linux.intelRdt`: limits of caches and memory bandwidth, with groups of the resctrl file system.
//!
//! # Theory of operation
//!
//! A group is a directory of resctrl. A process is in the group whose `tasks` file contains its pid, and its children
//! start in the same group. [`plan()`] decides the directories. The parent creates them after it has written the
//! record, and writes the child's pid into `tasks` during the child's setup.
//!
//! A group that `closID` names belongs to the user, even if it was created for this container. Only a group that is
//! named after the container's ID is removed with it, and the container's monitoring group.

pub mod parent;
mod plan;
pub mod stats;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use plan::{RdtRequest, plan, schemas};

/// State of resctrl on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resctrl {
    /// Mount point of resctrl.
    pub root: PathBuf,
    /// Names of the directories in the mount point.
    pub groups: Vec<String>,
}

/// Group of a container, stored in its record for `exec` and `delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub path: PathBuf,
    /// True if the group is removed with the container.
    pub own: bool,
    /// Monitoring group in the group, which is removed with the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

/// Group that a container needs, and the schemata to write or to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Mount point of resctrl.
    pub root: PathBuf,
    pub group: Group,
    /// True if the group does not exist yet.
    pub make: bool,
    /// Lines that the schemata of an existing group must contain.
    pub compare: Vec<String>,
    /// Lines to write to `schemata`, in order.
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
