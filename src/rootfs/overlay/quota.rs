//! A limit for what is written to a disk, where its file system counts by *project* (ext4 and XFS,
//! mounted with `prjquota`).
//!
//! `upper` and `work` become a project of their own, which all that is made in them belongs to. Its
//! number is made of that of `upper`'s inode, which nobody else has as long as it is there, and is
//! written on both directories before there is a limit: the directory itself is the record, from which
//! whoever removes it knows what to lift. A number that others have taken shows, as it has files more
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

/// People count from 1, and kubelet from 2^20.
const OURS: u32 = 1 << 31;
const ATTEMPTS: u32 = 16;
/// `upper` and `work`.
const OWN_FILES: u64 = 2;

/// Before anything is made: whether what is made in `directory` can have a limit.
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

/// Both are empty, or were limited before.
pub fn limit(upper: BorrowedFd<'_>, work: BorrowedFd<'_>, bytes: u64) -> ChildResult<()> {
    let (upper, work) = (readable(upper)?, readable(work)?);
    let project = match quota::project(upper.as_fd()).during(GET_PROJECT)? {
        0 => claim(&upper, &work)?,
        ours if ours & OURS != 0 => {
            quota::set_project(work.as_fd(), ours).during(SET_PROJECT)?;
            ours
        }
        other => {
            let text =
                format!("the upper directory is of the file system's project {other} already");
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
            "what is in the upper directory was written without a limit and would not be counted",
        ));
    }
    let inode = fstat(upper).during("fstat")?.st_ino;
    for attempt in 0..ATTEMPTS {
        let project = OURS | ((inode ^ (inode >> 32)) as u32).wrapping_add(attempt);
        for directory in [upper, work] {
            quota::set_project(directory.as_fd(), project).during(SET_PROJECT)?;
        }
        let used = quota::usage(upper.as_fd(), project).during("quotactl_fd Q_GETQUOTA")?;
        if used.files == OWN_FILES {
            return Ok(project);
        }
    }
    Err(Fault::refused("no number is left for a project of the file system"))
}

fn is_empty(directory: &OwnedFd) -> ChildResult<bool> {
    let copy = directory.try_clone().map_err(|_| Fault::refused("dup"))?;
    let mut entries = Dir::from_fd(copy).during("opendir")?;
    Ok(entries.iter().flatten().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// Neither ioctl takes a descriptor that is only a path.
fn readable(directory: BorrowedFd<'_>) -> ChildResult<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(directory, ".", flags, Mode::empty()).during("open")
}

/// What `directory` was limited to counts no more. That it is gone is no error.
pub fn lift(directory: &Path) -> Result<()> {
    let upper = directory.join(UPPER);
    let opened = match open(&upper, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.os("open", upper.display())?,
    };
    let project = quota::project(opened.as_fd()).unwrap_or(0);
    if project & OURS == 0 {
        return Ok(());
    }
    quota::set_limit(opened.as_fd(), project, 0).os("quotactl_fd Q_SETQUOTA", upper.display())
}
