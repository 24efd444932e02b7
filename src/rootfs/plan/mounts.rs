//! Plans the step of one mount of the config.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::MS_RDONLY;
use oci_spec::runtime::Mount;

use super::{CgroupView, RootfsRequest, container_path, id_map, text};
use crate::error::{Error, Result};
use crate::rootfs::options::{OF_SUPER_BLOCK, Options};
use crate::rootfs::{
    BindMount, ByPath, CgroupMount, Change, Finish, Hierarchy, IdMap, NewMount, Parameter, Plan,
    Source, Step, Target,
};
use crate::sys::mount::{ATTR_RDONLY, Extent};

/// Files of procfs that programs such as lxcfs replace. No other file in /proc may be a mount point.
const EMULATED: [&[u8]; 11] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/net/dev",
    b"/proc/sys/kernel/ns_last_pid",
    b"/proc/sys/crypto/fips_enabled",
];

/// Types whose superblock is shared by many mounts, on which `ro` must not be set.
const SHARED_SUPER_BLOCK: [&str; 3] = ["mqueue", "cgroup", "cgroup2"];

/// Maximum length of a value in fsconfig(2) in bytes.
const LONGEST_VALUE: usize = 255;

pub(super) fn read(mount: &Mount) -> Options {
    let options = mount.options().as_deref().unwrap_or_default();
    Options::parse(options.iter().map(String::as_str))
}

pub(super) fn kind(mount: &Mount) -> &str {
    mount.typ().as_deref().unwrap_or_default()
}

/// Returns the destination as a path of the container. A path below the rootfs on the host is converted, as in runc.
pub(super) fn destination(rootfs: &Path, mount: &Mount) -> Result<CString> {
    let path = container_path("mount destination", mount.destination())?;
    match Path::new(OsStr::from_bytes(path.as_bytes())).strip_prefix(rootfs) {
        Ok(rest) => container_path("mount destination", rest),
        Err(_) => Ok(path),
    }
}

/// Returns true if the caller bind-mounts /dev, in which no nodes and symlinks are created then.
pub(super) fn dev_is_bound(request: &RootfsRequest<'_>) -> bool {
    request.mounts.iter().any(|mount| {
        read(mount).bind.is_some()
            && destination(request.rootfs, mount).is_ok_and(|path| path.as_c_str() == c"/dev")
    })
}

/// Returns true if a bind mount keeps the propagation of its source.
pub(super) fn inherit_propagation(request: &RootfsRequest<'_>) -> bool {
    request.mounts.iter().chain(request.extra).any(|mount| {
        let options = read(mount);
        options.bind.is_some() && options.propagation.is_empty()
    })
}

/// Appends the step. Adds the path of a mount that becomes read-only later to `deferred`.
pub(super) fn add(
    request: &RootfsRequest<'_>,
    mount: &Mount,
    plan: &mut Plan,
    deferred: &mut Vec<CString>,
) -> Result<()> {
    let bound = bound_sysfs(request, mount);
    let mount = bound.as_ref().unwrap_or(mount);
    if mount.destination().as_os_str().is_empty() {
        return Err(Error::config("mount destination cannot be empty"));
    }
    let path = destination(request.rootfs, mount)?;
    if !mount.destination().is_absolute() {
        let given = mount.destination().display();
        plan.warnings.push(format!("mount destination {given} is not absolute: using {path:?}"));
    }
    let options = read(mount);
    if path.as_c_str() == c"/" && options.bind.is_none() {
        let rootfs = request.rootfs.display();
        let text = format!("mountpoint \"{rootfs}\" is on the top of rootfs \"{rootfs}\"");
        return Err(Error::config(text));
    }
    let id_map = id_map::plan(request, mount, &options)?;
    if let Some(extent) = options.bind {
        let bind = bind(request, mount, options, extent, path, id_map)?;
        plan.enter.push(Step::Bind(Box::new(bind)));
        return Ok(());
    }
    if id_map.is_some() {
        return Err(Error::config("id-mapped mounts are only supported for bind-mounts"));
    }
    if kind(mount) == "bind" && !options.remount {
        let text = "a mount of type bind needs the option bind or rbind: no such device";
        return Err(Error::config(text).hint("add rbind to its options"));
    }
    // A new cgroup2 mount from the host's cgroup namespace would reset the options of the hierarchy.
    let unified = matches!(request.cgroup, CgroupView::Unified(_));
    if kind(mount) == "cgroup" || (kind(mount) == "cgroup2" && unified) {
        plan.enter.push(cgroup(request, mount, options, path)?);
        return Ok(());
    }
    let late = kind(mount) == "tmpfs" || path.as_c_str() == c"/dev";
    if late && options.flags & MS_RDONLY != 0 {
        deferred.push(path.clone());
    }
    plan.enter.push(Step::Mount(Box::new(new_mount(request, mount, options, path, late)?)));
    Ok(())
}

