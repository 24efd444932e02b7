//! Blocks a created container until `start`, by a fifo in the state directory: the exec fifo.
//!
//! `create` opens the fifo for reading and writing and fills it. Init inherits that descriptor and
//! writes one more byte, which blocks until `start` reads. Init opens no file at the gate, so it needs no
//! procfs. No other process of Aril waits with it, so none can be killed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, OsContext, Result};
use crate::sys::open::open;
use crate::sys::{self, Errno};

/// Byte that init writes. It fits into the fifo as soon as `start` reads.
const THROUGH: u8 = b'0';
/// Byte that fills the fifo.
const FILLER: u8 = b'.';
/// Capacity of the fifo in bytes. The kernel rounds it up to a page.
const CAPACITY: i32 = 4096;

/// Opens the fifo and fills it: a write to the returned descriptor blocks until a reader empties the fifo.
/// The descriptor leads to no directory of the host (CVE-2016-9962).
///
/// # Errors
/// If the fifo cannot be opened, resized or written.
pub fn close(fifo: &Path) -> Result<OwnedFd> {
    let path = fifo.display();
    let gate = open(fifo, OFlag::O_RDWR | OFlag::O_CLOEXEC).os("open", &path)?;
    let capacity = fcntl(&gate, FcntlArg::F_SETPIPE_SZ(CAPACITY)).os("fcntl", &path)?;
    let filler = vec![FILLER; capacity as usize];
    nix::unistd::write(&gate, &filler).os("write", &path)?;
    Ok(gate)
}

/// Blocks the child until `start` reads from the fifo.
///
/// # Errors
/// If write(2) fails.
pub fn wait(gate: BorrowedFd<'_>) -> sys::Result<()> {
    loop {
        match nix::unistd::write(gate, &[THROUGH]) {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

/// Unblocks init, for `start`. Returns false if init has ended instead.
///
/// # Errors
/// If the fifo cannot be opened or read.
pub fn open_for(fifo: &Path, init: BorrowedFd<'_>) -> Result<bool> {
    let path = fifo.display();
    let reader =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).os("open", &path)?;
    // Init is the first in the list: if it has ended, its byte is in the fifo already.
    let mut polled =
        [PollFd::new(init, PollFlags::POLLIN), PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    let mut read = [0; CAPACITY as usize];
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.os("poll", &path)?,
        };
        let ready = |p: &PollFd<'_>| p.revents().is_some_and(|r| r.contains(PollFlags::POLLIN));
        if ready(&polled[1]) {
            let length = match nix::unistd::read(&reader, &mut read) {
                Err(errno) => return Err(Error::os("read", path, errno)),
                Ok(length) => length,
            };
            if read[..length].last() == Some(&THROUGH) {
                return Ok(true);
            }
        } else if ready(&polled[0]) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::sys::clone::{SingleThread, Spawned, clone3, exit_now};
    use crate::sys::pidfd::{Ended, wait as reap};

    struct Fifo(PathBuf);

    impl Fifo {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("aril-gate-{}-{name}", std::process::id()));
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            Self(path)
        }

        /// Clones a process that exits with status 0 once it is unblocked.
        fn waiter(&self) -> Spawned {
            let gate = close(&self.0).unwrap();
            clone3(SingleThread::proof(), 0, None, || exit_now(wait(gate.as_fd()).is_err().into()))
                .unwrap()
        }
    }

    impl Drop for Fifo {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn init_waits_until_start_reads() {
        let fifo = Fifo::new("through");
        let init = fifo.waiter();
        assert!(!sys::pidfd::wait_end(init.pidfd.as_fd(), 50).unwrap(), "it did not wait");
        assert!(open_for(&fifo.0, init.pidfd.as_fd()).unwrap());
        assert_eq!(reap(init.pidfd.as_fd(), true), Ok(Some(Ended::Exited(0))));
    }

    #[test]
    fn start_detects_that_init_was_killed() {
        let fifo = Fifo::new("dies");
        let init = fifo.waiter();
        sys::pidfd::send_signal(init.pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert!(sys::pidfd::wait_end(init.pidfd.as_fd(), 5000).unwrap());
        assert!(!open_for(&fifo.0, init.pidfd.as_fd()).unwrap());
        reap(init.pidfd.as_fd(), true).unwrap();
    }
}
