//! Encodes and decodes D-Bus messages in the wire format of the D-Bus specification, little-endian.

use super::Value;

/// Maximum length of a message by the specification.
const MAXIMUM: usize = 128 << 20;
/// Length of the fixed part of every header, up to the array of its fields.
pub const FIXED: usize = 16;
const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;

/// Message type of a call.
pub const METHOD_CALL: u8 = 1;
/// Message type of a reply.
pub const METHOD_RETURN: u8 = 2;
/// Message type of an error reply.
pub const ERROR: u8 = 3;
/// Message type of a signal.
pub const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Method of an object.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
    pub member: &'static str,
}

/// Encodes a call.
pub fn call(method: &Method, serial: u32, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|value| body.value(value));
    let field = |code, value: Value| Value::Structure(vec![Value::Byte(code), value.variant()]);
    let mut fields = vec![
        field(PATH, Value::ObjectPath(method.path.to_owned())),
        field(INTERFACE, method.interface.into()),
        field(MEMBER, method.member.into()),
        field(DESTINATION, method.destination.into()),
    ];
    if !arguments.is_empty() {
        let signature = arguments.iter().map(Value::signature).collect();
        fields.push(field(SIGNATURE, Value::Signature(signature)));
    }
    let mut message = Writer::default();
    message.bytes.extend([LITTLE_ENDIAN, METHOD_CALL, 0, VERSION]);
    message.value(&Value::Uint32(body.bytes.len() as u32));
    message.value(&Value::Uint32(serial));
    message.value(&Value::Array("(yv)".into(), fields));
    message.pad(8);
    message.bytes.append(&mut body.bytes);
    message.bytes
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }

    fn aligned<const N: usize>(&mut self, bytes: [u8; N]) {
        self.pad(N);
        self.bytes.extend(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Boolean(value) => self.aligned(u32::from(*value).to_le_bytes()),
            Value::Byte(value) => self.bytes.push(*value),
            Value::Int16(value) => self.aligned(value.to_le_bytes()),
            Value::Uint16(value) => self.aligned(value.to_le_bytes()),
            Value::Int32(value) => self.aligned(value.to_le_bytes()),
            Value::Uint32(value) => self.aligned(value.to_le_bytes()),
            Value::Int64(value) => self.aligned(value.to_le_bytes()),
            Value::Uint64(value) => self.aligned(value.to_le_bytes()),
            Value::Double(value) => self.aligned(value.to_le_bytes()),
            Value::String(text) | Value::ObjectPath(text) => {
                self.aligned((text.len() as u32).to_le_bytes());
                self.terminated(text);
            }
            Value::Signature(text) => {
                self.bytes.push(text.len() as u8);
                self.terminated(text);
            }
            Value::Variant(value) => {
                self.value(&Value::Signature(value.signature().into_owned()));
                self.value(value);
            }
            Value::Structure(members) => {
                self.pad(8);
                members.iter().for_each(|member| self.value(member));
            }
            Value::Entry(entry) => {
                self.pad(8);
                self.value(&entry.0);
                self.value(&entry.1);
            }
            Value::Array(element, values) => self.array(element, values),
        }
    }

    fn terminated(&mut self, text: &str) {
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// Writes an array. Its length does not include the padding before the first element.
    fn array(&mut self, element: &str, values: &[Value]) {
        self.aligned(0_u32.to_le_bytes());
        let length = self.bytes.len() - 4;
        self.pad(alignment(element.as_bytes().first().copied()));
        let start = self.bytes.len();
        values.iter().for_each(|value| self.value(value));
        let size = (self.bytes.len() - start) as u32;
        self.bytes[length..length + 4].copy_from_slice(&size.to_le_bytes());
    }
}

