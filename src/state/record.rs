//! Record of a container, `state.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::HostPid;
use crate::limits::rdt::Group;
use crate::namespace::auto::Claim;
use crate::network::address::Reference;
use crate::rootfs::overlay::Layers;
use crate::spec::OperatorGrant;

/// Version of the format. It rises when older readers could misread a record.
pub const VERSION: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The record is an intent: the effects that it lists may or may not exist.
    Creating,
    /// The process exists, and its setup is complete.
    Created,
}

/// Record of a container. Keys in snake case are runc's, which security and node agents read (`id`, `init_process_pid`,
/// `init_process_start`, `created`, `cgroup_paths`, `namespace_paths`, `config.rootfs`, `config.labels`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub aril_version: u32,
    pub phase: Phase,
    pub id: String,
    /// Process ID of init; 0 before it exists.
    pub init_process_pid: HostPid,
    /// Start time of init in clock ticks since boot (field 22 of /proc/pid/stat), which detects a reused pid.
    pub init_process_start: u64,
    /// Kernel's id of the boot in which init was started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// True if the process that waits for the container deletes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", alias = "foreground")]
    pub deleted_at_end: bool,
    /// Time of creation: RFC 3339, UTC.
    pub created: String,
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// File of each namespace by its kind (`NEWPID`).
    pub namespace_paths: BTreeMap<String, PathBuf>,
    pub rootless: bool,
    pub systemd_cgroup: bool,
    /// resctrl group, if the config has `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Group>,
    /// True with a private pid namespace: the kernel kills the other processes when init ends.
    pub private_pid_namespace: bool,
    /// True if later verbs have hooks to run, which they read from the stored config.json.
    pub has_hooks: bool,
    pub bundle: PathBuf,
    /// Network of the container, and its part of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Reference>,
    /// Annotations of the config, for `state` and hooks. They have no effect: see `grant`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Annotations that the operator allowed at create. Later verbs act on them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub grant: OperatorGrant,
    /// Overlay of a rootfs of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Layers>,
    /// ID of the mount on the rootfs, if it is in the caller's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// Range of IDs that no other container has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Claim>,
    pub config: Settings,
}

fn is_empty(grant: &OperatorGrant) -> bool {
    *grant == OperatorGrant::default()
}

impl Record {
    /// Converts a record of an older format. In format 1 all annotations of Aril had an effect, so they become the grant.
    pub fn upgraded(mut self) -> Self {
        if self.aril_version < 2 {
            self.grant = OperatorGrant::of_format_1(&self.annotations);
            self.aril_version = VERSION;
        }
        self
    }

    /// Removes cgroups from the record that may belong to another container.
    pub fn forget_cgroups(&mut self) {
        self.cgroup_paths.clear();
        self.systemd_cgroup = false;
    }
}

/// Part of runc's `config` that other programs read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub rootfs: PathBuf,
    /// Labels as `key=value`, including `bundle=<path>`.
    pub labels: Vec<String>,
}
