//! The gate between create and start: a fifo in the state directory.
//!
//! Init opens it for writing, which blocks until a reader appears; `start` is that reader. It needs
//! no process of ours in between, and survives any of them being killed.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, OsContext, Result};
use crate::fs::Proc;
use crate::sys::open::open;
use crate::sys::{self, Errno};

/// A handle on the fifo that neither opens it nor lets its holder reach the directory it is in
/// (CVE-2016-9962).
pub fn handle(fifo: &Path) -> Result<OwnedFd> {
    open(fifo, OFlag::O_PATH | OFlag::O_CLOEXEC).os("open", fifo.display())
}

/// In the child: blocks until `start` comes.
pub fn wait(handle: BorrowedFd<'_>, proc: &Proc) -> sys::Result<()> {
    let fifo = loop {
        match proc.reopen(handle.as_raw_fd(), libc::O_WRONLY) {
            Err(Errno::EINTR) => continue,
            other => break other?,
        }
    };
    nix::unistd::write(&fifo, b"0").map(drop)
}

/// In `start`: lets init go. False if it died instead of coming through.
pub fn open_for(fifo: &Path, init: BorrowedFd<'_>) -> Result<bool> {
    let reader = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(fifo)
        .os("open", fifo.display())?;
    let mut polled =
        [PollFd::new(reader.as_fd(), PollFlags::POLLIN), PollFd::new(init, PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.os("poll", fifo.display())?,
        };
        // Data first: init may have come through and ended already.
        let ready = |p: &PollFd<'_>| p.revents().is_some_and(|r| r.contains(PollFlags::POLLIN));
        if ready(&polled[0]) {
            return match nix::unistd::read(&reader, &mut [0; 1]) {
                Ok(read) => Ok(read == 1),
                Err(errno) => Err(Error::os("read", fifo.display(), errno)),
            };
        }
        if ready(&polled[1]) {
            return Ok(false);
        }
    }
}
