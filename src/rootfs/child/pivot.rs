//! Enters the rootfs, and leaves the host's tree.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{fchdir, pivot_root};

use super::State;
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::fs::Root;
use crate::rootfs::overlay::Overlay;
use crate::rootfs::overlay::mount::{make, make_attached};
use crate::sys::mount::{Attributes, Extent, move_mount, open_tree};
use crate::sys::open::open;

const NONE: Option<&CStr> = None;
/// Maximum size of a mount table in bytes. A larger one is an attack.
const LONGEST_MOUNTINFO: usize = 64 << 20;

pub(super) fn propagate(flags: u64) -> ChildResult<()> {
    change_propagation(c"/", MsFlags::from_bits_retain(flags)).during("mount")
}

fn change_propagation(path: &CStr, flags: MsFlags) -> nix::Result<()> {
    mount(NONE, path, NONE, flags, NONE)
}

pub(super) fn isolate(ancestors: &[CString], slave: bool) -> ChildResult<()> {
    let flags = if slave { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    for path in ancestors {
        match change_propagation(path, flags) {
            // The path is not a mount point.
            Err(Errno::EINVAL) => {}
            // In a user namespace that cannot access the path, the mount has no peers on the host.
            Err(Errno::EACCES) => return Ok(()),
            other => return other.during("mount"),
        }
    }
    Ok(())
}

pub(super) fn clone_root(state: &mut State<'_>, path: &CStr, slave: bool) -> ChildResult<()> {
    let directory = open_directory(path, OFlag::O_PATH)?;
    // The parent has opened an id-mapped tree.
    let tree = match state.source.take() {
        Some(tree) => tree,
        None => open_tree(None, path, Extent::Tree).during("open_tree")?,
    };
    attach_root(state, tree, &directory, slave)
}

pub(super) fn attach_copy(state: &mut State<'_>, path: &CStr) -> ChildResult<()> {
    let copy = state.trees.first_mut().and_then(Option::take);
    let copy = copy.ok_or(Fault::refused("the parent has no copy of the rootfs"))?;
    let directory = open_directory(path, OFlag::O_PATH)?;
    attach_root(state, copy, &directory, false)
}

pub(super) fn attach_overlay(state: &mut State<'_>, overlay: &Overlay) -> ChildResult<()> {
    let made = match overlay.tree.and_then(|index| state.trees.get_mut(index)?.take()) {
        Some(made) => made,
        None => make(overlay, None, || make_attached(overlay, None))?,
    };
    let directory = open_directory(&overlay.at, OFlag::O_PATH)?;
    attach_root(state, made, &directory, false)
}

fn attach_root(
    state: &mut State<'_>,
    tree: OwnedFd,
    directory: &OwnedFd,
    slave: bool,
) -> ChildResult<()> {
    move_mount(tree.as_fd(), directory.as_fd()).during("move_mount")?;
    // Later mounts of the host on the rootfs do not appear in the container, unless the config requires it.
    let propagation = if slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    let change = Attributes { propagation, ..Attributes::default() };
    state.set_attributes(tree.as_fd(), Extent::One, change)?;
    state.root = Some(Root::new(tree));
    Ok(())
}

pub(super) fn open_root(state: &mut State<'_>, path: &CStr) -> ChildResult<()> {
    state.root = Some(Root::new(open_directory(path, OFlag::O_PATH)?));
    Ok(())
}

fn open_directory(path: &CStr, flags: OFlag) -> ChildResult<OwnedFd> {
    let flags = flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags).during("open")
}

