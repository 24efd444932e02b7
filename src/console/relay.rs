//! Copies between the caller's terminal and the container's, for a runtime in the foreground.
//!
//! The caller's loop owns the waiting: it polls [`Relay::fds`] beside its own descriptors and, when
//! one of them answers, calls [`Relay::advance`]. The caller's terminal is raw while the relay lives,
//! and as it was again when it is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, OsContext, Result};
use crate::sys::process;
use crate::sys::tty::{self, Settings};

pub struct Relay {
    host: Host,
    input: Flow,
    output: Flow,
    master: File,
    stdin: File,
    stdout: File,
}

/// The caller's terminal, and how it was.
struct Host {
    tty: OwnedFd,
    settings: Settings,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing is left to do for a terminal that is gone.
        let _ = tty::restore(&self.tty, &self.settings);
    }
}

/// Bytes on their way in one direction.
struct Flow {
    buffer: Box<[u8; 4096]>,
    start: usize,
    end: usize,
    /// The source has ended.
    ended: bool,
}

impl Relay {
    /// `master` is of the container's terminal, which takes the size of the caller's.
    pub fn new(master: OwnedFd) -> Result<Self> {
        let (tty, settings) = host_terminal()?;
        let (stdin, stdout) = (duplicate(io::stdin())?, duplicate(io::stdout())?);
        process::set_nonblocking(&master).os("fcntl", "console")?;
        // The caller's terminal turns line feeds into what it needs.
        tty::keep_line_feeds(&master).os("tcsetattr", "console")?;
        tty::make_raw(&tty, &settings).os("tcsetattr", "the caller's terminal")?;
        let host = Host { tty, settings };
        let master = File::from(master);
        let relay = Self { host, input: Flow::new(), output: Flow::new(), master, stdin, stdout };
        // A terminal without a size leaves the configured one.
        let _ = relay.resize();
        Ok(relay)
    }

    /// On SIGWINCH.
    pub fn resize(&self) -> Result<()> {
        let size = tty::size(self.host.tty.as_fd()).os("ioctl TIOCGWINSZ", "")?;
        tty::set_size(self.master.as_fd(), size).os("ioctl TIOCSWINSZ", "console")
    }

    /// What to poll for. What nothing is wanted of is left out: poll reports a closed end whether
    /// asked for it or not.
    pub fn fds(&self) -> Vec<PollFd<'_>> {
        self.wanted().into_iter().filter(|(_, events)| !events.is_empty()).map(poll_fd).collect()
    }

    /// The caller's input, its output, the container's terminal.
    fn wanted(&self) -> [(BorrowedFd<'_>, PollFlags); 3] {
        let when = |condition: bool, events| if condition { events } else { PollFlags::empty() };
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let master = when(self.output.wants_more(), read) | when(self.input.is_pending(), write);
        [
            (self.stdin.as_fd(), when(self.input.wants_more(), read)),
            (self.stdout.as_fd(), when(self.output.is_pending(), write)),
            (self.master.as_fd(), master),
        ]
    }

    /// Which of them are ready now. The caller's own descriptors cannot be made non-blocking: it
    /// shares them with others.
    fn ready(&self) -> Result<[bool; 3]> {
        let wanted = self.wanted();
        let mut fds = wanted.map(poll_fd);
        poll(&mut fds, PollTimeout::ZERO).os("poll", "console")?;
        let [stdin, stdout, master] = fds.map(|fd| fd.any().unwrap_or(false));
        Ok([stdin, stdout, master])
    }

    /// Moves what can be moved. False once the container's side is closed and all of it is written.
    pub fn advance(&mut self) -> Result<bool> {
        let [stdin, stdout, master] = self.ready()?;
        if stdin && self.input.wants_more() {
            self.input.fill(&self.stdin);
        }
        // A master that takes nothing now says so at once. One that is closed takes nothing any
        // more, but its output may still have to be read.
        if self.input.is_pending() && self.input.empty(&self.master).is_err() {
            self.input.discard();
        }
        if stdout && self.output.is_pending() {
            self.output.empty(&self.stdout).os("write", "stdout")?;
        }
        if master && self.output.wants_more() {
            self.output.fill(&self.master);
        }
        Ok(!self.output.ended || self.output.is_pending())
    }

    /// After the container's process has ended: writes what its terminal still holds, unless
    /// somebody else keeps it open.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            if self.output.is_pending() {
                self.output.empty(&self.stdout).os("write", "stdout")?;
            } else if self.output.ended || !self.output.fill(&self.master) {
                return Ok(());
            }
        }
    }
}

