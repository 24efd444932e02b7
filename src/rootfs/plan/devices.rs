//! The nodes and symlinks of /dev.

use libc::{S_IFBLK, S_IFCHR, S_IFIFO, mode_t};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::{Input, inside};
use crate::error::{Error, Result};
use crate::rootfs::{Node, Step};

/// Path, major, minor: what every container has.
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

pub(super) fn add(input: &Input<'_>, steps: &mut Vec<Step>) -> Result<()> {
    let mut nodes = Vec::new();
    for device in input.devices {
        let node = node(input, device)?;
        // The container's devpts has its own; ours is a symlink to it.
        if node.path.as_c_str() != c"/dev/ptmx" {
            nodes.push(node);
        }
    }
    for (path, major, minor) in DEFAULT {
        let path = inside("device", path)?;
        if nodes.iter().all(|node| node.path != path) {
            let bind = input.user_namespace;
            let (kind, mode) = (S_IFCHR, 0o666);
            nodes.push(Node { path, kind, major, minor, mode, uid: 0, gid: 0, bind });
        }
    }
    steps.extend(nodes.into_iter().map(Step::Node));
    steps.push(symlink("/dev/ptmx", "pts/ptmx", true)?);
    for (path, target) in SYMLINKS {
        steps.push(symlink(path, target, false)?);
    }
    if input.kcore {
        steps.push(symlink("/dev/core", "/proc/kcore", false)?);
    }
    Ok(())
}

fn node(input: &Input<'_>, device: &LinuxDevice) -> Result<Node> {
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
        path: inside("device", path)?,
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        bind: input.user_namespace && kind != S_IFIFO,
    })
}

fn symlink(path: &str, target: &str, replace: bool) -> Result<Step> {
    // The target is text to the kernel: `inside` would make it absolute.
    let target = super::text("symlink", target)?;
    Ok(Step::Symlink { path: inside("symlink", path)?, target, replace })
}
