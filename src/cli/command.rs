//! Command lines as values. Paths are absolute, because some verbs change the directory to the bundle.

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};

use super::root::StateRoot;
use super::{log, options};
pub use crate::lifecycle::export::Target;
use crate::lifecycle::mounts::Action;
pub use crate::plan::edits::Edits;
use crate::spec::grant::Rules;

/// Flags before the verb.
#[derive(Debug)]
pub struct Global {
    pub root: StateRoot,
    pub log: Option<PathBuf>,
    pub log_format: log::Format,
    pub level: log::Level,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    /// Accept a config.json without a mount namespace that mounts in the host's.
    pub host_mounts: bool,
    /// Annotations of a config.json that have an effect.
    pub annotations: Rules,
}

/// Driver that creates a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    /// No cgroup is created: the container stays in the caller's cgroup.
    Disabled,
}

/// Reaction to a cgroup that cannot be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    Auto,
    Yes,
    No,
}

#[derive(Debug, PartialEq)]
pub enum Command {
    Create(Create),
    Start {
        id: String,
    },
    Run(Run),
    Wait {
        id: String,
    },
    State {
        id: String,
    },
    List {
        format: Format,
        quiet: bool,
    },
    Ps {
        id: String,
        format: Format,
        options: Vec<String>,
    },
    Exec(Exec),
    Kill {
        id: String,
        /// `id` is a regular expression.
        regex: bool,
        signal: i32,
        all: bool,
    },
    Delete {
        id: String,
        /// `id` is a regular expression.
        regex: bool,
        force: bool,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update {
        id: String,
        resources: Resources,
    },
    Events {
        id: String,
        interval: Duration,
        /// Print one sample and end.
        stats: bool,
    },
    Stats {
        /// Containers; empty for all.
        ids: Vec<String>,
        format: Format,
        interval: Duration,
        once: bool,
    },
    Diff {
        id: String,
        format: Format,
    },
    Commit {
        id: String,
        to: Target,
        pause: bool,
    },
    Export {
        id: String,
        to: Target,
        pause: bool,
    },
    Mounts {
        action: Action,
        id: String,
        file: PathBuf,
    },
    Reconcile {
        dry_run: bool,
        format: Format,
    },
    Spec {
        bundle: PathBuf,
        rootless: bool,
    },
    Network(super::network::Action),
    Features,
    Plan {
        bundle: PathBuf,
    },
    Explain {
        bundle: PathBuf,
        format: Format,
    },
    Volume {
        /// The action, then names.
        words: Vec<String>,
        format: Format,
    },
    /// Text to print.
    Help(String),
    Version,
}

#[derive(Debug, PartialEq)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// File to read instead of the bundle's config.json.
    pub config: Option<PathBuf>,
    pub options: Box<options::Options>,
    pub handover: Handover,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub init: bool,
    pub timeline: bool,
}

#[derive(Debug, PartialEq)]
pub struct Run {
    pub create: Create,
    pub detach: bool,
    pub no_subreaper: bool,
    pub keep: bool,
    /// Delete a detached container at its end; in the foreground that is the default.
    pub rm: bool,
    pub seccomp_report: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Exec {
    pub id: String,
    pub process: ExecProcess,
    pub handover: Handover,
    pub detach: bool,
    pub cgroups: Vec<String>,
    pub ignore_paused: bool,
}

/// Process of an exec. A process file describes it completely: flags that edit the config's process are ignored.
#[derive(Debug, PartialEq, Eq)]
pub enum ExecProcess {
    File(PathBuf),
    Edited(Box<Edits>),
}

/// Descriptors and sockets that the caller passes, and files that it wants written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handover {
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
}

/// Source of the limits of an update.
#[derive(Debug, PartialEq, Eq)]
pub enum Resources {
    File(PathBuf),
    Stdin,
    Flags {
        limits: Box<LinuxResources>,
        /// Only the schemas of cache and memory bandwidth.
        rdt: Option<Box<LinuxIntelRdt>>,
        /// Flags that no longer have an effect.
        ignored: Vec<&'static str>,
    },
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}
