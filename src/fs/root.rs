//! A directory tree that somebody else controls, while they may be changing it.
//!
//! All lookups are openat2(2) with `RESOLVE_IN_ROOT`: `/`, `..` and absolute symlinks stay inside,
//! and links that are not text (`/proc/self/fd/N`) are refused. What is created is created by name
//! in a directory that is already open, never through a path and never through a symlink
//! (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use libc::{c_int, mode_t};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::Proc;
use crate::path::clean;
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

enum Made {
    Directory(OwnedFd),
    /// The path leads on, to this one of the container's.
    Link(CString),
}

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
        self.mkdir_from(path.to_bytes().len(), path, mode)
    }

    /// The same for a path that was just found missing, which is not looked up again.
    pub fn mkdir_missing(&self, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        self.mkdir_from(parent_end(path.to_bytes()), path, mode)
    }

    /// `end`: how much of the path may exist.
    fn mkdir_from(&self, mut end: usize, path: &CStr, mode: mode_t) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            match self.mkdir_or_link(path.to_bytes(), end, mode)? {
                Made::Directory(directory) => return Ok(directory),
                Made::Link(instead) => path = instead,
            }
            end = path.to_bytes().len();
        }
        Err(Errno::ELOOP)
    }

    fn mkdir_or_link(&self, path: &[u8], end: usize, mode: mode_t) -> Result<Made> {
        let (mut directory, mut done) = self.deepest(path, end)?;
        while let Some((name, end)) = next_part(path, done)? {
            match mkdir(directory.as_fd(), &name, mode) {
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let target = readlinkat(&directory, name.as_c_str()).map_err(|e| match e {
                        Errno::EINVAL => Errno::ENOTDIR,
                        other => other,
                    })?;
                    let rest = path[end..].strip_prefix(b"/").unwrap_or_default();
                    let instead = Path::new("/")
                        .join(OsStr::from_bytes(&path[..done]))
                        .join(target)
                        .join(OsStr::from_bytes(rest));
                    // Clean, so that no `..` is left for mkdirat to climb by.
                    let clean = clean(&instead).into_os_string().into_vec();
                    return CString::new(clean).map(Made::Link).map_err(|_| Errno::EINVAL);
                }
                made => directory = made?,
            }
            done = end;
        }
        Ok(Made::Directory(directory))
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
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&entry.directory, entry.name, flags, Mode::from_bits_truncate(mode))
    }

    /// The longest leading part of `path[..end]` that exists, and where it ends.
    fn deepest(&self, path: &[u8], mut end: usize) -> Result<(OwnedFd, usize)> {
        loop {
            let part = CString::new(if end == 0 { b"/" } else { &path[..end] })
                .map_err(|_| Errno::EINVAL)?;
            match self.open(&part, libc::O_PATH | libc::O_DIRECTORY) {
                Err(Errno::ENOENT) if end > 0 => {
                    end = parent_end(&path[..end]);
                }
                other => return other.map(|fd| (fd, end)),
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the part of `path` before its last slash ends.
fn parent_end(path: &[u8]) -> usize {
    path.iter().rposition(|b| *b == b'/').unwrap_or(0)
}

/// The part of `path` after `done` and its end.
fn next_part(path: &[u8], done: usize) -> Result<Option<(CString, usize)>> {
    let start = done + path[done..].iter().take_while(|b| **b == b'/').count();
    let length = path[start..].iter().take_while(|b| **b != b'/').count();
    let name = &path[start..start + length];
    if name.is_empty() {
        return Ok(None);
    }
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    Ok(Some((name, start + length)))
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
