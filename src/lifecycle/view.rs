//! Opens the root of a container for reading, without the file systems that are mounted in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;

use super::inside::Place;
use crate::error::{Error, OsContext, Result};
use crate::fs::{Tree, process};
use crate::id::HostPid;
use crate::layer::Ids;
use crate::layer::changes::{Change, Trees, changes};
use crate::layer::ids::Range;
use crate::rootfs::overlay;
use crate::spec::Config;
use crate::state::{Observed, Record};
use crate::sys::clone::SingleThread;
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{self, Errno, open::open};

/// Opens the root of a container's process. Without a process, opens the layers or the rootfs directory of the config.
pub(super) fn of(record: &Record, observed: &Observed) -> Result<Tree> {
    if observed.init().is_none() && record.overlay.is_some() {
        return layered(record, observed).map(|layered| layered.view);
    }
    let root = match observed.init() {
        Some(init) => of_process(record, init)?,
        None => of_folder(record)?,
    };
    Ok(Tree::new(root, format!("container {}", record.id)))
}

/// Opens a detached copy of the mount of the process's root, without the mounts in it: no procfs, no volume.
fn of_process(record: &Record, init: BorrowedFd<'_>) -> Result<OwnedFd> {
    let root = root_of_process(record.init_process_pid, init)?;
    let copy = clone_in_its_namespace(init, root.as_fd())
        .os("open_tree", format!("the root of container {}", record.id))?;
    read_only(copy)
}

/// Opens the process's root, with the mounts in it.
pub(super) fn root_of_process(pid: HostPid, init: BorrowedFd<'_>) -> Result<OwnedFd> {
    let link = format!("/proc/{pid}/root");
    let root = open(link.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", &link)?;
    // The process still exists, so the pid was its own when the link was followed.
    sys::pidfd::send_signal(init, 0).os("kill", pid)?;
    Ok(root)
}

/// Copies a mount in a child, because only a process of the mount's namespace can copy it.
fn clone_in_its_namespace(init: BorrowedFd<'_>, root: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
    let (ours, theirs) = sys::socket::pair()?;
    let child = sys::clone::clone3(SingleThread::proof(), 0, None, || {
        let copy = sys::namespace::setns(init, libc::CLONE_NEWNS)
            .and_then(|()| mount::open_tree(Some(root), c"", Extent::One));
        let sent = match copy {
            Ok(copy) => sys::socket::send(theirs.as_fd(), &[0; 4], &[copy.as_fd()]),
            Err(errno) => sys::socket::send(theirs.as_fd(), &(errno as i32).to_ne_bytes(), &[]),
        };
        sys::clone::exit_now(sent.is_err().into())
    })?;
    drop(theirs);
    let mut errno = [0; 4];
    let received = sys::socket::receive(ours.as_fd(), &mut errno);
    sys::pidfd::wait(child.pidfd.as_fd(), true)?;
    let (_, fds) = received?;
    let refused = match i32::from_ne_bytes(errno) {
        0 => Errno::EPIPE,
        errno => Errno::from_raw(errno),
    };
    fds.into_iter().next().ok_or(refused)
}

fn of_folder(record: &Record) -> Result<OwnedFd> {
    let path = &record.config.rootfs;
    let folder = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", path.display());
    let folder = folder
        .map_err(|e| e.hint("a container that does not run has the files that its bundle has"))?;
    match mount::open_tree(Some(folder.as_fd()), c"", Extent::One) {
        Ok(copy) => read_only(copy),
        // Without privileges, or with locked mounts: a mount in the root is rejected when the walk reaches it.
        Err(Errno::EPERM | Errno::EINVAL) => Ok(folder),
        Err(errno) => Err(Error::os("open_tree", path.display(), errno)),
    }
}

/// Makes the mount read-only, so that reading changes no access times.
fn read_only(mount: OwnedFd) -> Result<OwnedFd> {
    let change = Attributes { set: mount::ATTR_RDONLY, ..Attributes::default() };
    match mount::mount_setattr(mount.as_fd(), Extent::One, change) {
        // Linux 5.12.
        Ok(()) | Err(Errno::ENOSYS) => Ok(mount),
        Err(errno) => Err(Error::os("mount_setattr", "a copy of the root", errno)),
    }
}

/// Root of a container, its lower layers, and its upper directory: see [`crate::layer::changes`].
pub(super) struct Layered {
    pub(super) view: Tree,
    pub(super) below: Tree,
    /// Upper directory. Without one that the host can read, all files are compared.
    pub(super) upper: Option<Tree>,
}

pub(super) fn layered(record: &Record, observed: &Observed) -> Result<Layered> {
    let layers = record.overlay.as_ref().ok_or_else(|| {
        let rootfs = record.config.rootfs.display();
        Error::state(format!("container {} writes to {rootfs} itself, not to a layer", record.id))
            .hint("`--upper ephemeral` of run and create gives a container a layer of its own")
    })?;
    let userxattr = !nix::unistd::geteuid().is_root() || process::in_user_namespace();
    let below = match layers.lowers.as_slice() {
        [only] => overlay::view::open_directory(only)?,
        many => overlay::view::of(many, userxattr)?,
    };
    let upper = layers.upper.upper();
    let view = match (observed.init(), &upper) {
        (Some(init), _) => of_process(record, init)?,
        (None, Some(upper)) => {
            let mut folders = layers.lowers.clone();
            folders.push(upper.clone());
            overlay::view::of(&folders, userxattr)?
        }
        (None, None) => {
            let gone = format!("what container {} wrote was in memory, and is gone", record.id);
            return Err(Error::state(gone).hint("before it ends, commit or diff would see it"));
        }
    };
    let upper = upper.map(|path| overlay::view::open_directory(&path)).transpose()?;
    Ok(Layered {
        view: Tree::new(view, format!("container {}", record.id)),
        below: Tree::new(below, "the layers below"),
        upper: upper.map(|upper| Tree::new(upper, "the upper directory")),
    })
}

impl Layered {
    pub(super) fn changes(&self, ids: &Ids) -> Result<Vec<Change>> {
        let Self { view, below, upper } = self;
        changes(&Trees { merged: view, lower: below, upper: upper.as_ref(), ids })
    }
}

/// Returns the mappings of the container's ids to those of this process.
pub(super) fn ids(config: &Config, place: Place) -> Ids {
    let Some(linux) = config.spec.linux().as_ref().filter(|_| place == Place::Host) else {
        return Ids::default();
    };
    let ranges = |mappings: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        let mappings = mappings.iter().flatten();
        let range = |m: &oci_spec::runtime::LinuxIdMapping| Range {
            container: m.container_id(),
            host: m.host_id(),
            size: m.size(),
        };
        mappings.map(range).collect()
    };
    Ids { users: ranges(linux.uid_mappings()), groups: ranges(linux.gid_mappings()) }
}
