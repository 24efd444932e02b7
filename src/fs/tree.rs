//! Reads a whole directory tree that a container controls, in order.
//!
//! Paths are relative to the root of the tree, and the path of the root is empty. They consist of names that were read
//! from directories, and may have any length: `PATH_MAX` limits one lookup, not a tree. Nothing recurses, and the
//! number of open descriptors does not grow with the depth, because a tree may have thousands of levels.

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

/// Restrictions of a lookup: it follows no symlink, enters no mount, and cannot leave the tree.
const RESOLVE: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;

/// Maximum length of the path of one lookup. `PATH_MAX` is 4096 with the NUL byte.
const LOOKUP: usize = 4000;

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// Name in errors: `the container`, or a path of the host.
    name: String,
    /// Directory of the last lookup, which most often is that of the next one too.
    last: RefCell<Option<(Vec<u8>, Rc<OwnedFd>)>>,
}

/// One entry, open as an `O_PATH` descriptor, so that everything is read from the same object.
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

    /// Returns the text for `path` in errors.
    pub fn shown(&self, path: &[u8]) -> String {
        format!("/{} of {}", shown(path), self.name)
    }

    /// Opens the entry at `path` without following a symlink. `None` if there is no entry.
    ///
    /// # Errors
    ///
    /// An error of openat2(2) or fstat(2).
    pub fn look(&self, path: &[u8]) -> Result<Option<Found>> {
        match self.found(path) {
            // While a process changes the tree, another file may have replaced the parent.
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
            // The last name may be a symlink. O_NOFOLLOW opens it, but RESOLVE_NO_SYMLINKS would reject it.
            let resolve = RESOLVE & !libc::RESOLVE_NO_SYMLINKS;
            openat2(self.directory(parent)?.as_fd(), &name, flags, 0, resolve)?
        };
        let stat = fstat(&fd)?;
        Ok(Found { fd, stat })
    }

    /// Opens the directory at `path` (`O_PATH`), and keeps it for the next lookup.
    ///
    /// # Errors
    ///
    /// An error of openat2(2).
    pub fn directory(&self, path: &[u8]) -> sys::Result<Rc<OwnedFd>> {
        if let Some((_, fd)) = self.last.borrow().as_ref().filter(|(last, _)| last == path) {
            return Ok(fd.clone());
        }
        let fd = self.descend(path)?;
        *self.last.borrow_mut() = Some((path.to_owned(), fd.clone()));
        Ok(fd)
    }

    /// Opens a directory from the root, or from the directory of the last lookup if `path` is below it.
    fn descend(&self, path: &[u8]) -> sys::Result<Rc<OwnedFd>> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let rest_of = |last: &[u8]| path.strip_prefix(last)?.strip_prefix(b"/").map(<[u8]>::to_vec);
        let near =
            self.last.borrow().as_ref().and_then(|(last, fd)| Some((rest_of(last)?, fd.clone())));
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

    /// Lists the names in the directory at `path`, sorted by their bytes.
    ///
    /// # Errors
    ///
    /// An error of openat2(2) or getdents64(2).
    pub fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let read = self.directory(path).and_then(|directory| names(directory.as_fd()));
        let mut names = read.os("read", self.shown(path))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Iterates over `start` and all entries below it: a directory before its content, siblings by name.
    pub fn walk(&self, start: &[u8]) -> Walk<'_> {
        Walk { tree: self, pending: vec![start.to_owned()] }
    }
}

/// Iterator of [`Tree::walk`].
pub struct Walk<'t> {
    tree: &'t Tree,
    pending: Vec<Vec<u8>>,
}

impl Iterator for Walk<'_> {
    type Item = Result<(Vec<u8>, Found)>;

    /// Returns the next entry. Skips an entry that was removed after its name was read.
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

    /// Reads the target of a symlink.
    ///
    /// # Errors
    ///
    /// An error of readlinkat(2).
    pub fn target(&self) -> sys::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        Ok(readlinkat(&self.fd, c"")?.into_vec())
    }

    /// Opens the content of this file, even if another file has its name now.
    ///
    /// # Errors
    ///
    /// An error of open(2).
    pub fn open(&self) -> sys::Result<File> {
        sys::open::open(self.link().as_c_str(), OFlag::O_RDONLY | OFlag::O_NOCTTY).map(File::from)
    }

    /// Reads one extended attribute. `None` if the file does not have it.
    ///
    /// # Errors
    ///
    /// An error of getxattr(2).
    pub fn xattr(&self, name: &CStr) -> sys::Result<Option<Vec<u8>>> {
        xattr::get_by_path(&self.link(), name)
    }

    /// Reads all extended attributes, sorted by name.
    ///
    /// # Errors
    ///
    /// An error of listxattr(2) or getxattr(2).
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

/// Lists the names in a directory, in the kernel's order.
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

/// Returns a path as text on one line. Control characters, backslashes and invalid UTF-8 are escaped.
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

/// Splits a path that is not the root's into its directory and its name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// Compares two paths in the order of [`Tree::walk`].
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    // No name contains a NUL, and a slash sorts before all bytes of a name.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Splits `path` into a part that is short enough for one lookup, and the rest.
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

    struct TestDirectory(PathBuf);

    impl TestDirectory {
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

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            crate::fs::remove::tree(&self.0).unwrap();
        }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk(b"").map(|entry| shown(&entry.unwrap().0)).collect()
    }

    #[test]
    fn in_order() {
        let directory = TestDirectory::new("order");
        std::fs::create_dir_all(directory.0.join("a/b")).unwrap();
        for name in ["a/z", "a.", "a-", "a\n", "a/b/c"] {
            std::fs::write(directory.0.join(name), "").unwrap();
        }
        let raw = std::ffi::OsStr::from_bytes(b"\xff");
        symlink("/etc", directory.0.join(raw)).unwrap();
        let seen = paths(&directory.tree());
        assert_eq!(seen, ["", "a", "a/b", "a/b/c", "a/z", "a\\n", "a-", "a.", "\\xff"]);
        assert_eq!(order(b"a/z", b"a\n"), Ordering::Less);
        assert_eq!(order(b"a/b", b"a/b/c"), Ordering::Less);
        let link = directory.tree().look(b"\xff").unwrap().unwrap();
        assert_eq!(link.target().unwrap(), b"/etc");
        assert!(link.xattrs().is_ok());
    }

    #[test]
    fn nothing_leads_outside() {
        let directory = TestDirectory::new("outside");
        symlink("/", directory.0.join("up")).unwrap();
        let tree = directory.tree();
        assert!(tree.look(b"up/etc").unwrap().is_none());
        assert!(tree.look(b"../etc").is_err());
        assert!(tree.names(b"up").is_err());
        assert!(tree.look(b"missing/x").unwrap().is_none());
    }

    /// The tree is deeper than a path, a stack or the descriptors of a process allow.
    #[test]
    fn deep() {
        const DEPTH: usize = 1500;
        let directory = TestDirectory::new("deep");
        let mut at = directory.fd();
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
        assert_eq!(paths(&directory.tree()).len(), DEPTH + 1);
    }
}
