//! The terminal of a container's process.
//!
//! # Theory of operation
//!
//! The pseudo terminal is one of the *container's* devpts, so that `tty` names it inside. The child
//! makes it ([`child::open`]), by descriptor and with every file verified: the container's image
//! decides what `/dev/pts/ptmx` is (CVE-2025-52565). The slave becomes its controlling terminal and
//! standard three; the master goes either
//!
//! - to the caller's console socket, which the parent has connected before the clone
//!   ([`parent::connect`]): one message, one descriptor, no answer ([`send_master`]); or
//! - in the foreground, to the parent by their own socket, and from there a [`Relay`] copies
//!   between it and the caller's terminal.

pub mod child;
pub mod parent;
pub mod plan;
mod relay;

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, socket};

pub use plan::{Input, Plan, Route};
pub use relay::Relay;

/// What the receiver is told of the descriptor: shown in logs, and never empty.
const MASTER_NAME: &[u8] = b"/dev/pts/ptmx";

/// Sends a master over a console socket. Nobody answers, so nobody waits.
pub fn send_master(socket: impl AsFd, master: BorrowedFd) -> sys::Result<()> {
    socket::send(socket.as_fd(), MASTER_NAME, &[master]).map(drop)
}
