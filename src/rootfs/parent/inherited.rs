//! A container without a mount namespace of its own: what it mounts is in its caller's.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Error, OsContext, Result};
use crate::fs::process;
use crate::id::HostPid;
use crate::rootfs::overlay::parent::{hide, plain};
use crate::sys;
use crate::sys::open::open;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The mount namespace that the runtime itself is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallersNamespace {
    /// That of process 1; or, where nobody may look at that one, of all processes that have led to this one.
    pub of_the_host: bool,
    /// What is mounted on the rootfs appears in other namespaces, too.
    pub shared: bool,
}

/// `own_users`: the runtime is inside a user namespace, which the host's mount namespace does not belong to.
pub fn look(rootfs: &Path, own_users: bool) -> Result<CallersNamespace> {
    let own = std::process::id().cast_signed();
    let own = namespace(HostPid(own)).os("stat", "/proc/self/ns/mnt")?;
    let of_the_host = match namespace(HostPid(1)) {
        Ok(first) => first == own,
        Err(_) => !own_users && ancestors().all(|namespace| namespace == own),
    };
    let below = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", rootfs.display())?;
    let (id, table) = (mount_id(&below)?, table()?);
    let shared = lines(&table).find(|line| line.id == id).is_none_or(|line| line.shared);
    Ok(CallersNamespace { of_the_host, shared })
}

type Namespace = (u64, u64);

fn namespace(process: HostPid) -> sys::Result<Namespace> {
    let metadata = fs::metadata(format!("/proc/{process}/ns/mnt"));
    let metadata = metadata.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Of the calling process, as far as it may look at them.
fn ancestors() -> impl Iterator<Item = Namespace> {
    let parent = |pid: &HostPid| process::stat(*pid).map(|stat| stat.parent);
    let own = HostPid(std::process::id().cast_signed());
    std::iter::successors(parent(&own), parent).map_while(|pid| namespace(pid).ok())
}

/// Unmounts the copy, if it is still there, with all that is mounted in it. Ids are used again, so the place
/// counts, too.
pub fn remove(rootfs: &Path, id: u64) -> Result<()> {
    let table = table()?;
    let here = |line: &Line<'_>| plain(line.place.as_bytes()) == rootfs;
    let all: Vec<_> = lines(&table).filter(here).map(|line| line.id).collect();
    if !all.contains(&id) {
        return Ok(());
    }
    if all.last() == Some(&id) {
        return hide(rootfs);
    }
    let text = format!("the container's mounts at {} are covered by another", rootfs.display());
    Err(Error::state(text).hint("unmount the other, then this one"))
}

fn table() -> Result<String> {
    fs::read_to_string(MOUNTS).map_err(|e| Error::io("read", MOUNTS, &e))
}

/// The id that mountinfo has for the mount of an open file.
pub fn mount_id(file: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::system(format!("{path} names no mount")))
}

struct Line<'a> {
    id: u64,
    /// As it is written there.
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
