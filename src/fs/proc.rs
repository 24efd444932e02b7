//! The host's procfs, through a descriptor that the parent opens and checks before the clone.
//!
//! An open file of procfs acts on the process that uses it: `self` is the calling process, and `sys/net`,
//! `sys/kernel/sem` and others are those of the caller's namespaces. So the child, in its new namespaces, writes its
//! own sysctls and its own `/proc/self` through the host's mount. No container can have mounted anything on it
//! (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::record::read_fd;
use crate::error::{Error, OsContext, Result};
use crate::sys::{self, Errno, open::openat2};

/// Inode number of the root of every procfs.
const ROOT_INODE: u64 = 1;

/// Restrictions of a lookup: nothing outside of the procfs, no mount on top of it, no magic link.
const RESOLVE: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;

/// Descriptor of the host's /proc.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens the host's /proc.
    ///
    /// # Errors
    ///
    /// /proc is not the root of a proc file system, or an error of open(2).
    pub fn of_the_host() -> Result<Self> {
        let flags = nix::fcntl::OFlag::O_PATH
            | nix::fcntl::OFlag::O_DIRECTORY
            | nix::fcntl::OFlag::O_CLOEXEC;
        let fd = sys::open::open(c"/proc", flags).os("open", "/proc")?;
        let magic = fstatfs(&fd).os("fstatfs", "/proc")?.filesystem_type();
        let inode = fstat(&fd).os("fstat", "/proc")?.st_ino;
        if magic != PROC_SUPER_MAGIC || inode != ROOT_INODE {
            return Err(Error::system("/proc is not the root of a proc file system")
                .hint("mount one: mount -t proc proc /proc"));
        }
        Ok(Self(fd))
    }

    /// Opens `path`, which is relative to the root of the procfs. Symlinks are followed only below `self` and
    /// `thread-self`, which are symlinks themselves.
    ///
    /// # Errors
    ///
    /// An error of openat2(2): `EXDEV` if another file system is mounted on the path, `ELOOP` for a forbidden symlink.
    pub fn open(&self, path: &CStr, flags: c_int) -> sys::Result<OwnedFd> {
        let bytes = path.to_bytes();
        let own = bytes.starts_with(b"self/") || bytes.starts_with(b"thread-self/");
        let resolve = if own { RESOLVE } else { RESOLVE | libc::RESOLVE_NO_SYMLINKS };
        openat2(self.0.as_fd(), path, flags, 0, resolve)
    }

    /// Writes `data` with one write(2), which files of procfs require.
    ///
    /// # Errors
    ///
    /// An error of openat2(2) or write(2). `EIO` if the kernel accepted only a part.
    pub fn write(&self, path: &CStr, data: &[u8]) -> sys::Result<()> {
        let file = self.open(path, libc::O_WRONLY)?;
        match nix::unistd::write(&file, data)? {
            n if n == data.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// Opens the file of descriptor `fd` of the calling process again. `fd` may be an `O_PATH` descriptor.
    ///
    /// # Errors
    ///
    /// An error of openat2(2).
    pub fn reopen(&self, fd: RawFd, flags: c_int) -> sys::Result<OwnedFd> {
        let mut path = [0; 24];
        let path = own_descriptor(fd, &mut path);
        // A magic link is wanted here: it leads to the object that the caller has open already.
        openat2(self.0.as_fd(), path, flags, 0, 0)
    }

    /// Opens the binary that the calling process runs, as an `O_PATH` descriptor.
    ///
    /// # Errors
    ///
    /// An error of openat2(2).
    pub fn own_binary(&self) -> sys::Result<OwnedFd> {
        openat2(self.0.as_fd(), c"self/exe", libc::O_PATH, 0, 0)
    }

    /// Opens the mount namespace of the calling process.
    ///
    /// # Errors
    ///
    /// An error of openat2(2).
    pub fn mount_namespace(&self) -> sys::Result<OwnedFd> {
        openat2(self.0.as_fd(), c"self/ns/mnt", libc::O_RDONLY, 0, 0)
    }

    /// Reads the whole file `path`.
    ///
    /// # Errors
    ///
    /// `EFBIG` if the file has more than `limit` bytes, or an error of openat2(2) or read(2).
    pub fn read(&self, path: &CStr, limit: usize) -> sys::Result<Vec<u8>> {
        let file = self.open(path, libc::O_RDONLY)?;
        read_fd(file.as_fd(), limit)
    }
}

/// Writes `self/fd/<fd>` into `buffer`, without an allocation.
fn own_descriptor(fd: RawFd, buffer: &mut [u8; 24]) -> &CStr {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    // 8 bytes, at most 11 of the number, and the NUL fit.
    write!(rest, "self/fd/{fd}\0").expect("a number has at most 11 digits");
    CStr::from_bytes_until_nul(buffer).expect("written with its NUL")
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_belongs_to_the_caller() {
        let proc = Proc::of_the_host().unwrap();
        let stat = proc.read(c"self/stat", 4096).unwrap();
        assert!(stat.starts_with(std::process::id().to_string().as_bytes()));
        assert_eq!(proc.read(c"self/mountinfo", 3), Err(Errno::EFBIG));
    }

    #[test]
    fn is_not_led_outside() {
        let proc = Proc::of_the_host().unwrap();
        for (path, errno) in [
            (c"self/root/etc", Errno::ELOOP),
            (c"self/cwd", Errno::ELOOP),
            (c"../etc", Errno::EXDEV),
            (c"/etc/passwd", Errno::EXDEV),
            (c"net/dev", Errno::ELOOP),
        ] {
            assert_eq!(proc.open(path, libc::O_RDONLY).unwrap_err(), errno, "{path:?}");
        }
    }
}
