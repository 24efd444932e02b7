//! Copies between the caller's terminal and the container's terminal while the runtime is in the foreground.
//!
//! The caller's loop waits: it polls [`Relay::fds`] together with its own file descriptors and calls
//! [`Relay::advance`] when one of them is ready. The caller's terminal is in raw mode while the relay exists;
//! dropping the relay restores its settings.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, OsContext, Result};
use crate::sys::process;
use crate::sys::tty::{self, Settings};

/// Copies bytes between two terminals.
pub struct Relay {
    host: Host,
    input: Flow,
    output: Flow,
    master: File,
    stdin: File,
    stdout: File,
}

/// The caller's terminal, and its settings before the relay.
struct Host {
    tty: OwnedFd,
    settings: Settings,
}

impl Drop for Host {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tty::restore(&self.tty, &self.settings);
    }
}

/// Buffer of one direction.
struct Flow {
    buffer: Box<[u8; 4096]>,
    start: usize,
    end: usize,
    /// The source has ended.
    ended: bool,
}

impl Relay {
    /// Creates a relay. `master` belongs to the container's terminal, which gets the size of the caller's terminal.
    ///
    /// # Errors
    ///
    /// The terminal's settings cannot be changed.
    pub fn new(master: OwnedFd) -> Result<Self> {
        let (tty, settings) = host_terminal()?;
        let (stdin, stdout) = (duplicate(io::stdin())?, duplicate(io::stdout())?);
        process::set_nonblocking(&master).os("fcntl", "console")?;
        // The caller's terminal converts line feeds itself.
        tty::keep_line_feeds(&master).os("tcsetattr", "console")?;
        tty::make_raw(&tty, &settings).os("tcsetattr", "the caller's terminal")?;
        let host = Host { tty, settings };
        let master = File::from(master);
        let relay = Self { host, input: Flow::new(), output: Flow::new(), master, stdin, stdout };
        // If the caller's terminal has no size, the container's keeps the configured one.
        let _ = relay.resize();
        Ok(relay)
    }

    /// Copies the size of the caller's terminal to the container's. To be called on SIGWINCH.
    ///
    /// # Errors
    ///
    /// The size cannot be set.
    pub fn resize(&self) -> Result<()> {
        let size = tty::size(self.host.tty.as_fd()).os("ioctl TIOCGWINSZ", "")?;
        tty::set_size(self.master.as_fd(), size).os("ioctl TIOCSWINSZ", "console")
    }

    /// File descriptors to poll. Those without wanted events are left out: poll reports a hangup even if it is not
    /// requested.
    pub fn fds(&self) -> Vec<PollFd<'_>> {
        self.wanted().into_iter().filter(|(_, events)| !events.is_empty()).map(poll_fd).collect()
    }

    /// Events wanted of the caller's input, its output, and the container's terminal.
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

    /// Polls which of them are ready. The caller's file descriptors cannot be made non-blocking, because other
    /// processes share them.
    fn ready(&self) -> Result<[bool; 3]> {
        let wanted = self.wanted();
        let mut fds = wanted.map(poll_fd);
        poll(&mut fds, PollTimeout::ZERO).os("poll", "console")?;
        let [stdin, stdout, master] = fds.map(|fd| fd.any().unwrap_or(false));
        Ok([stdin, stdout, master])
    }

    /// Copies what is available. Returns false once the container's terminal is closed and all its output is written.
    ///
    /// # Errors
    ///
    /// The caller's terminal fails.
    pub fn advance(&mut self) -> Result<bool> {
        let [stdin, stdout, master] = self.ready()?;
        if stdin && self.input.wants_more() {
            self.input.fill(&self.stdin);
        }
        // A master that accepts no input fails at once. A closed master accepts none, but its output may remain to be
        // read.
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

    /// Writes what the terminal still holds, after the container's process has ended. Does not wait for other
    /// processes that hold the terminal open.
    ///
    /// # Errors
    ///
    /// The caller's terminal fails.
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

    /// Returns true if bytes were read. A master reports EIO when all slaves are closed.
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

/// Finds the caller's terminal: the first one among stdin, stdout and stderr, else the controlling terminal.
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
        .context(|| {
            "a container terminal in the foreground needs a terminal of the caller".to_owned()
        })?
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

    /// Two pseudoterminals of this host stand for the caller's and the container's.
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
