//! A directory tree that somebody else controls, while they may be changing it.
//!
//! All lookups are openat2(2) with `RESOLVE_IN_ROOT`: `/`, `..` and absolute symlinks stay inside,
//! and links that are not text (`/proc/self/fd/N`) are refused. What is created is created by name
//! in a directory that is already open, never through a path and never through a symlink
//! (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

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

/// Paths are absolute, as the container sees them, and clean: no `.`, `..` or empty part.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// A place in an open directory.
pub struct Entry<'p> {
    pub directory: OwnedFd,
    pub name: &'p CStr,
}

/// As many as the kernel follows in one lookup.
const MOST_LINKS: usize = 40;

const DIRECTORY: c_int = libc::O_PATH | libc::O_DIRECTORY;

impl Root {
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The root directory of the calling process.
    pub fn current() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        crate::sys::open::open(c"/", flags).map(Self)
    }

    /// Opens what is there. Without `O_NOFOLLOW` a symlink at the end is followed too.
    pub fn open(&self, path: &CStr, flags: c_int) -> Result<OwnedFd> {
        openat2(self.0.as_fd(), path, flags, 0, RESOLVE)
    }

    /// The regular file at `path`, for reading; `None` if it is something else. That is known before it
    /// is opened: a fifo would wait for a writer, and a device may begin to work (a watchdog does, and
    /// ends the host).
    pub fn regular_file(&self, path: &CStr, proc: &Proc) -> Result<Option<OwnedFd>> {
        let held = self.open(path, libc::O_PATH)?;
        match fstat(&held)?.st_mode & libc::S_IFMT {
            libc::S_IFREG => proc.reopen(held.as_raw_fd(), libc::O_RDONLY).map(Some),
            _ => Ok(None),
        }
    }

    /// As [`Root::open`] where no part of the path may be a symlink: `ELOOP`.
    pub fn open_no_symlinks(&self, path: &CStr, flags: c_int) -> Result<OwnedFd> {
        openat2(self.0.as_fd(), path, flags, 0, RESOLVE | libc::RESOLVE_NO_SYMLINKS)
    }

    /// The directory at `path`, made with its parents where missing. A symlink that leads to nothing
    /// is followed too, inside the root, as it would be if it led to something.
    pub fn mkdir_all(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        match self.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(Errno::ENOENT) => self.mkdir_missing(path, mode),
            other => other,
        }
    }

    /// The same for a path that was just found missing, which is not looked up again.
    pub fn mkdir_missing(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        self.make(path, mode, None)
    }

    /// The file at `path`, or where a symlink of that name leads, which was just found missing: made, or
    /// opened (`O_PATH`) if another process has made it in the meantime.
    pub fn make_missing_file(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        self.make(path, 0o755, Some(mode))
    }

    /// Walks `path` one name at a time, from open directory to open directory: no name is looked up
    /// twice, `..` leads back the way that was come, and never above the root. What is missing is made
    /// as a directory, or the last name as a file of the mode `file`.
    fn make(&self, path: &CStr, mode: mode_t, file: Option<mode_t>) -> Result<OwnedFd> {
        let mut above = vec![openat2(self.0.as_fd(), c".", DIRECTORY, 0, RESOLVE)?];
        let mut left: VecDeque<CString> = names(path.to_bytes())?;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let at = above.last().ok_or(Errno::EINVAL)?.as_fd();
            if name.as_c_str() == c".." {
                above.truncate((above.len() - 1).max(1));
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
                // Another process was faster, and may have made a symlink.
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
                        above.truncate(1);
                    }
                    for part in names(&target)?.into_iter().rev() {
                        left.push_front(part);
                    }
                }
                libc::S_IFDIR => above.push(found),
                _ if last && file.is_some() => return Ok(found),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        above.pop().ok_or(Errno::EINVAL)
    }

    /// The directory in which `path` is or would be, made (0755) with its parents where missing.
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

    /// A new empty file, and only a new one: `EEXIST` for anything that has the name, whatever a
    /// symlink of that name points to.
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

/// The parts of a path between its slashes, without those that lead nowhere.
fn names(path: &[u8]) -> Result<VecDeque<CString>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| CString::new(part).map_err(|_| Errno::EINVAL)).collect()
}

fn create(directory: BorrowedFd<'_>, name: &CStr, mode: mode_t) -> Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::from_bits_truncate(mode))
}

