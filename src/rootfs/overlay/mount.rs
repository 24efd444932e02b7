//! Makes the overlay, as a detached mount: in the parent or in the child.
//!
//! Since Linux 6.15 all goes by descriptor. Older kernels take no detached mount as a layer (an
//! id-mapped folder, a tmpfs) and no more text than a page holds: there, mount(2) makes it in a
//! mount namespace of its own, where the layers are named by the numbers of their descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, chdir, fchownat};

use super::{Overlay, UPPER, Upper, WORK};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::rootfs::child::new_mount::{create, set};
use crate::sys::mount::{
    Extent, fsconfig_set_fd, fsopen, mount_setattr_idmap, move_mount, open_tree,
};
use crate::sys::open::open;

/// By descriptor where the kernel can, else [`here`] in a namespace that `apart` finds for it.
/// `id_map`: the user namespace whose ids the lowers show.
pub fn make(
    overlay: &Overlay,
    id_map: Option<BorrowedFd<'_>>,
    apart: impl FnOnce() -> ChildResult<OwnedFd>,
) -> ChildResult<OwnedFd> {
    match by_descriptor(overlay, id_map) {
        // Kernels before 6.15, of a descriptor that is only a path.
        Err(fault) if fault.errno == Errno::EBADF => apart(),
        // What kernels say that do not know the parameter, or such a layer. It may as well be the
        // folder that is wrong: then it is this answer that says how.
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
    pass(context.as_fd(), c"lowerdir+", topmost.as_fd())?;
    // A detached mount ends with its descriptor, a folder stays.
    let mut mapped = Vec::new();
    for at in (0..overlay.layers.lowers.len() - 1).rev() {
        let lower = lower(at)?;
        pass(context.as_fd(), c"lowerdir+", lower.as_fd())?;
        if id_map.is_some() {
            mapped.push(lower);
        }
    }
    pass(context.as_fd(), c"upperdir", writable.upper.as_fd())?;
    pass(context.as_fd(), c"workdir", writable.work.as_fd())?;
    for (key, value) in options(overlay, &writable) {
        set(context.as_fd(), key, value)?;
    }
    create(context.as_fd(), &[], 0)
}

fn pass(context: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> ChildResult<()> {
    fsconfig_set_fd(context, key, value).map_err(|errno| Fault {
        call: format!("fsconfig {}", key.to_string_lossy()).into(),
        errno,
    })
}

/// Those that say nothing of places.
fn options(overlay: &Overlay, writable: &Writable) -> Vec<(&'static CStr, Option<&'static CStr>)> {
    let mut options = Vec::new();
    if overlay.layers.upper.is_volatile() {
        options.push((c"volatile", None));
    }
    // Without privileges on the host there are no attributes of the name trusted (Linux 5.11).
    if overlay.tree.is_none() {
        options.push((c"userxattr", None));
    }
    // Else a file of a layer has another inode number once it is written to, and two names of it have
    // two. On one file system it is needless, and the kernel's log would say so each time.
    if writable.elsewhere {
        options.push((c"xino", Some(c"on")));
    }
    // With an index an upper is bound to the layers that it had first, which an engine may make anew.
    if matches!(overlay.layers.upper, Upper::Given { .. }) {
        options.push((c"index", Some(c"off")));
    }
    options
}

/// The folder, or where its owners have to be mapped, a detached mount of it.
fn lower(overlay: &Overlay, at: usize, id_map: Option<BorrowedFd<'_>>) -> ChildResult<OwnedFd> {
    let path = &overlay.layers.lowers[at];
    let failed = |call: &str, errno| Fault {
        call: format!("{call} layer {}", path.display()).into(),
        errno,
    };
    let mapped = overlay.id_map.as_ref().is_some_and(|(_, mapped)| mapped[at]);
    let Some(namespace) = id_map.filter(|_| mapped) else {
        return open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|e| failed("open", e));
    };
    let name = crate::path::c_path("layer", path).map_err(|e| Fault::refused(e.to_string()))?;
    let tree = open_tree(None, &name, Extent::One).map_err(|e| failed("open_tree", e))?;
    mount_setattr_idmap(tree.as_fd(), Extent::One, namespace)
        .map_err(|e| failed("mount_setattr (MOUNT_ATTR_IDMAP)", e))?;
    Ok(tree)
}

/// The folders that take what is written.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// The detached mount that they are in, if they are in one.
    tmpfs: Option<OwnedFd>,
    /// On another file system than the topmost lower.
    elsewhere: bool,
}

