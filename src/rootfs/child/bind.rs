//! A part of another tree, here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Missing, State, copy_up, current_attributes, is_directory, is_proc};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::{BindMount, Change};
use crate::sys::mount::{
    ATTR_ATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Attributes,
    Extent, open_tree,
};

pub(super) fn run(state: &mut State<'_>, mount: &BindMount) -> ChildResult<()> {
    let tree = source(state, mount)?;
    if mount.proc_only && !is_proc(tree.as_fd())? {
        let text =
            format!("{:?} cannot be mounted because it is not of type proc", mount.target.path);
        return Err(Fault::refused(text));
    }
    let missing = if is_directory(tree.as_fd())? { Missing::Directory } else { Missing::File };
    let place = state.place(&mount.target, missing)?;
    if mount.fill && !place.made {
        copy_up::fill(state.proc, place.fd.as_fd(), tree.as_fd())?;
    }
    // Detached, so that nobody sees it before it is as it should be.
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
    state.retire([tree, place.fd]);
    Ok(())
}

fn source(state: &mut State<'_>, mount: &BindMount) -> ChildResult<OwnedFd> {
    match mount.tree.and_then(|index| state.trees.get_mut(index)?.take()) {
        Some(tree) => Ok(tree),
        None if mount.id_map.is_some() => Err(Fault::refused("the source is not id-mapped")),
        None => open_tree(None, &mount.source, mount.extent).during("open_tree"),
    }
}

/// Makes the change exactly; if flags are locked, because the source came from a more privileged
/// mount namespace, keeps those, unless the config wanted them gone.
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

const ATIME: u64 = ATTR_ATIME | ATTR_NODIRATIME;

fn keep_locked(change: &Change, locked: u64) -> ChildResult<Attributes> {
    let Attributes { set, clear, propagation } = change.attributes;
    if change.demanded & locked & !ATIME != 0 {
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
    ];
    let named: Vec<_> =
        all.iter().filter(|(bit, _)| attributes & bit != 0).map(|(_, name)| *name).collect();
    named.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(set: u64, clear: u64, demanded: u64) -> Change {
        Change { attributes: Attributes { set, clear, propagation: 0 }, demanded }
    }

    #[test]
    fn locked_flags_are_kept() {
        let wanted = change(ATTR_RDONLY, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, 0);
        let kept = keep_locked(&wanted, ATTR_NOSUID | ATTR_NODEV).unwrap();
        assert_eq!(kept.set, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV);
        assert_eq!(kept.clear, ATTR_NOEXEC);
    }

    #[test]
    fn locked_flags_are_not_cleared_silently() {
        let wanted = change(0, ATTR_RDONLY | ATTR_NODEV, ATTR_NODEV);
        let fault = keep_locked(&wanted, ATTR_NODEV).unwrap_err();
        assert_eq!(fault.call, "cannot clear locked flags nodev");
        let wanted = change(0, ATTR_ATIME, 0);
        let fault = keep_locked(&wanted, crate::sys::mount::ATTR_NOATIME).unwrap_err();
        assert_eq!(fault.call, "cannot change locked atime flags");
    }
}
