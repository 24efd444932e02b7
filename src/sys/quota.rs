//! Project quotas of ext4 and XFS: limits on the total size of all files with one project ID.
//!
//! Sources: quotactl(2), linux/fs.h (`struct fsxattr`) and linux/dqblk_xfs.h.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long};

use super::{Result, check};

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: new files in the directory get its project ID.
const PROJECT_INHERITED: u32 = 0x200;

const PROJECTS: c_int = 2;
const GET_QUOTA: c_int = 0x80_0007;
const SET_QUOTA: c_int = 0x80_0008;
/// `Q_XGETQSTATV`
const GET_STATE: c_int = 0x5808;
const BLOCK_LIMITS: u32 = 1;
const BLOCK: u64 = 1024;
const PROJECT_LIMITS_ENFORCED: u16 = 1 << 5;

#[repr(C)]
#[derive(Default)]
struct Fsxattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    pad: [u8; 8],
}

/// First fields of `struct fs_quota_statv`.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u32; 39],
}

/// Usage and limit of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Number of files and directories.
    pub files: u64,
    /// Limit in bytes. 0 means unlimited.
    pub limit: u64,
}

/// Returns the project ID of an open directory (not `O_PATH`). Files without a project have the ID 0.
///
/// # Errors
///
/// An error of ioctl(2): `ENOTTY` if the file system has no project IDs.
pub fn project(directory: BorrowedFd<'_>) -> Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Sets the project ID of a directory, which new files in it inherit.
///
/// # Errors
///
/// An error of ioctl(2).
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= PROJECT_INHERITED;
    // SAFETY: the call reads one fsxattr, which outlives it.
    let set =
        unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    check(set.into()).map(drop)
}

fn attributes(directory: BorrowedFd<'_>) -> Result<Fsxattr> {
    let mut attributes = Fsxattr::default();
    // SAFETY: the call writes one fsxattr, which outlives it.
    let got = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    check(got.into()).map(|_| attributes)
}

/// Returns true if the file system of `file` enforces project limits.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.14, or another error of quotactl(2).
pub fn is_enforced(file: BorrowedFd<'_>) -> Result<bool> {
    let mut state = State { version: 1, pad: 0, flags: 0, rest: [0; 39] };
    call(file, GET_STATE, 0, &mut state)?;
    Ok(state.flags & PROJECT_LIMITS_ENFORCED != 0)
}

/// Returns the usage and the limit of a project, which are 0 for an unused one.
///
/// # Errors
///
/// An error of quotactl(2).
pub fn usage(file: BorrowedFd<'_>, project: u32) -> Result<Usage> {
    let mut quota = none();
    call(file, GET_QUOTA, project, &mut quota)?;
    Ok(Usage { files: quota.dqb_curinodes, limit: quota.dqb_bhardlimit * BLOCK })
}

/// Sets the limit of a project in bytes, rounded up to a KiB. 0 removes the limit.
///
/// # Errors
///
/// An error of quotactl(2).
pub fn set_limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let mut quota = none();
    quota.dqb_bhardlimit = bytes.div_ceil(BLOCK);
    quota.dqb_valid = BLOCK_LIMITS;
    call(file, SET_QUOTA, project, &mut quota)
}

fn none() -> libc::dqblk {
    // SAFETY: dqblk consists of integers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

/// Calls quotactl_fd(2) (Linux 5.14). `command` reads or writes `argument`.
fn call<T>(file: BorrowedFd<'_>, command: c_int, project: u32, argument: &mut T) -> Result<()> {
    let command = (command << 8) | PROJECTS;
    // SAFETY: every command above reads or writes the one structure that it is called with, which outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command,
            c_long::from(project),
            std::ptr::from_mut(argument),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!((size_of::<Fsxattr>(), size_of::<State>()), (28, 160));
        assert_eq!(size_of::<libc::dqblk>(), 72);
    }
}
