//! Turns a detached mount into an id-mapped mount (Linux 5.12).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, OsContext, Result};
use crate::path::c_path;
use crate::rootfs::IdMap;
use crate::sys::mount::{Extent, mount_setattr_idmap, open_tree};
use crate::sys::userns::with_new_user_namespace;

/// Sets the mapping on `tree`, which is a copy of `source`.
///
/// # Errors
///
/// A file system of the tree does not support id-mapped mounts, or the mapping is invalid.
pub fn apply(tree: BorrowedFd<'_>, source: &Path, map: &IdMap) -> Result<()> {
    let namespace = user_namespace(map)?;
    mount_setattr_idmap(tree, map.extent, namespace.as_fd())
        .map_err(|errno| refused(source, map.extent, namespace.as_fd(), errno))
}

/// Creates a user namespace with the mapping, which is how the kernel takes one.
///
/// # Errors
///
/// The mapping is invalid, or an error of clone(2).
pub fn user_namespace(map: &IdMap) -> Result<OwnedFd> {
    with_new_user_namespace(|pid| {
        write_map(pid, "uid_map", &map.uids)?;
        write_map(pid, "gid_map", &map.gids)?;
        let path = format!("/proc/{pid}/ns/user");
        File::open(&path).os("open", &path).map(OwnedFd::from)
    })
    .map_err(|errno| Error::os("clone", "CLONE_NEWUSER", errno))?
}

fn write_map(pid: libc::pid_t, name: &str, ranges: &[[u32; 3]]) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    let text: String = ranges
        .iter()
        .map(|[inside, outside, size]| format!("{inside} {outside} {size}\n"))
        .collect();
    std::fs::write(&path, &text).os("write", path).map_err(|e| {
        let text = text.trim_end().replace('\n', ", ");
        e.context(format!("map ids {text}")).hint("entries must not overlap, and not be empty")
    })
}

/// Returns the error for a tree. The kernel does not report which mount it rejects, so each is tried alone.
#[cold]
fn refused(source: &Path, extent: Extent, namespace: BorrowedFd<'_>, errno: Errno) -> Error {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let refuses = |place: &Path| {
        let copy = open_tree(None, &c_path("mount", place).ok()?, Extent::One).ok()?;
        mount_setattr_idmap(copy.as_fd(), Extent::One, namespace).err()
    };
    let rejected = mounts(&table, source, extent)
        .into_iter()
        .find_map(|(place, kind)| Some((refuses(&place)?, place, kind)));
    let (errno, place, kind) = match rejected {
        Some((errno, place, kind)) => (errno, place, kind),
        None => (errno, source.to_owned(), "unknown".to_owned()),
    };
    let error =
        Error::os("mount_setattr", format_args!("{} (MOUNT_ATTR_IDMAP)", place.display()), errno);
    match errno {
        Errno::EINVAL if kind == "overlay" => error.hint(
            "an overlay mount cannot be id-mapped: use id-mapped layers, or bind from one of the layers",
        ),
        Errno::EINVAL => error.hint(format!(
            "the file system of {}, {kind}, cannot be id-mapped on this kernel",
            place.display()
        )),
        Errno::EPERM => error.hint(format!(
            "{} ({kind}) is id-mapped already, or its file system belongs to another user namespace",
            place.display()
        )),
        Errno::ENOSYS => error.hint("id-mapped mounts need Linux 5.12"),
        _ => error,
    }
}

/// Lists the mount that contains `source` with its type. For a whole tree, also the mounts below `source`, in the order
/// of the table.
fn mounts(table: &str, source: &Path, extent: Extent) -> Vec<(PathBuf, String)> {
    let all: Vec<(PathBuf, &str)> = table
        .lines()
        .filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let place = place.split(' ').nth(4)?.replace("\\040", " ");
            Some((PathBuf::from(place), kind.split(' ').next()?))
        })
        .collect();
    // The last one of the longest paths, because a later mount covers an earlier one.
    let holder = all
        .iter()
        .filter(|(place, _)| source.starts_with(place))
        .max_by_key(|(place, _)| place.as_os_str().len());
    let own = holder.map(|(_, kind)| (source.to_owned(), (*kind).to_owned()));
    let submounts = all.iter().filter(|(place, _)| {
        extent == Extent::Tree && place != source && place.starts_with(source)
    });
    own.into_iter()
        .chain(submounts.map(|(place, kind)| (place.clone(), (*kind).to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_a_source() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
            2 1 0:5 / /a/b rw - tmpfs t rw\n\
            3 2 0:6 / /a/b/c\\040d rw - proc proc rw\n";
        let found = |source: &str, extent| {
            mounts(table, Path::new(source), extent)
                .into_iter()
                .map(|(place, kind)| format!("{} {kind}", place.display()))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/a", Extent::One), ["/a ext4"]);
        assert_eq!(found("/a/b/x", Extent::Tree), ["/a/b/x tmpfs"]);
        assert_eq!(found("/a", Extent::Tree), ["/a ext4", "/a/b tmpfs", "/a/b/c d proc"]);
    }
}
