//! Plans the root, mounts, devices and masked paths of the config, without system calls.

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

/// Fields and facts that the file systems of a container depend on.
#[derive(Debug)]
pub struct RootfsRequest<'a> {
    /// Directory that relative sources of bind mounts are relative to.
    pub bundle: &'a Path,
    /// Canonical path of the rootfs.
    pub rootfs: &'a Path,
    pub overlay: overlay::plan::OverlayRequest<'a>,
    pub readonly: bool,
    pub mounts: &'a [Mount],
    /// Mounts that Aril adds after those of the config.
    pub extra: &'a [Mount],
    /// Sources of bind mounts into which the content of the covered directory is copied.
    pub fill: &'a [PathBuf],
    pub devices: &'a [LinuxDevice],
    pub masked_paths: &'a [String],
    pub readonly_paths: &'a [String],
    pub propagation: Option<&'a str>,
    /// True if the container has a new or joined mount namespace.
    pub mount_namespace: bool,
    /// Caller's mount namespace, if the container has no other.
    pub callers: Option<CallersNamespace>,
    /// True to allow mounts in the host's mount namespace (`--allow-host-mounts`).
    pub host_mounts: bool,
    /// True for a new or joined user namespace, whose root may not mount in the caller's mount namespace.
    pub own_user_namespace: bool,
    /// True if device nodes cannot be created: a new or joined user namespace, or the runtime is in one.
    pub user_namespace: bool,
    /// True for a new user namespace with the host's network namespace, for which no sysfs can be mounted.
    pub foreign_network: bool,
    /// True for a new user namespace with the host's IPC namespace, for which no mqueue can be mounted.
    pub foreign_ipc: bool,
    /// True if the runtime is not root.
    pub rootless: bool,
    /// Mappings of the container's user namespace, if it has one.
    pub uid_mappings: &'a [LinuxIdMapping],
    pub gid_mappings: &'a [LinuxIdMapping],
    /// True to make the rootfs an id-mapped mount.
    pub map_root: bool,
    pub cgroup: CgroupView<'a>,
    pub no_pivot: bool,
    /// SELinux label of files in new mounts.
    pub mount_label: Option<&'a str>,
    /// True if the host has /proc/kcore.
    pub kcore: bool,
}

/// Paths on the host that a mount of type `cgroup` shows.
#[derive(Debug, Clone, Copy)]
pub enum CgroupView<'a> {
    /// cgroup2 alone: the container's own cgroup if it has its own cgroup namespace, otherwise the mount point.
    Unified(&'a Path),
    /// Hierarchies of version 1. cgroup2 may be one of them.
    Legacy(&'a [HierarchyView]),
}

/// Hierarchy that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyView {
    /// Container's cgroup in this hierarchy.
    pub own: PathBuf,
    /// Last part of the mount point: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// Controllers, if there is more than one.
    pub aliases: Vec<String>,
}

/// Plans all steps for the file systems.
///
/// # Errors
///
/// A mount, device, path, propagation or layer of the config is invalid, not supported, or not allowed.
pub fn plan(request: &RootfsRequest<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    if request.mount_namespace {
        enter_root(request, &mut plan)?;
    } else {
        plan.enter.push(inherit_namespace(request)?);
    }
    let mut deferred = Vec::new();
    for (index, mount) in request.mounts.iter().chain(request.extra).enumerate() {
        let destination = mount.destination().display();
        mounts::add(request, mount, &mut plan, &mut deferred)
            .context(|| format!("mounts[{index}] {destination}"))?;
    }
    let own_dev = !mounts::dev_is_bound(request);
    if own_dev {
        devices::add(request, &mut plan.enter)?;
    }
    leave_host(request, &mut plan, own_dev)?;
    restrict(request, &mut plan, deferred)?;
    Ok(plan)
}

/// Plans a container without a mount namespace. The mounts are made in the caller's mount namespace, if it is not the
/// host's and no other namespace sees them.
fn inherit_namespace(request: &RootfsRequest<'_>) -> Result<Step> {
    if !request.masked_paths.is_empty() || !request.readonly_paths.is_empty() {
        let text = "unable to restrict sys entries without a private MNT namespace";
        return Err(Error::config(text));
    }
    if request.overlay.layers.is_some() || request.overlay.upper.is_some() {
        return Err(Error::config("unable to use layers without a private MNT namespace"));
    }
    let path = host_path(request.rootfs)?;
    if request.mounts.is_empty() && request.extra.is_empty() && !request.readonly {
        return Ok(Step::OpenRoot { path });
    }
    if request.own_user_namespace {
        let text = "unable to mount without a private MNT namespace: the mount namespace of the caller \
                    does not belong to the container's user namespace";
        return Err(Error::config(text).hint("add a mount namespace to linux.namespaces"));
    }
    let why = match request.callers {
        Some(CallersNamespace { of_the_host: false, shared: false }) => {
            return Ok(Step::AttachRoot { path });
        }
        Some(CallersNamespace { of_the_host: false, shared: true }) => {
            "the mount that holds the rootfs is shared with other mount namespaces"
        }
        _ => "the caller is in the host's mount namespace",
    };
    if request.host_mounts {
        return Ok(Step::AttachRoot { path });
    }
    Err(Error::config(format!("unable to mount without a private MNT namespace: {why}")).hint(
        "add a mount namespace to linux.namespaces, call from a private one (unshare -m), or allow it \
         with --allow-host-mounts",
    ))
}

