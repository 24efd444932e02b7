//! Effects of a container on the host, outside of its processes, as its record lists them.
//!
//! Each kind is created by `parent.rs` of its concern, and is listed in the record before that. It is undone from the
//! record alone, whether it was created or not: what does not exist is no error.

use super::{inside, network};
use crate::error::Result;
use crate::limits::rdt::{self, Group};
use crate::network::address::Reference;
use crate::network::pasta;
use crate::rootfs::overlay::{self, Layers};
use crate::rootfs::parent::inherited;
use crate::state::{Record, Slot};
use crate::{cgroup, time};

#[derive(Debug, Clone, Copy)]
pub(super) enum Effect<'a> {
    /// Cgroup in every hierarchy, and its systemd unit.
    Cgroup { paths: &'a cgroup::Paths, unit: bool },
    /// resctrl groups.
    Resctrl(&'a Group),
    /// The process that connects the network of an ordinary user.
    Pasta,
    /// Upper directory of an ordinary user's container that is removed with the container.
    Upper(&'a Layers),
    /// Overlay: its mount, quota, and the claim on the upper directory.
    Overlay(&'a Layers),
    /// The mount on the rootfs, in the mount namespace of the caller.
    RootMount(u64),
    /// The lease of an address, with the link and the published ports that belong to it.
    Lease(&'a Reference),
}

/// Lists the effects in the order in which they are undone. The cgroup is first: if it cannot be removed, processes may
/// still use the others.
pub(super) fn of(record: &Record) -> impl Iterator<Item = Effect<'_>> {
    let unit = record.systemd_cgroup;
    let effects = [
        Some(Effect::Cgroup { paths: &record.cgroup_paths, unit }),
        record.intel_rdt.as_ref().map(Effect::Resctrl),
        pasta::is_wanted(&record.grant).then_some(Effect::Pasta),
        record.overlay.as_ref().map(Effect::Upper),
        record.overlay.as_ref().map(Effect::Overlay),
        record.root_mount.map(Effect::RootMount),
        record.network.as_ref().map(Effect::Lease),
    ];
    effects.into_iter().flatten()
}

impl Effect<'_> {
    /// Undoes the effect. `record` is the one that lists it.
    ///
    /// # Errors
    ///
    /// The effect exists and cannot be undone.
    pub fn undo(self, slot: &Slot, record: &Record) -> Result<()> {
        match self {
            Self::Cgroup { paths, unit } => {
                if unit {
                    cgroup::systemd::parent::stop(paths);
                }
                cgroup::stored::remove(paths)
                    .map_err(|e| e.context("unable to remove container's cgroup"))?;
                time::step("remove the cgroup");
                Ok(())
            }
            Self::Resctrl(group) => rdt::parent::remove(group),
            Self::Pasta => pasta::effect::end(slot.path()),
            Self::Upper(layers) => inside::remove_upper(slot, layers)
                .map_err(|e| e.context("unable to remove what the container wrote")),
            Self::Overlay(layers) => overlay::parent::undo(layers, slot.path()),
            Self::RootMount(id) => inherited::remove(&record.config.rootfs, id),
            Self::Lease(reference) => network::release(slot, record, reference),
        }
    }

    /// Returns true if the rollback stops when this effect cannot be undone, so that the state directory stays for a retry.
    pub fn keeps_the_rest(self) -> bool {
        matches!(self, Self::Cgroup { .. } | Self::Upper(_))
    }

    /// Returns true for an effect that is undone at the end of the processes, even if the container is kept.
    pub fn ends_with_processes(self) -> bool {
        matches!(self, Self::Pasta | Self::Lease(_))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Record of format 2.
    fn record(more: Value) -> Record {
        let mut record = json!({
            "aril_version": 2, "phase": "creating", "id": "c", "init_process_pid": 0, "init_process_start": 0,
            "created": "", "cgroup_paths": { "": "/sys/fs/cgroup/c" }, "namespace_paths": {}, "rootless": false,
            "systemd_cgroup": true, "private_pid_namespace": true, "has_hooks": false, "bundle": "/b",
            "config": { "rootfs": "/b/rootfs", "labels": [] },
        });
        let fields = more.as_object().expect("an object").clone();
        record.as_object_mut().expect("an object").extend(fields);
        serde_json::from_value(record).expect("a record")
    }

    #[test]
    fn the_cgroup_is_undone_first_and_everything_else_that_is_listed() {
        let listed = record(json!({
            "intel_rdt": { "path": "/sys/fs/resctrl/c", "own": true },
            "root_mount": 7,
            "network": { "network": "web", "address": "10.0.0.2" },
        }));
        let effects: Vec<_> = of(&listed).collect();
        assert!(
            matches!(
                effects[..],
                [
                    Effect::Cgroup { unit: true, .. },
                    Effect::Resctrl(_),
                    Effect::RootMount(7),
                    Effect::Lease(_)
                ]
            ),
            "{effects:?}"
        );
        let network: Vec<_> = effects.into_iter().filter(|e| e.ends_with_processes()).collect();
        assert!(matches!(network[..], [Effect::Lease(_)]), "{network:?}");
    }

    #[test]
    fn forgotten_cgroups_are_not_undone() {
        let mut record = record(json!({}));
        record.forget_cgroups();
        let Some(Effect::Cgroup { paths, unit }) = of(&record).next() else { panic!("no cgroup") };
        assert!(paths.is_empty() && !unit);
    }
}
