//! Copies one stream to another in the event loop: for terminals and for pipes.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::{read, write};

/// A source, a sink, and the bytes between them.
#[derive(Debug)]
pub struct Relay {
    pub source: OwnedFd,
    pub sink: OwnedFd,
    /// Bytes that were read and are not yet written.
    pending: Vec<u8>,
}

/// Event that the relay waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Waits {
    ForSource,
    ForSink,
    /// The source has ended, or the sink has no reader.
    Ended,
}

impl Relay {
    /// Returns a relay of (source, sink).
    pub fn new((source, sink): (OwnedFd, OwnedFd)) -> Self {
        Self { source, sink, pending: Vec::new() }
    }

    /// Moves what can be moved without waiting, up to a limit: other events are due, too.
    pub fn advance(&mut self) -> Waits {
        const ROUNDS: usize = 16;
        let mut buffer = [0; 8192];
        for _ in 0..ROUNDS {
            if !self.pending.is_empty() {
                match self.write_pending() {
                    Waits::ForSource => {}
                    other => return other,
                }
            }
            match read(&self.source, &mut buffer) {
                Ok(length) if length > 0 => self.pending.extend_from_slice(&buffer[..length]),
                Err(Errno::EAGAIN) => return Waits::ForSource,
                Err(Errno::EINTR) => {}
                // A terminal's master reports by EIO that all slaves are closed.
                Ok(_) | Err(_) => return Waits::Ended,
            }
        }
        if self.pending.is_empty() { Waits::ForSource } else { Waits::ForSink }
    }

    fn write_pending(&mut self) -> Waits {
        while !self.pending.is_empty() {
            match write(&self.sink, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::EAGAIN) => return Waits::ForSink,
                Err(Errno::EINTR) => {}
                Err(_) => return Waits::Ended,
            }
        }
        self.pending = Vec::new();
        Waits::ForSource
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::set_nonblocking;
    use crate::sys::spawn::pipe;

    #[test]
    fn a_sink_that_is_full_is_waited_for_and_nothing_is_lost() {
        let (source, writer) = pipe().unwrap();
        let (reader, sink) = pipe().unwrap();
        for fd in [&source, &sink, &writer] {
            set_nonblocking(fd).unwrap();
        }
        let mut relay = Relay::new((source, sink));
        assert_eq!(relay.advance(), Waits::ForSource);
        let mut sent = 0;
        while relay.advance() != Waits::ForSink {
            sent += write(&writer, &[7; 4096]).unwrap();
        }
        drop(writer);
        let mut received = 0;
        let mut buffer = [0; 65536];
        loop {
            received += read(&reader, &mut buffer).unwrap();
            if relay.advance() == Waits::Ended {
                break;
            }
        }
        drop(relay);
        while let length @ 1.. = read(&reader, &mut buffer).unwrap() {
            received += length;
        }
        assert_eq!(received, sent);
    }
}
