//! Visits the cgroups below a cgroup. A container that may create cgroups can create any number of them, at any depth,
//! so they are visited by descriptor and not by path (`PATH_MAX`), one at a time.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file::is_gone;
use crate::sys::open::open;
use crate::sys::{Errno, Result};

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes the cgroups below `top`, which stays.
///
/// # Errors
///
/// `EBUSY`: one of them contains a process.
pub fn remove(top: &Path) -> Result<()> {
    visit(
        top,
        |_| Ok(()),
        |parent, name| match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Err(errno) if !is_gone(errno) => Err(errno),
            _ => Ok(()),
        },
    )
}

/// Reads a file of `top` and of each cgroup below it. A cgroup without the file is skipped.
///
/// # Errors
///
/// A directory or file cannot be read. A cgroup that is removed in the meantime is no error.
pub fn read(top: &Path, file: &CStr, mut take: impl FnMut(&str)) -> Result<()> {
    let mut text = String::new();
    let read = |directory: BorrowedFd<'_>| {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        text.clear();
        let read = openat(directory, file, flags, Mode::empty()).and_then(|fd| {
            let read = std::fs::File::from(fd).read_to_string(&mut text);
            read.map_err(|e| super::file::errno(&e))
        });
        match read {
            // In a threaded cgroup the root of the threaded domain lists the processes.
            Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) if is_gone(errno) => Ok(()),
            Err(errno) => Err(errno),
            Ok(_) => {
                take(&text);
                Ok(())
            }
        }
    };
    visit(top, read, |_, _| Ok(()))
}

/// Calls `each` with every cgroup from `top` down, and `left` with the parent and the name of a cgroup when all
/// cgroups below it have been visited. A missing `top` is no error, nor is a cgroup that is removed during the visit.
fn visit(
    top: &Path,
    mut each: impl FnMut(BorrowedFd<'_>) -> Result<()>,
    mut left: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<()>,
) -> Result<()> {
    let mut here = match open(top, DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        other => other?,
    };
    each(here.as_fd())?;
    // Names on the way down, and for each the directories in it that are still to be visited.
    let mut names: Vec<CString> = Vec::new();
    let mut pending = vec![children(&here)?];
    while let Some(siblings) = pending.last_mut() {
        if let Some(name) = siblings.pop() {
            match openat(&here, name.as_c_str(), DIRECTORY, Mode::empty()) {
                Err(errno) if is_gone(errno) => continue,
                entered => here = entered?,
            }
            each(here.as_fd())?;
            pending.push(children(&here)?);
            names.push(name);
        } else {
            pending.pop();
            let Some(name) = names.pop() else { break };
            here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
            left(here.as_fd(), &name)?;
        }
    }
    Ok(())
}

fn children(directory: &OwnedFd) -> Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = match Dir::openat(directory, c".", flags, Mode::empty()) {
        Err(errno) if is_gone(errno) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests use directories of an ordinary file system instead of cgroups.
    #[test]
    fn deep_and_wide() {
        let top = std::env::temp_dir().join(format!("aril-below-{}", std::process::id()));
        for name in ["a/b/c", "a/d", "e"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        for (dir, pids) in [(".", "1\n"), ("a", "2\n"), ("a/b/c", "3\n4\n")] {
            std::fs::write(top.join(dir).join("procs"), pids).unwrap();
        }
        let mut pids = Vec::new();
        read(&top, c"procs", |text| pids.extend(text.lines().map(str::to_owned))).unwrap();
        pids.sort();
        assert_eq!(pids, ["1", "2", "3", "4"]);
        assert_eq!(remove(&top), Err(Errno::ENOTEMPTY), "a file is not aril to remove");
        for dir in ["a", "a/b/c"] {
            std::fs::remove_file(top.join(dir).join("procs")).ok();
        }

        // Deeper than `PATH_MAX`, with few descriptors.
        let mut at = open(&top, DIRECTORY).unwrap();
        for _ in 0..2000 {
            nix::sys::stat::mkdirat(&at, "deeper", Mode::S_IRWXU).unwrap();
            at = openat(&at, "deeper", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&top).unwrap();
        std::fs::remove_file(top.join("procs")).unwrap();
        std::fs::remove_dir(&top).unwrap();
        assert_eq!((remove(&top), read(&top, c"procs", |_| ())), (Ok(()), Ok(())));
    }
}
