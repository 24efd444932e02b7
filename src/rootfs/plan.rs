//! The config's root, mounts, devices and hidden paths -> [`Plan`]. No side effect, no root needed.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libc::{MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use oci_spec::runtime::{LinuxDevice, LinuxIdMapping, Mount};

use super::options::propagation;
use super::parent::inherited::CallersNamespace;
use super::{Hierarchy, IdMap, Plan, Step, overlay};
use crate::error::{Context, Error, Result};
use crate::sys::mount::Extent;

mod devices;
mod id_map;
mod mounts;
pub mod running;

/// All that the plan depends on.
#[derive(Debug)]
pub struct Input<'a> {
    /// Relative sources of binds are relative to it.
    pub bundle: &'a Path,
    /// Canonical.
    pub rootfs: &'a Path,
    pub overlay: overlay::plan::Input<'a>,
    pub readonly: bool,
    pub mounts: &'a [Mount],
    /// Mounts of the runtime's own, after the config's.
    pub extra: &'a [Mount],
    /// Sources of binds that begin with what they cover.
    pub fill: &'a [PathBuf],
    pub devices: &'a [LinuxDevice],
    pub masked_paths: &'a [String],
    pub readonly_paths: &'a [String],
    pub propagation: Option<&'a str>,
    /// New or joined.
    pub mount_namespace: bool,
    /// Where it has neither: the caller's.
    pub callers: Option<CallersNamespace>,
    /// `--allow-host-mounts`.
    pub host_mounts: bool,
    /// New or joined: its root may not mount in the caller's namespace.
    pub own_user_namespace: bool,
    /// New, joined, or the runtime is inside one: nodes cannot be made.
    pub user_namespace: bool,
    /// A new user namespace, and the network of the host: a sysfs of that cannot be mounted.
    pub foreign_network: bool,
    /// A new user namespace, and the IPC namespace of the host: an mqueue of that cannot be mounted.
    pub foreign_ipc: bool,
    /// The runtime is not root.
    pub rootless: bool,
    /// Those of the container's user namespace, if it has one.
    pub uid_mappings: &'a [LinuxIdMapping],
    pub gid_mappings: &'a [LinuxIdMapping],
    /// Show the owners of the rootfs as the container's ids.
    pub map_root: bool,
    pub cgroup: CgroupView<'a>,
    pub no_pivot: bool,
    /// The SELinux label of files in new mounts.
    pub mount_label: Option<&'a str>,
    /// The host has /proc/kcore.
    pub kcore: bool,
}