fn alignment(kind: Option<u8>) -> usize {
    match kind {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Received message, with the fields that Aril needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    pub kind: u8,
    pub member: String,
    pub error: String,
    /// Serial of the call that the message answers.
    pub answers: u32,
    body: Vec<u8>,
}

impl Incoming {
    /// Returns the length of the message that begins with `head`, of [`FIXED`] bytes.
    pub fn length(head: &[u8]) -> Option<usize> {
        let mut reader = Reader { bytes: head, at: 0 };
        if reader.byte()? != LITTLE_ENDIAN {
            return None; // systemd and the bus run on this machine, and have its byte order.
        }
        reader.at = 4;
        let body = reader.u32()? as usize;
        reader.at = 12;
        let fields = reader.u32()? as usize;
        let length = (FIXED + fields).next_multiple_of(8).checked_add(body)?;
        (length <= MAXIMUM).then_some(length)
    }

    /// Decodes `bytes`, one whole message.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 12 };
        let end = reader.u32()? as usize + FIXED;
        let mut message = Self {
            kind: *bytes.get(1)?,
            member: String::new(),
            error: String::new(),
            answers: 0,
            body: bytes.get(end.next_multiple_of(8)..)?.to_vec(),
        };
        while reader.at < end {
            reader.pad(8);
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature) {
                (MEMBER, "s") => message.member = reader.string()?.to_owned(),
                (ERROR_NAME, "s") => message.error = reader.string()?.to_owned(),
                (REPLY_SERIAL, "u") => message.answers = reader.u32()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        Some(message)
    }

    /// Returns the first argument of the body, if it is a string or an object path: an error's text, or a job.
    pub fn text(&self) -> Option<&str> {
        Reader { bytes: &self.body, at: 0 }.string()
    }

    /// Returns job and result of a JobRemoved signal, whose body is `uoss`.
    pub fn removed_job(&self) -> Option<(&str, &str)> {
        if self.kind != SIGNAL || self.member != "JobRemoved" {
            return None;
        }
        let mut reader = Reader { bytes: &self.body, at: 0 };
        reader.u32()?;
        let job = reader.string()?;
        reader.string()?;
        Some((job, reader.string()?))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn pad(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.pad(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let (text, _) = self.take(length.checked_add(1)?)?.split_at(length);
        std::str::from_utf8(text).ok()
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.terminated(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method =
        Method { destination: "a.b", path: "/a", interface: "a.b.I", member: "Do" };

    fn body(arguments: &[Value]) -> Vec<u8> {
        let bytes = call(&METHOD, 7, arguments);
        assert_eq!(Incoming::length(&bytes), Some(bytes.len()));
        Incoming::parse(&bytes).unwrap().body
    }

    #[test]
    fn a_call_without_arguments() {
        let bytes = call(&METHOD, 7, &[]);
        assert_eq!(&bytes[..12], [b'l', 1, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes.len() % 8, 0);
        let read = Incoming::parse(&bytes).unwrap();
        assert_eq!((read.kind, &*read.member, read.answers), (METHOD_CALL, "Do", 0));
    }

    #[test]
    fn alignment_is_that_of_the_specification() {
        assert_eq!(body(&[Value::Byte(1), Value::Uint32(2)]), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(body(&["ab".into()]), [2, 0, 0, 0, b'a', b'b', 0]);
        assert_eq!(body(&[true.into()]), [1, 0, 0, 0]);
        assert_eq!(
            body(&[Value::Byte(9).variant(), Value::Uint64(3).variant()]),
            [1, b'y', 0, 9, 1, b't', 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn an_array_is_as_long_as_its_elements() {
        assert_eq!(body(&[Value::bytes(&[5, 6])]), [2, 0, 0, 0, 5, 6]);
        // The first structure is padded, even in an empty array.
        assert_eq!(body(&[Value::Array("(s)".into(), vec![])]), [0; 8]);
        let one = Value::Array("t".into(), vec![Value::Uint64(1)]);
        assert_eq!(body(&[one]), [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn signals_and_answers() {
        let arguments =
            [Value::Uint32(4), Value::ObjectPath("/job/4".into()), "x.scope".into(), "done".into()];
        let mut bytes = call(&Method { member: "JobRemoved", ..METHOD }, 1, &arguments);
        assert_eq!(Incoming::parse(&bytes).unwrap().removed_job(), None);
        bytes[1] = SIGNAL;
        assert_eq!(Incoming::parse(&bytes).unwrap().removed_job(), Some(("/job/4", "done")));
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let bytes = call(&METHOD, 1, &["text".into()]);
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert!(Incoming::length(cut).is_none_or(|whole| whole > length));
            if let Some(message) = Incoming::parse(cut) {
                assert_eq!(message.text(), None);
            }
        }
        assert_eq!(
            Incoming::length(&[b'l', 1, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 9, 0, 0, 255]),
            None
        );
    }
}
