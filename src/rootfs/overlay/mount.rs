//! Makes the overlay as a detached mount, in the parent or in the child.
//!
//! Since Linux 6.15 all directories are passed by descriptor. Older kernels accept no detached mount as a layer (an
//! id-mapped directory, a tmpfs), and no options longer than a page. For them, mount(2) makes the overlay in a separate
//! mount namespace, where the layers are named by the numbers of their descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, chdir, fchownat};

use super::{Overlay, UPPER, Upper, WORK, quota};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::fs::closed;
use crate::rootfs::child::new_mount::{create, set};
use crate::sys::mount::{
    Extent, fsconfig_set_fd, fsconfig_set_string, fsopen, mount_setattr_idmap, move_mount,
    open_tree,
};
use crate::sys::open::open;

/// Makes the overlay by descriptors if the kernel supports it, otherwise by [`make_attached`] in a mount namespace that
/// `apart` creates. `id_map` is a user namespace whose mapping the lower directories get.
///
/// # Errors
///
/// A directory cannot be opened or created, or overlayfs rejects it.
pub fn make(
    overlay: &Overlay,
    id_map: Option<BorrowedFd<'_>>,
    apart: impl FnOnce() -> ChildResult<OwnedFd>,
) -> ChildResult<OwnedFd> {
    match by_descriptor(overlay, id_map) {
        // Linux before 6.15 returns these for an O_PATH descriptor, and before 6.5 for any.
        Err(fault) if matches!(fault.errno, Errno::EBADF | Errno::EOPNOTSUPP) => apart(),
        // Older kernels return this for an unknown parameter or such a layer. A directory may also be invalid: then
        // this error has the better description.
        Err(fault) if fault.errno == Errno::EINVAL => apart().map_err(|_| fault),
        other => other,
    }
}

fn by_descriptor(overlay: &Overlay, id_map: Option<BorrowedFd<'_>>) -> ChildResult<OwnedFd> {
    let context = fsopen(c"overlay").during("fsopen overlay")?;
    set(context.as_fd(), c"source", Some(&overlay.source))?;
    let lower = |at: usize| lower(overlay, at, id_map);
    let topmost = lower(overlay.layers.lowers.len() - 1)?;
    let writable = Writable::open(&overlay.layers.upper, topmost.as_fd())?;
    pass(context.as_fd(), LOWER, topmost.as_fd())?;
    // A detached mount ends with its descriptor, so the descriptors are kept until the overlay exists.
    let mut mapped = Vec::new();
    for at in (0..overlay.layers.lowers.len() - 1).rev() {
        // A path costs a third of the calls of a descriptor. If the kernel rejects it, opening the path finds the
        // reason.
        if !overlay.is_mapped(at) && by_name(context.as_fd(), &overlay.layers.lowers[at]) {
            continue;
        }
        let lower = lower(at)?;
        pass(context.as_fd(), LOWER, lower.as_fd())?;
        mapped.push(lower);
    }
    pass(context.as_fd(), c"upperdir", writable.upper.as_fd())?;
    pass(context.as_fd(), c"workdir", writable.work.as_fd())?;
    for (key, value) in options(overlay, &writable) {
        set(context.as_fd(), key, value)?;
    }
    create(context.as_fd(), &[], 0)
}

const LOWER: &CStr = c"lowerdir+";

/// Adds a lower directory by its path. Returns false if the kernel rejects it: paths may have up to 255 bytes.
fn by_name(context: BorrowedFd<'_>, lower: &Path) -> bool {
    let name = CString::new(lower.as_os_str().as_bytes());
    name.is_ok_and(|name| fsconfig_set_string(context, LOWER, &name).is_ok())
}

