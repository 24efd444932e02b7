//! Runs the steps in the child. Paths of the container are used only through [`Root`].

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev, umask};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::fchdir;

use super::options::flags;
use super::{Finish, Step, Target};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::fs::{Proc, Root};
use crate::sys::mount::{
    ATTR_ATIME, ATTR_NOSYMFOLLOW, Attributes, Extent, mount_setattr, move_mount,
};

mod bind;
mod cgroup;
mod console;
mod copy_up;
mod device;
pub(super) mod new_mount;
mod pivot;
mod restrict;
mod running;

pub use console::bind_console;
#[cfg(fuzzing)]
pub use pivot::check_table;

/// Data that steps pass to later steps.
#[derive(Debug)]
pub struct State<'p> {
    proc: &'p Proc,
    root: Option<Root>,
    /// Trees that the parent has opened: the overlay or a copy of the rootfs, and device nodes.
    trees: Vec<Option<OwnedFd>>,
    /// Sources of volumes that have content already.
    complete_volumes: &'p [CString],
    /// Source of the next bind mount, if it is open already.
    source: Option<OwnedFd>,
    /// Directory of the last device node or symlink, because such steps follow each other.
    nodes: Option<(CString, OwnedFd)>,
    /// The container's /dev/null, verified, which covers masked files.
    null: Option<OwnedFd>,
    /// Empty tmpfs that covers masked directories.
    empty: Option<OwnedFd>,
    /// False after the first `ENOSYS` of mount_setattr(2) (Linux 5.12).
    setattr: Cell<bool>,
    /// Umask of the caller.
    umask: Mode,
    /// Descriptors that are no longer needed: see [`State::retire`].
    retired: RefCell<Vec<OwnedFd>>,
    /// New mounts of a running container: see [`State::remember_mounts`].
    added: Option<RefCell<Vec<OwnedFd>>>,
}

/// Maximum number of descriptors that wait to be closed. A container may have any number of mounts.
const RETIRED_MAX: usize = 64;

impl<'p> State<'p> {
    /// Creates the state, and sets the umask to 0, so that modes are exact until the root is left. `trees` is the
    /// result of [`super::parent::open_trees`].
    pub fn new(
        proc: &'p Proc,
        trees: Vec<Option<OwnedFd>>,
        complete_volumes: &'p [CString],
    ) -> Self {
        Self {
            umask: umask(Mode::empty()),
            proc,
            root: None,
            trees,
            complete_volumes,
            source: None,
            nodes: None,
            null: None,
            empty: None,
            setattr: Cell::new(true),
            retired: RefCell::new(Vec::with_capacity(RETIRED_MAX)),
            added: None,
        }
    }

    /// Runs `run` with the caller's umask, for hooks before the pivot: otherwise all users could write the files that
    /// hooks create.
    pub fn with_callers_umask<T>(&self, run: impl FnOnce() -> T) -> T {
        umask(self.umask);
        let result = run();
        umask(Mode::empty());
        result
    }

    /// Returns the container's root, which is open before and after the pivot.
    ///
    /// # Errors
    ///
    /// No step has opened the root yet.
    pub fn root(&self) -> ChildResult<&Root> {
        self.root.as_ref().ok_or(Fault::refused("the rootfs is not open yet"))
    }

    /// Returns true if the parent must open the source of the mount. Otherwise the source is open afterwards.
    ///
    /// # Errors
    ///
    /// An error of open_tree(2) other than `EACCES`.
    pub fn needs_parent(&mut self, step: &Step) -> ChildResult<bool> {
        let source = match step {
            Step::Bind(mount) if mount.source.tree.is_none() => &mount.source,
            Step::OpenSource(source) => source,
            Step::CloneRoot { mapped, .. } => return Ok(mapped.is_some()),
            _ => return Ok(false),
        };
        if source.id_map.is_some() {
            return Ok(true);
        }
        if source.in_user_namespace {
            match source.open() {
                Err(Errno::EACCES) => return Ok(true),
                other => {
                    self.source = Some(other.map_err(|errno| bind::refused(source, errno))?);
                }
            }
        }
        Ok(false)
    }

    /// Stores the source that the parent has opened.
    pub fn take_source(&mut self, source: OwnedFd) {
        self.source = Some(source);
    }

    /// Stores descriptors to close later. Before execve, one call closes all descriptors that the program does not
    /// inherit, which costs less than one call for each.
    fn retire<const N: usize>(&self, done: [OwnedFd; N]) {
        let mut retired = self.retired.borrow_mut();
        if retired.len() + N > RETIRED_MAX {
            retired.clear();
        }
        retired.extend(done);
    }

    /// Changes the state to that on a kernel without mount_setattr(2).
    #[cfg(test)]
    fn without_setattr(self) -> Self {
        self.setattr.set(false);
        self
    }
}

