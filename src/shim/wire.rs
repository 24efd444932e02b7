//! Encodes and decodes Protocol Buffers: the part of the format that containerd's messages use.
//!
//! A message is parsed into its fields once, and handlers read fields by their numbers in containerd's `.proto` files.
//! Unknown fields are ignored. As in proto3, zero and empty values are not written.

use super::status::{Code, Status};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Fields of one message, borrowed from its bytes.
#[derive(Debug, Default)]
pub struct Message<'a>(Vec<(u64, Value<'a>)>);

impl<'a> Message<'a> {
    /// Parses a message.
    ///
    /// # Errors
    ///
    /// The bytes are no protobuf message.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Status> {
        let malformed = || Status::new(Code::InvalidArgument, "malformed protobuf message");
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes).ok_or_else(malformed)?;
            let value = value(key & 7, &mut bytes).ok_or_else(malformed)?;
            fields.push((key >> 3, value));
        }
        Ok(Self(fields))
    }

    /// Returns the last value of a field, which counts.
    fn last(&self, field: u64) -> Option<Value<'a>> {
        self.0.iter().rev().find(|(number, _)| *number == field).map(|(_, value)| *value)
    }

    /// Returns a number, 0 by default.
    pub fn number(&self, field: u64) -> u64 {
        match self.last(field) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    /// Returns a flag, false by default.
    pub fn flag(&self, field: u64) -> bool {
        self.number(field) != 0
    }

    /// Returns bytes, empty by default.
    pub fn bytes(&self, field: u64) -> &'a [u8] {
        self.all(field).last().unwrap_or_default()
    }

    /// Returns a text; empty without the field.
    ///
    /// # Errors
    ///
    /// The text is not UTF-8.
    pub fn text(&self, field: u64) -> Result<&'a str, Status> {
        text(self.bytes(field))
    }

    /// Returns the values of a repeated field.
    pub fn all(&self, field: u64) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(bytes) if *number == field => Some(*bytes),
            _ => None,
        })
    }

    /// Returns the texts of a repeated field.
    ///
    /// # Errors
    ///
    /// A text is not UTF-8.
    pub fn texts(&self, field: u64) -> Result<Vec<String>, Status> {
        self.all(field).map(|bytes| text(bytes).map(str::to_owned)).collect()
    }

    /// Returns a message; empty without the field.
    ///
    /// # Errors
    ///
    /// The bytes are no protobuf message.
    pub fn message(&self, field: u64) -> Result<Message<'a>, Status> {
        Message::parse(self.bytes(field))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Status> {
    str::from_utf8(bytes).map_err(|_| Status::new(Code::InvalidArgument, "a text is not UTF-8"))
}

fn value<'a>(kind: u64, bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    Some(match kind {
        VARINT => Value::Number(varint(bytes)?),
        FIXED64 => Value::Number(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        FIXED32 => Value::Number(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?).into()),
        LENGTH => {
            let length = varint(bytes)?;
            Value::Bytes(take(bytes, usize::try_from(length).ok()?)?)
        }
        _ => return None,
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Message that is being encoded.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Returns an empty message.
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Adds a number.
    pub fn number(mut self, field: u64, number: u64) -> Self {
        if number != 0 {
            self.varint(field << 3 | VARINT);
            self.varint(number);
        }
        self
    }

    /// Writes a double.
    pub fn fraction(mut self, field: u64, number: f64) -> Self {
        if number != 0.0 {
            self.varint(field << 3 | FIXED64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
        self
    }

    /// Adds bytes or a text.
    pub fn bytes(self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        if bytes.as_ref().is_empty() { self } else { self.present(field, bytes.as_ref()) }
    }

    /// Writes a field even if it is empty: an empty message differs from a missing one.
    fn present(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes a repeated number.
    pub fn packed(self, field: u64, numbers: &[u64]) -> Self {
        let mut all = Self::new();
        numbers.iter().for_each(|number| all.varint(*number));
        self.bytes(field, all.0)
    }

    /// Adds an embedded message.
    pub fn message(self, field: u64, message: Writer) -> Self {
        self.present(field, &message.0)
    }

    /// Writes a message if there is one.
    pub fn optional(self, field: u64, message: Option<Writer>) -> Self {
        match message {
            Some(message) => self.message(field, message),
            None => self,
        }
    }

    /// Adds a google.protobuf.Any.
    pub fn any(self, field: u64, any: &Any) -> Self {
        self.message(field, any.writer())
    }

    /// Writes a google.protobuf.Timestamp, if the event has occurred.
    pub fn time(self, field: u64, time: Option<std::time::SystemTime>) -> Self {
        match time {
            Some(time) => self.message(field, timestamp(time)),
            None => self,
        }
    }

    /// Returns the encoded message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn timestamp(time: std::time::SystemTime) -> Writer {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Writer::new().number(1, since.as_secs()).number(2, since.subsec_nanos().into())
}

/// google.protobuf.Any: a message and the name of its type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Any {
    pub type_url: String,
    pub value: Vec<u8>,
}

impl Any {
    /// Returns a message with the name of its type.
    pub fn new(type_url: &str, value: impl Into<Vec<u8>>) -> Self {
        Self { type_url: type_url.to_owned(), value: value.into() }
    }

    /// Parses a message.
    ///
    /// # Errors
    ///
    /// The bytes are no protobuf message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Status> {
        let any = Message::parse(bytes)?;
        Ok(Self::new(any.text(1)?, any.bytes(2)))
    }

    /// Encodes the message.
    pub fn writer(&self) -> Writer {
        Writer::new().bytes(1, &self.type_url).bytes(2, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Writer::new().bytes(1, "a");
        let bytes = Writer::new()
            .number(1, 300)
            .bytes(2, "text")
            .message(3, inner.clone())
            .message(3, Writer::new())
            .number(4, 0)
            .number(9, u64::MAX)
            .finish();
        assert_eq!(&bytes[..3], [0x08, 0xac, 0x02], "as the encoding's own documentation has it");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.number(1), 300);
        assert_eq!(message.text(2), Ok("text"));
        assert_eq!(message.all(3).collect::<Vec<_>>(), [inner.finish(), vec![]]);
        assert_eq!((message.number(4), message.number(9)), (0, u64::MAX));
        assert_eq!((message.text(7), message.flag(1), message.flag(7)), (Ok(""), true, false));
    }

    #[test]
    fn fixed_numbers_are_numbers_and_the_last_value_counts() {
        let bytes = [0x0d, 5, 0, 0, 0, 0x11, 6, 0, 0, 0, 0, 0, 0, 0, 0x08, 7];
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.number(1), message.number(2)), (7, 6));
    }

    #[test]
    fn fractions_have_eight_bytes() {
        let bytes = Writer::new().fraction(1, 0.0).fraction(2, 1.5).finish();
        assert_eq!(bytes, [0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
    }

    #[test]
    fn nonsense_is_refused() {
        let endless = [0xff; 11];
        for bytes in [&[0x08][..], &[0x0a, 5, 1], &[0x0b], &endless, &[0x0a, 0xff, 0xff, 0x7f]] {
            assert_eq!(Message::parse(bytes).unwrap_err().code, Code::InvalidArgument, "{bytes:?}");
        }
        assert!(Message::parse(&[0x0a, 1, 0xff]).unwrap().text(1).is_err());
    }
}
