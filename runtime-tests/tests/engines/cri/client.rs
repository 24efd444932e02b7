//! A kubelet's part of the protocol: gRPC by curl, streams by WebSocket.

use std::io::{Read, Write};
use std::net::TcpStream;

use runtime_tests::protobuf::{In, Out, out};

use crate::private::{Client, Place};

pub struct Cri<'a> {
    place: &'a Place,
    curl: Client<'a>,
}

impl<'a> Cri<'a> {
    pub fn new(place: &'a Place) -> Self {
        let socket = place.path("socket");
        let args = ["-sS", "--http2-prior-knowledge", "--unix-socket", &socket];
        let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
        Self { place, curl: place.client("curl", &[&args[..], &headers].concat()) }
    }

    /// The answer, or the headers with gRPC's status and reason.
    pub fn call(&self, method: &str, request: Out) -> Result<In, String> {
        let [sent, got] = [".sent", ".got"].map(|kind| self.place.fresh(kind));
        let mut frame = vec![0];
        frame.extend_from_slice(&(request.0.len() as u32).to_be_bytes());
        frame.extend_from_slice(&request.0);
        std::fs::write(&sent, frame).expect("a request");
        let service = if method.contains("Image") { "ImageService" } else { "RuntimeService" };
        let url = format!("http://cri/runtime.v1.{service}/{method}");
        let body = format!("@{sent}");
        let out = self.curl.run(&["--data-binary", &body, "-D", "-", "-o", &got, &url]);
        if out.code != Some(0) {
            return Err(out.stderr);
        }
        if !out.stdout.lines().any(|line| line.trim() == "grpc-status: 0") {
            return Err(out.stdout);
        }
        let answer = std::fs::read(&got).expect("an answer");
        Ok(In::parse(&answer[5..]))
    }

    #[track_caller]
    pub fn ok(&self, method: &str, request: Out) -> In {
        self.call(method, request).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// The streams behind the address that Exec and Attach answer, and PortForward with a query.
    pub fn stream(&self, method: &str, request: Out, query: &str) -> Stream {
        let url = self.ok(method, request).text(1);
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url:?}"));
        let (host, path) = rest.split_once('/').expect("a path");
        Stream::open(host, &format!("{path}{query}"))
    }
}

/// A WebSocket whose messages begin with the number of a channel.
pub struct Stream(TcpStream);

impl Stream {
    fn open(host: &str, path: &str) -> Self {
        let mut socket = TcpStream::connect(host).expect("the streaming server");
        socket.set_read_timeout(Some(runtime_tests::container::PATIENCE)).expect("a time-out");
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: YXJpbCBhcmlsIGFyaWwgIQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Self(socket)
    }

    /// A short message; what clients say is masked, here with zeros.
    pub fn write(&mut self, channel: u8, text: &str) {
        let length = u8::try_from(text.len() + 1).ok().filter(|length| *length < 126);
        let mut frame = vec![0x82, 0x80 | length.expect("a short message"), 0, 0, 0, 0, channel];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).expect("a message");
    }

    /// The next message; none: the other side has closed.
    pub fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 2];
        self.0.read_exact(&mut header).ok()?;
        let length = match header[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).ok()?;
                usize::from(u16::from_be_bytes(long))
            }
            length => usize::from(length),
        };
        let mut message = vec![0; length];
        self.0.read_exact(&mut message).ok()?;
        if header[0] & 0xf == 8 || message.is_empty() {
            return None;
        }
        Some((message.remove(0), message))
    }

    /// All that a channel says until `enough` says so, or the end.
    pub fn until(&mut self, channel: u8, enough: impl Fn(&str) -> bool) -> String {
        let mut said = Vec::new();
        while !enough(&String::from_utf8_lossy(&said)) {
            match self.read() {
                Some((from, text)) if from == channel => said.extend(text),
                Some(_) => {}
                None => break,
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// What each channel said until the end: output, errors, and the status.
    pub fn rest(mut self) -> [String; 3] {
        let mut said = [const { Vec::new() }; 4];
        while let Some((channel, text)) = self.read() {
            said[usize::from(channel)].extend(text);
        }
        let [_, output, errors, status] =
            said.map(|text| String::from_utf8_lossy(&text).into_owned());
        [output, errors, status]
    }
}

/// A name of the kubelet's for something.
pub fn named(name: &str) -> Out {
    out().bytes(1, name)
}
