//! A directory tree that a container controls, and may change during each call.
//!
//! All lookups use openat2(2) with `RESOLVE_IN_ROOT`: `/`, `..` and absolute symlinks stay inside the tree. Magic links
//! (`/proc/self/fd/N`) are rejected. New files are created by name in a directory that is already open, never through a
//! path and never through a symlink (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use libc::{c_int, mode_t};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::Proc;
use crate::sys::{Errno, Result, open::openat2};

const RESOLVE: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// Root directory of a tree. Paths are absolute, as the container sees them, and clean: without `.`, `..` or empty
/// parts.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// Name in an open directory.
pub struct Entry<'p> {
    pub directory: OwnedFd,
    pub name: &'p CStr,
}

/// Maximum number of symlinks in one lookup, as in the kernel.
const MOST_LINKS: usize = 40;

const DIRECTORY: c_int = libc::O_PATH | libc::O_DIRECTORY;

impl Root {
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens the root directory of the calling process.
    ///
    /// # Errors
    ///
    /// An error of open(2).
    pub fn current() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        crate::sys::open::open(c"/", flags).map(Self)
    }

    /// Opens the file at `path`. Without `O_NOFOLLOW` the kernel also follows a symlink at the end.
    ///
    /// # Errors
    ///
    /// An error of openat2(2): `ELOOP` for a magic link.
    pub fn open(&self, path: &CStr, flags: c_int) -> Result<OwnedFd> {
        openat2(self.0.as_fd(), path, flags, 0, RESOLVE)
    }

    /// Opens the regular file at `path` for reading. `None` if the file has another type.
    ///
    /// The type is checked before the file is opened: opening a FIFO waits for a writer, and opening a device may start
    /// it (a watchdog resets the host).
    ///
    /// # Errors
    ///
    /// An error of openat2(2) or fstat(2): `ENOENT` if there is no file.
    pub fn regular_file(&self, path: &CStr, proc: &Proc) -> Result<Option<OwnedFd>> {
        let held = self.open(path, libc::O_PATH)?;
        match fstat(&held)?.st_mode & libc::S_IFMT {
            libc::S_IFREG => proc.reopen(held.as_raw_fd(), libc::O_RDONLY).map(Some),
            _ => Ok(None),
        }
    }

    /// Opens the file at `path`, of which no part may be a symlink.
    ///
    /// # Errors
    ///
    /// `ELOOP` if a part of the path is a symlink, or another error of openat2(2).
    pub fn open_no_symlinks(&self, path: &CStr, flags: c_int) -> Result<OwnedFd> {
        openat2(self.0.as_fd(), path, flags, 0, RESOLVE | libc::RESOLVE_NO_SYMLINKS)
    }

    /// Opens the directory at `path`, and creates it and its parents with `mode` if they are missing.
    ///
    /// A symlink to a missing file is followed too, inside the root, as if its target existed.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` if a part of the path is not a directory, `ELOOP` for too many symlinks, or an error of openat2(2) or
    /// mkdirat(2).
    pub fn mkdir_all(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        match self.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(Errno::ENOENT) => self.mkdir_missing(path, mode),
            other => other,
        }
    }

    /// Does the same as [`Root::mkdir_all`] for a path that was just found missing, and does not look it up again.
    ///
    /// # Errors
    ///
    /// The errors of [`Root::mkdir_all`].
    pub fn mkdir_missing(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        self.make(path, mode, None)
    }

    /// Creates the file at `path`, or at the target of a symlink of that name. The path was just found missing. Opens
    /// the file (`O_PATH`) if another process has created it in the meantime.
    ///
    /// # Errors
    ///
    /// The errors of [`Root::mkdir_all`].
    pub fn make_missing_file(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        self.make(path, 0o755, Some(mode))
    }

    /// Creates the missing parts of `path`: directories, and with `file` a file of this mode at the end.
    ///
    /// Walks one name at a time, from open directory to open directory. No name is looked up twice. `..` leads back to
    /// the directory that the walk came from, and never above the root.
    fn make(&self, path: &CStr, mode: mode_t, file: Option<mode_t>) -> Result<OwnedFd> {
        let mut parents = vec![openat2(self.0.as_fd(), c".", DIRECTORY, 0, RESOLVE)?];
        let mut left: VecDeque<CString> = names(path.to_bytes())?;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let at = parents.last().ok_or(Errno::EINVAL)?.as_fd();
            if name.as_c_str() == c".." {
                parents.truncate((parents.len() - 1).max(1));
                continue;
            }
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let look = || openat(at, name.as_c_str(), flags, Mode::empty());
            let last = left.is_empty();
            let found = match look() {
                Err(Errno::ENOENT) => match (last, file) {
                    (true, Some(mode)) => create(at, &name, mode),
                    _ => mkdir(at, &name, mode),
                }
                // Another process has created the file in the meantime, and may have created a symlink.
                .or_else(|errno| match errno {
                    Errno::EEXIST | Errno::ENOTDIR | Errno::ELOOP => look(),
                    other => Err(other),
                })?,
                other => other?,
            };
            match fstat(&found)?.st_mode & libc::S_IFMT {
                libc::S_IFLNK if links == MOST_LINKS => return Err(Errno::ELOOP),
                libc::S_IFLNK => {
                    links += 1;
                    let target = readlinkat(&found, c"")?.into_vec();
                    if target.starts_with(b"/") {
                        parents.truncate(1);
                    }
                    for part in names(&target)?.into_iter().rev() {
                        left.push_front(part);
                    }
                }
                libc::S_IFDIR => parents.push(found),
                _ if last && file.is_some() => return Ok(found),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        parents.pop().ok_or(Errno::EINVAL)
    }

    /// Opens the parent directory of `path`, and creates it and its parents (mode 0755) if they are missing.
    ///
    /// # Errors
    ///
    /// `EISDIR` if `path` ends with a slash, or an error of [`Root::mkdir_all`].
    pub fn parent<'p>(&self, path: &'p CStr) -> Result<Entry<'p>> {
        let bytes = path.to_bytes_with_nul();
        let slash = bytes.iter().rposition(|b| *b == b'/').ok_or(Errno::EINVAL)?;
        let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]).map_err(|_| Errno::EINVAL)?;
        if name.is_empty() {
            return Err(Errno::EISDIR);
        }
        let parent = CString::new(&bytes[..slash.max(1)]).map_err(|_| Errno::EINVAL)?;
        Ok(Entry { directory: self.mkdir_all(&parent, 0o755)?, name })
    }

    /// Creates an empty file at `path`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the name exists, also as a symlink to a missing file; an error of [`Root::parent`] or open(2).
    pub fn create_file(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        let entry = self.parent(path)?;
        create(entry.directory.as_fd(), entry.name, mode)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Splits a path at its slashes, without empty parts and `.`.
fn names(path: &[u8]) -> Result<VecDeque<CString>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| CString::new(part).map_err(|_| Errno::EINVAL)).collect()
}