/// Returns a read-only bind mount of the host's sysfs, if the network namespace belongs to the host: its owner alone
/// may mount a new sysfs.
fn bound_sysfs(request: &RootfsRequest<'_>, mount: &Mount) -> Option<Mount> {
    let mut options = mount.options().clone().unwrap_or_default();
    let wanted =
        request.foreign_network && kind(mount) == "sysfs" && options.iter().any(|o| o == "ro");
    wanted.then(|| {
        // Mounts below /sys, such as cgroups, must not be writable either.
        options.extend(["rbind".to_owned(), "rro".to_owned()]);
        let mut bound = mount.clone();
        bound.set_source(Some("/sys".into())).set_options(Some(options));
        bound
    })
}

fn bind(
    request: &RootfsRequest<'_>,
    mount: &Mount,
    options: Options,
    extent: Extent,
    path: CString,
    id_map: Option<IdMap>,
) -> Result<BindMount> {
    if !options.data.is_empty() {
        let text = "bind mounts cannot have any filesystem-specific options applied";
        return Err(Error::config(text).hint(format!("remove {}", options.data.join(","))));
    }
    let source = match mount.source() {
        Some(source) if !source.as_os_str().is_empty() => request.bundle.join(source),
        _ => return Err(Error::config("a bind mount needs a source")),
    };
    let demanded = options.demanded();
    let change = options.change().map(|attributes| Change { attributes, demanded });
    let on_proc = path.as_c_str() == c"/proc";
    Ok(BindMount {
        source: Source {
            path: text("mount source", source.as_os_str().as_bytes())?,
            extent,
            keep_link: options.links.copy || options.links.keep_source,
            in_user_namespace: request.user_namespace,
            id_map,
            tree: None,
        },
        target: Target { keep_link: options.links.keep_target, ..target(path, on_proc)? },
        change,
        proc_only: on_proc,
        fill: request.fill.contains(&source),
        copy_link: options.links.copy,
        finish: finish(&options),
        options: shown(mount),
    })
}

fn new_mount(
    request: &RootfsRequest<'_>,
    mount: &Mount,
    options: Options,
    path: CString,
    late: bool,
) -> Result<NewMount> {
    let kind = kind(mount);
    if kind.is_empty() && !options.remount {
        return Err(Error::config("a mount that is not a bind needs a type"));
    }
    if options.copy_up && kind != "tmpfs" {
        return Err(Error::config("tmpcopyup is only supported on tmpfs mounts"));
    }
    let mut target = target(path, kind == "proc")?;
    target.ordinary = kind == "proc" || kind == "sysfs";
    let mut data = data(&options)?;
    require_mapped(request, &data)?;
    if let Some(label) = request.mount_label.filter(|_| takes_context(kind)) {
        data.push(Parameter { key: c"context".into(), value: Some(text("mountLabel", label)?) });
    }
    let label = request.mount_label.filter(|_| kind == "mqueue");
    let late_flag = if late { MS_RDONLY } else { 0 };
    let by_path = by_path(&options, options.flags & !late_flag, &data)?;
    let flags = super_block_flags(kind, &options, late);
    data.splice(0..0, flags);
    let source = mount.source().as_deref().unwrap_or(Path::new(kind));
    Ok(NewMount {
        kind: text("mount type", kind)?,
        source: text("mount source", source.as_os_str().as_bytes())?,
        target,
        attributes: options.attributes() & !if late { ATTR_RDONLY } else { 0 },
        inherit_mode: kind == "tmpfs" && data.iter().all(|d| d.key.as_c_str() != c"mode"),
        data,
        fallback: fallback(request, kind, &options),
        copy_up: options.copy_up,
        label: label.map(|label| text("mountLabel", label)).transpose()?,
        by_path,
        finish: finish(&options),
        options: shown(mount),
    })
}

/// Returns the directory of the host to bind-mount if the kernel rejects the mount. For sysfs only if it is read-only,
/// because it shows the host's network namespace.
fn fallback(request: &RootfsRequest<'_>, kind: &str, options: &Options) -> Option<CString> {
    match kind {
        "sysfs" if request.user_namespace && options.flags & MS_RDONLY != 0 => Some(c"/sys".into()),
        "mqueue" if request.foreign_ipc => Some(c"/dev/mqueue".into()),
        _ => None,
    }
}

