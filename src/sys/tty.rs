//! Terminals: ioctl_tty(2), pts(4), termios(3).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};

use super::{Result, check};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

fn ioctl<T>(fd: BorrowedFd, request: libc::Ioctl, argument: *mut T) -> Result<libc::c_long> {
    // SAFETY: each caller passes the pointer, to live memory of the type, that its request takes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) }.into())
}

/// A new master keeps its slave locked until told otherwise.
pub fn unlock(master: BorrowedFd) -> Result<()> {
    let mut locked: c_int = 0;
    ioctl(master, libc::TIOCSPTLCK, &raw mut locked).map(drop)
}

/// Opens the slave without a path, so that no mount can stand in between.
pub fn peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes its flags by value.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The slave's number below its devpts.
pub fn number(master: BorrowedFd) -> Result<u32> {
    let mut number: u32 = 0;
    ioctl(master, libc::TIOCGPTN, &raw mut number)?;
    Ok(number)
}

pub fn set_size(tty: BorrowedFd, size: Size) -> Result<()> {
    let mut size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(tty, libc::TIOCSWINSZ, &raw mut size).map(drop)
}

pub fn size(tty: BorrowedFd) -> Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(tty, libc::TIOCGWINSZ, &raw mut size)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Makes `slave` the controlling terminal of the caller, who leads a session without one.
pub fn set_controlling(slave: BorrowedFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number, not a pointer; 0: steal from nobody.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// Makes `fd` the caller's standard input, output and error.
pub fn become_stdio(fd: BorrowedFd) -> Result<()> {
    for standard in 0..=2 {
        // SAFETY: dup2 touches only the descriptor table; the standard three belong to the
        // process as a whole, and std takes them to be open, which they stay.
        check(unsafe { libc::dup2(fd.as_raw_fd(), standard) }.into())?;
    }
    Ok(())
}

/// A terminal's settings, to be put back.
#[derive(Clone)]
pub struct Settings(Termios);

/// Fails with ENOTTY on what is not a terminal.
pub fn settings(tty: impl AsFd) -> Result<Settings> {
    termios::tcgetattr(tty).map(Settings)
}

pub fn restore(tty: impl AsFd, settings: &Settings) -> Result<()> {
    termios::tcsetattr(tty, SetArg::TCSANOW, &settings.0)
}

/// Every byte passes at once and unchanged, but output keeps its processing.
pub fn make_raw(tty: impl AsFd, settings: &Settings) -> Result<()> {
    let mut raw = settings.0.clone();
    termios::cfmakeraw(&mut raw);
    raw.output_flags |= OutputFlags::OPOST;
    termios::tcsetattr(tty, SetArg::TCSANOW, &raw)
}

/// Line feeds leave the terminal as they are.
pub fn keep_line_feeds(tty: impl AsFd) -> Result<()> {
    let mut settings = termios::tcgetattr(&tty)?;
    settings.output_flags &= !OutputFlags::ONLCR;
    termios::tcsetattr(tty, SetArg::TCSANOW, &settings)
}
