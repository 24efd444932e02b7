//! A trustworthy procfs.
//!
//! Taken by the parent on the host, before the clone. Opened files act on whoever opens them:
//! `self` is the calling process, and `sys/net`, `sys/kernel/sem`, ... are those of the caller's
//! namespaces. So the child, inside its new namespaces, writes its own sysctls and its own
//! `/proc/self` through the host's mount, on which no container can have mounted anything
//! (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::record::read_fd;
use crate::error::{Error, OsContext, Result};
use crate::sys::{self, Errno, open::openat2};

/// The inode number of the root of every procfs.
const ROOT_INODE: u64 = 1;

/// As far as the kernel can be told: nothing outside, nothing mounted on top, no jump to an object.
const RESOLVE: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;

#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// The host's /proc, if it is one.
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

    /// Opens `path`, which is relative to the root of the procfs. Only below `self` and
    /// `thread-self`, which are symlinks themselves, are (ordinary) symlinks followed.
    pub fn open(&self, path: &CStr, flags: c_int) -> sys::Result<OwnedFd> {
        let bytes = path.to_bytes();
        let own = bytes.starts_with(b"self/") || bytes.starts_with(b"thread-self/");
        let resolve = if own { RESOLVE } else { RESOLVE | libc::RESOLVE_NO_SYMLINKS };
        openat2(self.0.as_fd(), path, flags, 0, resolve)
    }

    /// Writes all of `data` in one call, as files of procfs want it.
    pub fn write(&self, path: &CStr, data: &[u8]) -> sys::Result<()> {
        let file = self.open(path, libc::O_WRONLY)?;
        match nix::unistd::write(&file, data)? {
            n if n == data.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// Opens anew what descriptor `fd` of the calling process refers to, an O_PATH one included.
    pub fn reopen(&self, fd: RawFd, flags: c_int) -> sys::Result<OwnedFd> {
        let mut path = [0; 24];
        let path = own_descriptor(fd, &mut path);
        // The one jump that is wanted: it leads to the object that the caller holds already.
        openat2(self.0.as_fd(), path, flags, 0, 0)
    }

    /// A handle on the binary that the calling process runs.
    pub fn own_binary(&self) -> sys::Result<OwnedFd> {
        openat2(self.0.as_fd(), c"self/exe", libc::O_PATH, 0, 0)
    }

    /// The mount namespace of the calling process.
    pub fn mount_namespace(&self) -> sys::Result<OwnedFd> {
        openat2(self.0.as_fd(), c"self/ns/mnt", libc::O_RDONLY, 0, 0)
    }

    /// The whole of a file; `EFBIG` if it is longer than `limit` bytes.
    pub fn read(&self, path: &CStr, limit: usize) -> sys::Result<Vec<u8>> {
        let file = self.open(path, libc::O_RDONLY)?;
        read_fd(file.as_fd(), limit)
    }
}

/// `self/fd/<fd>`, without an allocation.
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
