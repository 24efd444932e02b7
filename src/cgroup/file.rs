//! Reads and writes the kernel's small files, in three system calls each.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Error, Result};
use crate::sys::open::open;

/// Longer than any file read here except lists of processes, which are read to their end.
const SMALL: usize = 4096;

/// Reads a file. Returns `None` if the file or its cgroup does not exist.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn read(path: &Path) -> Result<Option<String>> {
    let mut text = vec![0; SMALL];
    let read = open(path, OFlag::O_RDONLY).and_then(|file| nix::unistd::read(&file, &mut text));
    match read {
        Ok(n) => {
            text.truncate(n);
            Ok(Some(String::from_utf8_lossy(&text).into_owned()))
        }
        Err(errno) if is_gone(errno) => Ok(None),
        Err(errno) => Err(Error::os("read", path.display(), errno)),
    }
}

/// Reads a file of any length.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn read_all(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if is_gone(errno(&e)) => Ok(None),
        Err(e) => Err(Error::io("read", path.display(), &e)),
    }
}

/// Returns the value after `key` in a file of `key value` lines; `None` without such a file or line.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn read_key(path: &Path, key: &str) -> Result<Option<u64>> {
    let text = read(path)?.unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(value.and_then(|v| v.trim().parse().ok()))
}

/// Writes each line by a write(2) of its own.
///
/// # Errors
///
/// The kernel rejects a line.
pub fn write(path: &Path, value: &str) -> Result<()> {
    let failed = |call, line: &str, e: std::io::Error| {
        Error::io(call, path.display(), &e).context(format!("failed to write {line:?}"))
    };
    let mut file = File::options().write(true).open(path).map_err(|e| failed("open", value, e))?;
    for line in value.lines().filter(|line| !line.is_empty()) {
        file.write_all(line.as_bytes()).map_err(|e| failed("write", line, e))?;
    }
    Ok(())
}

/// Does the same for a cgroup that may have been removed. Returns true if it existed.
///
/// # Errors
///
/// The file exists and the kernel rejects a line.
pub fn write_if_there(path: &Path, value: &str) -> Result<bool> {
    match write(path, value) {
        Ok(()) => Ok(true),
        Err(e) if e.errno().is_some_and(is_gone) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Returns true if the file is missing, or its cgroup was removed while it was open.
pub fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV)
}

/// Returns the errno of an I/O error.
pub fn errno(e: &std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Removes a cgroup's directory.
///
/// # Errors
///
/// The cgroup contains processes or cgroups. A missing directory is no error.
pub fn rmdir(dir: &Path) -> std::result::Result<(), Errno> {
    std::fs::remove_dir(dir).map_err(|e| errno(&e))
}
