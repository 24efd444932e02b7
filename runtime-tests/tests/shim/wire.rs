//! As much of ttrpc as a client needs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub use runtime_tests::protobuf::{In, Out, out};

pub fn write_frame(socket: &mut UnixStream, stream: u32, kind: u8, payload: &[u8]) {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(payload);
    // A peer that is gone is seen by who reads.
    let _ = socket.write_all(&frame);
}

/// None: the other side is gone.
pub fn read_frame(socket: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; 10];
    socket.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; word(0) as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((word(4), payload))
}

/// gRPC's codes.
pub const NOT_FOUND: u64 = 5;
pub const ALREADY_EXISTS: u64 = 6;
pub const UNIMPLEMENTED: u64 = 12;

#[derive(Debug)]
pub struct Refused {
    pub code: u64,
    pub text: String,
}

/// A connection to a shim, with one call under way at a time.
pub struct Client {
    socket: UnixStream,
    stream: u32,
    pub service: &'static str,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).expect("the shim's socket");
        socket.set_read_timeout(Some(runtime_tests::container::PATIENCE)).expect("a time-out");
        Self { socket, stream: 1, service: "containerd.task.v2.Task" }
    }

    pub fn send(&mut self, method: &str, payload: Out) {
        let request = out().bytes(1, self.service).bytes(2, method).bytes(3, payload.0);
        self.stream += 2;
        write_frame(&mut self.socket, self.stream, 1, &request.0);
    }

    #[track_caller]
    pub fn receive(&mut self) -> Result<In, Refused> {
        let (stream, payload) = read_frame(&mut self.socket).expect("an answer");
        assert_eq!(stream, self.stream, "the answer to another call");
        let response = In::parse(&payload);
        let status = response.message(1);
        match status.number(1) {
            0 => Ok(response.message(2)),
            code => Err(Refused { code, text: status.text(2) }),
        }
    }

    #[track_caller]
    pub fn call(&mut self, method: &str, payload: Out) -> Result<In, Refused> {
        self.send(method, payload);
        self.receive()
    }

    #[track_caller]
    pub fn ok(&mut self, method: &str, payload: Out) -> In {
        self.call(method, payload).unwrap_or_else(|e| panic!("{method}: {e:?}"))
    }

    /// The code and the text with which a call is refused.
    #[track_caller]
    pub fn refused(&mut self, method: &str, payload: Out) -> Refused {
        let answer = self.call(method, payload);
        answer.expect_err("a refusal")
    }
}