/// Runs one step.
///
/// # Errors
///
/// The kernel rejects a system call of the step, or a path of the container leads to a forbidden file.
pub fn run(step: &Step, state: &mut State<'_>) -> ChildResult<()> {
    if !matches!(step, Step::Node(_) | Step::Symlink { .. }) {
        state.nodes = None;
    }
    match step {
        Step::Propagate { flags, .. } => pivot::propagate(*flags),
        Step::Isolate { ancestors, slave } => pivot::isolate(ancestors, *slave),
        Step::CloneRoot { path, slave, .. } => pivot::clone_root(state, path, *slave),
        Step::Overlay(overlay) => pivot::attach_overlay(state, overlay),
        Step::AttachRoot { path } => pivot::attach_copy(state, path),
        Step::OpenRoot { path } => pivot::open_root(state, path),
        Step::Mount(mount) => new_mount::run(state, mount),
        Step::Bind(mount) => bind::run(state, mount),
        Step::OpenSource(source) => bind::open_source(state, source),
        Step::Unmount(path) => running::unmount(state, path),
        Step::CgroupUnified(mount) => cgroup::unified(state, mount),
        Step::CgroupLegacy(mount) => cgroup::legacy(state, mount),
        Step::Node(node) => device::node(state, node),
        Step::Symlink { path, target, replace } => device::symlink(state, path, target, *replace),
        Step::Pivot { shared } => pivot::pivot(state, *shared),
        Step::MoveRoot { path } => pivot::move_root(state, path),
        Step::Chroot => pivot::chroot(state),
        Step::ReopenNull => device::reopen_null(state),
        Step::ReadonlyPath(path) => restrict::readonly_path(state, path),
        Step::Mask { path, label } => restrict::mask(state, path, label.as_deref()),
        Step::ReadonlyMount(path) => restrict::readonly_mount(state, path),
        Step::ReadonlyRoot => restrict::readonly_root(state),
    }
}

/// Type of a missing target that is created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Directory,
    File,
}

/// Open mount point. `created` is true if it did not exist.
struct MountPoint {
    fd: OwnedFd,
    created: bool,
}

impl State<'_> {
    fn place(&self, target: &Target, missing: Missing) -> ChildResult<MountPoint> {
        let root = self.root()?;
        let path = &target.path;
        let opened = if target.ordinary {
            root.open_no_symlinks(path, libc::O_PATH | libc::O_DIRECTORY)
        } else {
            root.open(path, libc::O_PATH | if target.keep_link { libc::O_NOFOLLOW } else { 0 })
        };
        let place = match opened {
            Ok(fd) => MountPoint { fd, created: false },
            Err(Errno::ENOENT) if missing == Missing::File => MountPoint {
                fd: root.make_missing_file(path, 0o644).during("create")?,
                created: true,
            },
            Err(Errno::ENOENT) => {
                MountPoint { fd: root.mkdir_missing(path, 0o755).during("mkdir")?, created: true }
            }
            // A procfs behind a symlink would mislead processes that trust /proc (CVE-2019-19921, CVE-2023-27561).
            Err(Errno::ELOOP | Errno::ENOTDIR) if target.ordinary => {
                let name = path.to_string_lossy();
                let name = name.trim_start_matches('/');
                let text = format!("filesystem {name:?} must be mounted on ordinary directory");
                return Err(Fault::refused(text));
            }
            Err(errno) => return Err(errno).during("open"),
        };
        // A symlink may lead into a procfs, which the plan rejects for the name alone.
        if !target.in_proc && !target.ordinary && is_proc(place.fd.as_fd())? {
            let text = format!("{path:?} cannot be mounted because it is inside /proc");
            return Err(Fault::refused(text));
        }
        Ok(place)
    }

    /// Changes an attached mount.
    fn set_attributes(
        &self,
        mount: BorrowedFd<'_>,
        extent: Extent,
        change: Attributes,
    ) -> ChildResult<()> {
        if self.set_detached(mount, extent, change)? {
            return Ok(());
        }
        self.set_attributes_by_path(mount, extent, change)
    }

    /// Changes an attached or detached mount. Returns false if the kernel is too old: it can then only change an
    /// attached mount.
    fn set_detached(
        &self,
        mount: BorrowedFd<'_>,
        extent: Extent,
        change: Attributes,
    ) -> ChildResult<bool> {
        if !self.setattr.get() {
            return Ok(false);
        }
        match mount_setattr(mount, extent, change) {
            Err(Errno::ENOSYS) => {
                self.setattr.set(false);
                Ok(false)
            }
            // Linux 5.12 and 5.13 support this flag only in mount(2).
            Err(Errno::EINVAL)
                if extent == Extent::One && (change.set | change.clear) & ATTR_NOSYMFOLLOW != 0 =>
            {
                Ok(false)
            }
            other => other.during("mount_setattr").map(|()| true),
        }
    }

    /// Changes an attached mount by mount(2), one mount at a time.
    fn set_attributes_by_path(
        &self,
        mount: BorrowedFd<'_>,
        extent: Extent,
        change: Attributes,
    ) -> ChildResult<()> {
        if change.propagation != 0 {
            let tree = if extent == Extent::Tree { libc::MS_REC } else { 0 };
            self.mount_by_path(mount, None, change.propagation | tree, None)?;
        }
        if change.set | change.clear == 0 {
            return Ok(());
        }
        if extent == Extent::Tree {
            return Err(Fault::refused("recursive mount options need Linux 5.12 or later"));
        }
        let kept = current_attributes(mount)? & !change.clear;
        let wanted = kept | change.set;
        let mut flags = flags(wanted) | libc::MS_REMOUNT | libc::MS_BIND;
        // Without any atime flag, mount(2) would keep the current one.
        if wanted & ATTR_ATIME == 0 {
            flags |= libc::MS_RELATIME;
        }
        self.mount_by_path(mount, None, flags, None)
    }

    /// Calls mount(2) on an open mount point.
    ///
    /// mount(2) needs a path. Only procfs has one for a descriptor, and the trusted procfs is used as the working
    /// directory, because mount(2) takes no directory descriptor.
    fn mount_by_path(
        &self,
        target: BorrowedFd<'_>,
        source: Option<(&CStr, &CStr)>,
        flags: u64,
        data: Option<&CStr>,
    ) -> ChildResult<()> {
        let path = fd_path(target)?;
        fchdir(self.proc).during("fchdir")?;
        let (source, kind) = source.unzip();
        let mounted = nix::mount::mount(
            source,
            path.as_c_str(),
            kind,
            MsFlags::from_bits_retain(flags),
            data,
        );
        if let Some(root) = &self.root {
            fchdir(root).during("fchdir")?;
        }
        mounted.during("mount")
    }

    /// Attaches a mount, and applies the changes that an attached mount needs.
    fn attach(
        &self,
        mount: BorrowedFd<'_>,
        place: BorrowedFd<'_>,
        finish: &Finish,
    ) -> ChildResult<()> {
        match move_mount(mount, place) {
            // ENOTDIR is the error of mount(2), which engines explain to their users.
            Err(Errno::EINVAL) if is_directory(mount)? != is_directory(place)? => {
                Err(Errno::ENOTDIR)
            }
            other => other,
        }
        .during("move_mount")?;
        self.remember(mount)?;
        self.finish(mount, finish)
    }

    fn finish(&self, mount: BorrowedFd<'_>, finish: &Finish) -> ChildResult<()> {
        for kind in &finish.propagation {
            let extent = if kind & libc::MS_REC != 0 { Extent::Tree } else { Extent::One };
            let propagation = kind & !libc::MS_REC;
            self.set_attributes(
                mount,
                extent,
                Attributes { propagation, ..Attributes::default() },
            )?;
        }
        if finish.recursive != Attributes::default() {
            self.set_attributes(mount, Extent::Tree, finish.recursive)?;
        }
        Ok(())
    }
}

