//! Extended attributes: xattr(7).
//!
//! The calls by path follow symlinks. For an `O_PATH` descriptor (also of a symlink) its link in procfs is such a path.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_long;

use super::{Errno, Result, check};

/// Sets an attribute of the file at `path`.
///
/// # Errors
///
/// An error of setxattr(2).
pub fn set_by_path(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: path and name are NUL terminated, and value has the size that is passed. The kernel only reads them.
    check(c_long::from(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// Sets an attribute of `file`.
///
/// # Errors
///
/// An error of fsetxattr(2).
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: name is NUL terminated, and value has the size that is passed. The kernel only reads both.
    check(c_long::from(unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// Reads the names of the attributes, each with a NUL byte, into `names`, and returns their total length. With an empty
/// buffer it returns only the length.
///
/// # Errors
///
/// `ERANGE` if the buffer is too small, or another error of flistxattr(2).
pub fn list(file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let length =
        unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    check(length as c_long).map(|length| length as usize)
}

/// Reads a value into `value` and returns its length. With an empty buffer it returns only the length.
///
/// # Errors
///
/// `ENODATA` if there is no such attribute, `ERANGE` if the buffer is too small, or another error of fgetxattr(2).
pub fn get(file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
    let (raw, room) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: name is NUL terminated, and the kernel writes at most as many bytes as the buffer has.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), raw, room) };
    check(length as c_long).map(|length| length as usize)
}

/// Lists the names that the caller can see, each with a NUL byte. Empty if the file system has no attributes.
///
/// # Errors
///
/// An error of listxattr(2).
pub fn list_by_path(path: &CStr) -> Result<Vec<u8>> {
    let names = read(|buffer| {
        // SAFETY: path is NUL terminated and only read. The kernel writes at most as many bytes as the buffer has.
        let length =
            unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        check(length as c_long)
    });
    if names == Err(Errno::EOPNOTSUPP) { Ok(Vec::new()) } else { names }
}

/// Reads the value of an attribute. `None` if the file does not have it.
///
/// # Errors
///
/// An error of getxattr(2).
pub fn get_by_path(path: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    let value = read(|buffer| {
        let (raw, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: path and name are NUL terminated and only read. The kernel writes at most as many bytes as the buffer
        // has.
        check(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), raw, room) } as c_long)
    });
    match value {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        other => other.map(Some),
    }
}

/// Maximum length of a list and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 65536;

/// Calls `call` with a small buffer, which most often is enough, then with one of the maximum size.
fn read(mut call: impl FnMut(&mut [u8]) -> Result<c_long>) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(length) => return Ok(small[..length as usize].to_vec()),
        Err(Errno::ERANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut value = vec![0; LONGEST];
    let length = call(&mut value)? as usize;
    value.truncate(length);
    Ok(value)
}
