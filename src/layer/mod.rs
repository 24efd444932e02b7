//! Reads what a container wrote, and writes it as a layer.
//!
//! A container with an overlay has a *merged view*: its upper directory over the lower directories. The kernel mounts
//! the merged view, and the lower directories alone, as read-only detached mounts. Whiteouts, opaque directories,
//! redirects and metadata-only copies therefore mean what they mean to overlayfs. The upper directory only tells
//! which paths to compare ([`changes`]).
//!
//! ```text
//! merged, lower, upper -> changes -> [Change]                            diff
//!                         pack    -> Sink: tar archive | directory       commit, export
//! ```
//!
//! An [`Entry`] is as the container sees it: owners are the container's IDs, also in ACLs and file capabilities.
//! Everything is read by file descriptor ([`crate::fs::Tree`]). Symbolic links that a container made are not
//! followed, directories are walked without recursion, and files may change while they are read.

pub mod changes;
pub mod directory;
pub mod ids;
pub mod pack;
pub mod tar;

use std::ffi::{CStr, CString};

use crate::error::{OsContext, Result};
use crate::fs::Tree;
use crate::fs::tree::Found;
pub use ids::Ids;

/// Type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    File,
    /// Hard link to the entry at this path.
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    /// Device number.
    Character(u64),
    Block(u64),
    Directory,
    Fifo,
    /// Unix socket, which no layer contains.
    Socket,
}

/// Metadata of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub form: Form,
    /// Permission, set-id and sticky bits: the 12 bits of chmod(2).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Size of a file in bytes; otherwise 0.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(CString, Vec<u8>)>,
}

impl Entry {
    /// Reads the metadata of an open file, with the container's IDs.
    ///
    /// # Errors
    ///
    /// The metadata cannot be read, or an owner has no ID in the container.
    pub fn read(tree: &Tree, path: &[u8], found: &Found, ids: &Ids) -> Result<Self> {
        let stat = &found.stat;
        let form = match found.kind() {
            libc::S_IFDIR => Form::Directory,
            libc::S_IFLNK => Form::Symlink(found.target().os("readlink", tree.shown(path))?),
            libc::S_IFCHR => Form::Character(stat.st_rdev),
            libc::S_IFBLK => Form::Block(stat.st_rdev),
            libc::S_IFIFO => Form::Fifo,
            libc::S_IFSOCK => Form::Socket,
            _ => Form::File,
        };
        let xattrs = found.xattrs().os("listxattr", tree.shown(path))?;
        let kept = xattrs.into_iter().filter(|(name, _)| is_contents(name));
        Ok(Self {
            size: if form == Form::File { stat.st_size as u64 } else { 0 },
            form,
            mode: stat.st_mode & 0o7777,
            uid: ids.user(stat.st_uid),
            gid: ids.group(stat.st_gid),
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            xattrs: kept.map(|(name, value)| (ids.within(&name, value), name)).map(swap).collect(),
        })
    }
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// False for attributes that overlayfs keeps for itself, and for the host's SELinux label.
fn is_contents(name: &CStr) -> bool {
    let name = name.to_bytes();
    name != b"security.selinux"
        && !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
}