fn poll_fd((fd, events): (BorrowedFd<'_>, PollFlags)) -> PollFd<'_> {
    PollFd::new(fd, events)
}

impl Flow {
    fn new() -> Self {
        Self { buffer: Box::new([0; 4096]), start: 0, end: 0, ended: false }
    }

    fn wants_more(&self) -> bool {
        !self.ended && !self.is_pending()
    }

    fn is_pending(&self) -> bool {
        self.start < self.end
    }

    fn discard(&mut self) {
        self.start = self.end;
    }

    /// Whether something came. EIO is how a master says that all slaves are closed.
    fn fill(&mut self, mut source: &File) -> bool {
        match source.read(&mut self.buffer[..]) {
            Ok(length) if length > 0 => {
                (self.start, self.end) = (0, length);
                true
            }
            Err(e) if is_transient(&e) => false,
            Ok(_) | Err(_) => {
                self.ended = true;
                false
            }
        }
    }

    fn empty(&mut self, mut sink: &File) -> io::Result<()> {
        match sink.write(&self.buffer[self.start..self.end]) {
            Ok(length) => self.start += length,
            Err(e) if is_transient(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn duplicate(fd: impl AsFd) -> Result<File> {
    fd.as_fd().try_clone_to_owned().map(File::from).os("dup", "stdio")
}

/// The first terminal among the standard three, else the controlling one.
fn host_terminal() -> Result<(OwnedFd, Settings)> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let standard: [BorrowedFd; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    for fd in standard {
        if let Ok(settings) = tty::settings(fd) {
            return Ok((duplicate(fd)?.into(), settings));
        }
    }
    let tty: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .os("open", "/dev/tty")
        .context(|| "a terminal in the foreground needs one to be shown on".to_owned())?
        .into();
    let settings = tty::settings(&tty).os("tcgetattr", "/dev/tty")?;
    Ok((tty, settings))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::console::child;
    use crate::sys::pidfd::Ended;
    use crate::sys::spawn::in_child;

    fn turn(relay: &mut Relay) -> bool {
        poll(&mut relay.fds(), PollTimeout::from(2000u16)).unwrap();
        relay.advance().unwrap()
    }

    fn read(file: &mut File) -> String {
        let mut bytes = [0; 64];
        let length = file.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// A caller's terminal and a container's, both of this host.
    #[test]
    fn bytes_pass_and_the_terminal_is_restored() {
        let Ok(devpts) = File::open("/dev/pts") else { return };
        let end = in_child(move || {
            let size = tty::Size { rows: 5, columns: 6 };
            let caller = child::open(devpts.as_fd(), Some(size)).unwrap();
            let container = child::open(devpts.as_fd(), None).unwrap();
            tty::become_stdio(caller.slave.as_fd()).unwrap();
            let before = nix::sys::termios::tcgetattr(&caller.slave).unwrap();
            let (mut keyboard, mut program) =
                (File::from(caller.master), File::from(container.slave));
            assert!(program.as_raw_fd() > 2);

            let mut relay = Relay::new(container.master).unwrap();
            assert_eq!(tty::size(program.as_fd()), Ok(size));
            keyboard.write_all(b"in\n").unwrap();
            assert!(turn(&mut relay));
            assert_eq!(read(&mut program), "in\n");
            // The container's terminal echoes, then the program writes.
            program.write_all(b"out").unwrap();
            let mut shown = String::new();
            while !shown.ends_with("out") {
                assert!(turn(&mut relay));
                nix::sys::termios::tcdrain(&caller.slave).unwrap();
                process::set_nonblocking(&keyboard).unwrap();
                let mut bytes = [0; 64];
                let length = keyboard.read(&mut bytes).unwrap_or(0);
                shown.push_str(str::from_utf8(&bytes[..length]).unwrap());
            }
            drop(program);
            relay.drain().unwrap();
            assert!(relay.output.ended);
            drop(relay);
            assert_eq!(nix::sys::termios::tcgetattr(&caller.slave).unwrap(), before);
        });
        assert_eq!(end, Ended::Exited(0));
    }
}
