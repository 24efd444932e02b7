//! openat2(2): the call that opens a path of somebody else's without being led astray.
//!
//! The other calls on paths and fds (mkdirat, mknodat, symlinkat, fstat, ...) have safe wrappers in
//! nix, which the layers above use directly.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_uint};
use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::{Errno, Result, check};

/// How often a lookup is repeated when a rename elsewhere made the kernel give up on `..`.
const ATTEMPTS: usize = 128;

/// Opens a path of the host's, close-on-exec. By openat(2), because musl's open(3) follows every call
/// by an fcntl(2), for kernels before 2.6.23.
pub fn open(path: &(impl NixPath + ?Sized), flags: OFlag) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens `path` below `dir`; `resolve` holds `RESOLVE_*`.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: c_int,
    mode: c_uint,
    resolve: u64,
) -> Result<OwnedFd> {
    // SAFETY: open_how is a plain C struct for which all zeroes is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = mode.into();
    how.resolve = resolve;
    for _ in 0..ATTEMPTS {
        // SAFETY: path is NUL terminated and how is as long as the size says; the kernel only reads
        // both.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match ret {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        }
    }
    Err(Errno::EAGAIN)
}