fn pass(context: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> ChildResult<()> {
    fsconfig_set_fd(context, key, value).map_err(|errno| Fault {
        call: format!("fsconfig {}", key.to_string_lossy()).into(),
        errno,
    })
}

/// Returns the options that are independent of directories.
fn options(overlay: &Overlay, writable: &Writable) -> Vec<(&'static CStr, Option<&'static CStr>)> {
    let mut options = Vec::new();
    if overlay.layers.upper.is_volatile() {
        options.push((c"volatile", None));
    }
    // Without privileges on the host, overlayfs cannot use attributes with the prefix `trusted` (Linux 5.11).
    if overlay.tree.is_none() {
        options.push((c"userxattr", None));
    }
    // Without xino, a file of a layer gets another inode number when it is written, and two hard links get different
    // ones. On one file system it is unnecessary, and the kernel would log that each time.
    if writable.other_file_system {
        options.push((c"xino", Some(c"on")));
    }
    // With an index, an upper directory is bound to its first layers, which an engine may create again.
    if matches!(overlay.layers.upper, Upper::Given { .. }) {
        options.push((c"index", Some(c"off")));
    }
    options
}

/// Opens a lower directory, or a detached id-mapped mount of it.
fn lower(overlay: &Overlay, at: usize, id_map: Option<BorrowedFd<'_>>) -> ChildResult<OwnedFd> {
    let path = &overlay.layers.lowers[at];
    let failed = |call: &str, errno| Fault {
        call: format!("{call} layer {}", path.display()).into(),
        errno,
    };
    let Some(namespace) = id_map.filter(|_| overlay.is_mapped(at)) else {
        return open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|e| failed("open", e));
    };
    let name = crate::path::c_path("layer", path).map_err(|e| Fault::refused(e.to_string()))?;
    let tree = open_tree(None, &name, Extent::One).map_err(|e| failed("open_tree", e))?;
    mount_setattr_idmap(tree.as_fd(), Extent::One, namespace)
        .map_err(|e| failed("mount_setattr (MOUNT_ATTR_IDMAP)", e))?;
    Ok(tree)
}

/// Directories that receive what the container writes.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// Detached mount that contains them, if there is one.
    tmpfs: Option<OwnedFd>,
    /// True if they are on another file system than the topmost lower directory.
    other_file_system: bool,
}

impl Writable {
    /// Opens the directories, and creates missing ones. The root of an overlay has the owner and mode of `upper`, so
    /// `upper` is created with those of the topmost lower directory.
    fn open(upper: &Upper, topmost: BorrowedFd<'_>) -> ChildResult<Self> {
        let (base, tmpfs) = match upper {
            Upper::Given { upper, work } => {
                let (upper, work) = (open_base(upper)?, open_base(work)?);
                // Both directories of a snapshot are on one file system.
                return Ok(Self { upper, work, tmpfs: None, other_file_system: false });
            }
            Upper::Tmpfs { size } => {
                let made = tmpfs(*size)?;
                let base = open_in(made.as_fd(), ".")?;
                (base, Some(made))
            }
            Upper::Ephemeral { directory, .. } | Upper::Kept { directory, .. } => {
                (open_base(directory)?, None)
            }
        };
        let mut like = fstat(topmost).during("fstat")?;
        like.st_mode = closed::layer_mode(topmost, like.st_mode & 0o7777);
        let kept = matches!(upper, Upper::Kept { .. });
        let work = work(base.as_fd())?;
        let made = self::upper(base.as_fd(), kept, &like)?;
        if let Some((_, size)) = upper.quota() {
            quota::limit(made.as_fd(), work.as_fd(), size)?;
        }
        let upper = made;
        let other_file_system = fstat(&upper).during("fstat")?.st_dev != like.st_dev;
        Ok(Self { upper, work, tmpfs, other_file_system })
    }
}

fn open_base(directory: &Path) -> ChildResult<OwnedFd> {
    open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|errno| Fault { call: format!("open {}", directory.display()).into(), errno })
}

fn open_in(base: BorrowedFd<'_>, name: &str) -> ChildResult<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(base, name, flags, Mode::empty()).during("open")
}

/// Creates and opens the work directory, which only the kernel uses.
fn work(base: BorrowedFd<'_>) -> ChildResult<OwnedFd> {
    match mkdirat(base, WORK, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => open_in(base, WORK),
        Err(errno) => Err(errno).during("mkdir"),
    }
}

/// Name of a kept upper directory during its creation.
pub(super) const NEW_UPPER: &str = ".new";

