//! Values of D-Bus, which messages and properties contain.

use std::borrow::Cow;
use std::fmt;

/// A typed value; the variants are the types of the D-Bus specification.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Boolean(bool),
    Byte(u8),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
    ObjectPath(String),
    Signature(String),
    Variant(Box<Value>),
    Structure(Vec<Value>),
    /// Only within an array.
    Entry(Box<(Value, Value)>),
    /// Signature of the elements, of which there may be none.
    Array(Cow<'static, str>, Vec<Value>),
}

/// Values are compared for equality: no property is NaN.
impl Eq for Value {}

impl Value {
    /// Returns the signature of the value's type.
    pub fn signature(&self) -> Cow<'static, str> {
        match self {
            Self::Boolean(_) => "b".into(),
            Self::Byte(_) => "y".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::String(_) => "s".into(),
            Self::ObjectPath(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Structure(members) => {
                let inner: String = members.iter().map(Self::signature).collect();
                format!("({inner})").into()
            }
            Self::Entry(entry) => {
                format!("{{{}{}}}", entry.0.signature(), entry.1.signature()).into()
            }
            Self::Array(element, _) => format!("a{element}").into(),
        }
    }

    /// Wraps the value in a variant.
    pub fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// Returns an array of bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().map(|b| Self::Byte(*b)).collect())
    }

    /// Returns an array of strings.
    pub fn strings<'a>(strings: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Array("s".into(), strings.into_iter().map(Self::from).collect())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Uint64(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

/// Formats the value nearly as `systemctl show` does.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open, values: &[Self], close| {
            f.write_str(open)?;
            for (index, value) in values.iter().enumerate() {
                write!(f, "{}{value}", if index == 0 { "" } else { " " })?;
            }
            f.write_str(close)
        };
        match self {
            Self::Boolean(value) => f.write_str(if *value { "yes" } else { "no" }),
            Self::Byte(value) => write!(f, "{value:#04x}"),
            Self::Int16(value) => value.fmt(f),
            Self::Uint16(value) => value.fmt(f),
            Self::Int32(value) => value.fmt(f),
            Self::Uint32(value) => value.fmt(f),
            Self::Int64(value) => value.fmt(f),
            Self::Uint64(u64::MAX) => f.write_str("infinity"),
            Self::Uint64(value) => value.fmt(f),
            // The exact algorithm of the standard library takes a hundredth of the binary.
            Self::Double(value) => {
                write!(f, "{}.{:06}", value.trunc() as i64, (value.fract().abs() * 1e6) as u32)
            }
            Self::String(text) | Self::ObjectPath(text) | Self::Signature(text) => {
                write!(f, "{text:?}")
            }
            Self::Variant(value) => value.fmt(f),
            Self::Structure(members) => list(f, "(", members, ")"),
            Self::Entry(entry) => write!(f, "{}: {}", entry.0, entry.1),
            Self::Array(_, values) => list(f, "[", values, "]"),
        }
    }
}
