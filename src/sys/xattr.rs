//! Extended attributes: xattr(7). The calls by path follow symlinks: for an `O_PATH` descriptor, of a
//! symlink too, its link in procfs is the one way.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_long;

use super::{Errno, Result, check};

/// Sets an attribute of `path`.
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

/// The names that the caller may see, each with a NUL behind it; none where the file system has none.
pub fn list_by_path(path: &CStr) -> Result<Vec<u8>> {
    let names = read(|buffer| {
        // SAFETY: path is NUL terminated and only read; the kernel writes at most as many bytes as
        // the buffer has.
        let length =
            unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        check(length as c_long)
    });
    if names == Err(Errno::EOPNOTSUPP) { Ok(Vec::new()) } else { names }
}

/// `None` where there is none of this name.
pub fn get_by_path(path: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    let value = read(|buffer| {
        let (raw, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: path and name are NUL terminated and only read; the kernel writes at most as many
        // bytes as the buffer has.
        check(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), raw, room) } as c_long)
    });
    match value {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        other => other.map(Some),
    }
}

/// The kernel's own limit on a list and on a value.
const LONGEST: usize = 65536;

/// Mostly short: once with a small buffer, then with one that always does.
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
