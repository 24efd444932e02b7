//! Into the rootfs, and out of the host's tree.

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
use crate::rootfs::overlay::mount::{here, make};
use crate::sys::mount::{Attributes, Extent, move_mount, open_tree};
use crate::sys::open::open;

const NONE: Option<&CStr> = None;
/// More than any mount table that is not an attack.
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
            // Not itself a mount.
            Err(Errno::EINVAL) => {}
            // A user namespace that cannot reach it has no peers on the host.
            Err(Errno::EACCES) => return Ok(()),
            other => return other.during("mount"),
        }
    }
    Ok(())
}

pub(super) fn clone_root(state: &mut State<'_>, path: &CStr, slave: bool) -> ChildResult<()> {
    let below = open_directory(path, OFlag::O_PATH)?;
    // By the parent, where owners had to be mapped.
    let tree = match state.source.take() {
        Some(tree) => tree,
        None => open_tree(None, path, Extent::Tree).during("open_tree")?,
    };
    attach_root(state, tree, &below, slave)
}

pub(super) fn attach_copy(state: &mut State<'_>, path: &CStr) -> ChildResult<()> {
    let copy = state.trees.first_mut().and_then(Option::take);
    let copy = copy.ok_or(Fault::refused("the parent has no copy of the rootfs"))?;
    let below = open_directory(path, OFlag::O_PATH)?;
    attach_root(state, copy, &below, false)
}

pub(super) fn attach_overlay(state: &mut State<'_>, overlay: &Overlay) -> ChildResult<()> {
    let made = match overlay.tree.and_then(|index| state.trees.get_mut(index)?.take()) {
        Some(made) => made,
        None => make(overlay, None, || here(overlay, None))?,
    };
    let below = open_directory(&overlay.at, OFlag::O_PATH)?;
    attach_root(state, made, &below, false)
}

fn attach_root(
    state: &mut State<'_>,
    tree: OwnedFd,
    below: &OwnedFd,
    slave: bool,
) -> ChildResult<()> {
    move_mount(tree.as_fd(), below.as_fd()).during("move_mount")?;
    // What the host mounts on its rootfs later is not the container's, unless the config says so.
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

/// The old root ends up on top of the new one, and is taken off.
/// `shared`: mounts of the old tree may still have peers on the host.
pub(super) fn pivot(state: &mut State<'_>, shared: bool) -> ChildResult<()> {
    let old = open_directory(c"/", OFlag::O_PATH)?;
    fchdir(state.root()?).during("fchdir")?;
    pivot_root(c".", c".").during("pivot_root")?;
    fchdir(&old).during("fchdir")?;
    if shared {
        // Unmounting must not reach the host.
        change_propagation(c".", MsFlags::MS_SLAVE | MsFlags::MS_REC).during("mount")?;
    }
    umount2(c".", MntFlags::MNT_DETACH).during("umount2")?;
    settle(state)
}

pub(super) fn chroot(state: &mut State<'_>) -> ChildResult<()> {
    fchdir(state.root()?).during("fchdir")?;
    nix::unistd::chroot(c".").during("chroot")?;
    settle(state)
}

fn settle(state: &mut State<'_>) -> ChildResult<()> {
    fchdir(state.root()?).during("fchdir")?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(())
}

/// Without pivot_root (an initramfs as `/`) the host's tree stays below ours. Full views of
/// procfs and sysfs there would let the container mount its own without its masks, so they go.
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
    settle(state)
}

fn cover(place: &CStr) -> ChildResult<()> {
    mount(Some(c"tmpfs"), place, Some(c"tmpfs"), MsFlags::MS_RDONLY, NONE).during("mount")
}

/// Mount points, deepest last in the table and so first here, of procfs and sysfs as a whole.
fn full_views(table: &[u8], rootfs: &[u8]) -> ChildResult<Vec<CString>> {
    let mut found = Vec::new();
    for line in table.split(|b| *b == b'\n').rev() {
        let mut fields = line.split(|b| *b == b' ');
        let (Some(root), Some(place)) = (fields.nth(3), fields.next()) else { continue };
        let kind = fields.skip_while(|f| *f != b"-").nth(1).unwrap_or_default();
        let place = unescape(place);
        let ours = place.strip_prefix(rootfs).is_some_and(|r| r.is_empty() || r[0] == b'/');
        if root == b"/" && !ours && (kind == b"proc" || kind == b"sysfs") {
            found.push(CString::new(place).map_err(|_| Fault::refused("mountinfo holds a NUL"))?);
        }
    }
    Ok(found)
}

/// For `runtime-tests/fuzz/`: whatever mountinfo holds, nothing beneath the rootfs is found.
#[cfg(fuzzing)]
pub fn check_table(table: &[u8]) {
    for place in full_views(table, b"/rootfs").into_iter().flatten() {
        assert!(!place.to_bytes().starts_with(b"/rootfs/"), "{place:?}");
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
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
