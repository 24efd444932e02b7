//! Quotas of projects: what all files that bear a number may hold together, on ext4 and XFS. See
//! quotactl(2), linux/fs.h (`struct fsxattr`) and linux/dqblk_xfs.h.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long};

use super::{Result, check};

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
/// What is made in the directory is of its project, too.
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

/// `struct fs_quota_statv`, as far as we read it.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u32; 39],
}

/// What the files of a project are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Files and directories.
    pub files: u64,
    /// Bytes; 0 is none.
    pub limit: u64,
}

/// The project of an open directory (no `O_PATH`). 0 is that of all that has no other.
pub fn project(directory: BorrowedFd<'_>) -> Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Makes it `project`'s, and what will be made in it.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= PROJECT_INHERITED;
    // SAFETY: one fsxattr is read, which outlives the call.
    let set =
        unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    check(set.into()).map(drop)
}

fn attributes(directory: BorrowedFd<'_>) -> Result<Fsxattr> {
    let mut attributes = Fsxattr::default();
    // SAFETY: one fsxattr is written, which outlives the call.
    let got = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    check(got.into()).map(|_| attributes)
}

/// Whether the file system of `file` holds projects to their limits.
pub fn is_enforced(file: BorrowedFd<'_>) -> Result<bool> {
    let mut state = State { version: 1, pad: 0, flags: 0, rest: [0; 39] };
    call(file, GET_STATE, 0, &mut state)?;
    Ok(state.flags & PROJECT_LIMITS_ENFORCED != 0)
}

/// None has files or a limit of a project that nobody has used.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> Result<Usage> {
    let mut quota = none();
    call(file, GET_QUOTA, project, &mut quota)?;
    Ok(Usage { files: quota.dqb_curinodes, limit: quota.dqb_bhardlimit * BLOCK })
}

/// In bytes, rounded up to a KiB; 0 lifts it.
pub fn set_limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let mut quota = none();
    quota.dqb_bhardlimit = bytes.div_ceil(BLOCK);
    quota.dqb_valid = BLOCK_LIMITS;
    call(file, SET_QUOTA, project, &mut quota)
}

fn none() -> libc::dqblk {
    // SAFETY: dqblk is plain integers, for which all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}

/// Linux 5.14. `argument` is what `command` reads or writes.
fn call<T>(file: BorrowedFd<'_>, command: c_int, project: u32, argument: &mut T) -> Result<()> {
    let command = (command << 8) | PROJECTS;
    // SAFETY: every command above reads or writes the one structure that it is called with, which
    // outlives the call.
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
