//! Mount calls by file descriptor (Linux 5.2 to 5.12), which libc and nix do not wrap.
//!
//! Mounts created here are *detached*: no mount table contains them before [`move_mount`].

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, c_uint};

use super::{Result, check};

// Values of linux/mount.h. libc has only some of them.
pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
/// Mask of the field with relatime (0), noatime or strictatime.
pub const ATTR_ATIME: u64 = 0x70;
pub const ATTR_NOATIME: u64 = 0x10;
pub const ATTR_STRICTATIME: u64 = 0x20;
pub const ATTR_NODIRATIME: u64 = 0x80;
pub const ATTR_IDMAP: u64 = 0x10_0000;
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_SET_FD: c_uint = 5;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;

/// Extent of a call: one mount, or also all mounts below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    One,
    Tree,
}

impl Extent {
    fn bits(self) -> c_uint {
        match self {
            Extent::One => 0,
            Extent::Tree => libc::AT_RECURSIVE as c_uint,
        }
    }
}

/// Change of a mount by [`mount_setattr`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE` and so on, or 0.
    pub propagation: u64,
}

fn owned(fd: c_long) -> OwnedFd {
    // SAFETY: the callers below pass a descriptor that the kernel has just created, without another owner.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Creates a context in which a file system of the type `name` is configured.
///
/// # Errors
///
/// An error of fsopen(2): `ENODEV` if the kernel does not have the type.
pub fn fsopen(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: name is NUL terminated and only read.
    check(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) }).map(owned)
}

/// Sets an option without a value.
///
/// # Errors
///
/// An error of fsconfig(2).
pub fn fsconfig_set_flag(context: BorrowedFd<'_>, key: &CStr) -> Result<()> {
    fsconfig(context, FSCONFIG_SET_FLAG, Some(key), None, 0)
}

/// Sets an option with a string, of which the kernel accepts at most 255 bytes.
///
/// # Errors
///
/// An error of fsconfig(2).
pub fn fsconfig_set_string(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> Result<()> {
    fsconfig(context, FSCONFIG_SET_STRING, Some(key), Some(value), 0)
}

/// Sets an option to an open file. An `O_PATH` descriptor is accepted since Linux 6.15.
///
/// # Errors
///
/// An error of fsconfig(2).
pub fn fsconfig_set_fd(context: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
    fsconfig(context, FSCONFIG_SET_FD, Some(key), None, value.as_raw_fd())
}

/// Creates the configured file system.
///
/// # Errors
///
/// An error of fsconfig(2).
pub fn fsconfig_create(context: BorrowedFd<'_>) -> Result<()> {
    fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0)
}

fn fsconfig(
    context: BorrowedFd<'_>,
    command: c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
    number: c_int,
) -> Result<()> {
    // SAFETY: key and value are null or NUL terminated, and only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key.map_or(ptr::null(), CStr::as_ptr),
            value.map_or(ptr::null(), CStr::as_ptr),
            number,
        )
    })
    .map(drop)
}

/// Creates a detached mount of a configured file system.
///
/// # Errors
///
/// An error of fsmount(2).
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: the arguments are integers. The kernel accesses no memory of this process.
    check(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as c_uint)
    })
    .map(owned)
}

/// Creates a detached copy of the mount at `path` (below `dir`, or absolute), with `path` as its root: a bind mount
/// that is not attached yet.
///
/// # Errors
///
/// An error of open_tree(2).
pub fn open_tree(dir: Option<BorrowedFd<'_>>, path: &CStr, extent: Extent) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | extent.bits();
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as c_uint;
    }
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: path is NUL terminated and only read.
    check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }).map(owned)
}

/// Creates a detached copy of the mount at the absolute `path`, without following a symlink at its end.
///
/// # Errors
///
/// An error of open_tree(2).
pub fn open_tree_nofollow(path: &CStr, extent: Extent) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_SYMLINK_NOFOLLOW as c_uint
        | extent.bits();
    // SAFETY: path is NUL terminated and only read.
    check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
        .map(owned)
}

/// Attaches the detached mount `from` on top of the open file or directory `to`.
///
/// # Errors
///
/// An error of move_mount(2).
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty NUL-terminated strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Changes the attributes of the mount whose root is `mount`.
///
/// # Errors
///
/// An error of mount_setattr(2).
pub fn mount_setattr(mount: BorrowedFd<'_>, extent: Extent, change: Attributes) -> Result<()> {
    let Attributes { set, clear, propagation } = change;
    setattr(mount, extent, [set, clear, propagation, 0])
}

/// Turns the detached mount into an id-mapped mount, with the mapping of the user namespace.
///
/// # Errors
///
/// `EINVAL` if the file system does not support id-mapped mounts, or another error of mount_setattr(2).
pub fn mount_setattr_idmap(
    mount: BorrowedFd<'_>,
    extent: Extent,
    user_namespace: BorrowedFd<'_>,
) -> Result<()> {
    setattr(mount, extent, [ATTR_IDMAP, 0, 0, user_namespace.as_raw_fd() as u64])
}

/// Calls mount_setattr(2). `arguments` is struct mount_attr, version 0: set, clear, propagation, user namespace.
fn setattr(mount: BorrowedFd<'_>, extent: Extent, arguments: [u64; 4]) -> Result<()> {
    // SAFETY: the path is the empty string. `arguments` has the size that is passed, and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as c_uint | extent.bits(),
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    })
    .map(drop)
}

/// Returns the `ST_*` flags of the mount that an open file is on.
///
/// nix's call drops flags that it has no name for, among them `ST_RELATIME` and `ST_NOSYMFOLLOW`.
///
/// # Errors
///
/// An error of fstatvfs(3).
pub fn flags_of(file: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: statvfs consists of integers, for which zeros are valid.
    let mut statvfs: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one statvfs, which outlives it.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut statvfs) }.into())?;
    Ok(statvfs.f_flag)
}
