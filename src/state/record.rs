//! The record, `state.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::HostPid;
use crate::limits::rdt::Group;
use crate::namespace::auto::Claim;
use crate::network::lease::Reference;
use crate::rootfs::overlay::Layers;
use crate::spec::OperatorGrant;

/// Raised when a reader of the older form could go wrong.
pub const VERSION: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Intent only: whatever is listed may or may not exist.
    Creating,
    /// The process exists, with everything set up.
    Created,
}

/// Keys in snake case are runc's, which security and node agents read (`id`, `init_process_pid`,
/// `init_process_start`, `created`, `cgroup_paths`, `namespace_paths`, `config.rootfs`,
/// `config.labels`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub aril_version: u32,
    pub phase: Phase,
    pub id: String,
    /// 0 until there is one.
    pub init_process_pid: HostPid,
    /// Clock ticks since boot (field 22 of /proc/pid/stat): tells a reused pid apart.
    pub init_process_start: u64,
    /// The kernel's id of the boot in which there was a process.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// The process that waits for its end will delete it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", alias = "foreground")]
    pub deleted_at_end: bool,
    /// RFC 3339, UTC.
    pub created: String,
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// Kind of namespace (`NEWPID`) to its file.
    pub namespace_paths: BTreeMap<String, PathBuf>,
    pub rootless: bool,
    pub systemd_cgroup: bool,
    /// Its group of resctrl, if the config has `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Group>,
    /// A pid namespace of its own: when init dies, the kernel kills the rest.
    pub private_pid_namespace: bool,
    /// There are hooks for later verbs to run: they are read from the stored config.json.
    pub has_hooks: bool,
    pub bundle: PathBuf,
    /// Where its network's part is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Reference>,
    /// Those of the config, for `state` and hooks. Nothing acts on them: see `grant`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the operator granted at create, which later verbs act on.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub grant: OperatorGrant,
    /// The rootfs, where it is made of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Layers>,
    /// The id of the mount on the rootfs, where that is in the caller's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// Ids that are this container's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Claim>,
    pub config: Settings,
}

fn is_empty(grant: &OperatorGrant) -> bool {
    *grant == OperatorGrant::default()
}

impl Record {
    /// A record of an older format, as today's code reads it. In format 1 every annotation of Aril's
    /// acted, so they are the grant.
    pub fn upgraded(mut self) -> Self {
        if self.aril_version < 2 {
            self.grant = OperatorGrant::of_format_1(&self.annotations);
            self.aril_version = VERSION;
        }
        self
    }

    /// For cgroups of these names that are, or may be, another container's.
    pub fn forget_cgroups(&mut self) {
        self.cgroup_paths.clear();
        self.systemd_cgroup = false;
    }
}

/// The part of runc's `config` that others read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub rootfs: PathBuf,
    /// `key=value`, with `bundle=<path>` among them.
    pub labels: Vec<String>,
}
