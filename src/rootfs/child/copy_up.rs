//! Copies the content of a covered directory into a new tmpfs (`tmpcopyup`) or an empty volume.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, Whence, fchown, fchownat, ftruncate, lseek, read, symlinkat, write};

use super::kind_of;
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::fs::Proc;
use crate::sys::xattr;

/// Maximum depth: more than any image has, and not too much for the stack.
const DEEPEST: usize = 128;

/// Copies the content of `from` into the detached mount `to`: directories, files, symlinks and nodes with owner, mode
/// and extended attributes.
pub(super) fn copy(proc: &Proc, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> ChildResult<()> {
    directory(proc, from, to, DEEPEST)
}

/// Copies the content into a volume, and also the owner, mode and attributes of its root.
pub(super) fn fill(proc: &Proc, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> ChildResult<()> {
    copy(proc, from, to)?;
    let (from, to) = (open(from, c".", OFlag::O_RDONLY), open(to, c".", OFlag::O_RDONLY));
    let (from, to) = (from.during("open")?, to.during("open")?);
    let stat = fstat(&from).during("fstat")?;
    set_owner(&to, &stat, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    attributes(from.as_fd(), to.as_fd())
}

fn directory(
    proc: &Proc,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    deeper: usize,
) -> ChildResult<()> {
    if deeper == 0 {
        return Err(Fault::refused("tmpcopyup: too many levels of directories"));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(from, c".", flags, Mode::empty()).during("tmpcopyup: open")?;
    for entry in entries.iter() {
        let entry = entry.during("tmpcopyup: getdents")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(proc, from, to, name, deeper)?;
        }
    }
    Ok(())
}

fn copy_entry(
    proc: &Proc,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    deeper: usize,
) -> ChildResult<()> {
    let source = open(from, name, OFlag::O_PATH).during("tmpcopyup: open")?;
    let stat = fstat(&source).during("tmpcopyup: fstat")?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    match kind_of(&stat) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode).during("tmpcopyup: mkdir")?;
            let made = open(to, name, OFlag::O_RDONLY).during("tmpcopyup: open")?;
            directory(proc, source.as_fd(), made.as_fd(), deeper - 1)?;
            let readable = open(source.as_fd(), c".", OFlag::O_RDONLY).during("tmpcopyup: open")?;
            set_owner(&made, &stat, mode)?;
            attributes(readable.as_fd(), made.as_fd())
        }
        SFlag::S_IFREG => {
            // The descriptor leads to the examined file, even if the name is another file now.
            let source = proc.reopen(source.as_raw_fd(), libc::O_RDONLY);
            file(&source.during("tmpcopyup: open")?, to, name, &stat, mode)
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(&source, c"").during("tmpcopyup: readlink")?;
            symlinkat(target.as_os_str(), to, name).during("tmpcopyup: symlink")?;
            let (uid, gid) = owner(&stat);
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).during("tmpcopyup: chown")
        }
        kind => {
            mknodat(to, name, kind, mode, stat.st_rdev).during("tmpcopyup: mknod")?;
            let (uid, gid) = owner(&stat);
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).during("tmpcopyup: chown")
        }
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn file(
    source: &OwnedFd,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &FileStat,
    mode: Mode,
) -> ChildResult<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let made = openat(to, name, flags, mode).during("tmpcopyup: create")?;
    contents(source, &made, stat.st_size)?;
    set_owner(&made, stat, mode)?;
    attributes(source.as_fd(), made.as_fd())
}

/// Copies data and keeps holes: an image may have a file of a terabyte without data. Data that is appended during the
/// copy is ignored.
fn contents(source: &OwnedFd, made: &OwnedFd, size: i64) -> ChildResult<()> {
    let mut at = 0;
    while at < size {
        let data = match lseek(source, at, Whence::SeekData) {
            // Only a hole follows.
            Err(Errno::ENXIO) => break,
            other => other.during("tmpcopyup: lseek")?,
        };
        at = lseek(source, data, Whence::SeekHole).during("tmpcopyup: lseek")?.min(size);
        lseek(source, data, Whence::SeekSet).during("tmpcopyup: lseek")?;
        lseek(made, data, Whence::SeekSet).during("tmpcopyup: lseek")?;
        range(source, made, at - data)?;
    }
    ftruncate(made, size).during("tmpcopyup: ftruncate")
}

/// Copies the next `left` bytes, or fewer if the file ends.
fn range(source: &OwnedFd, made: &OwnedFd, mut left: i64) -> ChildResult<()> {
    let mut buffer = [0; 32768];
    while left > 0 {
        let most = buffer.len().min(left as usize);
        match read(source, &mut buffer[..most]) {
            Ok(0) => break,
            Ok(length) => {
                write_all(made, &buffer[..length])?;
                left -= length as i64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).during("tmpcopyup: read"),
        }
    }
    Ok(())
}

/// Copies extended attributes, after the owner, whose change removes capabilities. Attributes that the target does not
/// support are ignored: `user.*` on a tmpfs before Linux 6.6, and labels that only a policy may set.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> ChildResult<()> {
    let mut names = match xattr::list(from, &mut []) {
        // The file has no attributes, or its file system does not support them.
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(()),
        Ok(length) => vec![0; length],
        Err(errno) => return Err(errno).during("tmpcopyup: listxattr"),
    };
    let length = xattr::list(from, &mut names).during("tmpcopyup: listxattr")?;
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let length = xattr::get(from, name, &mut []).during("tmpcopyup: getxattr")?;
        let mut value = vec![0; length];
        let length = xattr::get(from, name, &mut value).during("tmpcopyup: getxattr")?;
        match xattr::set(to, name, &value[..length]) {
            Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => {}
            other => other.during("tmpcopyup: setxattr")?,
        }
    }
    Ok(())
}

fn write_all(to: &OwnedFd, mut data: &[u8]) -> ChildResult<()> {
    while !data.is_empty() {
        let length = write(to, data).during("tmpcopyup: write")?;
        data = &data[length..];
    }
    Ok(())
}

fn owner(stat: &FileStat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// Sets owner and mode. The owner first, because its change clears the set-user-ID and set-group-ID bits.
fn set_owner(made: &OwnedFd, stat: &FileStat, mode: Mode) -> ChildResult<()> {
    let (uid, gid) = owner(stat);
    fchown(made, uid, gid).during("tmpcopyup: chown")?;
    fchmod(made, mode).during("tmpcopyup: chmod")
}