impl Writable {
    /// Makes them where they are missing. The root of the overlay looks like `upper`, which therefore
    /// begins as the topmost lower looks.
    fn open(upper: &Upper, topmost: BorrowedFd<'_>) -> ChildResult<Self> {
        let (base, tmpfs) = match upper {
            Upper::Given { upper, work } => {
                let (upper, work) = (open_base(upper)?, open_base(work)?);
                // Snapshots are beside each other.
                return Ok(Self { upper, work, tmpfs: None, elsewhere: false });
            }
            Upper::Tmpfs { size } => {
                let made = tmpfs(*size)?;
                let base = open_below(made.as_fd(), c".")?;
                (base, Some(made))
            }
            Upper::Ephemeral { directory, .. } | Upper::Kept { directory } => {
                (open_base(directory)?, None)
            }
        };
        let like = fstat(topmost).during("fstat")?;
        let owner = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
        let mode = Mode::from_bits_truncate(like.st_mode & 0o7777);
        let work = folder(base.as_fd(), WORK, None, Mode::S_IRWXU)?;
        let upper = folder(base.as_fd(), UPPER, Some(owner), mode)?;
        let elsewhere = fstat(&upper).during("fstat")?.st_dev != like.st_dev;
        Ok(Self { upper, work, tmpfs, elsewhere })
    }
}

fn open_base(directory: &Path) -> ChildResult<OwnedFd> {
    open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|errno| Fault { call: format!("open {}", directory.display()).into(), errno })
}

fn open_below(base: BorrowedFd<'_>, name: &CStr) -> ChildResult<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(base, name, flags, Mode::empty()).during("open")
}

/// Made under another name first: whoever finds it by its own finds it finished.
fn folder(
    base: BorrowedFd<'_>,
    name: &str,
    owner: Option<(Uid, Gid)>,
    mode: Mode,
) -> ChildResult<OwnedFd> {
    let name = CString::new(name).map_err(|_| Fault::refused("a folder's name"))?;
    match open_below(base, &name) {
        Err(fault) if fault.errno == Errno::ENOENT => {}
        other => return other,
    }
    let fresh = c".new";
    match mkdirat(base, fresh, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).during("mkdir"),
    }
    if let Some((uid, gid)) = owner {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(base, fresh, Some(uid), Some(gid), flags).during("chown")?;
    }
    fchmodat(base, fresh, mode, FchmodatFlags::FollowSymlink).during("chmod")?;
    renameat(base, fresh, base, name.as_c_str()).during("rename")?;
    open_below(base, &name)
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

/// By mount(2), in the mount namespace that we are in, which is nobody else's: covers the place of the
/// root. The working directory is not what it was after this.
pub fn here(overlay: &Overlay, id_map: Option<BorrowedFd<'_>>) -> ChildResult<OwnedFd> {
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
        writable.upper = open_below(tmpfs.as_fd(), c"upper")?;
        writable.work = open_below(tmpfs.as_fd(), c"work")?;
    }
    // A number is shorter than any path: 500 of them fit into the page that mount(2) takes.
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

/// A place for mounts that must be attached before they can be layers.
struct Stage {
    root: OwnedFd,
}

impl Stage {
    fn new(at: &CStr) -> ChildResult<Self> {
        let below = open(at, OFlag::O_PATH | OFlag::O_DIRECTORY).during("open")?;
        let root = tmpfs(None)?;
        move_mount(root.as_fd(), below.as_fd()).during("move_mount")?;
        Ok(Self { root })
    }

    fn attach(&self, mount: BorrowedFd<'_>) -> ChildResult<()> {
        let name = CString::new(mount.as_raw_fd().to_string())
            .map_err(|_| Fault::refused("a descriptor's number"))?;
        mkdirat(&self.root, name.as_c_str(), Mode::S_IRWXU).during("mkdir")?;
        let place = open_below(self.root.as_fd(), &name)?;
        move_mount(mount, place.as_fd()).during("move_mount")
    }
}
