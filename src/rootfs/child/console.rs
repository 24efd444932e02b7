//! /dev/console is the container's terminal.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};

use super::{State, kind_of};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::sys::mount::{Extent, move_mount, open_tree};

/// Binds the terminal that `slave` is, whatever /dev/pts/N may be by now (CVE-2025-52565). It must
/// have been opened from a devpts of this mount namespace.
pub fn bind_console(state: &State<'_>, slave: BorrowedFd<'_>) -> ChildResult<()> {
    if fstatfs(slave).during("fstatfs")?.filesystem_type() != FsType(libc::DEVPTS_SUPER_MAGIC as _)
    {
        return Err(Fault::refused("the terminal is not of a devpts"));
    }
    let root = state.root()?;
    let place = match root.create_file(c"/dev/console", 0) {
        // Of the image's, or the caller's /dev. A symlink would be mounted on where it leads.
        Err(Errno::EEXIST) => root.open(c"/dev/console", libc::O_PATH | libc::O_NOFOLLOW),
        other => other,
    }
    .during("create /dev/console")?;
    match kind_of(&fstat(&place).during("fstat")?) {
        SFlag::S_IFREG | SFlag::S_IFCHR => {}
        _ => return Err(Fault::refused("/dev/console is neither a file nor a device")),
    }
    let terminal = open_tree(Some(slave), c"", Extent::One).during("open_tree")?;
    move_mount(terminal.as_fd(), place.as_fd()).during("move_mount")
}
