//! The container's file systems: its root, what is mounted in it, its devices, what is hidden.
//!
//! # Theory of operation
//!
//! The plan is three lists. *Enter*: the mount namespace is cut off from the host's (never the
//! other way round: propagation first), the rootfs is cloned onto itself, the mounts are made in
//! order, then the nodes of /dev. *Pivot*: the clone becomes `/` and the host's tree is let go.
//! *Restrict*: what must stay writable until the sysctls are set becomes read-only or hidden.
//!
//! Every mount is made detached, then attached to an open directory of the rootfs. The container
//! may be changing the tree meanwhile (a volume shared with another container): a name is looked
//! up once, inside the root, and what was found is what is mounted on. Nothing of the container's
//! is ever looked up by a path of the host.
//!
//! A bind's source is a path of the host and is looked up before the pivot, by the child: a copy of
//! a mount of its own namespace keeps the flags that the kernel has locked for a user namespace, and
//! what earlier mounts of the list have put there. Where the container's user cannot reach it, or it
//! must be ID-mapped, the parent enters the child's mount namespace for it ([`parent::open_source`]).

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

/// What the child does, in order; see the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub enter: Vec<Step>,
    pub pivot: Vec<Step>,
    /// After the sysctls, before no_new_privs.
    pub restrict: Vec<Step>,
    /// What an operator should hear of and nobody refuses.
    pub warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets the propagation of `/` (`MS_*`): before the pivot the host's tree, after it our own.
    Propagate {
        flags: u64,
        name: String,
    },
    /// Makes the mount that holds the rootfs private, or a slave: the nearest of these that is a mount.
    Isolate {
        ancestors: Vec<CString>,
        slave: bool,
    },
    /// Clones the rootfs onto itself; from here on paths are the container's.
    CloneRoot {
        path: CString,
        /// The parent makes the clone, with owners mapped.
        mapped: Option<IdMap>,
        /// What the host mounts below the rootfs later appears in the container.
        slave: bool,
    },
    /// In the place of that, layers; from here on too.
    Overlay(Box<overlay::Overlay>),
    /// Without a mount namespace, and with mounts: the parent's copy of the rootfs, whose mount it knows, is
    /// mounted on the rootfs.
    AttachRoot {
        path: CString,
    },
    /// Without a mount namespace and without mounts: the rootfs as it is.
    OpenRoot {
        path: CString,
    },
    Mount(Box<NewMount>),
    Bind(Box<BindMount>),
    /// For a container that runs: the source of a bind is opened outside of it.
    OpenSource(Source),
    /// For a container that runs.
    Unmount(CString),
    /// cgroup2 at `target`: a bind of `source`, or where that is not to be had, a new mount.
    CgroupUnified(Box<CgroupMount>),
    /// A tmpfs at `target` with a bind for each hierarchy of version 1.
    CgroupLegacy(Box<CgroupMount>),
    Node(Node),
    Symlink {
        path: CString,
        target: CString,
        replace: bool,
    },
    /// `shared`: what the host's tree was made does not cut it off from its peers.
    Pivot {
        shared: bool,
    },
    /// `--no-pivot`: the clone is moved over `/`.
    MoveRoot {
        path: CString,
    },
    Chroot,
    /// Standard streams that are the host's /dev/null become the container's.
    ReopenNull,
    ReadonlyPath(CString),
    Mask {
        path: CString,
        label: Option<CString>,
    },
    /// A mount that had to be writable while it was filled.
    ReadonlyMount(CString),
    ReadonlyRoot,
}

/// A place in the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Absolute and clean.
    pub path: CString,
    /// May be inside a procfs, or cover it.
    pub in_proc: bool,
    /// No part may be a symlink, and it must be a directory.
    pub ordinary: bool,
    /// A symlink at the end is mounted on, not followed.
    pub keep_link: bool,
}

/// What is done to a mount once it is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Finish {
    pub recursive: Attributes,
    /// `MS_*`, each a call of its own, in order.
    pub propagation: Vec<u64>,
}

/// A new mount of a file system.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMount {
    pub kind: CString,
    pub source: CString,
    pub target: Target,
    pub attributes: u64,
    pub data: Vec<Datum>,
    /// Take over the mode of the directory that is covered.
    pub inherit_mode: bool,
    /// In a user namespace: a directory of the host that is bound where the kernel refuses the mount.
    pub instead: Option<CString>,
    pub copy_up: bool,
    /// A security label that can only be set on the mounted root.
    pub label: Option<CString>,
    /// For mount(2), where the calls by descriptor cannot express it.
    pub by_path: Option<ByPath>,
    pub finish: Finish,
    /// As in the config, for people.
    pub options: String,
}

/// One parameter of a file system: `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datum {
    pub key: CString,
    pub value: Option<CString>,
}

/// The arguments of mount(2) that a [`NewMount`] does not have anyway.
#[derive(Debug, PartialEq, Eq)]
pub struct ByPath {
    pub flags: u64,
    pub data: CString,
}

#[derive(Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: Source,
    pub target: Target,
    pub change: Option<Change>,
    /// On /proc itself: what is bound must be a procfs.
    pub proc_only: bool,
    /// An empty volume: it begins with what it covers.
    pub fill: bool,
    /// If the source is a symbolic link, the target becomes the same link.
    pub copy_link: bool,
    pub finish: Finish,
    pub options: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A path of the host.
    pub path: CString,
    pub extent: Extent,
    /// A symbolic link at the end is not followed.
    pub keep_link: bool,
    /// The container's user, who may be unable to reach the source, opens it: else the parent does.
    pub in_user_namespace: bool,
    pub id_map: Option<IdMap>,
    /// The index among the child's trees where [`Step::OpenSource`] has put it.
    pub tree: Option<usize>,
}

impl Source {
    /// A detached copy of the source, as the calling process sees it.
    fn open(&self) -> sys::Result<OwnedFd> {
        if self.keep_link {
            open_tree_nofollow(&self.path, self.extent)
        } else {
            open_tree(None, &self.path, self.extent)
        }
    }
}

/// How a bind shall differ from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub attributes: Attributes,
    /// Of what is cleared, that which the config names: not to be given up silently.
    pub demanded: u64,
}

/// How a bind shows owners: (container id, host id, size) in the words of uid_map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    pub extent: Extent,
    pub uids: Vec<[u32; 3]>,
    pub gids: Vec<[u32; 3]>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct CgroupMount {
    pub target: Target,
    pub attributes: u64,
    /// For cgroup2: checked by the kernel, but never set, as the whole host has them.
    pub data: Vec<Datum>,
    /// One for cgroup2, else one for each hierarchy.
    pub hierarchies: Vec<Hierarchy>,
    /// Nothing may be seen rather than nothing be mounted: a user namespace without a cgroup.
    pub or_empty: bool,
    pub finish: Finish,
    pub options: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The folder on the host that the container shall see.
    pub source: CString,
    /// Below the tmpfs, for version 1.
    pub name: CString,
    /// Symlinks to it, for controllers that are mounted together.
    pub aliases: Vec<CString>,
}

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

/// Where a device node comes from: the kernel lets no user namespace make any.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// The child makes it.
    Made,
    /// The host's node of the same path, which is bound.
    Host,
    /// The parent makes it, owned by ids of the host, in a tmpfs with this label; it is bound. `tree` is its
    /// index among what [`parent::open_trees`] makes.
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
    /// The step in the words of an error: runc's for a mount, which its callers search for, else the plan's.
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
            Origin::Parent { .. } => write!(f, " {}:{} outside, and bind it", self.uid, self.gid),
            Origin::Made | Origin::Host => Ok(()),
        }
    }
}
