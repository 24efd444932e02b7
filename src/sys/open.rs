//! openat2(2), which opens a path that a container controls, open(2) and statx(2).
//!
//! Other calls on paths and descriptors (mkdirat, mknodat, symlinkat, fstat and others) have safe wrappers in nix,
//! which the higher layers use directly.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_uint};
use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::{Errno, Result, check};

/// Maximum number of attempts of a lookup. The kernel fails with `EAGAIN` if a concurrent rename affects a `..`.
const ATTEMPTS: usize = 128;

/// Opens a path of the host, close-on-exec.
///
/// Uses openat(2), because musl's open(3) adds an fcntl(2) to every call, for kernels before 2.6.23.
///
/// # Errors
///
/// An error of openat(2).
pub fn open(path: &(impl NixPath + ?Sized), flags: OFlag) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns the creation time of a file in seconds and nanoseconds since 1970. `None` if its file system does not store
/// it.
///
/// Uses statx(2), for which std has no function with musl. A symlink is not followed.
///
/// # Errors
///
/// An error of statx(2).
pub fn birth_time(path: &CStr) -> Result<Option<(i64, u32)>> {
    const STATX_BTIME: u32 = 0x800;
    /// Offset of `stx_btime` in `struct statx`.
    const BTIME: usize = 80;
    let mut statx = [0_u8; 256];
    // SAFETY: the kernel reads a NUL-terminated path and writes one struct statx, of 256 bytes.
    check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            STATX_BTIME,
            statx.as_mut_ptr(),
        )
    })?;
    let word =
        |at: usize| u32::from_ne_bytes([statx[at], statx[at + 1], statx[at + 2], statx[at + 3]]);
    let known = word(0) & STATX_BTIME != 0;
    let mut seconds = [0; 8];
    seconds.copy_from_slice(&statx[BTIME..BTIME + 8]);
    Ok(known.then(|| (i64::from_ne_bytes(seconds), word(BTIME + 8))))
}

/// Opens `path` below `dir`. `resolve` is a set of `RESOLVE_*`.
///
/// # Errors
///
/// An error of openat2(2): `ELOOP` or `EXDEV` for a path that `resolve` forbids.
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
        // SAFETY: path is NUL terminated and how has the size that is passed. The kernel only reads both.
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
            // SAFETY: the kernel has just created this descriptor, and no other owner exists.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        }
    }
    Err(Errno::EAGAIN)
}
