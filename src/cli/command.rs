//! What was asked for, as values. Paths are absolute: some verbs change into the bundle.

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};

use super::root::StateRoot;
use super::{log, options};
pub use crate::lifecycle::export::Target;
use crate::lifecycle::mounts::Action;
pub use crate::plan::edits::Edits;
use crate::spec::grant::Rules;

/// The flags before the verb.
#[derive(Debug)]
pub struct Global {
    pub root: StateRoot,
    pub log: Option<PathBuf>,
    pub log_format: log::Format,
    pub level: log::Level,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    /// Mounts without a mount namespace may be the host's.
    pub host_mounts: bool,
    /// Which annotations of a config.json may act.
    pub annotations: Rules,
}

/// What makes a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    /// None is made: the container stays in its caller's.
    Disabled,
}

/// Whether a cgroup that cannot be made is forgiven.
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
        /// One sample, now.
        stats: bool,
    },
    Stats {
        /// All, if none is named.
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
        /// An action, and names.
        words: Vec<String>,
        format: Format,
    },
    /// The text.
    Help(String),
    Version,
}

#[derive(Debug, PartialEq)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// In the place of the bundle's config.json.
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

/// A process file is the whole description: the flags that edit the config's process do not count.
#[derive(Debug, PartialEq, Eq)]
pub enum ExecProcess {
    File(PathBuf),
    Edited(Box<Edits>),
}

/// What the caller wants handed over, and what he hands over himself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handover {
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
}

/// Where the limits of an update come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Resources {
    File(PathBuf),
    Stdin,
    Flags {
        limits: Box<LinuxResources>,
        /// Its schemas of the cache and of memory bandwidth alone.
        rdt: Option<Box<LinuxIntelRdt>>,
        /// Flags that have no effect any more.
        ignored: Vec<&'static str>,
    },
}

/// Of what is printed for people, or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}
