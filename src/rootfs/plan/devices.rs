//! Plans the nodes and symlinks of /dev.

use libc::{S_IFBLK, S_IFCHR, S_IFIFO, mode_t};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxIdMapping};

use super::{RootfsRequest, container_path, text};
use crate::error::{Error, Result};
use crate::rootfs::{Node, Origin, Step};

/// Path, major and minor number of devices that every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const SYMLINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

pub(super) fn add(request: &RootfsRequest<'_>, steps: &mut Vec<Step>) -> Result<()> {
    let mut nodes = Vec::new();
    let overlay = |step: &Step| matches!(step, Step::Overlay(overlay) if overlay.tree.is_some());
    let mut tree = usize::from(steps.iter().any(overlay));
    for device in request.devices {
        let mut node = node(request, device)?;
        // /dev/ptmx is always a symlink to that of the container's devpts.
        if node.path.as_c_str() == c"/dev/ptmx" {
            continue;
        }
        if node.origin == Origin::Host && request.overlay.privileged {
            let label = request.mount_label.map(|label| text("mountLabel", label)).transpose()?;
            node.origin = Origin::Parent { tree, label };
            node.uid = host_id(request.uid_mappings, node.uid);
            node.gid = host_id(request.gid_mappings, node.gid);
            tree += 1;
        }
        nodes.push(node);
    }
    for (path, major, minor) in DEFAULT {
        let path = container_path("device", path)?;
        if nodes.iter().all(|node| node.path != path) {
            let (kind, mode, origin) = (S_IFCHR, 0o666, origin(request, S_IFCHR));
            nodes.push(Node { path, kind, major, minor, mode, uid: 0, gid: 0, origin });
        }
    }
    steps.extend(nodes.into_iter().map(Step::Node));
    steps.push(symlink("/dev/ptmx", "pts/ptmx", true)?);
    for (path, target) in SYMLINKS {
        steps.push(symlink(path, target, false)?);
    }
    if request.kcore {
        steps.push(symlink("/dev/core", "/proc/kcore", false)?);
    }
    Ok(())
}

fn node(request: &RootfsRequest<'_>, device: &LinuxDevice) -> Result<Node> {
    let path = device.path();
    if path.as_os_str().is_empty() {
        return Err(Error::config("device path cannot be empty"));
    }
    let refuse = |what: &str| Error::config(format!("device {}: {what}", path.display()));
    let kind: mode_t = match device.typ() {
        LinuxDeviceType::B => S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
        LinuxDeviceType::P => S_IFIFO,
        LinuxDeviceType::A => return Err(refuse("a is not a type of device node")),
    };
    let number = |name: &str, value: i64| {
        u32::try_from(value).map_err(|_| refuse(&format!("invalid {name} number {value}")))
    };
    let (major, minor) = match kind {
        S_IFIFO => (0, 0),
        _ => (number("major", device.major())?, number("minor", device.minor())?),
    };
    Ok(Node {
        path: container_path("device", path)?,
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        origin: origin(request, kind),
    })
}

fn origin(request: &RootfsRequest<'_>, kind: mode_t) -> Origin {
    if request.user_namespace && kind != S_IFIFO { Origin::Host } else { Origin::Child }
}

/// Returns the host's ID for an ID of the container. An unmapped ID becomes the host's root, which the container sees
/// as the user `nobody`.
fn host_id(mappings: &[LinuxIdMapping], id: u32) -> u32 {
    let host = |m: &LinuxIdMapping| {
        let above = id.checked_sub(m.container_id()).filter(|above| *above < m.size())?;
        m.host_id().checked_add(above)
    };
    mappings.iter().find_map(host).unwrap_or(0)
}

fn symlink(path: &str, target: &str, replace: bool) -> Result<Step> {
    // The target stays as it is: `container_path` would make it absolute.
    let target = text("symlink", target)?;
    Ok(Step::Symlink { path: container_path("symlink", path)?, target, replace })
}
