//! Limits the size of an upper directory with a project quota (ext4 and XFS, mounted with `prjquota`).
//!
//! `upper` and `work` get a project ID of their own, which all files that are created in them inherit. The ID is
//! derived from the number of `upper`'s inode, which is unique as long as the directory exists. The ID is set on both
//! directories before the limit is set. So the directory itself is the record: the ID shows whose limit to remove. If
//! another program uses the same ID, the project has more files than these two directories, and the next ID is tried.
//! than those two.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use super::UPPER;
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::{Context, Error, OsContext, Result};
use crate::sys::open::open;
use crate::sys::quota;

/// Bit of project IDs that Aril uses. Administrators count from 1, and kubelet from 2^20.
const ARIL_PROJECTS: u32 = 1 << 31;
const ATTEMPTS: u32 = 16;
/// Number of files of a new project: `upper` and `work`.
const OWN_FILES: u64 = 2;

/// Checks that the file system of `directory` can limit what is created in it, before anything is created.
///
/// # Errors
///
/// The file system does not enforce project quotas, or Linux is older than 5.14.
pub fn check(directory: &Path) -> Result<()> {
    let opened = open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let opened = opened.os("open", directory.display())?;
    match quota::is_enforced(opened.as_fd()) {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno::ENOSYS | Errno::ESRCH | Errno::EOPNOTSUPP) => {
            let text = format!("the file system of {} has no project quotas", directory.display());
            Err(Error::config(text))
        }
        Err(errno) => Err(Error::os("quotactl_fd Q_XGETQSTATV", directory.display(), errno)),
    }
    .context(|| "limit the size of the upper directory".to_owned())
    .map_err(|e| {
        e.hint(
            "tmpfs:SIZE needs none; a disk needs ext4 (mkfs -O quota,project) or XFS, mounted with \
             prjquota, and Linux 5.14",
        )
    })
}

/// Sets the limit. Both directories are empty, or were limited before.
///
/// # Errors
///
/// The upper directory has unlimited content, belongs to another project, or the kernel rejects a call.
pub fn limit(upper: BorrowedFd<'_>, work: BorrowedFd<'_>, bytes: u64) -> ChildResult<()> {
    let (upper, work) = (readable(upper)?, readable(work)?);
    let project = match quota::project(upper.as_fd()).during(GET_PROJECT)? {
        0 => claim(&upper, &work)?,
        own if own & ARIL_PROJECTS != 0 => {
            quota::set_project(work.as_fd(), own).during(SET_PROJECT)?;
            own
        }
        other => {
            let text = format!(
                "the upper directory already belongs to project {other} of the file system"
            );
            return Err(Fault::refused(text));
        }
    };
    quota::set_limit(upper.as_fd(), project, bytes).during("quotactl_fd Q_SETQUOTA")
}

const GET_PROJECT: &str = "ioctl FS_IOC_FSGETXATTR";
const SET_PROJECT: &str = "ioctl FS_IOC_FSSETXATTR";

fn claim(upper: &OwnedFd, work: &OwnedFd) -> ChildResult<u32> {
    if !is_empty(upper)? {
        return Err(Fault::refused(
            "the upper directory has files that were written without a limit, which the quota would not count",
        ));
    }
    let inode = fstat(upper).during("fstat")?.st_ino;
    for attempt in 0..ATTEMPTS {
        let project = ARIL_PROJECTS | ((inode ^ (inode >> 32)) as u32).wrapping_add(attempt);
        for directory in [upper, work] {
            quota::set_project(directory.as_fd(), project).during(SET_PROJECT)?;
        }
        let used = quota::usage(upper.as_fd(), project).during("quotactl_fd Q_GETQUOTA")?;
        if used.files == OWN_FILES {
            return Ok(project);
        }
    }
    Err(Fault::refused("no project ID is free in the file system"))
}

fn is_empty(directory: &OwnedFd) -> ChildResult<bool> {
    let copy = directory.try_clone().map_err(|_| Fault::refused("dup"))?;
    let mut entries = Dir::from_fd(copy).during("opendir")?;
    Ok(entries.iter().flatten().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// Opens the directory for reading: the ioctls do not accept an `O_PATH` descriptor.
fn readable(directory: BorrowedFd<'_>) -> ChildResult<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(directory, ".", flags, Mode::empty()).during("open")
}

/// Removes the limit of the upper directory in `directory`. A missing directory is not an error.
///
/// # Errors
///
/// An error of open(2) other than `ENOENT`, or of quotactl(2).
pub fn remove_limit(directory: &Path) -> Result<()> {
    let upper = directory.join(UPPER);
    let opened = match open(&upper, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.os("open", upper.display())?,
    };
    let project = quota::project(opened.as_fd()).unwrap_or(0);
    if project & ARIL_PROJECTS == 0 {
        return Ok(());
    }
    quota::set_limit(opened.as_fd(), project, 0).os("quotactl_fd Q_SETQUOTA", upper.display())
}
