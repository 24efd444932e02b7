//! The container's view of its cgroup.
//!
//! A bind of the container's own folder shows what a new mount of cgroup2 made inside its cgroup
//! namespace shows: the same directory of the same super block, displayed as `/` to who is in the
//! namespace. The bind is never slow; the new mount, on an idle machine, is now and then (10 ms).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::new_mount::{create, set};
use super::restrict::empty_tmpfs;
use super::{Missing, State};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::{CgroupMount, Datum, Hierarchy};
use crate::sys::mount::{
    ATTR_ATIME, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Attributes, Extent, fsopen,
    move_mount, open_tree,
};

const ALWAYS: u64 = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;

pub(super) fn unified(state: &State<'_>, mount: &CgroupMount) -> ChildResult<()> {
    check(&mount.data)?;
    let place = state.place(&mount.target, Missing::Directory)?;
    let detached = match mount.hierarchies.first().map(|all| own(state, all, mount.attributes)) {
        Some(Ok(bound)) => bound,
        Some(Err(fault)) => other_view(mount, fault)?,
        None => fresh(mount.attributes)?,
    };
    state.attach(detached.as_fd(), place.fd.as_fd(), &mount.finish)?;
    state.restrict_late(detached.as_fd(), mount.attributes)?;
    state.retire([detached, place.fd]);
    Ok(())
}

/// Options such as nsdelegate are the whole hierarchy's: the kernel ignores them in a cgroup namespace, and
/// elsewhere a container would set them for its host. So the kernel is only asked whether it knows them.
fn check(data: &[Datum]) -> ChildResult<()> {
    if data.is_empty() {
        return Ok(());
    }
    let context = fsopen(c"cgroup2").during("fsopen")?;
    data.iter().try_for_each(|datum| set(context.as_fd(), &datum.key, datum.value.as_deref()))
}

/// A new mount shows the same, where the folder is not to be had.
fn other_view(mount: &CgroupMount, fault: Fault) -> ChildResult<OwnedFd> {
    match fresh(mount.attributes) {
        // Better nothing than the host's (CVE-2023-25809).
        Err(_) if mount.or_empty && fault.errno == Errno::ENOENT => empty_tmpfs(None),
        Err(_) => Err(fault),
        new => new,
    }
}

fn fresh(attributes: u64) -> ChildResult<OwnedFd> {
    let context = fsopen(c"cgroup2").during("fsopen")?;
    create(context.as_fd(), &[datum(c"source", c"cgroup")], attributes)
}

fn datum(key: &CStr, value: &CStr) -> Datum {
    Datum { key: key.into(), value: Some(value.into()) }
}

/// The folder as a detached mount, restricted where the kernel can do that to one.
fn own(state: &State<'_>, hierarchy: &Hierarchy, attributes: u64) -> ChildResult<OwnedFd> {
    let named = |call: &str, errno| Fault {
        call: format!("{call} {}", hierarchy.source.to_string_lossy()).into(),
        errno,
    };
    let tree = open_tree(None, &hierarchy.source, Extent::One)
        .map_err(|errno| named("open_tree", errno))?;
    state.set_detached(tree.as_fd(), Extent::One, change(attributes))?;
    Ok(tree)
}

/// The flags of the host's own mount are kept: they may be locked.
fn change(attributes: u64) -> Attributes {
    let clear = if attributes & ATTR_ATIME != 0 { ATTR_ATIME } else { 0 };
    // As a new mount would be: nothing of the host's arrives there later.
    Attributes { set: attributes, clear, propagation: libc::MS_PRIVATE }
}

impl State<'_> {
    /// What an old kernel could not do before the mount was attached.
    fn restrict_late(&self, mount: BorrowedFd<'_>, attributes: u64) -> ChildResult<()> {
        if self.setattr.get() {
            return Ok(());
        }
        self.set_attributes(mount, Extent::One, change(attributes))
    }
}

pub(super) fn legacy(state: &State<'_>, mount: &CgroupMount) -> ChildResult<()> {
    let place = state.place(&mount.target, Missing::Directory)?;
    let context = fsopen(c"tmpfs").during("fsopen")?;
    let data = [datum(c"source", c"tmpfs"), datum(c"mode", c"755")];
    let top = create(context.as_fd(), &data, ALWAYS)?;
    state.attach(top.as_fd(), place.fd.as_fd(), &mount.finish)?;
    for hierarchy in &mount.hierarchies {
        match add_hierarchy(state, top.as_fd(), hierarchy, mount.attributes) {
            Err(Fault { errno: Errno::ENOENT, .. }) if mount.or_empty => {}
            other => other?,
        }
    }
    if mount.attributes & ATTR_RDONLY == 0 {
        return Ok(());
    }
    let read_only = Attributes { set: ATTR_RDONLY, ..Attributes::default() };
    state.set_attributes(top.as_fd(), Extent::One, read_only)
}

fn add_hierarchy(
    state: &State<'_>,
    top: BorrowedFd<'_>,
    hierarchy: &Hierarchy,
    attributes: u64,
) -> ChildResult<()> {
    let tree = own(state, hierarchy, attributes)?;
    mkdirat(top, hierarchy.name.as_c_str(), Mode::from_bits_truncate(0o755)).during("mkdir")?;
    let flags =
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_CLOEXEC;
    let place =
        nix::fcntl::openat(top, hierarchy.name.as_c_str(), flags, Mode::empty()).during("open")?;
    move_mount(tree.as_fd(), place.as_fd()).during("move_mount")?;
    state.restrict_late(tree.as_fd(), attributes)?;
    for alias in &hierarchy.aliases {
        match symlinkat(hierarchy.name.as_c_str(), top, alias.as_c_str()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).during("symlink"),
        }
    }
    Ok(())
}
