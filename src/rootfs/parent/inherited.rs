//! Examines and cleans up the caller's mount namespace, for a container without its own mount namespace.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Error, OsContext, Result};
use crate::fs::process;
use crate::id::HostPid;
use crate::rootfs::overlay::parent::{hide, unescape};
use crate::sys;
use crate::sys::open::open;

const MOUNTS: &str = "/proc/self/mountinfo";

/// Mount namespace that the runtime is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallersNamespace {
    /// True if it is that of process 1. If the runtime may not access process 1: if it is that of all its ancestors.
    pub of_the_host: bool,
    /// True if mounts on the rootfs appear in other namespaces.
    pub shared: bool,
}

/// Examines the mount namespace. `own_users` is true if the runtime is in a user namespace that does not own the host's
/// mount namespace.
///
/// # Errors
///
/// An error of reading procfs or opening the rootfs.
pub fn examine(rootfs: &Path, own_users: bool) -> Result<CallersNamespace> {
    let own = std::process::id().cast_signed();
    let own = namespace(HostPid(own)).os("stat", "/proc/self/ns/mnt")?;
    let of_the_host = match namespace(HostPid(1)) {
        Ok(first) => first == own,
        Err(_) => !own_users && ancestors().all(|namespace| namespace == own),
    };
    let directory =
        open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", rootfs.display())?;
    let (id, table) = (mount_id(&directory)?, table()?);
    let shared = lines(&table).find(|line| line.id == id).is_none_or(|line| line.shared);
    Ok(CallersNamespace { of_the_host, shared })
}

type Namespace = (u64, u64);

fn namespace(process: HostPid) -> sys::Result<Namespace> {
    let metadata = fs::metadata(format!("/proc/{process}/ns/mnt"));
    let metadata = metadata.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Iterates over the mount namespaces of the ancestors of this process, as long as it may access them.
fn ancestors() -> impl Iterator<Item = Namespace> {
    let parent = |pid: &HostPid| process::stat(*pid).ok().flatten().map(|stat| stat.parent);
    let own = HostPid(std::process::id().cast_signed());
    std::iter::successors(parent(&own), parent).map_while(|pid| namespace(pid).ok())
}

/// Unmounts the container's copy of the rootfs and all mounts in it, if it still exists. IDs are reused, so the path
/// must match too.
///
/// # Errors
///
/// Another mount covers the copy, or an error of umount2(2).
pub fn remove(rootfs: &Path, id: u64) -> Result<()> {
    let table = table()?;
    let here = |line: &Line<'_>| unescape(line.place.as_bytes()) == rootfs;
    let all: Vec<_> = lines(&table).filter(here).map(|line| line.id).collect();
    if !all.contains(&id) {
        return Ok(());
    }
    if all.last() == Some(&id) {
        return hide(rootfs);
    }
    let text =
        format!("the container's mounts at {} are covered by another mount", rootfs.display());
    Err(Error::state(text).hint("unmount the other mount, then delete the container again"))
}

fn table() -> Result<String> {
    fs::read_to_string(MOUNTS).map_err(|e| Error::io("read", MOUNTS, &e))
}

/// Returns the mount ID of an open file, as in mountinfo.
///
/// # Errors
///
/// An error of reading /proc/self/fdinfo.
pub fn mount_id(file: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::system(format!("{path} has no mount ID")))
}

struct Line<'a> {
    id: u64,
    /// Mount point as the table contains it, with escapes.
    place: &'a str,
    shared: bool,
}

fn lines(table: &str) -> impl Iterator<Item = Line<'_>> {
    table.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let place = words.nth(3)?;
        let shared =
            words.skip(1).take_while(|word| *word != "-").any(|word| word.starts_with("shared:"));
        Some(Line { id, place, shared })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let table = "36 35 0:40 / /a\\040b rw,nosuid shared:1 master:2 - ext4 /dev/vda rw\n\
            37 36 0:5 /x /a\\040b rw master:3 - tmpfs shared:9 rw\n";
        let all: Vec<_> = lines(table).map(|l| (l.id, l.place, l.shared)).collect();
        assert_eq!(all, [(36, "/a\\040b", true), (37, "/a\\040b", false)]);
    }
}
