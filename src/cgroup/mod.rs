//! The container's cgroup: its path, limits, device filter, freezer and removal.
//!
//! # Theory of operation
//!
//! `create` decides first ([`plan`]: pure, with all input errors) and then works in this order:
//!
//! 1. [`parent::create`] creates the directories and opens them: on cgroup v2 a directory descriptor for
//!    `CLONE_INTO_CGROUP`, on v1 one `tasks` file per hierarchy.
//! 2. On v1 the child writes `0` to each of them ([`child`]), as its first step and before it creates a cgroup
//!    namespace, whose root is its cgroup at that moment.
//! 3. [`parent::complete`] writes limits and attaches the device filter while the child sets up its mounts. The
//!    child's program must not run before this returns.
//! 4. [`memory::limit`] writes the memory limits when the child is set up, so that memory used by the setup is not
//!    charged to them.
//!
//! ```text
//! config --plan--> Plan --parent::create--> directories, descriptors --clone3--> child in its cgroup
//!                    `---parent::complete, memory::limit--> limits, device filter, unit of systemd
//! ```
//!
//! **No grace period.** Moving a process by its pid takes the write side of the kernel's `cgroup_threadgroup_rwsem`,
//! which sleeps for an RCU grace period: 8 to 16 ms on an idle host. Neither of the two ways above does. No code
//! between the clone and the program may write a pid to a cgroup. See `docs/decisions/0002-cgroup-join.md`.
//!
//! With `--systemd-cgroup` the directories are the same, and systemd creates a unit around them: see [`systemd`].
//!
//! **Stored paths.** Later verbs have only the [`Paths`] of the record: one entry with the empty name on cgroup v2,
//! one entry per controller on v1, both on a hybrid host. [`stored`], [`freezer`] and [`exec`] work on them; a missing
//! cgroup is no error there.

pub mod child;
pub mod clone;
mod descendants;
pub mod devices;
pub mod exec;
mod file;
pub mod freezer;
pub mod layout;
pub mod memory;
pub mod oom;
pub mod parent;
pub mod plan;
mod program;
pub mod stats;
pub mod stored;
pub mod systemd;
pub mod update;
mod v1;
mod v2;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use layout::Layout;
pub use plan::{CgroupRequest, Plan, plan};

/// Directory of the container by controller, as in the `cgroup_paths` of runc's `state.json`. The empty name is cgroup
/// v2.
pub type Paths = BTreeMap<String, PathBuf>;

/// Creator of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Aril, in the cgroup file system.
    Cgroupfs,
    Systemd(systemd::Unit),
}

/// Version whose files the limits are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// v1 files are used if any v1 hierarchy is mounted; cgroup v2 then has no limits.
    pub fn of(paths: &Paths) -> Self {
        if paths.keys().all(String::is_empty) { Self::V2 } else { Self::V1 }
    }
}

/// One limit: a value for a file of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub controller: Cow<'static, str>,
    pub file: Cow<'static, str>,
    /// True if each line needs a write(2) of its own, because the kernel accepts one setting per write.
    pub value: String,
    pub absent: Absent,
    /// True if a write that fails with EINVAL is repeated after the next one: some pairs of files constrain each
    /// other, and the order depends on the present values.
    pub again: bool,
    pub guard: Option<Guard>,
    /// True for a limit of `linux.resources.unified`, whose errors have texts of their own.
    pub unified: bool,
}

/// Meaning of a missing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    Refuse,
    /// The value is in effect without the file, too.
    Ignore,
    /// Name of the file on other kernels.
    Instead(Box<Write>),
}

/// `checkBeforeUpdate`: rejects a limit below the present usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub what: &'static str,
    pub limit: u64,
    /// Files whose sum is the present usage.
    pub usage: &'static [&'static str],
}

impl Write {
    fn new(
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            absent: Absent::Refuse,
            again: false,
            guard: None,
            unified: false,
        }
    }

    fn or_nothing(self) -> Self {
        Self { absent: Absent::Ignore, ..self }
    }

    fn or_nothing_if(self, default: bool) -> Self {
        if default { self.or_nothing() } else { self }
    }

    fn instead(self, other: Self) -> Self {
        Self { absent: Absent::Instead(Box::new(other)), ..self }
    }

    fn again(self) -> Self {
        Self { again: true, ..self }
    }

    /// True for a limit that is set after all others: see [`memory`].
    fn is_memory(&self) -> bool {
        self.controller == "memory"
    }

    /// True if the requested container is not possible without the controller.
    fn needs_controller(&self) -> bool {
        self.absent != Absent::Ignore
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup: {} = {}", self.file, self.value.replace('\n', "; "))?;
        match &self.absent {
            Absent::Instead(other) => write!(f, " (or {} = {})", other.file, other.value),
            Absent::Ignore => write!(f, " (if there)"),
            Absent::Refuse => Ok(()),
        }
    }
}

/// Action of the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Join a v1 cgroup, through the `tasks` file that [`parent::create`] opened.
    Join { index: usize, path: PathBuf },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { path, .. } => write!(f, "join cgroup {}", path.display()),
        }
    }
}

/// Lists the directories, each once: on v1 several controllers may share one.
fn directories(paths: &Paths) -> Vec<&Path> {
    let mut all: Vec<&Path> = paths.values().map(PathBuf::as_path).collect();
    all.sort_unstable();
    all.dedup();
    all
}
