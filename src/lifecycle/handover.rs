//! Sockets, descriptors and the pid file that the caller and a new process exchange.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::pid_file;
use crate::console::parent::{PidfdOwner, connect, receive_master, send_pidfd};
use crate::console::{self, Relay, Route};
use crate::error::{OsContext, Result};
use crate::identity::descriptors::PassedDescriptors;
use crate::init::parent::Init;
use crate::sys::{self, open::open};

/// Requests of the command line. Paths are absolute.
#[derive(Debug, Default)]
pub struct Handover {
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub passed: PassedDescriptors,
}

/// Sockets of a [`Handover`], connected before the first effect.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Socket for the terminal's master: the caller's, or this process's.
    console: Option<OwnedFd>,
    /// This process's end of the socket, in the foreground.
    foreground: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

/// Standard descriptors that a detached container closes: pipes with a waiting reader, and terminals.
#[derive(Debug)]
pub(super) struct Released {
    null: OwnedFd,
    numbers: Vec<RawFd>,
}

impl Released {
    pub(super) fn find() -> Result<Self> {
        let null = open("/dev/null", OFlag::O_RDWR).os("open", "/dev/null")?;
        let terminals = [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ];
        let waits = |(number, terminal): (RawFd, bool)| {
            let path = format!("/proc/self/fd/{number}");
            let pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
            (pipe || terminal).then_some(number)
        };
        Ok(Self { null, numbers: (0..).zip(terminals).filter_map(waits).collect() })
    }

    /// Socket for the child.
    pub(super) fn replaced(&self) -> (BorrowedFd<'_>, &[RawFd]) {
        (self.null.as_fd(), &self.numbers)
    }
}

impl Handover {
    pub(super) fn connect(&self, console: Option<&console::Plan>) -> Result<Sockets> {
        let (mut child, mut foreground) = (None, None);
        match console.map(|plan| &plan.route) {
            None => {}
            Some(Route::Socket(path)) => child = Some(connect(path)?),
            Some(Route::Foreground) => {
                let (ours, theirs) = sys::socket::pair().os("socketpair", "")?;
                (child, foreground) = (Some(theirs), Some(ours));
            }
        }
        let pidfd = self.pidfd_socket.as_deref().map(connect).transpose()?;
        Ok(Sockets { console: child, foreground, pidfd })
    }

    /// Passes the process to the caller after its setup.
    pub(super) fn deliver(&self, sockets: &Sockets, whose: PidfdOwner, init: &Init) -> Result<()> {
        if let Some(socket) = &sockets.pidfd {
            send_pidfd(socket, whose, init.pidfd())?;
        }
        self.pid_file.as_deref().map_or(Ok(()), |path| pid_file::write(path, init.pid))
    }
}

impl Sockets {
    pub(super) fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().map(AsFd::as_fd)
    }

    /// Creates the relay between the container's terminal and the caller's, in the foreground.
    pub(super) fn relay(&mut self) -> Result<Option<Relay>> {
        self.console = None;
        self.foreground.take().map(|socket| Relay::new(receive_master(socket)?)).transpose()
    }
}
