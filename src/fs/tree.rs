//! A whole tree that somebody else controls, read in order.
//!
//! Paths here are relative to the tree's root, of any length (`PATH_MAX` bounds one lookup, not a
//! tree), and made of names that were read from directories; the root's is empty. Nothing recurses
//! and the number of open descriptors does not grow with the depth: a tree may be thousands deep.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::dir::Dir;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};

use crate::error::{OsContext, Result};
use crate::sys::{self, Errno, open::openat2, xattr};

/// No way out of the tree: no symlink is followed, no mount is entered.
const RESOLVE: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;

/// What one lookup is given at most; `PATH_MAX` is 4096 with the NUL.
const LOOKUP: usize = 4000;

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// How errors call it: `the container`, or a path of the host's.
    name: String,
    /// The directory that was looked into last: mostly the next entry's too.
    last: RefCell<Option<(Vec<u8>, Rc<OwnedFd>)>>,
}

/// One entry, held by an `O_PATH` descriptor: what is read of it is all of the same object.
#[derive(Debug)]
pub struct Found {
    fd: OwnedFd,
    pub stat: FileStat,
}

impl Tree {
    pub fn new(root: OwnedFd, name: impl Into<String>) -> Self {
        Self { root, name: name.into(), last: RefCell::default() }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// For errors.
    pub fn shown(&self, path: &[u8]) -> String {
        format!("/{} of {}", shown(path), self.name)
    }

    /// What is at `path`, not following it; `None` if nothing is.
    pub fn look(&self, path: &[u8]) -> Result<Option<Found>> {
        match self.found(path) {
            // Of a tree that is being changed, the parent may be another thing by now.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            other => other.os("open", self.shown(path)).map(Some),
        }
    }

    fn found(&self, path: &[u8]) -> sys::Result<Found> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let fd = if path.is_empty() {
            openat2(self.root.as_fd(), c".", flags, 0, RESOLVE)?
        } else {
            let (parent, name) = split(path);
            let name = c_name(name)?;
            // The last name may be a symlink, held as one; without O_NOFOLLOW it would be refused.
            let resolve = RESOLVE & !libc::RESOLVE_NO_SYMLINKS;
            openat2(self.directory(parent)?.as_fd(), &name, flags, 0, resolve)?
        };
        let stat = fstat(&fd)?;
        Ok(Found { fd, stat })
    }

    /// The directory at `path`, an `O_PATH` descriptor, kept for the next lookup.
    pub fn directory(&self, path: &[u8]) -> sys::Result<Rc<OwnedFd>> {
        if let Some((_, fd)) = self.last.borrow().as_ref().filter(|(last, _)| last == path) {
            return Ok(fd.clone());
        }
        let fd = self.descend(path)?;
        *self.last.borrow_mut() = Some((path.to_owned(), fd.clone()));
        Ok(fd)
    }

    /// From the root, or from the directory of the last lookup if it is on the way.
    fn descend(&self, path: &[u8]) -> sys::Result<Rc<OwnedFd>> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let below = |last: &[u8]| path.strip_prefix(last)?.strip_prefix(b"/").map(<[u8]>::to_vec);
        let near =
            self.last.borrow().as_ref().and_then(|(last, fd)| Some((below(last)?, fd.clone())));
        let (mut rest, mut at) = match near {
            Some(near) => near,
            None => {
                let root = openat2(self.root.as_fd(), c".", flags, 0, RESOLVE)?;
                (path.to_owned(), Rc::new(root))
            }
        };
        loop {
            let (part, left) = lookup(&rest);
            if !part.is_empty() {
                at = Rc::new(openat2(at.as_fd(), &c_name(part)?, flags, 0, RESOLVE)?);
            }
            if left.is_empty() {
                return Ok(at);
            }
            rest = left.to_owned();
        }
    }

    /// The names in the directory at `path`, sorted by their bytes.
    pub fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let read = self.directory(path).and_then(|directory| names(directory.as_fd()));
        let mut names = read.os("read", self.shown(path))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Everything below `start`, and `start`: a directory before what is in it, siblings by name.
    pub fn walk(&self, start: &[u8]) -> Walk<'_> {
        Walk { tree: self, pending: vec![start.to_owned()] }
    }
}

pub struct Walk<'t> {
    tree: &'t Tree,
    pending: Vec<Vec<u8>>,
}

impl Iterator for Walk<'_> {
    type Item = Result<(Vec<u8>, Found)>;

    /// What has gone since its name was read is passed over.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let path = self.pending.pop()?;
            if let Some(found) = self.visit(&path).transpose() {
                return Some(found.map(|found| (path, found)));
            }
        }
    }
}

