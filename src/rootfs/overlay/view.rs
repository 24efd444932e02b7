//! Mounts layers as one tree for reading: a detached overlay without an upper directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::unistd::chdir;

use super::parent::mount_in_new_namespace;
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::{Error, OsContext, Result};
use crate::path::c_path;
use crate::rootfs::child::new_mount::{create, set};
use crate::sys::mount::{ATTR_RDONLY, Extent, fsconfig_set_fd, fsopen, open_tree};
use crate::sys::open::open;

/// Mounts at least two directories, lowest first. `userxattr` is true if they were written without privileges.
///
/// # Errors
///
/// A directory cannot be opened, or overlayfs rejects it.
pub fn of(directories: &[PathBuf], userxattr: bool) -> Result<OwnedFd> {
    let opened = directories
        .iter()
        .map(|directory| open_directory(directory))
        .collect::<Result<Vec<_>>>()?;
    let made = match by_descriptor(&opened, userxattr) {
        // Linux before 6.15 needs layers with a path, and before 6.5 it accepts no descriptors.
        Err(fault) if matches!(fault.errno, Errno::EINVAL | Errno::EBADF | Errno::EOPNOTSUPP) => {
            mount_in_new_namespace(|| by_number(directories, userxattr)).map_err(|_| fault)
        }
        other => other,
    };
    made.map_err(|fault| {
        Error::os(fault.call, "", fault.errno).context("mount the layers for reading")
    })
}

/// Opens the directory of a layer (`O_PATH`).
///
/// # Errors
///
/// An error of open(2).
pub fn open_directory(directory: &Path) -> Result<OwnedFd> {
    open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", directory.display())
}

fn by_descriptor(directories: &[OwnedFd], userxattr: bool) -> ChildResult<OwnedFd> {
    let context = fsopen(c"overlay").during("fsopen overlay")?;
    for directory in directories.iter().rev() {
        let added = fsconfig_set_fd(context.as_fd(), c"lowerdir+", directory.as_fd());
        added.during("fsconfig lowerdir+")?;
    }
    flag(context.as_fd(), userxattr)?;
    create(context.as_fd(), &[], ATTR_RDONLY)
}

fn flag(context: BorrowedFd<'_>, userxattr: bool) -> ChildResult<()> {
    if userxattr { set(context, USERXATTR, None) } else { Ok(()) }
}

const USERXATTR: &CStr = c"userxattr";

/// Mounts the layers by mount(2), in a new mount namespace, on the lowest directory. The directories are opened in that
/// namespace, because a layer must belong to it. The number of a descriptor is shorter than a path.
fn by_number(paths: &[PathBuf], userxattr: bool) -> ChildResult<OwnedFd> {
    let refused = |e: Error| Fault::refused(e.to_string());
    let directories = paths.iter().map(|path| open_directory(path).map_err(refused));
    let directories = directories.collect::<ChildResult<Vec<_>>>()?;
    let place = c_path("layer", &paths[0]).map_err(refused)?;
    chdir(c"/proc/self/fd").during("chdir /proc/self/fd")?;
    let numbers: Vec<_> = directories.iter().rev().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", numbers.join(":"));
    if userxattr {
        options.push_str(",userxattr");
    }
    let kind = Some(c"overlay");
    mount(kind, place.as_c_str(), kind, MsFlags::MS_RDONLY, Some(options.as_str()))
        .during("mount overlay")?;
    open_tree(None, &place, Extent::One).during("open_tree")
}

#[cfg(test)]
mod tests {
    use runtime_tests::skip;

    use super::*;
    use crate::fs::Tree;

    #[test]
    fn both_ways_show_the_same() {
        if !skip::is_root() {
            return;
        }
        let base = std::env::temp_dir().join(format!("aril-view-{}", std::process::id()));
        let directories = ["low", "mid", "top"].map(|name| base.join(name));
        for (directory, name) in directories.iter().zip(["gone", "kept", "new"]) {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(name), name).unwrap();
        }
        let whiteout = directories[2].join("gone");
        nix::sys::stat::mknod(
            &whiteout,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            0,
        )
        .unwrap();
        let numbered = mount_in_new_namespace(|| by_number(&directories, false));
        for root in [of(&directories, false).unwrap(), numbered.unwrap()] {
            let tree = Tree::new(root, "the view");
            assert_eq!(tree.names(b"").unwrap(), [b"kept".to_vec(), b"new".to_vec()]);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(base.to_str().unwrap()), "{mounts}");
        std::fs::remove_dir_all(base).unwrap();
    }
}