/// Makes and opens one directory. Somebody else may have made it first, but not as a symlink.
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

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("aril-root-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(path.join("root")).unwrap();
            Self(path)
        }

        fn root(&self) -> Root {
            Root::new(std::fs::File::open(self.0.join("root")).unwrap().into())
        }

        fn inside(&self, path: impl AsRef<Path>) -> PathBuf {
            self.0.join("root").join(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn makes_what_is_missing() {
        let folder = Folder::new("make");
        let root = folder.root();
        root.mkdir_all(c"/a/b/c", 0o755).unwrap();
        root.mkdir_all(c"/a/b/d", 0o755).unwrap();
        root.mkdir_all(c"/", 0o755).unwrap();
        root.create_file(c"/a/x/file", 0o644).unwrap();
        assert!(folder.inside("a/b/c").is_dir() && folder.inside("a/b/d").is_dir());
        assert!(folder.inside("a/x/file").is_file());
        assert_eq!(root.create_file(c"/a/x/file", 0o644).unwrap_err(), Errno::EEXIST);
    }

    #[test]
    fn absolute_symlinks_and_dots_stay_inside() {
        let folder = Folder::new("inside");
        std::fs::create_dir(folder.inside("tmp")).unwrap();
        symlink("/tmp", folder.inside("absolute")).unwrap();
        symlink("../../../../tmp", folder.inside("dots")).unwrap();
        let root = folder.root();
        root.create_file(c"/absolute/one", 0o644).unwrap();
        root.create_file(c"/dots/two", 0o644).unwrap();
        assert!(folder.inside("tmp/one").is_file() && folder.inside("tmp/two").is_file());
    }

    #[test]
    fn a_symlink_leads_nowhere_outside() {
        let folder = Folder::new("symlink");
        symlink(folder.0.join("canary"), folder.inside("console")).unwrap();
        symlink("/missing", folder.inside("dangling")).unwrap();
        symlink("../../../up", folder.inside("climbing")).unwrap();
        symlink("round", folder.inside("round")).unwrap();
        let root = folder.root();
        assert_eq!(root.create_file(c"/console", 0o600).unwrap_err(), Errno::EEXIST);
        root.mkdir_all(c"/dangling/a", 0o755).unwrap();
        root.mkdir_all(c"/climbing/b", 0o755).unwrap();
        assert!(folder.inside("missing/a").is_dir() && folder.inside("up/b").is_dir());
        assert_eq!(root.mkdir_all(c"/round/c", 0o755).unwrap_err(), Errno::ELOOP);
        assert!(!folder.0.join("canary").exists() && !folder.0.join("up").exists());
        assert_eq!(root.open_no_symlinks(c"/console", libc::O_PATH).unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn a_file_is_made_where_a_dangling_link_leads() {
        let folder = Folder::new("dangling");
        std::fs::create_dir_all(folder.inside("real/deep")).unwrap();
        symlink("real/deep", folder.inside("short")).unwrap();
        // Relative to where the link is, not to how it was named.
        symlink("../made/here", folder.inside("real/deep/up")).unwrap();
        symlink("/absolute/there", folder.inside("out")).unwrap();
        symlink("../../../../climbed", folder.inside("climb")).unwrap();
        let root = folder.root();
        for (path, made) in [
            (c"/short/up", "real/made/here"),
            (c"/out", "absolute/there"),
            (c"/climb", "climbed"),
            (c"/plain/file", "plain/file"),
        ] {
            root.make_missing_file(path, 0o644).unwrap();
            assert!(folder.inside(made).is_file(), "{made}");
            // As a second container does at the same time.
            root.make_missing_file(path, 0o644).unwrap();
        }
        symlink("two", folder.inside("one")).unwrap();
        symlink("one", folder.inside("two")).unwrap();
        assert_eq!(root.make_missing_file(c"/one", 0o644).unwrap_err(), Errno::ELOOP);
        assert_eq!(root.make_missing_file(c"/plain/file/x", 0o644).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.mkdir_missing(c"/plain/file", 0o755).unwrap_err(), Errno::ENOTDIR);
    }

    #[test]
    fn many_make_the_same_at_once() {
        let folder = Folder::new("many");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for n in 0..100 {
                        let path = CString::new(format!("/d{n}/e/file")).unwrap();
                        folder.root().make_missing_file(&path, 0o644).unwrap();
                        let path = CString::new(format!("/d{n}/e/directory")).unwrap();
                        folder.root().mkdir_missing(&path, 0o755).unwrap();
                    }
                });
            }
        });
        assert!(folder.inside("d99/e/file").is_file());
    }

    #[test]
    fn names_need_not_be_text() {
        let folder = Folder::new("bytes");
        symlink(OsStr::from_bytes(b"b\xff/c"), folder.inside("first")).unwrap();
        symlink("/d", folder.inside("second")).unwrap();
        let root = folder.root();
        root.mkdir_all(c"/first/e", 0o755).unwrap();
        assert!(folder.inside(OsStr::from_bytes(b"b\xff/c/e")).is_dir());
        root.mkdir_all(c"/second/\xfe/g", 0o755).unwrap();
        assert!(folder.inside(OsStr::from_bytes(b"d/\xfe/g")).is_dir());
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = Folder::new("regular");
        let (root, proc) = (folder.root(), Proc::of_the_host().unwrap());
        std::fs::write(folder.inside("file"), "text").unwrap();
        symlink("/file", folder.inside("link")).unwrap();
        nix::unistd::mkfifo(&folder.inside("fifo"), Mode::S_IRWXU).unwrap();
        for (path, there) in [(c"/file", true), (c"/link", true), (c"/fifo", false), (c"/", false)]
        {
            assert_eq!(root.regular_file(path, &proc).unwrap().is_some(), there, "{path:?}");
        }
        assert_eq!(root.regular_file(c"/none", &proc).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn magic_links_are_refused() {
        let folder = Folder::new("magic");
        let proc = Root::new(std::fs::File::open("/proc").unwrap().into());
        assert_eq!(proc.open(c"/self/cwd", libc::O_PATH).unwrap_err(), Errno::ELOOP);
        drop(folder);
    }
}
