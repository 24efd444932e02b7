//! Mounts the container's terminal on /dev/console.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};

use super::{State, kind_of};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::sys::mount::{Extent, move_mount, open_tree};

/// Bind-mounts the terminal of `slave` itself, even if /dev/pts/N is another file now (CVE-2025-52565). `slave` must
/// have been opened from a devpts of this mount namespace.
///
/// # Errors
///
/// `slave` is not on a devpts, /dev/console is neither a file nor a device, or an error of the mount calls.
pub fn bind_console(state: &State<'_>, slave: BorrowedFd<'_>) -> ChildResult<()> {
    if fstatfs(slave).during("fstatfs")?.filesystem_type() != FsType(libc::DEVPTS_SUPER_MAGIC as _)
    {
        return Err(Fault::refused("the terminal does not belong to a devpts"));
    }
    let root = state.root()?;
    let place = match root.create_file(c"/dev/console", 0) {
        // The file belongs to the image or to the caller's /dev. O_NOFOLLOW, because a mount would follow a symlink.
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
