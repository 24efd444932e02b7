//! Extended attributes: xattr(7).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_long;

use super::{Result, check};

/// Sets an attribute of `path`, following symlinks: the one way for an `O_PATH` descriptor is its
/// link in procfs.
pub fn set_by_path(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: path and name are NUL terminated, value is as long as the size says; all only read.
    check(c_long::from(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: name is NUL terminated, value is as long as the size says; both only read.
    check(c_long::from(unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// The names, each with a NUL behind it, and how long they are together; into an empty buffer only
/// that.
pub fn list(file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let length =
        unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    check(length as c_long).map(|length| length as usize)
}

/// The value, and how long it is; into an empty buffer only that.
pub fn get(file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
    let (raw, room) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: name is NUL terminated; the kernel writes at most as many bytes as the buffer has.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), raw, room) };
    check(length as c_long).map(|length| length as usize)
}
