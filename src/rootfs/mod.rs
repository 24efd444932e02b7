//! File systems of the container: its root, the mounts in it, its devices, and masked paths.
//!
//! # Theory of operation
//!
//! The plan has three lists of steps.
//!
//! - *Enter*: change the propagation, so that no mount reaches the host; clone the rootfs onto itself; make the mounts
//!   in order; create the device nodes in /dev.
//! - *Pivot*: make the clone `/`, and unmount the host's tree.
//! - *Restrict*: mask paths, and make paths read-only that must be writable until the sysctls are set.
//!
//! Every mount is created detached, then attached to an open directory of the rootfs. The container may change the tree
//! in the meantime (with a volume that another container shares). So each name is looked up once, inside the root, and
//! the mount is attached to the file that the lookup opened. No path of the container is looked up on the host.
//!
//! The source of a bind mount is a path of the host, which the child looks up before the pivot. A copy of a mount of
//! the child's own namespace keeps the flags that the kernel locks for a user namespace, and contains earlier mounts of
//! the list. If the container's user cannot access the source, or the mount is id-mapped, the parent enters the child's
//! mount namespace and opens the source ([`parent::open_source`]).

pub mod child;
pub mod options;
pub mod overlay;
pub mod parent;
pub mod plan;

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;

use crate::sys;
use crate::sys::mount::{Attributes, Extent, open_tree, open_tree_nofollow};

/// Steps of the child, in order: see the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub enter: Vec<Step>,
    pub pivot: Vec<Step>,
    /// Steps after the sysctls and before no_new_privs.
    pub restrict: Vec<Step>,
    /// Messages for the operator about settings that are no errors.
    pub warnings: Vec<String>,
}

/// Step of the child that changes the file systems.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Set the propagation of `/` (`MS_*`): of the host's tree before the pivot, of the container's root after it.
    Propagate {
        flags: u64,
        name: String,
    },
    /// Make the mount that contains the rootfs private or a slave: the nearest of `ancestors` that is a mount point.
    Isolate {
        ancestors: Vec<CString>,
        slave: bool,
    },
    /// Clone the rootfs onto itself. Paths of later steps are paths of the container.
    CloneRoot {
        path: CString,
        /// Mapping of an id-mapped clone, which the parent makes.
        mapped: Option<IdMap>,
        /// True if later mounts of the host below the rootfs appear in the container.
        slave: bool,
    },
    /// Mount an overlay instead of cloning the rootfs. Paths of later steps are paths of the container.
    Overlay(Box<overlay::Overlay>),
    /// Mount the parent's copy of the rootfs on the rootfs: without a mount namespace, and with mounts. The parent
    /// knows the ID of the mount.
    AttachRoot {
        path: CString,
    },
    /// Open the rootfs: without a mount namespace and without mounts.
    OpenRoot {
        path: CString,
    },
    Mount(Box<NewMount>),
    Bind(Box<BindMount>),
    /// Open the source of a bind mount outside of a running container.
    OpenSource(Source),
    /// Unmount a path of a running container.
    Unmount(CString),
    /// Mount cgroup2 on `target`: a bind mount of `source` or, if that is unavailable, a new mount.
    CgroupUnified(Box<CgroupMount>),
    /// Mount a tmpfs on `target` with a bind mount for each cgroup v1 hierarchy.
    CgroupLegacy(Box<CgroupMount>),
    Node(Node),
    Symlink {
        path: CString,
        target: CString,
        replace: bool,
    },
    /// Call pivot_root(2). `shared` is true if mounts of the old tree may still have peers on the host.
    Pivot {
        shared: bool,
    },
    /// Move the clone to `/` (`--no-pivot`).
    MoveRoot {
        path: CString,
    },
    Chroot,
    /// Replace standard streams that are the host's /dev/null by the container's.
    ReopenNull,
    ReadonlyPath(CString),
    Mask {
        path: CString,
        label: Option<CString>,
    },
    /// Make a mount read-only that had to be writable while it was filled.
    ReadonlyMount(CString),
    ReadonlyRoot,
}

/// Mount point in the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Absolute and clean path.
    pub path: CString,
    /// True if the mount may be in a procfs, or cover it.
    pub in_proc: bool,
    /// True if no part of the path may be a symlink, and it must be a directory.
    pub ordinary: bool,
    /// True to mount on a symlink at the end instead of following it.
    pub keep_link: bool,
}

