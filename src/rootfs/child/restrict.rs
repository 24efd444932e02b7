//! Makes paths read-only, and masks paths.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::new_mount::create;
use super::{State, device::open_null, is_directory};
use crate::error::fault::{Attempt, ChildResult};
use crate::rootfs::{Finish, Parameter};
use crate::sys::mount::{ATTR_RDONLY, Attributes, Extent, fsopen, move_mount, open_tree};

const READ_ONLY: Attributes = Attributes { set: ATTR_RDONLY, clear: 0, propagation: 0 };

pub(super) fn readonly_path(state: &State<'_>, path: &CStr) -> ChildResult<()> {
    let Some(place) = existing(state, path)? else { return Ok(()) };
    let copy = open_tree(Some(place.as_fd()), c"", Extent::Tree).during("open_tree")?;
    let done = state.set_detached(copy.as_fd(), Extent::One, READ_ONLY)?;
    move_mount(copy.as_fd(), place.as_fd()).during("move_mount")?;
    if !done {
        state.set_attributes(copy.as_fd(), Extent::One, READ_ONLY)?;
    }
    state.retire([copy, place]);
    Ok(())
}

pub(super) fn readonly_mount(state: &State<'_>, path: &CStr) -> ChildResult<()> {
    let mount = state.root()?.open(path, libc::O_PATH).during("open")?;
    state.set_attributes(mount.as_fd(), Extent::One, READ_ONLY)
}

pub(super) fn readonly_root(state: &State<'_>) -> ChildResult<()> {
    state.set_attributes(state.root()?.as_fd(), Extent::One, READ_ONLY)
}

pub(super) fn mask(state: &mut State<'_>, path: &CStr, label: Option<&CStr>) -> ChildResult<()> {
    let Some(place) = existing(state, path)? else { return Ok(()) };
    if is_directory(place.as_fd())? {
        mask_directory(state, place.as_fd(), label)?;
    } else {
        if state.null.is_none() {
            state.null = Some(open_null(state, libc::O_PATH)?);
        }
        if let Some(null) = &state.null {
            cover(state, null.as_fd(), place.as_fd())?;
        }
    }
    state.retire([place]);
    Ok(())
}

/// Covers a directory with an empty tmpfs. The first directory gets the mount itself. Others get copies of it, because
/// Linux before 6.15 can copy only an attached mount.
fn mask_directory(
    state: &mut State<'_>,
    place: BorrowedFd<'_>,
    label: Option<&CStr>,
) -> ChildResult<()> {
    if let Some(empty) = &state.empty {
        return cover(state, empty.as_fd(), place);
    }
    let empty = empty_tmpfs(label)?;
    state.attach(empty.as_fd(), place, &Finish::default())?;
    state.empty = Some(empty);
    Ok(())
}

pub(super) fn empty_tmpfs(label: Option<&CStr>) -> ChildResult<OwnedFd> {
    let parameter =
        |key: &CStr, value: &CStr| Parameter { key: key.into(), value: Some(value.into()) };
    let mut data = vec![
        parameter(c"source", c"tmpfs"),
        parameter(c"nr_blocks", c"1"),
        parameter(c"nr_inodes", c"1"),
        Parameter { key: c"ro".into(), value: None },
    ];
    data.extend(label.map(|label| parameter(c"context", label)));
    let context = fsopen(c"tmpfs").during("fsopen")?;
    create(context.as_fd(), &data, ATTR_RDONLY)
}

fn cover(state: &State<'_>, with: BorrowedFd<'_>, place: BorrowedFd<'_>) -> ChildResult<()> {
    let copy = open_tree(Some(with), c"", Extent::One).during("open_tree")?;
    move_mount(copy.as_fd(), place).during("move_mount")?;
    state.retire([copy]);
    Ok(())
}

/// Opens a path. A missing path needs no restriction.
fn existing(state: &State<'_>, path: &CStr) -> ChildResult<Option<OwnedFd>> {
    match state.root()?.open(path, libc::O_PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno).during("open"),
    }
}
