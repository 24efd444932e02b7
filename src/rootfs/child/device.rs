//! Creates nodes and symlinks, mostly in /dev.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, dup2_stderr, dup2_stdin, dup2_stdout, fchownat, symlinkat, unlinkat,
};

use super::{State, is_null, kind_of};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::{Node, Origin};
use crate::sys::mount::{ATTR_NOEXEC, ATTR_NOSUID, Attributes, Extent, move_mount, open_tree};

/// Returns the directory of `path` and the name in it. The directory of the previous step is reused.
fn entry<'s, 'p>(
    state: &'s mut State<'_>,
    path: &'p CStr,
) -> ChildResult<(BorrowedFd<'s>, &'p CStr)> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let same = |(directory, _): &(CString, _)| directory.to_bytes() == &bytes[..slash];
    if !state.nodes.as_ref().is_some_and(same) {
        let directory = state.root()?.parent(path).during("mkdir")?.directory;
        let name = CString::new(&bytes[..slash]).map_err(|_| Fault::refused("a node's path"))?;
        state.nodes = Some((name, directory));
    }
    let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]);
    match (&state.nodes, name) {
        (Some((_, directory)), Ok(name)) => Ok((directory.as_fd(), name)),
        _ => Err(Fault::refused("a node's path")),
    }
}

pub(super) fn node(state: &mut State<'_>, node: &Node) -> ChildResult<()> {
    match node.origin {
        Origin::Child => {}
        Origin::Host => return bind_host_node(state, node),
        Origin::Parent { tree, .. } => {
            let made = state.trees.get_mut(tree).and_then(Option::take);
            let made = made.ok_or(Fault::refused("the parent has not made the node"))?;
            let (directory, name) = entry(state, &node.path)?;
            return bind(directory, name, &made);
        }
    }
    let (directory, name) = entry(state, &node.path)?;
    let kind = SFlag::from_bits_truncate(node.kind);
    let mode = Mode::from_bits_truncate(node.mode);
    let device = makedev(node.major.into(), node.minor.into());
    match mknodat(directory, name, kind, mode, device) {
        Ok(()) if node.uid | node.gid == 0 => Ok(()),
        Ok(()) => set_owner(directory, name, node),
        Err(Errno::EEXIST) => verify(directory, name, node),
        // The runtime is in a user namespace that the plan does not know.
        Err(Errno::EPERM) => bind_host_node(state, node),
        Err(errno) => Err(errno).during("mknod"),
    }
}

fn set_owner(directory: BorrowedFd<'_>, name: &CStr, node: &Node) -> ChildResult<()> {
    // The owner is changed by descriptor, so that the file is the created one.
    let made = open_name(directory, name).during("open")?;
    same_device(&made, node)?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    fchownat(&made, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).during("fchown")
}

/// Checks that an existing file of the image is the same device.
fn verify(directory: BorrowedFd<'_>, name: &CStr, node: &Node) -> ChildResult<()> {
    same_device(&open_name(directory, name).during("open")?, node)
}

fn same_device(fd: &OwnedFd, node: &Node) -> ChildResult<()> {
    let stat = fstat(fd).during("fstat")?;
    let device = makedev(node.major.into(), node.minor.into());
    if stat.st_mode & libc::S_IFMT == node.kind
        && (node.kind == libc::S_IFIFO || stat.st_rdev == device)
    {
        return Ok(());
    }
    Err(Fault::refused("another file of that name exists in the rootfs"))
}

