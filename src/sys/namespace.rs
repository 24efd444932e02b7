//! setns(2), unshare(2), sethostname(2) and the loopback device.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

pub const TIME: libc::c_int = 0x80; // CLONE_NEWTIME, Linux 5.6

/// Joins the namespaces of `kinds` behind `fd`: one namespace file, or a pidfd (Linux 5.8).
pub fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<()> {
    // SAFETY: takes integers only; the borrow keeps the descriptor open. Single-threaded, so no
    // other thread's view of the file system or credentials is changed behind its back.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into()).map(drop)
}

pub fn unshare(kinds: libc::c_int) -> Result<()> {
    // SAFETY: takes an integer only; single-threaded, as above.
    check(unsafe { libc::unshare(kinds) }.into()).map(drop)
}

pub fn sethostname(name: &CStr) -> Result<()> {
    // SAFETY: pointer and length are of one live CStr; the kernel only reads it.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

pub fn setdomainname(name: &CStr) -> Result<()> {
    // SAFETY: as above.
    check(unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// Brings `lo` of the current network namespace up.
pub fn loopback_up() -> Result<()> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: takes integers only.
    let fd = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: a new descriptor of ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: ifreq is integers and byte arrays, for which zeroes are valid.
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

/// The user namespace that owns the namespace behind `fd` (Linux 4.9).
pub fn owner(fd: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    const NS_GET_USERNS: libc::c_int = 0xb701;
    // SAFETY: takes integers only; the borrow keeps the descriptor open.
    let owner = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) }.into())?;
    // SAFETY: the kernel just made this descriptor (which closes on execve), so nobody else owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(owner as i32) })
}