/// Changes to a mount after it is attached.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Finish {
    pub recursive: Attributes,
    /// Propagation types (`MS_*`), one call each, in order.
    pub propagation: Vec<u64>,
}

/// New mount of a file system.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMount {
    pub kind: CString,
    pub source: CString,
    pub target: Target,
    pub attributes: u64,
    pub data: Vec<Parameter>,
    /// True to give the root of the mount the mode of the covered directory.
    pub inherit_mode: bool,
    /// Directory of the host to bind-mount if the kernel rejects the mount in a user namespace.
    pub fallback: Option<CString>,
    pub copy_up: bool,
    /// Security label that can only be set on the root of the mount.
    pub label: Option<CString>,
    /// Arguments for mount(2), for mounts that fsopen(2) cannot express.
    pub by_path: Option<ByPath>,
    pub finish: Finish,
    /// Options as in the config, for output.
    pub options: String,
}

/// Parameter of a file system: `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub key: CString,
    pub value: Option<CString>,
}

/// Arguments of mount(2) that a [`NewMount`] does not contain otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct ByPath {
    pub flags: u64,
    pub data: CString,
}

/// Bind mount.
#[derive(Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: Source,
    pub target: Target,
    pub change: Option<Change>,
    /// True if the source must be a procfs, because the target is /proc.
    pub proc_only: bool,
    /// True for an empty volume, into which the content of the covered directory is copied.
    pub fill: bool,
    /// True to create the same symlink at the target if the source is one.
    pub copy_link: bool,
    pub finish: Finish,
    pub options: String,
}

/// Source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path of the host.
    pub path: CString,
    pub extent: Extent,
    /// True to bind-mount a symlink at the end instead of following it.
    pub keep_link: bool,
    /// True if the child opens the source as the container's user. If it lacks permission, the parent opens it.
    pub in_user_namespace: bool,
    pub id_map: Option<IdMap>,
    /// Index of the tree that [`Step::OpenSource`] has opened.
    pub tree: Option<usize>,
}

impl Source {
    /// Opens a detached copy of the source, as the calling process sees it.
    fn open(&self) -> sys::Result<OwnedFd> {
        if self.keep_link {
            open_tree_nofollow(&self.path, self.extent)
        } else {
            open_tree(None, &self.path, self.extent)
        }
    }
}

/// Attributes in which a bind mount differs from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub attributes: Attributes,
    /// Attributes that the config clears explicitly. It is an error if one of them is locked.
    pub demanded: u64,
}

/// Mapping of an id-mapped mount: (container ID, host ID, size), in the order of uid_map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    pub extent: Extent,
    pub uids: Vec<[u32; 3]>,
    pub gids: Vec<[u32; 3]>,
}

/// Mount that shows the container's cgroup.
#[derive(Debug, PartialEq, Eq)]
pub struct CgroupMount {
    pub target: Target,
    pub attributes: u64,
    /// Parameters of cgroup2. The kernel checks them, but they are never set, because they affect the whole host.
    pub data: Vec<Parameter>,
    /// One hierarchy for cgroup2, or each hierarchy of version 1.
    pub hierarchies: Vec<Hierarchy>,
    /// True if an empty mount is acceptable: in a user namespace without a cgroup.
    pub or_empty: bool,
    pub finish: Finish,
    pub options: String,
}

/// Cgroup hierarchy in the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Directory on the host that the container sees.
    pub source: CString,
    /// Name in the tmpfs, for version 1.
    pub name: CString,
    /// Names of symlinks to it, for controllers that are mounted together.
    pub aliases: Vec<CString>,
}

/// Device node or FIFO.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: libc::mode_t,
    pub major: u32,
    pub minor: u32,
    pub mode: libc::mode_t,
    pub uid: u32,
    pub gid: u32,
    pub origin: Origin,
}

/// Origin of a device node. The kernel does not allow a user namespace to create one.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// The child creates it.
    Child,
    /// The host's node with the same path is bind-mounted.
    Host,
    /// The parent creates it, owned by IDs of the host, in a tmpfs with this label, and it is bind-mounted. `tree` is
    /// its index in the result of [`parent::open_trees`].
    Parent { tree: usize, label: Option<CString> },
}

