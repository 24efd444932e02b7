//! AF_UNIX sockets that carry descriptors: unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::{AcceptConn, SendTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, connect as nix_connect, getsockopt, recvmsg, sendmsg, setsockopt, socket, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::open::open;
use super::{Errno, Result};

/// Maximum number of descriptors in one message.
pub const MAX_FDS: usize = 4;

/// Creates a pair of connected sockets that keep message boundaries. Each end reports when the other is closed.
///
/// # Errors
///
/// An error of socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Connects to the listening stream socket at `path`.
///
/// # Errors
///
/// `EAGAIN` if the listener does not accept the connection, or later no data, for ten seconds. Another error of
/// connect(2).
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let end = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&end, SendTimeout, &TimeVal::seconds(10))?;
    match UnixAddr::new(path) {
        Ok(address) => nix_connect(end.as_raw_fd(), &address)?,
        // The address has room for 107 bytes, in which the procfs path of a descriptor always fits.
        Err(Errno::ENAMETOOLONG) => {
            let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC)?;
            let link = format!("/proc/self/fd/{}", place.as_raw_fd());
            nix_connect(end.as_raw_fd(), &UnixAddr::new(link.as_str())?)?;
        }
        Err(errno) => return Err(errno),
    }
    Ok(end)
}

/// Sends one message without SIGPIPE. A message with descriptors needs at least one byte, or the descriptors are lost.
///
/// # Errors
///
/// An error of sendmsg(2): `EPIPE` if the other end is closed.
pub fn send(end: BorrowedFd, payload: &[u8], fds: &[BorrowedFd]) -> Result<usize> {
    debug_assert!(fds.len() <= MAX_FDS && (fds.is_empty() || !payload.is_empty()));
    let mut raw: [RawFd; MAX_FDS] = [-1; MAX_FDS];
    for (slot, fd) in raw.iter_mut().zip(fds) {
        *slot = fd.as_raw_fd();
    }
    send_numbered(end, payload, &raw[..fds.len().min(MAX_FDS)])
}

/// Sends one message with descriptors by their numbers.
///
/// # Errors
///
/// `EBADF` if a descriptor is not open, or another error of sendmsg(2).
pub fn send_numbered(end: BorrowedFd, payload: &[u8], fds: &[RawFd]) -> Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(payload)];
    loop {
        match sendmsg::<()>(end.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Receives one message. Returns its length in `buffer` and its descriptors. A length of 0 means that the other end is
/// closed.
///
/// # Errors
///
/// `EMSGSIZE` if the message has more than [`MAX_FDS`] descriptors, or an error of recvmsg(2).
pub fn receive(end: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(end.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    // The kernel drops descriptors without room without an error.
    let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = part {
            // SAFETY: the kernel has just installed these descriptors, and no other owner exists.
            fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if truncated { Err(Errno::EMSGSIZE) } else { Ok((message.bytes, fds)) }
}

/// Takes ownership of the listening socket `number`, which the caller of this program passed, and sets close-on-exec.
///
/// # Errors
///
/// `EBADF` if it is not open, `ENOTSOCK` or `EINVAL` if it is not a listening socket.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the descriptor is only examined here. It is owned below if it is a listening socket.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if !getsockopt(&borrowed, AcceptConn)? {
        return Err(Errno::EINVAL);
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: this is called once at the start of the program, which has opened nothing with this number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Accepts the next connection at a listening socket, close-on-exec and non-blocking.
///
/// # Errors
///
/// An error of accept4(2): `EAGAIN` if no connection waits.
pub fn accept(listener: BorrowedFd) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just created this descriptor, and no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_descriptor_travels_with_its_bytes() {
        let (here, there) = pair().unwrap();
        let (_, file) = pair().unwrap();
        send(here.as_fd(), b"name", &[file.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (length, fds) = receive(there.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"name"[..], 1));
        drop(here);
        assert_eq!(receive(there.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn a_socket_is_reached_at_any_length_of_path() {
        let mut dir = std::env::temp_dir().join(format!("aril-socket-{}", std::process::id()));
        let top = dir.clone();
        dir.push("d".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        let short = top.join("s");
        let _listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, dir.join("s")).unwrap();
        let connected = connect(&dir.join("s"));
        let absent = connect(&dir.join("t"));
        std::fs::remove_dir_all(&top).unwrap();
        connected.unwrap();
        assert_eq!(absent.unwrap_err(), Errno::ENOENT);
    }
}
