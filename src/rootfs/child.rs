//! Replays the steps in the child. No path of the container is used but through [`Root`].

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

/// What the steps hand to each other.
#[derive(Debug)]
pub struct State<'p> {
    proc: &'p Proc,
    root: Option<Root>,
    /// The overlay, if the parent made it.
    trees: Vec<Option<OwnedFd>>,
    /// Sources of volumes that have content already.
    complete_volumes: &'p [CString],
    /// That of the next bind, if it is open already.
    source: Option<OwnedFd>,
    /// The directory of the last node or symlink: they come in a row.
    nodes: Option<(CString, OwnedFd)>,
    /// What covers hidden files: the container's /dev/null, verified.
    null: Option<OwnedFd>,
    /// What covers hidden directories.
    empty: Option<OwnedFd>,
    /// Linux 5.12 has mount_setattr; cleared by the first `ENOSYS`.
    setattr: Cell<bool>,
    /// The caller's.
    umask: Mode,
    /// Of no more use; see [`State::retire`].
    retired: RefCell<Vec<OwnedFd>>,
    /// The mounts so far, of a container that runs already; see [`State::remember_mounts`].
    added: Option<RefCell<Vec<OwnedFd>>>,
}

/// How many descriptors may wait to be closed: a container has as many mounts as it likes.
const RETIRED_MAX: usize = 64;

impl<'p> State<'p> {
    /// `trees` is what [`super::parent::open_trees`] made. Modes are exact from here on: the umask
    /// is 0 until the root is left.
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

    /// For hooks before the pivot: what they make is not for everybody to write.
    pub fn with_callers_umask<T>(&self, run: impl FnOnce() -> T) -> T {
        umask(self.umask);
        let result = run();
        umask(Mode::empty());
        result
    }

    /// The container's root, once it is open: before the pivot and after.
    pub fn root(&self) -> ChildResult<&Root> {
        self.root.as_ref().ok_or(Fault::refused("the rootfs is not open yet"))
    }

    /// Whether the parent has to open the source of the mount; else it is open after this.
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

    /// The source that the parent has opened.
    pub fn take_source(&mut self, source: OwnedFd) {
        self.source = Some(source);
    }

    /// Done with, to be closed some time: before the program runs, all that it does not get is
    /// closed by one call, which is cheaper than one call for each.
    fn retire<const N: usize>(&self, done: [OwnedFd; N]) {
        let mut retired = self.retired.borrow_mut();
        if retired.len() + N > RETIRED_MAX {
            retired.clear();
        }
        retired.extend(done);
    }

    /// As on a kernel without mount_setattr.
    #[cfg(test)]
    fn without_setattr(self) -> Self {
        self.setattr.set(false);
        self
    }
}

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

/// What a missing target is created as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Directory,
    File,
}

/// The open place that a mount goes on, and whether it had to be made.
struct Place {
    fd: OwnedFd,
    made: bool,
}

impl State<'_> {
    fn place(&self, target: &Target, missing: Missing) -> ChildResult<Place> {
        let root = self.root()?;
        let path = &target.path;
        let opened = if target.ordinary {
            root.open_no_symlinks(path, libc::O_PATH | libc::O_DIRECTORY)
        } else {
            root.open(path, libc::O_PATH | if target.keep_link { libc::O_NOFOLLOW } else { 0 })
        };
        let place = match opened {
            Ok(fd) => Place { fd, made: false },
            Err(Errno::ENOENT) if missing == Missing::File => {
                Place { fd: root.make_missing_file(path, 0o644).during("create")?, made: true }
            }
            Err(Errno::ENOENT) => {
                Place { fd: root.mkdir_missing(path, 0o755).during("mkdir")?, made: true }
            }
            // CVE-2019-19921, CVE-2023-27561: elsewhere than at its name it deceives who trusts it.
            Err(Errno::ELOOP | Errno::ENOTDIR) if target.ordinary => {
                let name = path.to_string_lossy();
                let name = name.trim_start_matches('/');
                let text = format!("filesystem {name:?} must be mounted on ordinary directory");
                return Err(Fault::refused(text));
            }
            Err(errno) => return Err(errno).during("open"),
        };
        // A symlink may lead to where the name alone would have been refused by the plan.
        if !target.in_proc && !target.ordinary && is_proc(place.fd.as_fd())? {
            let text = format!("{path:?} cannot be mounted because it is inside /proc");
            return Err(Fault::refused(text));
        }
        Ok(place)
    }

    /// Changes a mount that is attached.
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

    /// Changes a mount, attached or not. False if the kernel is too old for that: only a mount that
    /// is attached can be changed then.
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
            // Linux 5.12 and 5.13 know this flag in mount(2) only.
            Err(Errno::EINVAL)
                if extent == Extent::One && (change.set | change.clear) & ATTR_NOSYMFOLLOW != 0 =>
            {
                Ok(false)
            }
            other => other.during("mount_setattr").map(|()| true),
        }
    }

    /// The same by mount(2), one mount at a time.
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
        // Said, for no flag at all would mean to keep what there is.
        if wanted & ATTR_ATIME == 0 {
            flags |= libc::MS_RELATIME;
        }
        self.mount_by_path(mount, None, flags, None)
    }

    /// mount(2) on an open place. Its path is the one thing to name it by, and the trusted procfs
    /// the one place to find that: as the working directory, for mount(2) has no argument for it.
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

    /// Attaches a mount and does what has to be done to it there.
    fn attach(
        &self,
        mount: BorrowedFd<'_>,
        place: BorrowedFd<'_>,
        finish: &Finish,
    ) -> ChildResult<()> {
        match move_mount(mount, place) {
            // What mount(2) says, and engines explain to their users.
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

/// Where procfs, as the working directory, shows an open file.
fn fd_path(fd: BorrowedFd<'_>) -> ChildResult<CString> {
    CString::new(format!("self/fd/{}", fd.as_raw_fd()))
        .map_err(|_| Fault::refused("a descriptor's path"))
}

fn is_proc(fd: BorrowedFd<'_>) -> ChildResult<bool> {
    Ok(fstatfs(fd).during("fstatfs")?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// What statfs says of the mount, in the words of mount_setattr.
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
        // ST_NOSYMFOLLOW and ST_RELATIME are missing from libc, or from its part for musl.
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

/// The null device, by what it is and not by what it is called.
fn is_null(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}

#[cfg(test)]
pub(super) mod tests;
