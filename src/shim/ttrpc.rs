//! ttrpc, for the server's and the client's side of a connection: a header of ten bytes (length, stream, type, flags),
//! then a protobuf message. Only unary calls: the task service has no others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{read, write};

use super::status::Status;
use super::wire::{Message, Writer};

const HEADER: usize = 10;
/// Maximum length of a message, as in containerd.
const LONGEST: usize = 4 << 20;
/// Limit of unsent answers: a peer that does not read them is disconnected.
const UNREAD: usize = 4 * LONGEST;

/// Message type of a request.
pub const REQUEST: u8 = 1;
/// Message type of a response.
pub const RESPONSE: u8 = 2;

/// One end of a non-blocking stream socket.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Received message.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub stream: u32,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// The peer has disconnected, or speaks another protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Connection {
    /// Returns a connection over the socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, input: Vec::new(), output: Vec::new() }
    }

    /// Reads the available bytes.
    ///
    /// # Errors
    ///
    /// The peer has disconnected.
    pub fn fill(&mut self) -> Result<(), Closed> {
        let mut buffer = [0; 8192];
        loop {
            match read(&self.socket, &mut buffer) {
                Ok(0) => return Err(Closed),
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    if length < buffer.len() {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Closed),
            }
            if self.input.len() > HEADER + LONGEST {
                return Ok(());
            }
        }
    }

    /// Returns the next whole frame.
    ///
    /// # Errors
    ///
    /// The peer sends no ttrpc frame, or one that is too long.
    pub fn frame(&mut self) -> Result<Option<Frame>, Closed> {
        let Some(header) = self.input.get(..HEADER) else { return Ok(None) };
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (length, stream, kind) = (word(0) as usize, word(4), header[8]);
        if length > LONGEST {
            return Err(Closed);
        }
        let end = HEADER + length;
        if self.input.len() < end {
            return Ok(None);
        }
        let payload = self.input[HEADER..end].to_vec();
        self.input.drain(..end);
        if self.input.is_empty() {
            // Large calls are rare: their memory is released.
            self.input = Vec::new();
        }
        Ok(Some(Frame { stream, kind, payload }))
    }

    /// Writes as much as the peer accepts now; the rest waits for [`Connection::flush`].
    ///
    /// # Errors
    ///
    /// The peer has disconnected, or does not read its answers.
    pub fn send(&mut self, stream: u32, kind: u8, payload: &[u8]) -> Result<(), Closed> {
        if self.output.len() > UNREAD {
            return Err(Closed);
        }
        self.output.extend_from_slice(&frame(stream, kind, payload));
        self.flush()
    }

    /// Writes waiting bytes.
    ///
    /// # Errors
    ///
    /// The peer has disconnected.
    pub fn flush(&mut self) -> Result<(), Closed> {
        while !self.output.is_empty() {
            match write(&self.socket, &self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Closed),
            }
        }
        self.output = Vec::new();
        Ok(())
    }

    /// Returns true if there is a rest to write.
    pub fn is_unsent(&self) -> bool {
        !self.output.is_empty()
    }
}

/// Encodes a frame.
pub fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(payload);
    frame
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Received call.
#[derive(Debug, PartialEq)]
pub struct Call {
    pub service: String,
    pub method: String,
    pub payload: Vec<u8>,
}

impl Call {
    /// Decodes a call.
    ///
    /// # Errors
    ///
    /// The bytes are no protobuf message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Status> {
        let message = Message::parse(bytes)?;
        Ok(Self {
            service: message.text(1)?.to_owned(),
            method: message.text(2)?.to_owned(),
            payload: message.bytes(3).to_vec(),
        })
    }

    /// Encodes the call with a timeout.
    pub fn encode(&self, timeout: std::time::Duration) -> Vec<u8> {
        Writer::new()
            .bytes(1, &self.service)
            .bytes(2, &self.method)
            .bytes(3, &self.payload)
            .number(4, timeout.as_nanos() as u64)
            .finish()
    }
}

/// Encodes the answer to a call.
pub type Answer = Result<Vec<u8>, Status>;

/// Encodes a response.
pub fn response(answer: &Answer) -> Vec<u8> {
    match answer {
        Ok(payload) => Writer::new().message(1, Writer::new()).bytes(2, payload).finish(),
        Err(Status { code, message }) => {
            let status = Writer::new().number(1, *code as u64).bytes(2, message);
            Writer::new().message(1, status).finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::shim::status::Code;

    fn pair() -> (Connection, Connection) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        (Connection::new(a), Connection::new(b))
    }

    #[test]
    fn frames_pass_in_pieces_of_any_size() {
        let (mut here, mut there) = pair();
        let large = vec![7; 1 << 20];
        here.send(1, REQUEST, b"one").unwrap();
        here.send(3, REQUEST, &large).unwrap();
        assert!(here.is_unsent());
        let mut frames = Vec::new();
        while frames.len() < 2 {
            there.fill().unwrap();
            here.flush().unwrap();
            while let Some(frame) = there.frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames[0], Frame { stream: 1, kind: REQUEST, payload: b"one".to_vec() });
        assert_eq!((frames[1].stream, frames[1].payload.len()), (3, large.len()));
        drop(here);
        assert_eq!(there.fill(), Err(Closed));
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_left() {
        let (here, mut there) = pair();
        write(&here.socket, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        there.fill().unwrap();
        assert_eq!(there.frame(), Err(Closed));
    }

    #[test]
    fn calls_and_responses() {
        let call = Call { service: "a.B".into(), method: "C".into(), payload: vec![1, 2] };
        let bytes = call.encode(std::time::Duration::from_secs(5));
        assert_eq!(Call::parse(&bytes).unwrap(), call);
        let failed = response(&Err(Status::not_found("none")));
        let status = Message::parse(&failed).unwrap().message(1).unwrap();
        assert_eq!((status.number(1), status.text(2)), (Code::NotFound as u64, Ok("none")));
    }
}