/// Rejects unmapped IDs in options. The kernel would only report an invalid argument.
fn require_mapped(request: &RootfsRequest<'_>, data: &[Parameter]) -> Result<()> {
    for (key, mappings) in [(c"uid", request.uid_mappings), (c"gid", request.gid_mappings)] {
        let mapped = |id: u32| {
            mappings.iter().any(|m| id >= m.container_id() && id - m.container_id() < m.size())
        };
        let option = data.iter().filter(|d| request.rootless && d.key.as_c_str() == key);
        for value in option.filter_map(|d| d.value.as_ref()?.to_str().ok()) {
            if value.parse().is_ok_and(|id| !mapped(id)) {
                let key = key.to_string_lossy();
                return Err(Error::config(format!(
                    "cannot specify {key}= mount options for unmapped {key} in rootless containers"
                ))
                .hint(format!("remove {key}={value}, or map that id")));
            }
        }
    }
    Ok(())
}

/// Returns true if the type accepts the option `context`. Pseudo file systems of the kernel do not.
fn takes_context(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

fn super_block_flags(kind: &str, options: &Options, late: bool) -> Vec<Parameter> {
    let flag = |key: &std::ffi::CStr| Parameter { key: key.into(), value: None };
    let mut flags: Vec<_> = OF_SUPER_BLOCK
        .iter()
        .filter(|(bit, _)| options.flags & bit != 0)
        .map(|(_, key)| flag(key))
        .collect();
    if options.flags & MS_RDONLY != 0 && !late && !SHARED_SUPER_BLOCK.contains(&kind) {
        flags.push(flag(c"ro"));
    }
    flags
}

/// Returns arguments for mount(2), if a value is too long for fsconfig(2), or an existing mount is changed.
fn by_path(options: &Options, flags: u64, data: &[Parameter]) -> Result<Option<ByPath>> {
    let long = |d: &Parameter| d.value.as_ref().is_some_and(|v| v.as_bytes().len() > LONGEST_VALUE);
    if !options.remount && !data.iter().any(long) {
        return Ok(None);
    }
    let flags = flags | if options.remount { libc::MS_REMOUNT } else { 0 };
    Ok(Some(ByPath { flags, data: text("mount options", options.data.join(","))? }))
}

/// Parses parameters: `a,b=c` is a and b=c. An escaped or quoted comma is part of the value.
fn data(options: &Options) -> Result<Vec<Parameter>> {
    let mut all = Vec::new();
    for option in &options.data {
        let (mut start, mut quoted, mut escaped) = (0, false, false);
        for (at, byte) in option.bytes().chain([b',']).enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted || at == option.len() => {
                    all.extend(parameter(&option[start..at])?);
                    start = at + 1;
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

fn parameter(option: &str) -> Result<Option<Parameter>> {
    let text = |part: &str| text("mount option", part);
    Ok(match option.split_once('=') {
        _ if option.is_empty() => None,
        None => Some(Parameter { key: text(option)?, value: None }),
        Some((key, value)) => {
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            Some(Parameter { key: text(key)?, value: Some(text(bare)?) })
        }
    })
}

fn cgroup(
    request: &RootfsRequest<'_>,
    mount: &Mount,
    options: Options,
    path: CString,
) -> Result<Step> {
    let common = |hierarchies, data| -> Result<Box<CgroupMount>> {
        Ok(Box::new(CgroupMount {
            target: target(path, false)?,
            attributes: options.attributes(),
            data,
            hierarchies,
            or_empty: request.user_namespace,
            finish: finish(&options),
            options: shown(mount),
        }))
    };
    match request.cgroup {
        CgroupView::Unified(shown) => {
            let source = super::host_path(shown)?;
            let all = Hierarchy { source, name: CString::default(), aliases: Vec::new() };
            common(vec![all], data(&options)?).map(Step::CgroupUnified)
        }
        CgroupView::Legacy(views) => {
            let hierarchies = views.iter().map(|v| v.hierarchy()).collect::<Result<_>>()?;
            common(hierarchies, Vec::new()).map(Step::CgroupLegacy)
        }
    }
}

/// Returns the target, and rejects one that would replace parts of the procfs that processes trust (CVE-2019-16884).
fn target(path: CString, proc: bool) -> Result<Target> {
    let bytes = path.as_bytes();
    let emulated = EMULATED.contains(&bytes);
    let shown = path.to_string_lossy();
    if bytes == b"/proc" && !proc {
        let text = format!("\"{shown}\" cannot be mounted because it is not of type proc");
        return Err(Error::config(text));
    }
    if bytes.starts_with(b"/proc/") && !emulated {
        let text = format!("\"{shown}\" cannot be mounted because it is inside /proc");
        return Err(Error::config(text));
    }
    Ok(Target { in_proc: proc || emulated, path, ordinary: false, keep_link: false })
}

fn finish(options: &Options) -> Finish {
    Finish { recursive: options.recursive, propagation: options.propagation.clone() }
}

fn shown(mount: &Mount) -> String {
    mount.options().as_deref().unwrap_or_default().join(",")
}
