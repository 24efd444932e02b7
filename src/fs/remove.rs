//! Removes a directory tree that a container has written: of any depth, with any names and modes.
//!
//! Directories below the first level are moved up to it, so that the stack and the number of descriptors are bounded.
//! Symlinks are not followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::open::open;
use crate::sys::{Errno, Result};

/// Removes the directory at `path` of the host with its content. A missing directory is not an error.
///
/// # Errors
///
/// `path` is `/`, or an error of open(2), unlinkat(2) or renameat(2).
pub fn tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    let removed = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).and_then(|parent| {
        empty(parent.as_fd(), &name)?;
        unlinkat(&parent, name.as_c_str(), UnlinkatFlags::RemoveDir)
    });
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn empty(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let top = open_directory(parent, name)?;
    let mut moved = 0;
    loop {
        let before = moved;
        remove_entries(top.as_fd(), |sub| hoist(top.as_fd(), sub, &mut moved))?;
        // The pass that moves a directory up may not list it.
        if moved == before {
            return Ok(());
        }
    }
}

/// Removes the content of `directory`. Calls `full` with the name of each directory that is not empty.
fn remove_entries(
    directory: BorrowedFd<'_>,
    mut full: impl FnMut(&CStr) -> Result<()>,
) -> Result<()> {
    let mut entries = Dir::openat(directory, c".", FLAGS, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // Many file systems report the type of an entry, which saves a system call.
        if entry.file_type() != Some(Type::Directory) {
            match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                // errno of Linux, and of POSIX, for a directory.
                Err(Errno::EISDIR | Errno::EPERM) => {}
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            }
        }
        match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => full(name)?,
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Moves the directories in `top/name` up to `top`, removes the other files and `top/name` itself.
fn hoist(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> Result<()> {
    let directory = open_directory(top, name)?;
    remove_entries(directory.as_fd(), |sub| {
        loop {
            let up = CString::new(format!(".{moved}")).map_err(|_| Errno::EINVAL)?;
            *moved += 1;
            match renameat(&directory, sub, top, up.as_c_str()) {
                // The name exists.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EINVAL) => {}
                Err(Errno::EACCES) => allow(directory.as_fd(), sub)?,
                other => return other,
            }
        }
    })?;
    unlinkat(top, name, UnlinkatFlags::RemoveDir)
}

const FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    match openat(parent, name, FLAGS, Mode::empty()) {
        // Without privileges, the mode of a directory may forbid its owner to read it.
        Err(Errno::EACCES) => {
            allow(parent, name)?;
            openat(parent, name, FLAGS, Mode::empty())
        }
        other => other,
    }
}

/// Gives the owner all permissions on a directory. unlink(2) has reported its type, and no process is left that could
/// replace the directory.
fn allow(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("aril-remove-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn any_depth() {
        let path = directory("deep");
        let mut at = open(&path, OFlag::O_RDONLY).unwrap();
        // The tree has more levels than a process has descriptors, and its path is longer than PATH_MAX.
        for depth in 0..3000 {
            nix::sys::stat::mkdirat(&at, "directory", Mode::S_IRWXU).unwrap();
            if depth % 1000 == 0 {
                nix::sys::stat::mkdirat(&at, ".1", Mode::S_IRWXU).unwrap();
                nix::sys::stat::mkdirat(&at, ".1/x", Mode::S_IRWXU).unwrap();
            }
            at = openat(&at, "directory", FLAGS, Mode::empty()).unwrap();
        }
        tree(&path).unwrap();
        assert!(!path.exists());
        tree(&path).unwrap();
    }

    #[test]
    fn symlinks_are_removed_and_not_followed() {
        let (path, kept) = (directory("link"), directory("kept"));
        fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, path.join("link")).unwrap();
        fs::create_dir(path.join("sub")).unwrap();
        symlink(&kept, path.join("sub/link")).unwrap();
        nix::unistd::mkfifo(&path.join("sub/fifo"), Mode::S_IRWXU).unwrap();
        fs::set_permissions(path.join("sub"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
            .unwrap();
        tree(&path).unwrap();
        let there = kept.join("file").exists();
        fs::remove_dir_all(&kept).unwrap();
        assert!(there && !path.exists());
    }
}
