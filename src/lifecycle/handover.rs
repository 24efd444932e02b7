//! What passes between the caller and a new process: sockets, descriptors, the pid file.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::pid_file;
use crate::console::parent::{PidfdOwner, connect, receive_master, send_pidfd};
use crate::console::{self, Relay, Route};
use crate::error::{OsContext, Result};
use crate::identity::descriptors::Passed;
use crate::init::parent::Init;
use crate::sys::{self, open::open};

/// As the command line has it; paths are absolute.
#[derive(Debug, Default)]
pub struct Handover {
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub passed: Passed,
}

/// The sockets of a [`Handover`], connected before anything is made.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Where the child sends its terminal's master: the caller's socket, or ours.
    console: Option<OwnedFd>,
    /// Our end, in the foreground.
    foreground: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

/// Standard descriptors that a detached container is not to keep open: those whose other end waits for
/// it to close them, or is a terminal.
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

    /// For the child.
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

    /// Tells the caller about the process, once it is set up.
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

    /// The relay between the container's terminal and the caller's, in the foreground.
    pub(super) fn relay(&mut self) -> Result<Option<Relay>> {
        self.console = None;
        self.foreground.take().map(|socket| Relay::new(receive_master(socket)?)).transpose()
    }
}