impl Walk<'_> {
    fn visit(&mut self, path: &[u8]) -> Result<Option<Found>> {
        let found = self.tree.look(path)?;
        if found.as_ref().is_some_and(Found::is_directory) {
            let names = self.tree.names(path)?;
            self.pending.extend(names.into_iter().rev().map(|name| join(path, &name)));
        }
        Ok(found)
    }
}

impl Found {
    pub fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// Where a symlink leads.
    pub fn target(&self) -> sys::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        Ok(readlinkat(&self.fd, c"")?.into_vec())
    }

    /// A file's content: of this file, whatever has its name by now.
    pub fn open(&self) -> sys::Result<File> {
        sys::open::open(self.link().as_c_str(), OFlag::O_RDONLY | OFlag::O_NOCTTY).map(File::from)
    }

    pub fn xattr(&self, name: &CStr) -> sys::Result<Option<Vec<u8>>> {
        xattr::get_by_path(&self.link(), name)
    }

    /// All extended attributes, sorted by name.
    pub fn xattrs(&self) -> sys::Result<Vec<(CString, Vec<u8>)>> {
        let link = self.link();
        let list = xattr::list_by_path(&link)?;
        let mut all = Vec::new();
        for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let name = c_name(name)?;
            if let Some(value) = xattr::get_by_path(&link, &name)? {
                all.push((name, value));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn link(&self) -> CString {
        c_name(format!("/proc/self/fd/{}", self.fd.as_raw_fd()).as_bytes()).expect("no NUL in it")
    }
}

/// The names in a directory, in the kernel's order.
fn names(directory: BorrowedFd<'_>) -> sys::Result<Vec<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = Dir::openat(directory, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A path for people: on one line, whatever it is made of.
pub fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for part in path.utf8_chunks() {
        text.extend(part.valid().chars().flat_map(|c| {
            let plain = !c.is_control() && c != '\\';
            let escaped = (!plain).then(|| c.escape_default());
            plain.then_some(c).into_iter().chain(escaped.into_iter().flatten())
        }));
        part.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Of a path that is not the root's.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// The order of [`Tree::walk`].
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    // No name has a NUL, and a slash comes before all that is in one.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// As much of `path` as one lookup takes, and the rest.
fn lookup(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= LOOKUP {
        return (path, &[]);
    }
    let slash = path[..LOOKUP].iter().rposition(|b| *b == b'/').expect("a name is short");
    (&path[..slash], &path[slash + 1..])
}

fn c_name(name: &[u8]) -> sys::Result<CString> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("aril-tree-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn fd(&self) -> OwnedFd {
            File::open(&self.0).unwrap().into()
        }

        fn tree(&self) -> Tree {
            Tree::new(self.fd(), "test")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            crate::fs::remove::tree(&self.0).unwrap();
        }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk(b"").map(|entry| shown(&entry.unwrap().0)).collect()
    }

    #[test]
    fn in_order() {
        let folder = Folder::new("order");
        std::fs::create_dir_all(folder.0.join("a/b")).unwrap();
        for name in ["a/z", "a.", "a-", "a\n", "a/b/c"] {
            std::fs::write(folder.0.join(name), "").unwrap();
        }
        let raw = std::ffi::OsStr::from_bytes(b"\xff");
        symlink("/etc", folder.0.join(raw)).unwrap();
        let seen = paths(&folder.tree());
        assert_eq!(seen, ["", "a", "a/b", "a/b/c", "a/z", "a\\n", "a-", "a.", "\\xff"]);
        assert_eq!(order(b"a/z", b"a\n"), Ordering::Less);
        assert_eq!(order(b"a/b", b"a/b/c"), Ordering::Less);
        let link = folder.tree().look(b"\xff").unwrap().unwrap();
        assert_eq!(link.target().unwrap(), b"/etc");
        assert!(link.xattrs().is_ok());
    }

    #[test]
    fn nothing_leads_outside() {
        let folder = Folder::new("outside");
        symlink("/", folder.0.join("up")).unwrap();
        let tree = folder.tree();
        assert!(tree.look(b"up/etc").unwrap().is_none());
        assert!(tree.look(b"../etc").is_err());
        assert!(tree.names(b"up").is_err());
        assert!(tree.look(b"missing/x").unwrap().is_none());
    }

    /// Deeper than one path, one stack or the descriptors of a process would reach.
    #[test]
    fn deep() {
        const DEPTH: usize = 1500;
        let folder = Folder::new("deep");
        let mut at = folder.fd();
        for _ in 0..DEPTH {
            let mode = Mode::S_IRWXU;
            nix::sys::stat::mkdirat(&at, "deep", mode).unwrap();
            at = nix::fcntl::openat(
                &at,
                "deep",
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
        }
        assert_eq!(paths(&folder.tree()).len(), DEPTH + 1);
    }
}