fn enter_root(request: &RootfsRequest<'_>, plan: &mut Plan) -> Result<()> {
    let flags = root_propagation(request)?;
    let slave = flags & MS_SLAVE != 0 && request.propagation.is_some_and(|name| !name.is_empty());
    let rootfs = host_path(request.rootfs)?;
    // An unbindable mount cannot be cloned, so this propagation is set after the pivot.
    let (flags, name) = match request.propagation {
        Some(name) if flags & MS_UNBINDABLE == 0 && !name.is_empty() => (flags, name),
        _ => (MS_SLAVE | MS_REC, "rslave"),
    };
    plan.enter.push(Step::Propagate { flags, name: name.to_owned() });
    // Without this, mounts of the container would appear on the host, if `/` alone or nothing has left its peers. The
    // sources of bind mounts outside of the rootfs become private, as in runc and crun.
    let private_binds = !slave && flags & MS_PRIVATE == 0 && mounts::inherit_propagation(request);
    if flags & MS_SHARED != 0 || flags & MS_REC == 0 || private_binds {
        let ancestors = request.rootfs.ancestors().map(host_path).collect::<Result<_>>()?;
        plan.enter.push(Step::Isolate { ancestors, slave });
    }
    plan.enter.push(match overlay::plan::overlay(&request.overlay)? {
        Some(overlay) => Step::Overlay(Box::new(overlay)),
        None => Step::CloneRoot { path: rootfs, mapped: mapped_root(request), slave },
    });
    Ok(())
}

fn mapped_root(request: &RootfsRequest<'_>) -> Option<IdMap> {
    let map = || IdMap {
        extent: Extent::Tree,
        uids: ranges(request.uid_mappings),
        gids: ranges(request.gid_mappings),
    };
    (request.map_root && !request.rootless).then(map)
}

fn root_propagation(request: &RootfsRequest<'_>) -> Result<u64> {
    let name = request.propagation.unwrap_or_default();
    if name.is_empty() {
        return Ok(MS_SLAVE | MS_REC);
    }
    let flags = propagation(name)
        .ok_or_else(|| Error::config(format!("rootfsPropagation={name} is not supported")))?;
    if request.no_pivot && flags & MS_PRIVATE != 0 {
        let text = "rootfsPropagation of [r]private is not safe without pivot_root";
        return Err(Error::config(text));
    }
    Ok(flags)
}

fn leave_host(request: &RootfsRequest<'_>, plan: &mut Plan, own_dev: bool) -> Result<()> {
    if !request.mount_namespace {
        plan.pivot.push(Step::Chroot);
        let attached = plan.enter.iter().any(|step| matches!(step, Step::AttachRoot { .. }));
        if attached {
            propagate_root(request, plan)?;
        }
        return Ok(());
    }
    let flags = root_propagation(request)?;
    plan.pivot.push(if request.no_pivot {
        Step::MoveRoot { path: host_path(request.rootfs)? }
    } else {
        // A tree that was made slave or private recursively has no peers.
        let cut = flags & (MS_SLAVE | MS_PRIVATE) != 0 && flags & MS_REC != 0;
        Step::Pivot { shared: !cut }
    });
    propagate_root(request, plan)?;
    if own_dev {
        plan.pivot.push(Step::ReopenNull);
    }
    Ok(())
}

/// Plans the propagation of the root. Slave or private is set already.
fn propagate_root(request: &RootfsRequest<'_>, plan: &mut Plan) -> Result<()> {
    let flags = root_propagation(request)?;
    if flags & (MS_SHARED | MS_UNBINDABLE) != 0 {
        let name = request.propagation.unwrap_or_default().to_owned();
        plan.pivot.push(Step::Propagate { flags, name });
    }
    Ok(())
}

fn restrict(request: &RootfsRequest<'_>, plan: &mut Plan, deferred: Vec<CString>) -> Result<()> {
    for path in unique(request.readonly_paths) {
        plan.restrict.push(Step::ReadonlyPath(container_path("readonlyPaths", path)?));
    }
    let label = request.mount_label.map(|label| text("mountLabel", label)).transpose()?;
    for path in unique(request.masked_paths) {
        let path = container_path("maskedPaths", path)?;
        plan.restrict.push(Step::Mask { path, label: label.clone() });
    }
    plan.restrict.extend(deferred.into_iter().map(Step::ReadonlyMount));
    if request.readonly {
        plan.restrict.push(Step::ReadonlyRoot);
    }
    Ok(())
}

fn unique(paths: &[String]) -> impl Iterator<Item = &str> {
    // Empty paths are ignored, as in runc.
    let first =
        |(index, path): &(usize, &String)| !path.is_empty() && !paths[..*index].contains(path);
    paths.iter().enumerate().filter(first).map(|(_, path)| path.as_str())
}

/// Converts a path of the container to an absolute and clean one.
fn container_path(field: &str, path: impl AsRef<OsStr>) -> Result<CString> {
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

/// Converts text to a C string. A NUL byte, at which the kernel would cut it, is an error (CVE-2021-43784).
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
