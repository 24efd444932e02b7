//! Effects of a container on the host, outside of its processes, in the order in which create applies them.
//!
//! `aril plan` prints them. An effect that can outlive its container is listed in the container's record before it is
//! applied, and is undone from the record: see `lifecycle::effect`.

use std::fmt;
use std::path::Path;

use super::ContainerPlan;
use crate::id::ContainerId;
use crate::network::device::Device;
use crate::network::names::Names;
use crate::network::plan::Attachment;
use crate::rootfs::overlay::Overlay;
use crate::volume::MountedVolume;
use crate::{cgroup, limits};

/// Point in a create at which an effect is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the record of intent, which has the result.
    Intent,
    /// After the record of intent, before the process is cloned.
    Host,
    /// While the process waits for its id maps: later an ordinary user cannot access it.
    Held,
    /// While the process sets itself up.
    Process,
}

/// One effect on the host.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'a> {
    /// Directory of the container in the state root.
    StateDirectory(&'a Path),
    /// Addresses on a network of Aril.
    Lease(&'a Attachment),
    /// Share of the lease of another container, whose network namespace is joined.
    SharedLease(&'a ContainerId),
    /// hosts, hostname and resolv.conf in the state directory.
    Names(&'a Names),
    /// Claim on a named volume. An empty one is filled.
    Volume(&'a MountedVolume),
    /// Claim on the upper directory of an overlay.
    Upper(&'a Overlay),
    /// Directory of the notify socket.
    NotifyDirectory(&'a Path),
    Cgroup(&'a cgroup::Plan),
    Resctrl(&'a limits::rdt::Plan),
    /// The process that connects the network namespace of an ordinary user.
    Pasta,
    /// Network devices of the host that move into the container.
    Devices(&'a [Device]),
    /// Link to a network of Aril, with published ports.
    Link(&'a Attachment),
}

impl Effect<'_> {
    pub fn stage(self) -> Stage {
        match self {
            Self::StateDirectory(_) | Self::Lease(_) | Self::SharedLease(_) | Self::Names(_) => {
                Stage::Intent
            }
            Self::Volume(_)
            | Self::Upper(_)
            | Self::NotifyDirectory(_)
            | Self::Cgroup(_)
            | Self::Resctrl(_) => Stage::Host,
            Self::Pasta => Stage::Held,
            Self::Devices(_) | Self::Link(_) => Stage::Process,
        }
    }
}

impl ContainerPlan {
    /// Lists the effects in the order in which they are applied.
    pub fn effects(&self) -> impl Iterator<Item = Effect<'_>> {
        let network = self.network.as_ref();
        let before = [
            Some(Effect::StateDirectory(&self.state_directory)),
            network.map(Effect::Lease),
            self.shares_network.as_ref().map(Effect::SharedLease),
            self.names.as_ref().map(Effect::Names),
        ];
        let volumes = self.volumes.iter().map(Effect::Volume);
        let host = [
            self.script.overlay().map(Effect::Upper),
            self.notify_directory.as_deref().map(Effect::NotifyDirectory),
            Some(Effect::Cgroup(&self.cgroup)),
            self.rdt.as_ref().map(Effect::Resctrl),
            self.pasta.then_some(Effect::Pasta),
        ];
        let devices = Some(&self.net_devices[..]).filter(|devices| !devices.is_empty());
        let listed = before.into_iter().flatten().chain(volumes).chain(host.into_iter().flatten());
        listed.chain(devices.map(Effect::Devices)).chain(network.map(Effect::Link))
    }
}

impl fmt::Display for Effect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateDirectory(path) => write!(f, "state directory {}", path.display()),
            Self::Lease(attachment) => write!(f, "lease on network {}", attachment.network),
            Self::SharedLease(id) => write!(f, "share the network of container {id}"),
            Self::Names(names) => write!(f, "write {}", names.places.join(" ")),
            Self::Volume(volume) => write!(f, "claim volume {}, fill it if empty", volume.name),
            Self::Upper(overlay) => write!(f, "claim upper directory {}", overlay.layers.upper),
            Self::NotifyDirectory(path) => write!(f, "notify socket in {}", path.display()),
            Self::Cgroup(plan) => f.write_str(plan.to_string().trim_end()),
            Self::Resctrl(plan) => plan.fmt(f),
            Self::Pasta => f.write_str("connect the network by pasta"),
            Self::Devices(devices) => {
                let lines: Vec<_> = devices.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Link(attachment) => attachment.fmt(f),
        }
    }
}
