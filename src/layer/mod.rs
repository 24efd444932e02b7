//! What a container wrote, as a layer: reading it, and writing it down.
//!
//! A container with an overlay sees a *view*: its upper directory over the lower ones. Both the view
//! and what is *below* (the lower directories alone) are mounted by the kernel, read-only and
//! attached nowhere, so whiteouts, opaque directories, redirects and metadata-only copies have the
//! meaning that the kernel gives them. The upper directory only says where to look ([`changes`]).
//!
//! ```text
//! view, below, upper -> changes -> [Change]           diff
//!                       pack    -> Sink: tar | folder commit, export
//! ```
//!
//! An [`Entry`] is as the container sees it: owners are its own ids, and so are those inside of
//! ACLs and file capabilities. Everything is read by descriptor ([`crate::fs::Tree`]); nothing that a
//! container has made is followed, recursed into or trusted to hold still.

pub mod changes;
pub mod folder;
pub mod ids;
pub mod pack;
pub mod tar;

use std::ffi::{CStr, CString};

use crate::error::{OsContext, Result};
use crate::fs::Tree;
use crate::fs::tree::Found;
pub use ids::Ids;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    File,
    /// Another name of the entry at this path.
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    /// The device's number.
    Character(u64),
    Block(u64),
    Directory,
    Fifo,
    /// The file of a unix socket: no layer keeps one.
    Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub form: Form,
    /// The twelve bits that chmod(2) changes.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a file, in bytes; else 0.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Sorted by name.
    pub xattrs: Vec<(CString, Vec<u8>)>,
}

impl Entry {
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

/// Not what overlayfs notes down for itself, nor the label that this host gave.
fn is_contents(name: &CStr) -> bool {
    let name = name.to_bytes();
    name != b"security.selinux"
        && !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
}
