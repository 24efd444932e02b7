//! As much of protobuf and ttrpc as a client needs, written apart from the shim's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// A message, field by field.
#[derive(Default, Clone)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn number(mut self, field: u64, number: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, number);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn any(self, field: u64, kind: &str, value: &[u8]) -> Self {
        self.bytes(field, Out::default().bytes(1, kind).bytes(2, value).0)
    }
}

pub fn out() -> Out {
    Out::default()
}

/// A message that came.
#[derive(Debug, Default, Clone)]
pub struct In(Vec<(u64, u64, Vec<u8>)>);

impl In {
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        let next = |bytes: &mut &[u8]| {
            let mut number = 0;
            for shift in 0.. {
                let (first, rest) = bytes.split_first().expect("a whole number");
                *bytes = rest;
                number |= u64::from(first & 0x7f) << (7 * shift);
                if first & 0x80 == 0 {
                    break;
                }
            }
            number
        };
        while !bytes.is_empty() {
            let key = next(&mut bytes);
            match key & 7 {
                0 => fields.push((key >> 3, next(&mut bytes), Vec::new())),
                2 => {
                    let length = next(&mut bytes) as usize;
                    fields.push((key >> 3, 0, bytes[..length].to_vec()));
                    bytes = &bytes[length..];
                }
                other => panic!("wire type {other}"),
            }
        }
        Self(fields)
    }

    pub fn number(&self, field: u64) -> u64 {
        self.0.iter().find(|f| f.0 == field).map_or(0, |f| f.1)
    }

    pub fn bytes(&self, field: u64) -> &[u8] {
        self.0.iter().find(|f| f.0 == field).map_or(&[], |f| &f.2)
    }

    pub fn text(&self, field: u64) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    pub fn message(&self, field: u64) -> Self {
        Self::parse(self.bytes(field))
    }

    pub fn all(&self, field: u64) -> Vec<Self> {
        self.0.iter().filter(|f| f.0 == field).map(|f| Self::parse(&f.2)).collect()
    }
}

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
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
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
