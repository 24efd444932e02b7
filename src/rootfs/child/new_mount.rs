//! Makes a new mount of a file system.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::fchdir;

use super::{Missing, MountPoint, State, copy_up, fd_path};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::{ByPath, NewMount, Parameter};
use crate::sys::mount::{
    ATTR_ATIME, Attributes, Extent, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

pub(super) fn run(state: &mut State<'_>, mount: &NewMount) -> ChildResult<()> {
    let place = state.place(&mount.target, Missing::Directory)?;
    if let Some(by_path) = &mount.by_path {
        return run_by_path(state, mount, by_path, &place);
    }
    if let Some(host) = &mount.fallback {
        let detached = match fresh(mount) {
            Err(fault) if fault.errno == Errno::EPERM => bind_host(state, host, mount, fault)?,
            other => other?,
        };
        state.attach(detached.as_fd(), place.fd.as_fd(), &mount.finish)?;
        state.retire([detached, place.fd]);
        return Ok(());
    }
    let context = fsopen(&mount.kind).during("fsopen")?;
    set(context.as_fd(), c"source", Some(&mount.source))?;
    // The mode of the config is set later, and replaces this one.
    if mount.inherit_mode && !place.created {
        set(context.as_fd(), c"mode", Some(&mode_of(place.fd.as_fd())?))?;
    }
    let detached = create(context.as_fd(), &mount.data, mount.attributes)?;
    if mount.copy_up && !place.created {
        copy_up::copy(state.proc, place.fd.as_fd(), detached.as_fd())?;
    }
    state.attach(detached.as_fd(), place.fd.as_fd(), &mount.finish)?;
    if let Some(label) = &mount.label {
        set_label(state, detached.as_fd(), label)?;
    }
    state.retire([context, detached, place.fd]);
    Ok(())
}

fn fresh(mount: &NewMount) -> ChildResult<OwnedFd> {
    let context = fsopen(&mount.kind).during("fsopen")?;
    set(context.as_fd(), c"source", Some(&mount.source))?;
    create(context.as_fd(), &mount.data, mount.attributes)
}

/// Bind-mounts the host's directory `path`, as crun does. The kernel rejects a new sysfs while parts of the host's are
/// covered, and an mqueue of an IPC namespace that belongs to another user namespace.
fn bind_host(
    state: &State<'_>,
    path: &CStr,
    mount: &NewMount,
    fault: Fault,
) -> ChildResult<OwnedFd> {
    let Ok(tree) = open_tree(None, path, Extent::Tree) else { return Err(fault) };
    let change = Attributes { set: mount.attributes & !ATTR_ATIME, ..Attributes::default() };
    if state.set_detached(tree.as_fd(), Extent::Tree, change)? { Ok(tree) } else { Err(fault) }
}

/// Sets the parameters, and creates the detached mount.
pub(in crate::rootfs) fn create(
    context: BorrowedFd<'_>,
    data: &[Parameter],
    attributes: u64,
) -> ChildResult<OwnedFd> {
    for Parameter { key, value } in data {
        set(context, key, value.as_deref())?;
    }
    fsconfig_create(context).map_err(|errno| with_messages(context, "fsconfig".into(), errno))?;
    fsmount(context, attributes).map_err(|errno| with_messages(context, "fsmount".into(), errno))
}

pub(in crate::rootfs) fn set(
    context: BorrowedFd<'_>,
    key: &CStr,
    value: Option<&CStr>,
) -> ChildResult<()> {
    match value {
        Some(value) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, key),
    }
    .map_err(|errno| {
        let key = key.to_string_lossy();
        let call = match value {
            Some(value) => format!("fsconfig {key}={}", value.to_string_lossy()),
            None => format!("fsconfig {key}"),
        };
        with_messages(context, call, errno)
    })
}

/// Adds the messages of the file system to the error: each read returns one line, `e text`.
#[cold]
fn with_messages(context: BorrowedFd<'_>, mut call: String, errno: Errno) -> Fault {
    let mut line = [0; 1024];
    while let Ok(length @ 3..) = nix::unistd::read(context, &mut line) {
        let text = String::from_utf8_lossy(&line[2..length]);
        call.push_str(": ");
        call.push_str(text.trim_end());
    }
    Fault { call: call.into(), errno }
}

fn mode_of(directory: BorrowedFd<'_>) -> ChildResult<CString> {
    let mode = fstat(directory).during("fstat")?.st_mode & 0o7777;
    CString::new(format!("{mode:04o}")).map_err(|_| Fault::refused("a directory's mode"))
}

fn run_by_path(
    state: &mut State<'_>,
    mount: &NewMount,
    by_path: &ByPath,
    place: &MountPoint,
) -> ChildResult<()> {
    let source = Some((mount.source.as_c_str(), mount.kind.as_c_str()));
    state.mount_by_path(place.fd.as_fd(), source, by_path.flags, Some(&by_path.data))?;
    // The new mount covers the open mount point. Its path leads to the mount.
    let mounted = state.root()?.open(&mount.target.path, libc::O_PATH).during("open")?;
    state.remember(mounted.as_fd())?;
    state.finish(mounted.as_fd(), &mount.finish)
}

/// Sets the label of an mqueue, which does not accept `context=`.
fn set_label(state: &State<'_>, mount: BorrowedFd<'_>, label: &CStr) -> ChildResult<()> {
    let path = fd_path(mount)?;
    fchdir(state.proc).during("fchdir")?;
    let set = crate::sys::xattr::set_by_path(&path, c"security.selinux", label.to_bytes());
    fchdir(state.root()?).during("fchdir")?;
    set.during("setxattr security.selinux")
}