/// What a mount of type `cgroup` shall show, in paths of the host.
#[derive(Debug, Clone, Copy)]
pub enum CgroupView<'a> {
    /// cgroup2 alone. The container's own cgroup if it has a cgroup namespace of its own, else the
    /// mount point.
    Unified(&'a Path),
    /// Hierarchies of version 1, perhaps with cgroup2 as one of them.
    Legacy(&'a [HierarchyView]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyView {
    /// The container's own cgroup in this hierarchy.
    pub own: PathBuf,
    /// The last part of the mount point: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// The controllers, if there is more than one.
    pub aliases: Vec<String>,
}

/// Decides all that the child will do about file systems.
pub fn plan(input: &Input<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    if input.mount_namespace {
        enter_root(input, &mut plan)?;
    } else {
        plan.enter.push(inherit_namespace(input)?);
    }
    let mut deferred = Vec::new();
    for (index, mount) in input.mounts.iter().chain(input.extra).enumerate() {
        let destination = mount.destination().display();
        mounts::add(input, mount, &mut plan, &mut deferred)
            .context(|| format!("mounts[{index}] {destination}"))?;
    }
    let own_dev = !mounts::dev_is_bound(input);
    if own_dev {
        devices::add(input, &mut plan.enter)?;
    }
    leave_host(input, &mut plan, own_dev)?;
    restrict(input, &mut plan, deferred)?;
    Ok(plan)
}

/// The mounts are made in the caller's mount namespace, where that is not the host's and no other namespace
/// sees them.
fn inherit_namespace(input: &Input<'_>) -> Result<Step> {
    if !input.masked_paths.is_empty() || !input.readonly_paths.is_empty() {
        let text = "unable to restrict sys entries without a private MNT namespace";
        return Err(Error::config(text));
    }
    if input.overlay.layers.is_some() || input.overlay.upper.is_some() {
        return Err(Error::config("unable to use layers without a private MNT namespace"));
    }
    let path = host_path(input.rootfs)?;
    if input.mounts.is_empty() && input.extra.is_empty() && !input.readonly {
        return Ok(Step::OpenRoot { path });
    }
    if input.own_user_namespace {
        let text = "unable to mount without a private MNT namespace: the mount namespace of the caller \
                    does not belong to the container's user namespace";
        return Err(Error::config(text).hint("add a mount namespace to linux.namespaces"));
    }
    let why = match input.callers {
        Some(CallersNamespace { of_the_host: false, shared: false }) => {
            return Ok(Step::AttachRoot { path });
        }
        Some(CallersNamespace { of_the_host: false, shared: true }) => {
            "the mount that holds the rootfs is shared with other mount namespaces"
        }
        _ => "that of the caller is the host's",
    };
    if input.host_mounts {
        return Ok(Step::AttachRoot { path });
    }
    Err(Error::config(format!("unable to mount without a private MNT namespace: {why}")).hint(
        "add a mount namespace to linux.namespaces, call from a private one (unshare -m), or allow it \
         with --allow-host-mounts",
    ))
}

fn enter_root(input: &Input<'_>, plan: &mut Plan) -> Result<()> {
    let flags = root_propagation(input)?;
    let slave = flags & MS_SLAVE != 0 && input.propagation.is_some_and(|name| !name.is_empty());
    let rootfs = host_path(input.rootfs)?;
    // What is unbindable cannot be cloned, so that has to wait for the pivot.
    let (flags, name) = match input.propagation {
        Some(name) if flags & MS_UNBINDABLE == 0 && !name.is_empty() => (flags, name),
        _ => (MS_SLAVE | MS_REC, "rslave"),
    };
    plan.enter.push(Step::Propagate { flags, name: name.to_owned() });
    // Else our mounts would appear on the host: `/` alone, or nothing, has left its peers. And what is
    // bound from beside the rootfs is private, as with runc and crun.
    let beside = !slave && flags & MS_PRIVATE == 0 && mounts::inherit_propagation(input);
    if flags & MS_SHARED != 0 || flags & MS_REC == 0 || beside {
        let ancestors = input.rootfs.ancestors().map(host_path).collect::<Result<_>>()?;
        plan.enter.push(Step::Isolate { ancestors, slave });
    }
    plan.enter.push(match overlay::plan::overlay(&input.overlay)? {
        Some(overlay) => Step::Overlay(Box::new(overlay)),
        None => Step::CloneRoot { path: rootfs, mapped: mapped_root(input), slave },
    });
    Ok(())
}

fn mapped_root(input: &Input<'_>) -> Option<IdMap> {
    let map = || IdMap {
        extent: Extent::Tree,
        uids: ranges(input.uid_mappings),
        gids: ranges(input.gid_mappings),
    };
    (input.map_root && !input.rootless).then(map)
}

fn root_propagation(input: &Input<'_>) -> Result<u64> {
    let name = input.propagation.unwrap_or_default();
    if name.is_empty() {
        return Ok(MS_SLAVE | MS_REC);
    }
    let flags = propagation(name)
        .ok_or_else(|| Error::config(format!("rootfsPropagation={name} is not supported")))?;
    if input.no_pivot && flags & MS_PRIVATE != 0 {
        let text = "rootfsPropagation of [r]private is not safe without pivot_root";
        return Err(Error::config(text));
    }
    Ok(flags)
}

fn leave_host(input: &Input<'_>, plan: &mut Plan, own_dev: bool) -> Result<()> {
    if !input.mount_namespace {
        plan.pivot.push(Step::Chroot);
        let attached = plan.enter.iter().any(|step| matches!(step, Step::AttachRoot { .. }));
        if attached {
            propagate_root(input, plan)?;
        }
        return Ok(());
    }
    let flags = root_propagation(input)?;
    plan.pivot.push(if input.no_pivot {
        Step::MoveRoot { path: host_path(input.rootfs)? }
    } else {
        // Slave or private all the way down, as it was made, it has no peers left.
        let cut = flags & (MS_SLAVE | MS_PRIVATE) != 0 && flags & MS_REC != 0;
        Step::Pivot { shared: !cut }
    });
    propagate_root(input, plan)?;
    if own_dev {
        plan.pivot.push(Step::ReopenNull);
    }
    Ok(())
}

/// Slave or private the root is already.
fn propagate_root(input: &Input<'_>, plan: &mut Plan) -> Result<()> {
    let flags = root_propagation(input)?;
    if flags & (MS_SHARED | MS_UNBINDABLE) != 0 {
        let name = input.propagation.unwrap_or_default().to_owned();
        plan.pivot.push(Step::Propagate { flags, name });
    }
    Ok(())
}

fn restrict(input: &Input<'_>, plan: &mut Plan, deferred: Vec<CString>) -> Result<()> {
    for path in unique(input.readonly_paths) {
        plan.restrict.push(Step::ReadonlyPath(inside("readonlyPaths", path)?));
    }
    let label = input.mount_label.map(|label| text("mountLabel", label)).transpose()?;
    for path in unique(input.masked_paths) {
        let path = inside("maskedPaths", path)?;
        plan.restrict.push(Step::Mask { path, label: label.clone() });
    }
    plan.restrict.extend(deferred.into_iter().map(Step::ReadonlyMount));
    if input.readonly {
        plan.restrict.push(Step::ReadonlyRoot);
    }
    Ok(())
}

fn unique(paths: &[String]) -> impl Iterator<Item = &str> {
    // An empty path is no path, as for runc.
    let first =
        |(index, path): &(usize, &String)| !path.is_empty() && !paths[..*index].contains(path);
    paths.iter().enumerate().filter(first).map(|(_, path)| path.as_str())
}

/// A path of the container: absolute and clean, whatever it was.
fn inside(field: &str, path: impl AsRef<OsStr>) -> Result<CString> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.as_ref().as_bytes().split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    text(field, [b"/", parts.join(&b'/').as_slice()].concat())
}

pub(super) fn host_path(path: &Path) -> Result<CString> {
    text("path", path.as_os_str().as_bytes())
}

/// Text for the kernel. A NUL would cut it short (CVE-2021-43784).
fn text(field: &str, value: impl AsRef<[u8]>) -> Result<CString> {
    CString::new(value.as_ref()).map_err(|_| {
        let value = String::from_utf8_lossy(value.as_ref()).into_owned();
        Error::config(format!("{field} {value:?} cannot contain null byte (\\x00)"))
    })
}

impl HierarchyView {
    fn hierarchy(&self) -> Result<Hierarchy> {
        Ok(Hierarchy {
            source: host_path(&self.own)?,
            name: text("cgroup", &self.name)?,
            aliases: self.aliases.iter().map(|a| text("cgroup", a)).collect::<Result<_>>()?,
        })
    }
}

pub(super) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<[u32; 3]> {
    mappings.iter().map(|m| [m.container_id(), m.host_id(), m.size()]).collect()
}

#[cfg(test)]
pub(super) mod tests;
