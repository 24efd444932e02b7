//! Mounts the container's view of its cgroup.
//!
//! A bind mount of the container's own directory shows the same as a new cgroup2 mount in its cgroup namespace: the
//! same directory of the same superblock, which is `/` for processes in the namespace. The bind mount is always fast. A
//! new mount sometimes takes 10 ms on an idle machine.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::new_mount::{create, set};
use super::restrict::empty_tmpfs;
use super::{Missing, State};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::{CgroupMount, Hierarchy, Parameter};
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

/// Checks the options of cgroup2. Options such as nsdelegate affect the whole hierarchy. The kernel ignores them in a
/// cgroup namespace, and elsewhere a container would set them for its host. So Aril only checks that the kernel knows
/// them.
fn check(data: &[Parameter]) -> ChildResult<()> {
    if data.is_empty() {
        return Ok(());
    }
    let context = fsopen(c"cgroup2").during("fsopen")?;
    data.iter()
        .try_for_each(|parameter| set(context.as_fd(), &parameter.key, parameter.value.as_deref()))
}

/// Makes a new mount, which shows the same, if the directory is unavailable.
fn other_view(mount: &CgroupMount, fault: Fault) -> ChildResult<OwnedFd> {
    match fresh(mount.attributes) {
        // An empty mount is better than the host's tree (CVE-2023-25809).
        Err(_) if mount.or_empty && fault.errno == Errno::ENOENT => empty_tmpfs(None),
        Err(_) => Err(fault),
        new => new,
    }
}

fn fresh(attributes: u64) -> ChildResult<OwnedFd> {
    let context = fsopen(c"cgroup2").during("fsopen")?;
    create(context.as_fd(), &[parameter(c"source", c"cgroup")], attributes)
}

fn parameter(key: &CStr, value: &CStr) -> Parameter {
    Parameter { key: key.into(), value: Some(value.into()) }
}

/// Opens the directory as a detached mount, and restricts it if the kernel can restrict a detached one.
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

/// Returns the change of attributes. Flags of the host's mount are kept, because they may be locked.
fn change(attributes: u64) -> Attributes {
    let clear = if attributes & ATTR_ATIME != 0 { ATTR_ATIME } else { 0 };
    // Private, like a new mount: later mounts of the host do not appear in it.
    Attributes { set: attributes, clear, propagation: libc::MS_PRIVATE }
}

impl State<'_> {
    /// Restricts an attached mount, on an old kernel that cannot restrict a detached one.
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
    let data = [parameter(c"source", c"tmpfs"), parameter(c"mode", c"755")];
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
