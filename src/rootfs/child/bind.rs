//! Makes bind mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::symlinkat;

use super::{Missing, State, copy_up, current_attributes, is_directory, is_proc, kind_of};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::fs::Root;
use crate::rootfs::options::ATIME;
use crate::rootfs::{BindMount, Change, Source};
use crate::sys::mount::{
    ATTR_ATIME, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY,
    ATTR_STRICTATIME, Attributes, Extent,
};

pub(super) fn run(state: &mut State<'_>, mount: &BindMount) -> ChildResult<()> {
    let tree = source(state, mount)?;
    if mount.proc_only && !is_proc(tree.as_fd())? {
        let text =
            format!("{:?} cannot be mounted because it is not of type proc", mount.target.path);
        return Err(Fault::refused(text));
    }
    if mount.copy_link && copy_link(state, mount, tree.as_fd())? {
        return Ok(());
    }
    let missing = if is_directory(tree.as_fd())? { Missing::Directory } else { Missing::File };
    let place = state.place(&mount.target, missing)?;
    if mount.fill && !place.created && !state.complete_volumes.contains(&mount.source.path) {
        copy_up::fill(state.proc, place.fd.as_fd(), tree.as_fd())?;
    }
    // The change is made while the mount is detached, so that no process sees the mount without it.
    let done = match &mount.change {
        None => true,
        Some(change) => change_with(tree.as_fd(), change, |change| {
            state.set_detached(tree.as_fd(), Extent::One, change)
        })?,
    };
    state.attach(tree.as_fd(), place.fd.as_fd(), &mount.finish)?;
    if let (Some(change), false) = (&mount.change, done) {
        change_with(tree.as_fd(), change, |change| {
            state.set_attributes(tree.as_fd(), Extent::One, change)
        })?;
    }
    if mount.target.path.as_c_str() == c"/" {
        // The mount covers the rootfs, and becomes the root.
        state.retire([place.fd]);
        state.root = Some(Root::new(tree));
        return Ok(());
    }
    state.retire([tree, place.fd]);
    Ok(())
}

fn source(state: &mut State<'_>, mount: &BindMount) -> ChildResult<OwnedFd> {
    match mount.source.tree {
        // The source was opened in the host's view. It must not be looked up in the container.
        Some(index) => {
            let tree = state.trees.get_mut(index).and_then(Option::take);
            tree.ok_or(Fault::refused("the source is not open"))
        }
        None => open(state, &mount.source),
    }
}

fn open(state: &mut State<'_>, source: &Source) -> ChildResult<OwnedFd> {
    match state.source.take() {
        Some(tree) => Ok(tree),
        None if source.id_map.is_some() => Err(Fault::refused("the source is not id-mapped")),
        None => source.open().map_err(|errno| refused(source, errno)),
    }
}

/// Opens the source for a later step. It becomes a slave mount, so that mounts of the container do not appear on the
/// host.
pub(super) fn open_source(state: &mut State<'_>, source: &Source) -> ChildResult<()> {
    let tree = open(state, source)?;
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    if !state.set_detached(tree.as_fd(), Extent::Tree, slave)? {
        return Err(Fault::refused("mounts of a running container need Linux 5.12 or later"));
    }
    state.trees.push(Some(tree));
    Ok(())
}

/// Creates the symlink that the source is at the target. Returns false if the source is not a symlink.
fn copy_link(state: &State<'_>, mount: &BindMount, source: BorrowedFd<'_>) -> ChildResult<bool> {
    if kind_of(&fstat(source).during("fstat")?) != SFlag::S_IFLNK {
        return Ok(false);
    }
    let link = readlinkat(source, c"").during("readlink")?;
    let entry = state.root()?.parent(&mount.target.path).during("mkdir")?;
    match symlinkat(link.as_os_str(), &entry.directory, entry.name) {
        // Another container with the same rootfs may have created it.
        Err(Errno::EEXIST)
            if readlinkat(&entry.directory, entry.name).is_ok_and(|there| there == link) =>
        {
            Ok(true)
        }
        other => other.during("symlink").map(|()| true),
    }
}