/// Returns the path of an open file, relative to procfs as the working directory.
fn fd_path(fd: BorrowedFd<'_>) -> ChildResult<CString> {
    CString::new(format!("self/fd/{}", fd.as_raw_fd()))
        .map_err(|_| Fault::refused("a descriptor's path"))
}

fn is_proc(fd: BorrowedFd<'_>) -> ChildResult<bool> {
    Ok(fstatfs(fd).during("fstatfs")?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Converts the flags of fstatvfs(3) for a mount to attributes of mount_setattr(2).
fn current_attributes(mount: BorrowedFd<'_>) -> ChildResult<u64> {
    use crate::sys::mount as attr;
    const ST_RELATIME: u64 = 0x1000;
    const STATFS: [(u64, u64); 7] = [
        (libc::ST_RDONLY, attr::ATTR_RDONLY),
        (libc::ST_NOSUID, attr::ATTR_NOSUID),
        (libc::ST_NODEV, attr::ATTR_NODEV),
        (libc::ST_NOEXEC, attr::ATTR_NOEXEC),
        (libc::ST_NOATIME, attr::ATTR_NOATIME),
        (libc::ST_NODIRATIME, attr::ATTR_NODIRATIME),
        // libc lacks ST_NOSYMFOLLOW and ST_RELATIME, or lacks them for musl.
        (0x2000, ATTR_NOSYMFOLLOW),
    ];
    let flags = crate::sys::mount::flags_of(mount).during("fstatfs")?;
    let strict = flags & (libc::ST_NOATIME | ST_RELATIME) == 0;
    let all = STATFS.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, a)| all | a);
    Ok(if strict { all | attr::ATTR_STRICTATIME } else { all })
}

fn is_directory(fd: BorrowedFd<'_>) -> ChildResult<bool> {
    Ok(kind_of(&fstat(fd).during("fstat")?) == SFlag::S_IFDIR)
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

/// Returns true if the file is the null device, independent of its name.
fn is_null(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}

#[cfg(test)]
pub(super) mod tests;