fn open_name(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Bind-mounts the host's node with the same path, with nosuid and noexec.
fn bind_host_node(state: &mut State<'_>, node: &Node) -> ChildResult<()> {
    let source = open_tree(None, &node.path, Extent::One).during("open_tree")?;
    let change = Attributes { set: ATTR_NOSUID | ATTR_NOEXEC, ..Attributes::default() };
    let done = state.set_detached(source.as_fd(), Extent::One, change)?;
    let (directory, name) = entry(state, &node.path)?;
    bind(directory, name, &source)?;
    if done { Ok(()) } else { state.set_attributes(source.as_fd(), Extent::One, change) }
}

/// Bind-mounts a node. The file that it covers may stay in the image, so it is created without permissions.
fn bind(directory: BorrowedFd<'_>, name: &CStr, source: &OwnedFd) -> ChildResult<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let place = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::EEXIST) => open_name(directory, name),
        other => other,
    }
    .during("create")?;
    move_mount(source.as_fd(), place.as_fd()).during("move_mount")
}

pub(super) fn symlink(
    state: &mut State<'_>,
    path: &CStr,
    target: &CStr,
    replace: bool,
) -> ChildResult<()> {
    let (directory, name) = entry(state, path)?;
    match symlinkat(target, directory, name) {
        // The device itself works as well. In a devtmpfs it is that of the host.
        Err(Errno::EEXIST) if replace && is_multiplexer(directory, name)? => Ok(()),
        Err(Errno::EEXIST) if replace => {
            // Another container with the same rootfs may do the same.
            match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).during("unlink"),
            }
            match symlinkat(target, directory, name) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno).during("symlink"),
            }
        }
        Err(Errno::EEXIST) => Ok(()),
        other => other.during("symlink"),
    }
}

/// Returns true if the file is the device /dev/ptmx, which finds the devpts beside it.
fn is_multiplexer(directory: BorrowedFd<'_>, name: &CStr) -> ChildResult<bool> {
    let stat = fstat(open_name(directory, name).during("open")?).during("fstat")?;
    Ok(kind_of(&stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(5, 2))
}

/// Replaces standard streams that are the host's /dev/null. Called after the pivot. The opened file is checked, and a
/// symlink is not followed, because the image may have any file there.
pub(super) fn reopen_null(state: &mut State<'_>) -> ChildResult<()> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    // A closed stream stays closed.
    let was_null = streams.map(|stream| fstat(stream).is_ok_and(|stat| is_null(&stat)));
    if was_null == [false; 3] {
        return Ok(());
    }
    let null = open_null(state, libc::O_RDWR)?;
    let [stdin, stdout, stderr] = was_null;
    if stdin {
        dup2_stdin(&null).during("dup2")?;
    }
    if stdout {
        dup2_stdout(&null).during("dup2")?;
    }
    if stderr {
        dup2_stderr(&null).during("dup2")?;
    }
    Ok(())
}

/// Opens the container's /dev/null, and checks that it is the null device (CVE-2025-31133, CVE-2026-88265).
pub(super) fn open_null(state: &State<'_>, flags: libc::c_int) -> ChildResult<OwnedFd> {
    // The check uses O_PATH, because opening a device or a FIFO can have effects.
    let root = state.root()?;
    let path = root.open(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW).during("open /dev/null")?;
    let stat = fstat(&path).during("fstat")?;
    if !is_null(&stat) {
        return Err(Fault::refused(format!(
            "/dev/null of the container is not the null device but {}",
            describe(&stat)
        )));
    }
    if flags & libc::O_PATH != 0 {
        return Ok(path);
    }
    // The descriptor leads to the checked file, even if the name is another file now.
    state.proc.reopen(path.as_raw_fd(), flags).during("open /dev/null")
}

fn describe(stat: &nix::sys::stat::FileStat) -> String {
    match kind_of(stat) {
        SFlag::S_IFCHR => {
            let (major, minor) =
                (nix::sys::stat::major(stat.st_rdev), nix::sys::stat::minor(stat.st_rdev));
            format!("character device {major}:{minor}")
        }
        SFlag::S_IFREG => "a regular file".into(),
        SFlag::S_IFDIR => "a directory".into(),
        SFlag::S_IFLNK => "a symlink".into(),
        _ => "another kind of file".into(),
    }
}
