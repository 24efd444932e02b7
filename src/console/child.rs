//! Creates the pseudoterminal in the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::sys::open::openat2;
use crate::sys::tty::{self, Size};

/// A pseudoterminal of the container.
pub struct Terminal {
    pub master: OwnedFd,
    /// Terminal that is mounted on `/dev/console` and becomes stdin, stdout and stderr.
    pub slave: OwnedFd,
}

/// Creates a pseudoterminal in the devpts whose root is `devpts`.
///
/// # Errors
///
/// The devpts has no free terminal, or its root has no `ptmx`.
pub fn open(devpts: BorrowedFd, size: Option<Size>) -> ChildResult<Terminal> {
    let file_system = fstatfs(devpts).during("fstatfs /dev/pts")?.filesystem_type();
    if file_system != FsType(libc::DEVPTS_SUPER_MAGIC as _) {
        return Err(Fault::refused("/dev/pts is not a devpts mount"));
    }
    // Ignore mounts on this name: the image can influence them.
    let resolve = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS;
    let master = openat2(devpts, c"ptmx", libc::O_RDWR | libc::O_NOCTTY, 0, resolve)
        .during("open /dev/pts/ptmx")?;
    if fstat(&master).during("fstat /dev/pts/ptmx")?.st_rdev != libc::makedev(5, 2) {
        return Err(Fault::refused("/dev/pts/ptmx is not the terminal multiplexer"));
    }
    tty::unlock(master.as_fd()).during("ioctl TIOCSPTLCK")?;
    let slave = tty::peer(master.as_fd()).during("ioctl TIOCGPTPEER")?;
    if let Some(size) = size {
        tty::set_size(master.as_fd(), size).during("ioctl TIOCSWINSZ")?;
    }
    Ok(Terminal { master, slave })
}

/// Makes `slave` the controlling terminal. The caller leads a session without a terminal.
///
/// # Errors
///
/// The process does not lead a session, or has a terminal.
pub fn attach(slave: BorrowedFd) -> ChildResult<()> {
    tty::set_controlling(slave).during("ioctl TIOCSCTTY")?;
    tty::become_stdio(slave).during("dup2")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::pidfd::Ended;
    use crate::sys::spawn::in_child;

    #[test]
    fn a_process_gets_its_terminal() {
        let Ok(devpts) = File::open("/dev/pts") else { return };
        let size = Size { rows: 31, columns: 97 };
        let terminal = open(devpts.as_fd(), Some(size)).unwrap();
        assert_eq!(tty::size(terminal.slave.as_fd()), Ok(size));
        let end = in_child(|| {
            nix::unistd::setsid().unwrap();
            attach(terminal.slave.as_fd()).unwrap();
            let number = tty::number(terminal.master.as_fd()).unwrap();
            assert_eq!(
                std::fs::read_link("/proc/self/fd/1").unwrap().to_str().unwrap(),
                format!("/dev/pts/{number}")
            );
            File::open("/dev/tty").unwrap();
        });
        assert_eq!(end, Ended::Exited(0));
    }

    #[test]
    fn a_directory_that_is_not_a_devpts_is_refused() {
        let fault = open(File::open("/dev").unwrap().as_fd(), None).map(drop).unwrap_err();
        assert_eq!(fault.call, "/dev/pts is not a devpts mount");
    }
}
