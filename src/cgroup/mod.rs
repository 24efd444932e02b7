//! The container's cgroup: where it is, its limits, its device filter, its freezer and its end.
//!
//! # Theory of operation
//!
//! `create` decides first ([`plan`]: pure, all input errors) and then works in this order:
//!
//! 1. [`parent::create`] makes the directories and gives a place to be cloned into: on cgroup2 a
//!    directory descriptor for `CLONE_INTO_CGROUP`, on v1 one open `tasks` file per hierarchy.
//! 2. On v1 the child writes `0` to each of them ([`child`]), as its first step and before it makes
//!    a cgroup namespace, whose root is the cgroup at that moment.
//! 3. [`parent::complete`] writes limits and attaches the device filter while the child sets up its
//!    mounts. The child must not be let through the gate before it has returned.
//! 4. [`memory::limit`] writes those of memory when the child is set up: what that took is not
//!    charged to them.
//!
//! **The rule of the grace period.** Moving a process by its pid takes the write side of the
//! kernel's `cgroup_threadgroup_rwsem`, which sleeps for an RCU grace period: 8 to 16 ms on an idle
//! host. Neither of the two ways above does; nothing on the way to a started process may write a
//! pid. See `docs/decisions/0002-cgroup-join.md`.
//!
//! With `--systemd-cgroup` the directories are the same, and a unit of systemd's is made around them:
//! see [`systemd`].
//!
//! **Stored paths.** Later verbs know nothing but [`Paths`], as the record has them: one entry with
//! the empty name on cgroup2, one entry per controller on v1, both on a hybrid host. Operations on
//! them are in [`stored`], [`freezer`] and [`exec`]; a cgroup that is gone is no error there.

mod below;
pub mod child;
pub mod devices;
pub mod exec;
mod file;
pub mod freezer;
pub mod layout;
pub mod memory;
pub mod newborn;
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
pub use plan::{Input, Plan, plan};

/// Controller -> directory of the container, as in the `cgroup_paths` of runc's `state.json`. The
/// empty name is cgroup2.
pub type Paths = BTreeMap<String, PathBuf>;

/// Who makes the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// We do, in the cgroup file system.
    Cgroupfs,
    Systemd(systemd::Unit),
}

/// Whose files the limits are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// v1 files are used wherever a v1 hierarchy is: cgroup2 is then only a place to be.
    pub fn of(paths: &Paths) -> Self {
        if paths.keys().all(String::is_empty) { Self::V2 } else { Self::V1 }
    }
}

/// One limit: a value for a file of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub controller: Cow<'static, str>,
    pub file: Cow<'static, str>,
    /// Each line is written by itself, as the kernel takes one setting per write(2).
    pub value: String,
    pub absent: Absent,
    /// Refused with EINVAL, it is tried again after the next write: some pairs of files constrain
    /// each other, and which must go first depends on the values in force.
    pub again: bool,
    pub guard: Option<Guard>,
    /// Came in `linux.resources.unified`: its refusals have texts of their own.
    pub unified: bool,
}

/// What a missing file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    Refuse,
    /// The value is what holds without the file anyway.
    Ignore,
    /// This is the file's name on the other kernels.
    Instead(Box<Write>),
}

/// `checkBeforeUpdate`: refuses a limit below what is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub what: &'static str,
    pub limit: u64,
    /// Files whose sum is in use.
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

    /// Set after all others: see [`memory`].
    fn is_memory(&self) -> bool {
        self.controller == "memory"
    }

    /// The container cannot be had as asked without the controller.
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

/// What the child does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Joins a v1 cgroup by itself, through the `tasks` file that [`parent::create`] opened.
    Join { index: usize, path: PathBuf },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { path, .. } => write!(f, "join cgroup {}", path.display()),
        }
    }
}

/// The directories, each once: on v1 several controllers may share one.
fn directories(paths: &Paths) -> Vec<&Path> {
    let mut all: Vec<&Path> = paths.values().map(PathBuf::as_path).collect();
    all.sort_unstable();
    all.dedup();
    all
}
