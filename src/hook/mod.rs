//! Hooks: programs of the config that run at fixed points of a container's life.
//!
//! # Theory of operation
//!
//! [`plan::plan`] checks all hooks before any effect. Each is executed as written: no lookup in PATH, no cleaned path
//! (only the kernel can follow a link like `/proc/<pid>/exe`), `args` as the whole argv, the state as JSON on stdin.
//! [`run::run`] runs hooks in both processes: [`parent`] those of the runtime's namespaces, [`child`] createContainer
//! (before pivot_root, in the rootfs) and startContainer (as the container's user, immediately before execve).
//!
//! A hook ends when its process ends; processes that it started may keep its output open.

pub mod child;
pub mod parent;
pub mod plan;
mod run;

use std::ffi::{CStr, CString};
use std::fmt;
use std::time::Duration;

pub use plan::Plan;

/// Point at which a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    /// All points, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];
}

/// A hook, prepared for execve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub path: CString,
    pub argv: Vec<CString>,
    /// None: that of its [`HookContext`].
    pub env: Option<Vec<CString>>,
    pub timeout: Option<Duration>,
}

/// Input and environment of the hooks of a point.
#[derive(Debug, Clone, Copy)]
pub struct HookContext<'a> {
    /// The container's state as JSON.
    pub state: &'a [u8],
    /// Environment of a hook that specifies none: the runtime's own in its namespaces ([`parent::own_environment`]),
    /// empty for createContainer, the process's for startContainer.
    pub env: &'a [CString],
    /// Working directory: the bundle in the runtime's namespaces, the rootfs for createContainer.
    pub cwd: Option<&'a CStr>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.to_string_lossy())?;
        self.argv.iter().skip(1).try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}