/// Returns the fault of open_tree(2). In a user namespace, a copy must include the mounts below the source, so that no
/// path that a mount of the host covers is uncovered: see mount_namespaces(7).
pub(super) fn refused(source: &Source, errno: Errno) -> Fault {
    let locked = source.in_user_namespace && source.extent == Extent::One;
    let call = match errno {
        Errno::EINVAL if locked => {
            "open_tree: the source contains mounts, which need rbind in a user namespace"
        }
        _ => "open_tree",
    };
    Fault { call: call.into(), errno }
}

/// Makes the change. If flags are locked, because the source came from a more privileged mount namespace, keeps them,
/// unless the config clears them explicitly.
fn change_with<T>(
    tree: BorrowedFd<'_>,
    change: &Change,
    set: impl Fn(Attributes) -> ChildResult<T>,
) -> ChildResult<T> {
    match set(change.attributes) {
        Err(Fault { errno: Errno::EPERM, .. }) => {
            set(keep_locked(change, current_attributes(tree)?)?)
        }
        other => other,
    }
}

/// Flags that the kernel can lock. nosymfollow is not one of them.
const LOCKABLE: u64 = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATIME;

/// Returns the change without locked flags. `source` is the flags of the source, each of which may be locked.
fn keep_locked(change: &Change, source: u64) -> ChildResult<Attributes> {
    let Attributes { set, clear, propagation } = change.attributes;
    let locked = source & LOCKABLE;
    if change.demanded & locked != 0 {
        let names = names(change.demanded & locked);
        return Err(Fault {
            call: format!("cannot clear locked flags {names}").into(),
            errno: Errno::EPERM,
        });
    }
    if clear & ATTR_ATIME != 0 && set & ATIME != locked & ATIME {
        return Err(Fault { call: "cannot change locked atime flags".into(), errno: Errno::EPERM });
    }
    Ok(Attributes {
        set: (set & !ATIME) | (locked & !ATIME),
        clear: clear & !locked & !ATIME,
        propagation,
    })
}

fn names(attributes: u64) -> String {
    let all = [
        (ATTR_RDONLY, "ro"),
        (ATTR_NOSUID, "nosuid"),
        (ATTR_NODEV, "nodev"),
        (ATTR_NOEXEC, "noexec"),
        (ATTR_NOATIME, "noatime"),
        (ATTR_STRICTATIME, "strictatime"),
        (ATTR_NODIRATIME, "nodiratime"),
    ];
    let named: Vec<_> =
        all.iter().filter(|(bit, _)| attributes & bit != 0).map(|(_, name)| *name).collect();
    named.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::ATTR_NOSYMFOLLOW;

    fn change(set: u64, clear: u64, demanded: u64) -> Change {
        Change { attributes: Attributes { set, clear, propagation: 0 }, demanded }
    }

    #[test]
    fn locked_flags_are_kept() {
        let wanted = change(ATTR_RDONLY, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, 0);
        let kept = keep_locked(&wanted, ATTR_NOSUID | ATTR_NODEV).unwrap();
        assert_eq!(kept.set, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV);
        assert_eq!(kept.clear, ATTR_NOEXEC);
        let wanted = change(0, ATTR_NODEV | ATTR_NOSYMFOLLOW, ATTR_NOSYMFOLLOW);
        let kept = keep_locked(&wanted, ATTR_NODEV | ATTR_NOSYMFOLLOW).unwrap();
        assert_eq!((kept.set, kept.clear), (ATTR_NODEV, ATTR_NOSYMFOLLOW));
    }

    #[test]
    fn locked_flags_are_not_cleared_silently() {
        let wanted = change(0, ATTR_RDONLY | ATTR_NODEV, ATTR_NODEV);
        let fault = keep_locked(&wanted, ATTR_NODEV).unwrap_err();
        assert_eq!(fault.call, "cannot clear locked flags nodev");
        let wanted = change(0, ATTR_ATIME, 0);
        let fault = keep_locked(&wanted, ATTR_NOATIME).unwrap_err();
        assert_eq!(fault.call, "cannot change locked atime flags");
    }
}
