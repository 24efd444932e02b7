//! Writes a layer as a lower directory for overlayfs: a whiteout is a character device 0/0.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::pack::{Content, Sink};
use super::{Entry, Form};
use crate::error::{Error, OsContext, Result};
use crate::fs::{Tree, closed, tree};
use crate::sys::{self, Errno, xattr};

/// Device number of a whiteout. Creating one needs no privilege since Linux 5.8.
const WHITEOUT_DEVICE: u64 = 0;

/// Sink that writes a lower directory.
pub struct LayerDirectory {
    tree: Tree,
    /// Modification times of directories, set when no more entries are created in them.
    times: Vec<(Vec<u8>, (i64, u32))>,
}

impl LayerDirectory {
    /// Writes into `directory`, which is empty and used by no other process.
    pub fn new(directory: OwnedFd, name: impl Into<String>) -> Self {
        Self { tree: Tree::new(directory, name), times: Vec::new() }
    }

    fn make(&self, path: &[u8], entry: &Entry, content: Option<&mut Content>) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        let at = parent.as_fd();
        let mode = Mode::S_IRWXU;
        let made = match &entry.form {
            Form::Directory => mkdirat(at, name.as_c_str(), mode),
            Form::Symlink(target) => symlinkat(c_bytes(target).as_c_str(), at, name.as_c_str()),
            Form::Hardlink(first) => {
                let (directory, first) = self.place(first)?;
                linkat(&*directory, first.as_c_str(), at, name.as_c_str(), AtFlags::empty())
            }
            Form::Character(device) => mknodat(at, name.as_c_str(), SFlag::S_IFCHR, mode, *device),
            Form::Block(device) => mknodat(at, name.as_c_str(), SFlag::S_IFBLK, mode, *device),
            Form::Fifo => mknodat(at, name.as_c_str(), SFlag::S_IFIFO, mode, 0),
            Form::Socket => Err(Errno::EOPNOTSUPP),
            Form::File => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let file = openat(at, name.as_c_str(), flags, mode);
                let file = File::from(file.os("create", self.tree.shown(path))?);
                return self.fill(path, file, entry.size, content);
            }
        };
        made.os("create", self.tree.shown(path))
    }

    /// Writes the content of a file. Blocks of zeroes become holes.
    fn fill(
        &self,
        path: &[u8],
        mut file: File,
        size: u64,
        content: Option<&mut Content>,
    ) -> Result<()> {
        let what = || self.tree.shown(path);
        let Some(content) = content else { return Ok(()) };
        while let Some(bytes) = content.chunk()? {
            if bytes.iter().all(|b| *b == 0) {
                file.seek(SeekFrom::Current(bytes.len() as i64)).os("seek", what())?;
            } else {
                file.write_all(bytes).os("write", what())?;
            }
        }
        file.set_len(size).os("truncate", what())
    }

    /// Sets owner, mode, attributes and time. The owner comes first: chown clears set-id bits and capabilities.
    fn attributes(&self, path: &[u8], entry: &Entry) -> Result<()> {
        let (parent, name) = if path.is_empty() {
            (self.tree.directory(b"").os("open", self.tree.shown(path))?, c".".to_owned())
        } else {
            self.place(path)?
        };
        let (at, name) = (parent.as_fd(), name.as_c_str());
        if path.is_empty() && !closed::is_trusted_user(entry.uid) {
            let text = format!("user {} owns the container's root directory", entry.uid);
            return Err(Error::state(format!("{text} and could reach the layer's files"))
                .hint("commit to an archive, FILE.tar"));
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(at, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .os("chown", self.tree.shown(path))?;
        // `close` below sets the root's mode.
        if !path.is_empty() && !matches!(entry.form, Form::Symlink(_)) {
            // Not a symbolic link: this process created it.
            let mode = Mode::from_bits_truncate(entry.mode);
            fchmodat(at, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
                .os("chmod", self.tree.shown(path))?;
        }
        for (key, value) in &entry.xattrs {
            set_xattr(at, name, key, value)
                .os("setxattr", format!("{} {}", key.to_string_lossy(), self.tree.shown(path)))?;
        }
        if path.is_empty() {
            closed::layer(at, entry.mode)
                .os("close", self.tree.shown(path))
                .map_err(|e| e.hint("commit to an archive, FILE.tar"))?;
        }
        set_time(at, name, entry.mtime).os("utimensat", self.tree.shown(path))
    }

    fn place(&self, path: &[u8]) -> Result<(std::rc::Rc<OwnedFd>, CString)> {
        let (directory, name) = tree::split(path);
        let parent = self.tree.directory(directory).os("open", self.tree.shown(directory))?;
        Ok((parent, c_bytes(name)))
    }
}

/// Names and link targets come from the kernel and contain no NUL.
fn c_bytes(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL in it")
}

fn set_xattr(at: BorrowedFd<'_>, name: &CStr, key: &CStr, value: &[u8]) -> sys::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let entry = openat(at, name, flags, Mode::empty())?;
    let link = c_bytes(format!("/proc/self/fd/{}", entry.as_raw_fd()).as_bytes());
    xattr::set_by_path(&link, key, value)
}

fn set_time(at: BorrowedFd<'_>, name: &CStr, (seconds, nanos): (i64, u32)) -> sys::Result<()> {
    let time = TimeSpec::new(seconds, nanos.into());
    utimensat(at, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

impl Sink for LayerDirectory {
    fn put(&mut self, path: &[u8], entry: &Entry, content: Option<&mut Content>) -> Result<()> {
        self.make(path, entry, content)?;
        match entry.form {
            Form::Hardlink(_) => return Ok(()),
            Form::Directory => self.times.push((path.to_owned(), entry.mtime)),
            _ => {}
        }
        self.attributes(path, entry)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.place(path)?;
        mknodat(&*parent, name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), WHITEOUT_DEVICE)
            .os("mknod", self.tree.shown(path))
    }

    fn finish(&mut self) -> Result<()> {
        for (path, time) in self.times.iter().rev() {
            let directory = self.tree.directory(path).os("open", self.tree.shown(path))?;
            set_time(directory.as_fd(), c".", *time).os("utimensat", self.tree.shown(path))?;
        }
        Ok(())
    }
}