/// Changes the root. The old root is mounted on top of the new one, and is then unmounted. `shared` is true if mounts
/// of the old tree may still have peers on the host.
pub(super) fn pivot(state: &mut State<'_>, shared: bool) -> ChildResult<()> {
    let old = open_directory(c"/", OFlag::O_PATH)?;
    fchdir(state.root()?).during("fchdir")?;
    pivot_root(c".", c".").during("pivot_root")?;
    fchdir(&old).during("fchdir")?;
    if shared {
        // Without this, the unmount would propagate to the host.
        change_propagation(c".", MsFlags::MS_SLAVE | MsFlags::MS_REC).during("mount")?;
    }
    umount2(c".", MntFlags::MNT_DETACH).during("umount2")?;
    enter_root(state)
}

pub(super) fn chroot(state: &mut State<'_>) -> ChildResult<()> {
    fchdir(state.root()?).during("fchdir")?;
    nix::unistd::chroot(c".").during("chroot")?;
    enter_root(state)
}

fn enter_root(state: &mut State<'_>) -> ChildResult<()> {
    fchdir(state.root()?).during("fchdir")?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(())
}

/// Moves the new root to `/`, without pivot_root (for an initramfs as `/`). The host's tree stays below it. Complete
/// procfs and sysfs mounts in that tree would allow the container to mount unmasked ones, so they are unmounted or
/// covered.
pub(super) fn move_root(state: &mut State<'_>, path: &CStr) -> ChildResult<()> {
    let table = state.proc.read(c"self/mountinfo", LONGEST_MOUNTINFO).during("read mountinfo")?;
    for place in full_views(&table, path.to_bytes())? {
        match umount2(place.as_c_str(), MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::EPERM) => cover(&place)?,
            Err(errno) => return Err(errno).during("umount2"),
        }
    }
    fchdir(state.root()?).during("fchdir")?;
    mount(Some(c"."), c"/", NONE, MsFlags::MS_MOVE, NONE).during("mount")?;
    nix::unistd::chroot(c".").during("chroot")?;
    enter_root(state)
}

fn cover(place: &CStr) -> ChildResult<()> {
    mount(Some(c"tmpfs"), place, Some(c"tmpfs"), MsFlags::MS_RDONLY, NONE).during("mount")
}

/// Returns the mount points of complete procfs and sysfs mounts. The deepest one, the last in the table, is the first.
fn full_views(table: &[u8], rootfs: &[u8]) -> ChildResult<Vec<CString>> {
    let mut found = Vec::new();
    for line in table.split(|b| *b == b'\n').rev() {
        let mut fields = line.split(|b| *b == b' ');
        let (Some(root), Some(place)) = (fields.nth(3), fields.next()) else { continue };
        let kind = fields.skip_while(|f| *f != b"-").nth(1).unwrap_or_default();
        let place = unescape(place);
        let in_rootfs = place.strip_prefix(rootfs).is_some_and(|r| r.is_empty() || r[0] == b'/');
        if root == b"/" && !in_rootfs && (kind == b"proc" || kind == b"sysfs") {
            found.push(CString::new(place).map_err(|_| Fault::refused("mountinfo holds a NUL"))?);
        }
    }
    Ok(found)
}

/// Checks for `runtime-tests/fuzz/` that no path below the rootfs is found, for any mountinfo.
#[cfg(fuzzing)]
pub fn check_table(table: &[u8]) {
    for place in full_views(table, b"/rootfs").into_iter().flatten() {
        assert!(!place.to_bytes().starts_with(b"/rootfs/"), "{place:?}");
    }
}

/// Decodes a field of mountinfo, in which space, tab, newline and backslash are three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &tail[3..];
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_views_outside_the_rootfs() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n\
            23 27 0:22 / /a\\040b/sys rw shared:3 - sysfs sysfs rw\n\
            24 22 0:21 /bus /proc/bus ro - proc proc rw\n\
            25 27 0:40 / /c/rootfs/proc rw - proc proc rw\n\
            26 27 0:41 / /c/rootfs2/proc rw - proc proc rw\n\
            27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let found = full_views(table, b"/c/rootfs").unwrap();
        assert_eq!(found, [c"/c/rootfs2/proc", c"/a b/sys", c"/proc"].map(CString::from));
    }
}
