//! Terminals: ioctl_tty(2), pts(4), termios(3).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};

use super::{Result, check};

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

fn ioctl<T>(fd: BorrowedFd, request: libc::Ioctl, argument: *mut T) -> Result<libc::c_long> {
    // SAFETY: each caller passes a pointer to live memory of the type that its request takes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) }.into())
}

/// Unlocks the slave of a new pseudoterminal. It is locked after the master is opened.
///
/// # Errors
///
/// An error of ioctl_tty(2).
pub fn unlock(master: BorrowedFd) -> Result<()> {
    let mut locked: c_int = 0;
    ioctl(master, libc::TIOCSPTLCK, &raw mut locked).map(drop)
}

/// Opens the slave without a path, so that no mount can redirect it.
///
/// # Errors
///
/// An error of ioctl_tty(2).
pub fn peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes its flags by value.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel has just created this descriptor, and no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns the number of the slave, which is its name in devpts.
///
/// # Errors
///
/// An error of ioctl_tty(2).
pub fn number(master: BorrowedFd) -> Result<u32> {
    let mut number: u32 = 0;
    ioctl(master, libc::TIOCGPTN, &raw mut number)?;
    Ok(number)
}

/// Sets the size of a terminal.
///
/// # Errors
///
/// An error of ioctl_tty(2).
pub fn set_size(tty: BorrowedFd, size: Size) -> Result<()> {
    let mut size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(tty, libc::TIOCSWINSZ, &raw mut size).map(drop)
}

/// Returns the size of a terminal.
///
/// # Errors
///
/// `ENOTTY` if `tty` is not a terminal.
pub fn size(tty: BorrowedFd) -> Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(tty, libc::TIOCGWINSZ, &raw mut size)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Makes `slave` the controlling terminal of the caller, which must be a session leader without one.
///
/// # Errors
///
/// An error of ioctl_tty(2).
pub fn set_controlling(slave: BorrowedFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer, not a pointer. With 0 it does not take the terminal from another session.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// Makes `fd` the standard input, output and error of the caller.
///
/// # Errors
///
/// An error of dup2(2).
pub fn become_stdio(fd: BorrowedFd) -> Result<()> {
    for standard in 0..=2 {
        // SAFETY: dup2 changes only the descriptor table. The standard descriptors belong to the process as a whole,
        // and std expects them to be open, which they stay.
        check(unsafe { libc::dup2(fd.as_raw_fd(), standard) }.into())?;
    }
    Ok(())
}

/// Settings of a terminal, which [`restore`] sets again.
#[derive(Clone)]
pub struct Settings(Termios);

/// Reads the settings of a terminal.
///
/// # Errors
///
/// `ENOTTY` if `tty` is not a terminal.
pub fn settings(tty: impl AsFd) -> Result<Settings> {
    termios::tcgetattr(tty).map(Settings)
}

/// Sets stored settings again.
///
/// # Errors
///
/// An error of tcsetattr(3).
pub fn restore(tty: impl AsFd, settings: &Settings) -> Result<()> {
    termios::tcsetattr(tty, SetArg::TCSANOW, &settings.0)
}

/// Sets raw mode: input passes at once and unchanged. Output processing stays enabled.
///
/// # Errors
///
/// An error of tcsetattr(3).
pub fn make_raw(tty: impl AsFd, settings: &Settings) -> Result<()> {
    let mut raw = settings.0.clone();
    termios::cfmakeraw(&mut raw);
    raw.output_flags |= OutputFlags::OPOST;
    termios::tcsetattr(tty, SetArg::TCSANOW, &raw)
}

/// Disables the conversion of line feeds in the output.
///
/// # Errors
///
/// An error of tcsetattr(3).
pub fn keep_line_feeds(tty: impl AsFd) -> Result<()> {
    let mut settings = termios::tcgetattr(&tty)?;
    settings.output_flags &= !OutputFlags::ONLCR;
    termios::tcsetattr(tty, SetArg::TCSANOW, &settings)
}
