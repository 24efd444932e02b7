//! netlink(7): sends several requests to the kernel in one message, and reads its answers.
//!
//! [`Socket::transact`] sends a [`Batch`] with one call. Only the last request of a batch asks for an acknowledgement,
//! because the kernel reports errors of the others anyway. So a successful batch of any length costs one send and one
//! receive. An error has the kernel's text (`NETLINK_EXT_ACK`, Linux 4.12).

mod batch;
mod reply;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

pub use batch::Batch;
pub use reply::{Attributes, Reply, integer, text};

use super::{Errno, Result, check};

/// Protocol for links, addresses, routes and queueing disciplines: rtnetlink(7).
pub const ROUTE: i32 = libc::NETLINK_ROUTE;
/// Protocol for sockets: sock_diag(7).
pub const SOCK_DIAG: i32 = libc::NETLINK_SOCK_DIAG;
/// Protocol for nftables.
pub const NETFILTER: i32 = libc::NETLINK_NETFILTER;

/// Maximum size of a datagram that the kernel sends (`NLMSG_GOODSIZE`), for every page size.
const BUFFER: usize = 8 * 1024;

/// Request that the kernel rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the request in its batch.
    pub index: usize,
    pub errno: Errno,
    /// Text of the kernel, often empty.
    pub text: String,
}

impl From<Errno> for Refusal {
    /// Converts an error of the socket itself.
    fn from(errno: Errno) -> Self {
        Self { index: 0, errno, text: String::new() }
    }
}

/// Netlink socket. It stays in the network namespace in which it was opened, even if the process joins another one.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Sequence number for the first request of the next batch. Answers with lower numbers are ignored.
    next: u32,
}

impl Socket {
    /// Opens a socket for `protocol`.
    ///
    /// # Errors
    ///
    /// An error of socket(2) or setsockopt(2).
    pub fn open(protocol: i32) -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers only.
        let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) }.into())?;
        // SAFETY: the descriptor is new and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let socket = Self { fd, next: 1 };
        socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        // An error message does not need a copy of the request.
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        Ok(socket)
    }

    fn set(&self, level: i32, option: i32, value: i32) -> Result<()> {
        let length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the pointer is to a live i32, whose length is passed. The kernel only reads it.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast::<libc::c_void>(),
                length,
            )
        };
        check(done.into()).map(drop)
    }

    /// Sends the requests, which the kernel executes in order.
    ///
    /// # Errors
    ///
    /// The first request that the kernel rejects. rtnetlink continues after it; nftables applies all requests of a
    /// batch or none. An error of the socket has the index 0.
    pub fn transact(&mut self, batch: Batch) -> std::result::Result<(), Refusal> {
        self.ask(batch, |_| {})
    }

    /// Sends the requests, and calls `each` with every answer.
    ///
    /// # Errors
    ///
    /// The errors of [`Socket::transact`].
    pub fn ask(
        &mut self,
        batch: Batch,
        mut each: impl FnMut(&Reply),
    ) -> std::result::Result<(), Refusal> {
        let (first, last) = (self.next, batch.last_answered());
        self.next += batch.len() as u32;
        self.send(&batch.finish(first))?;
        let mut buffer = vec![0; BUFFER];
        let mut refused: Option<Refusal> = None;
        loop {
            let length = self.receive(&mut buffer)?;
            for reply in reply::all(&buffer[..length]) {
                let Some(index) = reply.sequence.checked_sub(first) else { continue };
                let index = index as usize;
                match reply.ended() {
                    None => each(&reply),
                    Some(Err((errno, text))) => {
                        let refusal = Refusal { index, errno, text };
                        // No answer follows the rejection of a whole transaction, which has the index of its begin.
                        if index == last || index == 0 {
                            return Err(refused.unwrap_or(refusal));
                        }
                        refused.get_or_insert(refusal);
                    }
                    Some(Ok(())) if index == last => return refused.map_or(Ok(()), Err),
                    Some(Ok(())) => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        // wmem_default is about 200 KB by default. A larger buffer needs CAP_NET_ADMIN, as the requests themselves do.
        if bytes.len() > 64 * 1024 {
            let length = i32::try_from(bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
            self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, length)?;
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GETLINK: u16 = 18;
    const DELLINK: u16 = 17;
    const IFNAME: u16 = 3;

    fn link(index: u32) -> [u8; 16] {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header
    }

    #[test]
    fn the_kernel_answers() {
        let mut socket = Socket::open(ROUTE).unwrap();
        let mut batch = Batch::new();
        batch.request(GETLINK, 0, &link(1));
        let mut names = Vec::new();
        let each = |reply: &Reply| {
            names.extend(reply.attributes(16).find(|(kind, _)| *kind == IFNAME).map(|a| text(a.1)));
        };
        socket.ask(batch, each).unwrap();
        assert_eq!(names, ["lo"]);
    }

    #[test]
    fn a_refusal_names_its_request_and_the_socket_goes_on() {
        let mut socket = Socket::open(ROUTE).unwrap();
        let mut batch = Batch::new();
        batch.request(GETLINK, 0, &link(1));
        batch.request(DELLINK, 0, &link(0)).text(IFNAME, "no-such-link");
        batch.request(GETLINK, 0, &link(1));
        let refusal = socket.transact(batch).unwrap_err();
        assert_eq!(refusal.index, 1);
        assert!(matches!(refusal.errno, Errno::ENODEV | Errno::EPERM), "{refusal:?}");
        let mut again = Batch::new();
        again.request(GETLINK, 0, &link(1));
        socket.ask(again, |_| {}).unwrap();
    }
}
