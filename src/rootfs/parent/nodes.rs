//! Creates device nodes for a container in a user namespace, in which the kernel does not allow mknod(2). They are
//! created in a detached tmpfs of the host's user namespace, and bind-mounted one by one.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::{Error, Result};
use crate::rootfs::child::new_mount::create;
use crate::rootfs::overlay::parent::mounts_in_new_namespace;
use crate::rootfs::{Node, Origin, Parameter};
use crate::sys::mount::{ATTR_NOEXEC, ATTR_NOSUID, Extent, fsopen, move_mount, open_tree};
use crate::sys::open::open;

/// Creates the nodes, and returns a detached mount of each.
///
/// # Errors
///
/// An error of the mount calls, mknod(2) or chown(2).
pub fn make(nodes: &[&Node]) -> Result<Vec<OwnedFd>> {
    mounts_in_new_namespace(|| make_here(nodes)).map_err(|fault| {
        Error::os(fault.call, "", fault.errno).context("make device nodes for a user namespace")
    })
}

fn make_here(nodes: &[&Node]) -> ChildResult<Vec<OwnedFd>> {
    let context = fsopen(c"tmpfs").during("fsopen")?;
    let parameter = |key: CString, value: CString| Parameter { key, value: Some(value) };
    let mut data = vec![parameter(c"source".into(), c"devices".into())];
    data.extend(nodes.iter().find_map(|node| match &node.origin {
        Origin::Parent { label: Some(label), .. } => {
            Some(parameter(c"context".into(), label.clone()))
        }
        _ => None,
    }));
    let tmpfs = create(context.as_fd(), &data, ATTR_NOSUID | ATTR_NOEXEC)?;
    // Only an attached mount can be copied.
    let place = open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY).during("open /")?;
    move_mount(tmpfs.as_fd(), place.as_fd()).during("move_mount")?;
    umask(Mode::empty());
    nodes.iter().enumerate().map(|(n, node)| make_one(tmpfs.as_fd(), n, node)).collect()
}

fn make_one(directory: BorrowedFd<'_>, n: usize, node: &Node) -> ChildResult<OwnedFd> {
    let named = |call: &str| {
        let call = format!("{call} {}", node.path.to_string_lossy());
        move |errno| Fault { call: call.into(), errno }
    };
    let name = CString::new(n.to_string()).map_err(|_| Fault::refused("the name of a node"))?;
    let kind = SFlag::from_bits_truncate(node.kind);
    let mode = Mode::from_bits_truncate(node.mode);
    let device = makedev(node.major.into(), node.minor.into());
    mknodat(directory, name.as_c_str(), kind, mode, device).map_err(named("mknod"))?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(directory, name.as_c_str(), Some(uid), Some(gid), flags).map_err(named("chown"))?;
    open_tree(Some(directory), &name, Extent::One).map_err(named("open_tree"))
}