fn create(directory: BorrowedFd<'_>, name: &CStr, mode: mode_t) -> Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::from_bits_truncate(mode))
}

/// Creates and opens one directory. Another process may have created it first, but not as a symlink.
fn mkdir(directory: BorrowedFd<'_>, name: &CStr, mode: mode_t) -> Result<OwnedFd> {
    match mkdirat(directory, name, Mode::from_bits_truncate(mode)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    struct TestDirectory(PathBuf);

    impl TestDirectory {
        fn new(name: &str) -> Self {
            let name = format!("aril-root-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(path.join("root")).unwrap();
            Self(path)
        }

        fn root(&self) -> Root {
            Root::new(std::fs::File::open(self.0.join("root")).unwrap().into())
        }

        fn path(&self, path: impl AsRef<Path>) -> PathBuf {
            self.0.join("root").join(path)
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn makes_what_is_missing() {
        let directory = TestDirectory::new("make");
        let root = directory.root();
        root.mkdir_all(c"/a/b/c", 0o755).unwrap();
        root.mkdir_all(c"/a/b/d", 0o755).unwrap();
        root.mkdir_all(c"/", 0o755).unwrap();
        root.create_file(c"/a/x/file", 0o644).unwrap();
        assert!(directory.path("a/b/c").is_dir() && directory.path("a/b/d").is_dir());
        assert!(directory.path("a/x/file").is_file());
        assert_eq!(root.create_file(c"/a/x/file", 0o644).unwrap_err(), Errno::EEXIST);
    }

    #[test]
    fn absolute_symlinks_and_dots_stay_inside() {
        let directory = TestDirectory::new("inside");
        std::fs::create_dir(directory.path("tmp")).unwrap();
        symlink("/tmp", directory.path("absolute")).unwrap();
        symlink("../../../../tmp", directory.path("dots")).unwrap();
        let root = directory.root();
        root.create_file(c"/absolute/one", 0o644).unwrap();
        root.create_file(c"/dots/two", 0o644).unwrap();
        assert!(directory.path("tmp/one").is_file() && directory.path("tmp/two").is_file());
    }

    #[test]
    fn a_symlink_leads_nowhere_outside() {
        let directory = TestDirectory::new("symlink");
        symlink(directory.0.join("canary"), directory.path("console")).unwrap();
        symlink("/missing", directory.path("dangling")).unwrap();
        symlink("../../../up", directory.path("climbing")).unwrap();
        symlink("round", directory.path("round")).unwrap();
        let root = directory.root();
        assert_eq!(root.create_file(c"/console", 0o600).unwrap_err(), Errno::EEXIST);
        root.mkdir_all(c"/dangling/a", 0o755).unwrap();
        root.mkdir_all(c"/climbing/b", 0o755).unwrap();
        assert!(directory.path("missing/a").is_dir() && directory.path("up/b").is_dir());
        assert_eq!(root.mkdir_all(c"/round/c", 0o755).unwrap_err(), Errno::ELOOP);
        assert!(!directory.0.join("canary").exists() && !directory.0.join("up").exists());
        assert_eq!(root.open_no_symlinks(c"/console", libc::O_PATH).unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn a_file_is_made_where_a_dangling_link_leads() {
        let directory = TestDirectory::new("dangling");
        std::fs::create_dir_all(directory.path("real/deep")).unwrap();
        symlink("real/deep", directory.path("short")).unwrap();
        // A relative target starts at the directory of the symlink, not at the path by which it was found.
        symlink("../made/here", directory.path("real/deep/up")).unwrap();
        symlink("/absolute/there", directory.path("out")).unwrap();
        symlink("../../../../climbed", directory.path("climb")).unwrap();
        let root = directory.root();
        for (path, made) in [
            (c"/short/up", "real/made/here"),
            (c"/out", "absolute/there"),
            (c"/climb", "climbed"),
            (c"/plain/file", "plain/file"),
        ] {
            root.make_missing_file(path, 0o644).unwrap();
            assert!(directory.path(made).is_file(), "{made}");
            // A second container that starts at the same time makes the same call.
            root.make_missing_file(path, 0o644).unwrap();
        }
        symlink("two", directory.path("one")).unwrap();
        symlink("one", directory.path("two")).unwrap();
        assert_eq!(root.make_missing_file(c"/one", 0o644).unwrap_err(), Errno::ELOOP);
        assert_eq!(root.make_missing_file(c"/plain/file/x", 0o644).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.mkdir_missing(c"/plain/file", 0o755).unwrap_err(), Errno::ENOTDIR);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of a race")]
    fn many_make_the_same_at_once() {
        let directory = TestDirectory::new("many");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for n in 0..100 {
                        let path = CString::new(format!("/d{n}/e/file")).unwrap();
                        directory.root().make_missing_file(&path, 0o644).unwrap();
                        let path = CString::new(format!("/d{n}/e/directory")).unwrap();
                        directory.root().mkdir_missing(&path, 0o755).unwrap();
                    }
                });
            }
        });
        assert!(directory.path("d99/e/file").is_file());
    }

    #[test]
    fn names_need_not_be_text() {
        let directory = TestDirectory::new("bytes");
        symlink(OsStr::from_bytes(b"b\xff/c"), directory.path("first")).unwrap();
        symlink("/d", directory.path("second")).unwrap();
        let root = directory.root();
        root.mkdir_all(c"/first/e", 0o755).unwrap();
        assert!(directory.path(OsStr::from_bytes(b"b\xff/c/e")).is_dir());
        root.mkdir_all(c"/second/\xfe/g", 0o755).unwrap();
        assert!(directory.path(OsStr::from_bytes(b"d/\xfe/g")).is_dir());
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let directory = TestDirectory::new("regular");
        let (root, proc) = (directory.root(), Proc::of_the_host().unwrap());
        std::fs::write(directory.path("file"), "text").unwrap();
        symlink("/file", directory.path("link")).unwrap();
        nix::unistd::mkfifo(&directory.path("fifo"), Mode::S_IRWXU).unwrap();
        for (path, there) in [(c"/file", true), (c"/link", true), (c"/fifo", false), (c"/", false)]
        {
            assert_eq!(root.regular_file(path, &proc).unwrap().is_some(), there, "{path:?}");
        }
        assert_eq!(root.regular_file(c"/none", &proc).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn magic_links_are_refused() {
        let directory = TestDirectory::new("magic");
        let proc = Root::new(std::fs::File::open("/proc").unwrap().into());
        assert_eq!(proc.open(c"/self/cwd", libc::O_PATH).unwrap_err(), Errno::ELOOP);
        drop(directory);
    }
}
