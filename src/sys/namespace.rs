//! setns(2), unshare(2), sethostname(2), the loopback device and the owner of a namespace.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

pub const TIME: libc::c_int = 0x80; // CLONE_NEWTIME, Linux 5.6

/// Joins the namespaces of `kinds` (`CLONE_NEW*`) of `fd`, which is a namespace file or a pidfd (Linux 5.8).
///
/// # Errors
///
/// An error of setns(2).
pub fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<()> {
    // SAFETY: the arguments are integers, and the borrow keeps the descriptor open. The process has one thread, so no
    // other thread loses the file system or credentials that it expects.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into()).map(drop)
}

/// Moves the process into new namespaces of `kinds` (`CLONE_NEW*`).
///
/// # Errors
///
/// An error of unshare(2).
pub fn unshare(kinds: libc::c_int) -> Result<()> {
    // SAFETY: the argument is an integer. The process has one thread, as in [`setns`].
    check(unsafe { libc::unshare(kinds) }.into()).map(drop)
}

/// Sets the host name of the UTS namespace.
///
/// # Errors
///
/// An error of sethostname(2).
pub fn sethostname(name: &CStr) -> Result<()> {
    // SAFETY: pointer and length belong to one live CStr, which the kernel only reads.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
///
/// An error of setdomainname(2).
pub fn setdomainname(name: &CStr) -> Result<()> {
    // SAFETY: the same as for sethostname.
    check(unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// Brings `lo` of the current network namespace up.
///
/// # Errors
///
/// An error of socket(2) or of the `SIOCSIFFLAGS` of netdevice(7).
pub fn loopback_up() -> Result<()> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: the arguments are integers.
    let fd = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: the descriptor is new and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: ifreq consists of integers and byte arrays, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    check(
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }
            .into(),
    )
    .map(drop)
}

/// Opens the user namespace that owns the namespace of `fd` (Linux 4.9).
///
/// # Errors
///
/// `EPERM` if the caller's user namespace is not an ancestor of the owner, or another error of ioctl_nsfs(2).
pub fn owner(fd: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    const NS_GET_USERNS: libc::c_int = 0xb701;
    // SAFETY: the arguments are integers, and the borrow keeps the descriptor open.
    let owner = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) }.into())?;
    // SAFETY: the kernel has just created this descriptor (close-on-exec), and no other owner exists.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(owner as i32) })
}