struct Text<'t>(&'t CStr);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

fn parenthesised(f: &mut fmt::Formatter<'_>, options: &str) -> fmt::Result {
    if options.is_empty() { Ok(()) } else { write!(f, " ({options})") }
}

impl Step {
    /// Returns the step for an error: in runc's words for a mount, which engines search for, otherwise the text of the
    /// plan.
    pub fn attempt(&self) -> String {
        let (source, target, options) = match self {
            Step::Mount(m) => (m.source.as_c_str(), &m.target, &m.options),
            Step::Bind(m) => (m.source.path.as_c_str(), &m.target, &m.options),
            Step::CgroupUnified(m) | Step::CgroupLegacy(m) => (c"cgroup", &m.target, &m.options),
            other => return other.to_string(),
        };
        let (source, target) = (source.to_string_lossy(), target.path.to_string_lossy());
        let options = if options.is_empty() { String::new() } else { format!(" ({options})") };
        format!("error mounting {source:?} to rootfs at {target:?}{options}")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Propagate { name, .. } => write!(f, "make / {name}"),
            Step::Isolate { ancestors, slave } => {
                let how = if *slave { "a slave" } else { "private" };
                match ancestors.first() {
                    Some(rootfs) => write!(f, "make the mount of {} {how}", Text(rootfs)),
                    None => write!(f, "make the mount of the rootfs {how}"),
                }
            }
            Step::CloneRoot { path, mapped: None, .. } => {
                write!(f, "bind {} on itself", Text(path))
            }
            Step::CloneRoot { path, mapped: Some(_), .. } => {
                write!(f, "bind {} on itself (id-mapped)", Text(path))
            }
            Step::Overlay(overlay) => overlay.fmt(f),
            Step::AttachRoot { path } => {
                write!(f, "bind {} on itself, in the caller's mount namespace", Text(path))
            }
            Step::OpenRoot { path } => write!(f, "open {}", Text(path)),
            Step::Mount(m) => {
                write!(f, "mount {} on {}", Text(&m.kind), Text(&m.target.path))?;
                parenthesised(f, &m.options)
            }
            Step::Bind(m) => {
                write!(f, "bind {} on {}", Text(&m.source.path), Text(&m.target.path))?;
                parenthesised(f, &m.options)
            }
            Step::OpenSource(source) => write!(f, "open {}", Text(&source.path)),
            Step::Unmount(path) => write!(f, "unmount {}", Text(path)),
            Step::CgroupUnified(m) => {
                write!(f, "mount cgroup2 on {}", Text(&m.target.path))?;
                parenthesised(f, &m.options)
            }
            Step::CgroupLegacy(m) => {
                write!(f, "mount cgroup on {}", Text(&m.target.path))?;
                parenthesised(f, &m.options)
            }
            Step::Node(n) => n.fmt(f),
            Step::Symlink { path, target, .. } => {
                write!(f, "symlink {} -> {}", Text(path), Text(target))
            }
            Step::Pivot { .. } => f.write_str("pivot_root"),
            Step::MoveRoot { path } => write!(f, "move {} to /", Text(path)),
            Step::Chroot => f.write_str("chroot"),
            Step::ReopenNull => f.write_str("reopen /dev/null"),
            Step::ReadonlyPath(path) => write!(f, "read-only {}", Text(path)),
            Step::Mask { path, .. } => write!(f, "mask {}", Text(path)),
            Step::ReadonlyMount(path) => write!(f, "remount {} read-only", Text(path)),
            Step::ReadonlyRoot => f.write_str("remount / read-only"),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin == Origin::Host {
            return write!(f, "bind {0} on {0}", Text(&self.path));
        }
        let letter = match self.kind {
            libc::S_IFBLK => 'b',
            libc::S_IFIFO => 'p',
            _ => 'c',
        };
        write!(f, "mknod {} {letter} {}:{}", Text(&self.path), self.major, self.minor)?;
        write!(f, " {:04o}", self.mode)?;
        match self.origin {
            Origin::Parent { .. } => {
                write!(f, " {}:{} on the host, and bind-mount it", self.uid, self.gid)
            }
            Origin::Child | Origin::Host => Ok(()),
        }
    }
}
