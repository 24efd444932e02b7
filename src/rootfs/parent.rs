//! Opens mounts on the host for the child: the overlay and device nodes before the clone, and sources of bind mounts
//! that the child cannot open as required.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{chroot, fchdir};

use super::{Origin, Step, overlay};
use crate::error::{Context, Error, OsContext, Result};
use crate::sys;
use crate::sys::mount::{Extent, open_tree};
use crate::sys::namespace::setns;

pub mod id_map;
pub mod inherited;
mod nodes;

/// Makes the trees that the child gets: first a copy of the rootfs or its overlay, then device nodes, if the parent
/// must make them.
///
/// # Errors
///
/// The kernel rejects the overlay, the copy or a device node.
pub fn open_trees<'a>(steps: impl Iterator<Item = &'a Step>) -> Result<Vec<Option<OwnedFd>>> {
    let mut trees = Vec::new();
    let mut nodes = Vec::new();
    for step in steps {
        match step {
            Step::Overlay(overlay) if overlay.tree.is_some() => {
                trees.push(Some(overlay::parent::make(overlay).context(|| step.to_string())?));
            }
            Step::AttachRoot { path } => {
                let copy = open_tree(None, path, Extent::Tree);
                trees.push(Some(copy.os("open_tree", path.to_string_lossy())?));
            }
            Step::Node(node) if matches!(node.origin, Origin::Parent { .. }) => nodes.push(node),
            _ => {}
        }
    }
    if !nodes.is_empty() {
        trees.extend(nodes::make(&nodes)?.into_iter().map(Some));
    }
    Ok(trees)
}

/// Opens the source of a mount in the child's mount `namespace`. `root` is the root directory of the child. Returns a
/// detached copy, id-mapped if the step requires it.
///
/// A copy that is made in the namespace has the flags that the kernel locks for another user namespace (`ro`, `nosuid`,
/// `nodev`, `noexec`).
///
/// # Errors
///
/// The source cannot be opened, or its file system does not support the id mapping. `EACCES` if the caller may not
/// enter the mount namespace.
pub fn open_source(
    step: &Step,
    namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let (path, id_map) = match step {
        Step::Bind(bind) => (&bind.source.path, bind.source.id_map.as_ref()),
        Step::OpenSource(source) => (&source.path, source.id_map.as_ref()),
        Step::CloneRoot { path, mapped, .. } => (path, mapped.as_ref()),
        _ => return Err(Error::system("the step has no source")).context(|| step.attempt()),
    };
    let source = path.to_string_lossy();
    let open = || match step {
        Step::Bind(bind) => bind.source.open(),
        Step::OpenSource(source) => source.open(),
        _ => open_tree(None, path, Extent::Tree),
    };
    let tree = match in_mount_namespace(namespace, root, open)? {
        // An unprivileged caller cannot enter the namespace. Then EACCES, the child's own error, is reported.
        Err(Errno::EPERM) => Err(Errno::EACCES),
        other => other,
    };
    let tree = tree.os("open_tree", &source).context(|| step.attempt())?;
    if let Some(map) = id_map {
        id_map::apply(tree.as_fd(), Path::new(&*source), map).context(|| step.attempt())?;
    }
    Ok(tree)
}

/// Runs `open` in another mount namespace, and returns to the previous one.
fn in_mount_namespace<T>(
    namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    open: impl FnOnce() -> sys::Result<T>,
) -> Result<sys::Result<T>> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let own =
        sys::open::open("/proc/self/ns/mnt", OFlag::O_RDONLY).os("open", "/proc/self/ns/mnt")?;
    let own_root = sys::open::open("/", directory).os("open", "/")?;
    let cwd = sys::open::open(".", directory).ok();
    if let Err(errno) = setns(namespace, libc::CLONE_NEWNS) {
        return Ok(Err(errno));
    }
    let opened = enter(root).and_then(|()| open());
    setns(own.as_fd(), libc::CLONE_NEWNS).os("setns", "/proc/self/ns/mnt")?;
    enter(own_root.as_fd()).os("chroot", "/")?;
    cwd.map_or(Ok(()), fchdir).os("fchdir", ".")?;
    Ok(opened)
}

/// Changes to the root directory of the process. setns(2) leads to the root of the namespace, which may be another one.
fn enter(root: BorrowedFd<'_>) -> sys::Result<()> {
    fchdir(root)?;
    chroot(".")
}
