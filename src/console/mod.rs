//! Terminal of a container's process.
//!
//! # Theory of operation
//!
//! The pseudoterminal is created in the *container's* devpts, so `tty` prints its name in the container. The child
//! creates it ([`child::open`]) by file descriptor and verifies every file, because the image decides what
//! `/dev/pts/ptmx` is (CVE-2025-52565). The slave becomes the controlling terminal and stdin, stdout and stderr. The
//! master goes
//!
//! - to the caller's console socket, which the parent connects to before the clone ([`parent::connect`]): one message
//!   with one file descriptor, without an answer ([`send_master`]); or
//! - in the foreground, to the parent over their own socket; a [`Relay`] then copies between the master and the
//!   caller's terminal.

pub mod child;
pub mod parent;
pub mod plan;
mod relay;

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, socket};

pub use plan::{Plan, Route, TerminalRequest};
pub use relay::Relay;

/// Name sent with the file descriptor. Receivers show it in logs; it must not be empty.
const MASTER_NAME: &[u8] = b"/dev/pts/ptmx";

/// Sends a master over a console socket. There is no answer to wait for.
///
/// # Errors
///
/// The socket is closed.
pub fn send_master(socket: impl AsFd, master: BorrowedFd) -> sys::Result<()> {
    socket::send(socket.as_fd(), MASTER_NAME, &[master]).map(drop)
}
