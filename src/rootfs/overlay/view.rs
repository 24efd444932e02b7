//! Layers seen as one tree, for reading: an overlay without an upper directory, in no mount table.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::unistd::chdir;

use super::parent::in_namespace_of_its_own;
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::{Error, OsContext, Result};
use crate::path::c_path;
use crate::rootfs::child::new_mount::{create, set};
use crate::sys::mount::{ATTR_RDONLY, Extent, fsconfig_set_fd, fsopen, open_tree};
use crate::sys::open::open;

/// At least two folders, lowest first. `userxattr`: they were written without privileges.
pub fn of(folders: &[PathBuf], userxattr: bool) -> Result<OwnedFd> {
    let opened = folders.iter().map(|folder| open_folder(folder)).collect::<Result<Vec<_>>>()?;
    let made = match by_descriptor(&opened, userxattr) {
        // Before Linux 6.15 a layer has a path, and before 6.5 there are no descriptors.
        Err(fault) if matches!(fault.errno, Errno::EINVAL | Errno::EBADF | Errno::EOPNOTSUPP) => {
            in_namespace_of_its_own(|| by_number(folders, userxattr)).map_err(|_| fault)
        }
        other => other,
    };
    made.map_err(|fault| {
        Error::os(fault.call, "", fault.errno).context("mount the layers for reading")
    })
}

pub fn open_folder(folder: &Path) -> Result<OwnedFd> {
    open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", folder.display())
}

fn by_descriptor(folders: &[OwnedFd], userxattr: bool) -> ChildResult<OwnedFd> {
    let context = fsopen(c"overlay").during("fsopen overlay")?;
    for folder in folders.iter().rev() {
        let added = fsconfig_set_fd(context.as_fd(), c"lowerdir+", folder.as_fd());
        added.during("fsconfig lowerdir+")?;
    }
    flag(context.as_fd(), userxattr)?;
    create(context.as_fd(), &[], ATTR_RDONLY)
}

fn flag(context: BorrowedFd<'_>, userxattr: bool) -> ChildResult<()> {
    if userxattr { set(context, USERXATTR, None) } else { Ok(()) }
}

const USERXATTR: &CStr = c"userxattr";

/// In a mount namespace of our own, where it may cover a folder. They are opened there: a layer is of
/// the namespace. A descriptor's number is shorter than any path.
fn by_number(paths: &[PathBuf], userxattr: bool) -> ChildResult<OwnedFd> {
    let refused = |e: Error| Fault::refused(e.to_string());
    let folders = paths.iter().map(|path| open_folder(path).map_err(refused));
    let folders = folders.collect::<ChildResult<Vec<_>>>()?;
    let place = c_path("layer", &paths[0]).map_err(refused)?;
    chdir(c"/proc/self/fd").during("chdir /proc/self/fd")?;
    let numbers: Vec<_> = folders.iter().rev().map(|fd| fd.as_raw_fd().to_string()).collect();
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
    use super::*;
    use crate::fs::Tree;

    #[test]
    fn both_ways_show_the_same() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let base = std::env::temp_dir().join(format!("aril-view-{}", std::process::id()));
        let folders = ["low", "mid", "top"].map(|name| base.join(name));
        for (folder, name) in folders.iter().zip(["gone", "kept", "new"]) {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), name).unwrap();
        }
        let whiteout = folders[2].join("gone");
        nix::sys::stat::mknod(
            &whiteout,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            0,
        )
        .unwrap();
        let numbered = in_namespace_of_its_own(|| by_number(&folders, false));
        for root in [of(&folders, false).unwrap(), numbered.unwrap()] {
            let tree = Tree::new(root, "the view");
            assert_eq!(tree.names(b"").unwrap(), [b"kept".to_vec(), b"new".to_vec()]);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(base.to_str().unwrap()), "{mounts}");
        std::fs::remove_dir_all(base).unwrap();
    }
}
