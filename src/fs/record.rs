//! Small files of Aril on the host: replaced atomically, read up to a limit.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use crate::error::{Error, OsContext, Result};
use crate::sys::{self, Errno};

/// Writes `data` to `path` with exactly `mode`. A reader sees the old or the new file.
///
/// # Errors
///
/// `path` has no file name, or an error of open(2), write(2) or rename(2).
pub fn write(path: &Path, mode: u32, data: &[u8]) -> Result<()> {
    prepare(path, mode, data)?.commit()
}

/// Temporary file with the new content, in the directory of its path.
#[must_use]
#[derive(Debug)]
pub struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
}

/// Writes the temporary file of [`write`]. [`Prepared::commit`] then needs one rename(2).
///
/// # Errors
///
/// `path` has no file name, or an error of open(2) or write(2).
pub fn prepare(path: &Path, mode: u32, data: &[u8]) -> Result<Prepared> {
    let temporary = beside(path)?;
    let written = create(&temporary, mode).and_then(|mut file| file.write_all(data));
    let prepared = Prepared { temporary, path: path.to_owned() };
    written.map_err(|e| prepared.failed(&e))?;
    Ok(prepared)
}

impl Prepared {
    /// Replaces the file by the temporary file.
    ///
    /// # Errors
    ///
    /// An error of rename(2). The temporary file is removed.
    pub fn commit(self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.path).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        // The temporary file may not exist. The first error is the one to report.
        let _ = std::fs::remove_file(&self.temporary);
        Error::io("write", self.path.display(), error)
    }
}

/// Creates `path` with `data`, and returns true. Returns false if a file exists at `path`.
///
/// With `O_TMPFILE` a killed process leaves no temporary file.
///
/// # Errors
///
/// An error of open(2), write(2) or linkat(2).
pub fn place(path: &Path, mode: u32, data: &[u8]) -> Result<bool> {
    let directory = path.parent().unwrap_or(path);
    let nameless = OpenOptions::new()
        .write(true)
        .mode(mode)
        .custom_flags(libc::O_CLOEXEC | libc::O_TMPFILE)
        .open(directory);
    let placed = match nameless {
        Ok(mut file) => {
            file.write_all(data).os("write", path.display())?;
            let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, handle.as_str(), AT_FDCWD, path, flags)
        }
        // Overlayfs does not support O_TMPFILE before Linux 6.1.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let named = prepare(path, mode, data)?.temporary;
            let linked = linkat(AT_FDCWD, &named, AT_FDCWD, path, AtFlags::empty());
            std::fs::remove_file(&named).os("unlink", named.display())?;
            linked
        }
        Err(e) => return Err(Error::io("open", directory.display(), &e)),
    };
    match placed {
        Err(Errno::EEXIST) => Ok(false),
        other => other.map(|()| true).os("link", path.display()),
    }
}

/// Reads the regular file at `path`.
///
/// # Errors
///
/// The file has more than `limit` bytes, is not a regular file, or cannot be read.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    // O_NONBLOCK: a FIFO would wait for a writer.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).os("open", path.display())?;
    if !file.metadata().os("fstat", path.display())?.is_file() {
        return Err(Error::system(format!("{}: not a regular file", path.display())));
    }
    read_fd(file.as_fd(), limit).os("read", path.display())
}

/// Reads from `fd` to the end of the file.
///
/// # Errors
///
/// `EFBIG` for more than `limit` bytes, or an error of read(2).
pub(super) fn read_fd(fd: BorrowedFd<'_>, limit: usize) -> sys::Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut end = 0;
    loop {
        if data.len() - end < 4096 {
            data.resize(data.len() + 16384, 0);
        }
        match nix::unistd::read(fd, &mut data[end..]) {
            Ok(0) => break,
            Ok(n) => end += n,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if end > limit {
            return Err(Errno::EFBIG);
        }
    }
    data.truncate(end);
    Ok(data)
}

/// Returns the temporary path, in the same directory for rename(2). The writer holds the lock of the described object.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::system(format!("{}: not the name of a file", path.display())))?;
    let name = format!(".{}.new", name.to_string_lossy());
    Ok(path.with_file_name(name))
}

fn create(path: &Path, mode: u32) -> std::io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)
    };
    let file = match open() {
        // A killed process left the file.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            open()
        }
        other => other,
    }?;
    // The mode is independent of the umask.
    if mode & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn placed_once() {
        let dir = directory("placed");
        let path = dir.join("x");
        assert!(place(&path, 0o600, b"first").unwrap());
        assert!(!place(&path, 0o600, b"second").unwrap());
        assert_eq!(read(&path, 100).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing beside it");
        std::fs::remove_dir_all(&dir).unwrap();
        let error = place(&path, 0o600, b"third").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("aril-record-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn replaces_whole_and_leaves_nothing_else() {
        let dir = directory("replace");
        let path = dir.join("state.json");
        write(&path, 0o600, b"one").unwrap();
        write(&path, 0o644, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn refuses_what_is_long_or_no_file() {
        let dir = directory("refuse");
        let path = dir.join("long");
        write(&path, 0o600, &[b'x'; 40_000]).unwrap();
        assert_eq!(read(&path, 40_000).unwrap().len(), 40_000);
        assert_eq!(read(&path, 39_999).unwrap_err().errno(), Some(Errno::EFBIG));
        assert!(read(&dir, 10).unwrap_err().to_string().ends_with("not a regular file"));
        let missing = read(&dir.join("none"), 10).unwrap_err();
        assert!(missing.to_string().ends_with("none: no such file or directory"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