/// Creates and opens the upper directory. A kept one is created with another name and renamed, so that it never exists
/// without its owner and mode.
fn upper(base: BorrowedFd<'_>, kept: bool, like: &FileStat) -> ChildResult<OwnedFd> {
    let fresh = if kept { NEW_UPPER } else { UPPER };
    if kept {
        match open_in(base, UPPER) {
            Err(fault) if fault.errno == Errno::ENOENT => {}
            other => return other,
        }
    }
    match mkdirat(base, fresh, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).during("mkdir"),
    }
    let (uid, gid) = (Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)));
    fchownat(base, fresh, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).during("chown")?;
    let mode = Mode::from_bits_truncate(like.st_mode & 0o7777);
    fchmodat(base, fresh, mode, FchmodatFlags::FollowSymlink).during("chmod")?;
    if kept {
        renameat(base, fresh, base, UPPER).during("rename")?;
    }
    open_in(base, UPPER)
}

fn tmpfs(size: Option<u64>) -> ChildResult<OwnedFd> {
    let context = fsopen(c"tmpfs").during("fsopen tmpfs")?;
    set(context.as_fd(), c"mode", Some(c"0700"))?;
    if let Some(bytes) = size {
        let text = CString::new(bytes.to_string()).map_err(|_| Fault::refused("a size"))?;
        set(context.as_fd(), c"size", Some(&text))?;
    }
    create(context.as_fd(), &[], 0)
}

/// Makes the overlay by mount(2) in the current mount namespace, which no other process uses. The mount covers the
/// rootfs. Changes the working directory.
///
/// # Errors
///
/// The errors of [`make`].
pub fn make_attached(overlay: &Overlay, id_map: Option<BorrowedFd<'_>>) -> ChildResult<OwnedFd> {
    let count = overlay.layers.lowers.len();
    let lowers =
        (0..count).map(|at| lower(overlay, at, id_map)).collect::<ChildResult<Vec<_>>>()?;
    let topmost = lowers.last().ok_or(Fault::refused("no layer"))?;
    let mut writable = Writable::open(&overlay.layers.upper, topmost.as_fd())?;
    let stage = Stage::new(&overlay.at)?;
    if let Some((_, mapped)) = &overlay.id_map {
        for (lower, _) in lowers.iter().zip(mapped).filter(|(_, mapped)| **mapped) {
            stage.attach(lower.as_fd())?;
        }
    }
    if let Some(tmpfs) = writable.tmpfs.take() {
        stage.attach(tmpfs.as_fd())?;
        writable.upper = open_in(tmpfs.as_fd(), UPPER)?;
        writable.work = open_in(tmpfs.as_fd(), WORK)?;
    }
    // A number is shorter than a path: 500 of them fit into the page that mount(2) accepts.
    chdir(c"/proc/self/fd").during("chdir /proc/self/fd")?;
    let numbers: Vec<_> = lowers.iter().rev().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut text = format!(
        "lowerdir={},upperdir={},workdir={}",
        numbers.join(":"),
        writable.upper.as_raw_fd(),
        writable.work.as_raw_fd()
    );
    for (key, value) in options(overlay, &writable) {
        text.push(',');
        text.push_str(&key.to_string_lossy());
        if let Some(value) = value {
            text.push('=');
            text.push_str(&value.to_string_lossy());
        }
    }
    let kind = Some(c"overlay");
    let source = Some(overlay.source.as_c_str());
    mount(source, overlay.at.as_c_str(), kind, MsFlags::empty(), Some(text.as_str()))
        .during("mount overlay")?;
    open_tree(None, &overlay.at, Extent::One).during("open_tree")
}

/// tmpfs with mount points for layers that must be attached mounts.
struct Stage {
    root: OwnedFd,
}

impl Stage {
    fn new(at: &CStr) -> ChildResult<Self> {
        let directory = open(at, OFlag::O_PATH | OFlag::O_DIRECTORY).during("open")?;
        let root = tmpfs(None)?;
        move_mount(root.as_fd(), directory.as_fd()).during("move_mount")?;
        Ok(Self { root })
    }

    fn attach(&self, mount: BorrowedFd<'_>) -> ChildResult<()> {
        let name = mount.as_raw_fd().to_string();
        mkdirat(&self.root, name.as_str(), Mode::S_IRWXU).during("mkdir")?;
        let place = open_in(self.root.as_fd(), &name)?;
        move_mount(mount, place.as_fd()).during("move_mount")
    }
}
