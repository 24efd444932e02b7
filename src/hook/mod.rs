//! Programs that the config wants run at points of a container's life.
//!
//! # Theory of operation
//!
//! [`plan::plan`] checks all hooks before any effect. Each is executed as it is written: no lookup,
//! no cleaned path (`/proc/<pid>/exe` is a link that only the kernel can follow), `args` as the
//! whole argv, the state as JSON on stdin. [`run::run`] is the same for both processes; [`parent`]
//! runs those of the runtime's namespaces, [`child`] createContainer (before pivot, in the rootfs)
//! and startContainer (as the container's user, right before execve).
//!
//! A hook has ended when its process has: what it leaves behind may keep its output open.

pub mod child;
pub mod parent;
pub mod plan;
mod run;

use std::ffi::{CStr, CString};
use std::fmt;
use std::time::Duration;

pub use plan::Plan;

/// When a hook runs.
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
    /// In the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];
}

/// One hook, ready for execve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub path: CString,
    pub argv: Vec<CString>,
    /// None: that of its [`Surroundings`].
    pub env: Option<Vec<CString>>,
    pub timeout: Option<Duration>,
}

/// What the hooks of a point find.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The container's state as JSON.
    pub state: &'a [u8],
    /// Of a hook that names none: the runtime's own in its namespaces
    /// ([`parent::own_environment`]), none for createContainer, the process's for startContainer.
    pub env: &'a [CString],
    /// The bundle in the runtime's namespaces, the rootfs for createContainer.
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
