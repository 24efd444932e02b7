//! Deserializes JSON like Go's `encoding/json`, with which most config.json files were tested.
//!
//! The differences from serde: names of fields match in any case; `null` is the zero value of its type (an empty list,
//! `""`, 0); an array is never read as the fields of an object. With [`Missing::Zero`], a missing field counts as
//! `null`.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{CowStrDeserializer, Error as ValueError};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Value of a required field that a document lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Error,
    Zero,
}

/// Deserializer that wraps another JSON deserializer.
///
/// Only little code is generic over the deserialized types: there are a hundred of them, and each page of the binary
/// that a start accesses costs a page fault.
pub struct Lenient<D>(pub D, pub Missing);

/// Names of the fields of a type.
type Names = &'static [&'static str];

/// JSON type of a value without elements.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Number,
    Text,
}

/// Value without elements, or the kind of one that has elements.
enum Scalar<'de> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'de, str>),
    List,
    Object,
}

impl<'de> Scalar<'de> {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Signed(value) => Unexpected::Signed(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Text(value) => Unexpected::Str(value),
            Self::List => Unexpected::Seq,
            Self::Object => Unexpected::Map,
        }
    }

    /// Passes the value to `visitor`. `null` is the zero value of the kind.
    fn visit<V: Visitor<'de>>(self, kind: Kind, visitor: V) -> Result<V::Value, ValueError> {
        match (kind, self) {
            (Kind::Bool, Self::Null) => visitor.visit_bool(false),
            (Kind::Bool, Self::Bool(value)) => visitor.visit_bool(value),
            (Kind::Number, Self::Null) => visitor.visit_u64(0),
            (Kind::Number, Self::Unsigned(value)) => visitor.visit_u64(value),
            (Kind::Number, Self::Signed(value)) => visitor.visit_i64(value),
            (Kind::Number, Self::Float(value)) => visitor.visit_f64(value),
            (Kind::Text, Self::Null) => visitor.visit_borrowed_str(""),
            (Kind::Text, Self::Text(Cow::Borrowed(value))) => visitor.visit_borrowed_str(value),
            (Kind::Text, Self::Text(Cow::Owned(value))) => visitor.visit_string(value),
            (_, other) => Err(Error::invalid_type(other.unexpected(), &visitor)),
        }
    }
}

/// Visitor that passes a scalar on, while the deserializer still knows the position of an error.
struct Scalars<'a, 'de>(&'a mut dyn FnMut(Scalar<'de>) -> Result<(), ValueError>);

impl<'de> Scalars<'_, 'de> {
    fn pass<E: Error>(self, scalar: Scalar<'de>) -> Result<(), E> {
        (self.0)(scalar).map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for Scalars<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.pass(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.pass(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.pass(Scalar::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.pass(Scalar::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.pass(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.pass(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<(), E> {
        self.pass(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<(), E> {
        self.pass(Scalar::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.pass(Scalar::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.pass(Scalar::Object)
    }
}

impl<'de, D: Deserializer<'de>> Lenient<D> {
    fn scalar<V: Visitor<'de>>(self, kind: Kind, visitor: V) -> Result<V::Value, D::Error> {
        let (mut visitor, mut read) = (Some(visitor), None);
        let mut visit = |scalar: Scalar<'de>| {
            let visitor =
                visitor.take().ok_or_else(|| ValueError::custom("more than one value"))?;
            read = Some(scalar.visit(kind, visitor)?);
            Ok(())
        };
        scalar(self.0, &mut visit)?;
        read.ok_or_else(|| Error::custom("no value"))
    }
}

/// Reads a scalar. Not generic over the deserialized type, and not inlined, so that its code exists once.
#[inline(never)]
fn scalar<'de, D: Deserializer<'de>>(
    inner: D,
    visit: &mut dyn FnMut(Scalar<'de>) -> Result<(), ValueError>,
) -> Result<(), D::Error> {
    inner.deserialize_any(Scalars(visit))
}

/// Implements methods whose only argument is the visitor.
macro_rules! scalars {
    ($($kind:expr => $($method:ident)*;)*) => {
        $($(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.scalar($kind, visitor)
        })*)*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<D> {
    type Error = D::Error;

    scalars! {
        Kind::Bool => deserialize_bool;
        Kind::Number => deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
            deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64;
        Kind::Text => deserialize_char deserialize_str deserialize_string deserialize_bytes
            deserialize_byte_buf;
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(List(visitor, self.1))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Object { visitor, names: None, missing: self.1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: Names,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Object { visitor, names: Some(names), missing: self.1 })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Optional(visitor, self.1))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: Names,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! { i128 u128 unit unit_struct tuple tuple_struct identifier }
}

/// Deserializes `text`, the zero value of a null or missing field, with the same code as documents.
fn zero<'de, S: DeserializeSeed<'de>, E: Error>(
    seed: S,
    text: &'static [u8],
) -> Result<S::Value, E> {
    seed.deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(E::custom)
}

/// Array. `null` is an empty one.
struct List<V>(V, Missing);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for List<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        inner.deserialize_seq(self)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for List<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        zero(self, b"[]")
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Elements(elements, self.1))
    }
}

/// Object with free keys, or with the fields `names`. `null` is an empty one.
struct Object<V> {
    visitor: V,
    names: Option<Names>,
    missing: Missing,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Object<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        inner.deserialize_map(self)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        zero(self, b"{}")
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.deserialize(inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let names = self.names.map(|names| Fields { names, seen: 0 });
        self.visitor.visit_map(Entries { inner, names, missing: self.missing, is_zero: false })
    }
}

struct Optional<V>(V, Missing);

impl<'de, V: Visitor<'de>> Visitor<'de> for Optional<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Lenient(inner, self.1))
    }
}

struct Elements<A>(A, Missing);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Seed(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

struct Seed<S>(S, Missing);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Lenient(inner, self.1))
    }
}

/// Fields of a type, and a bit for each that the document has.
struct Fields {
    names: Names,
    seen: u64,
}

impl Fields {
    /// Returns the name of a field with the type's case. Other names are unchanged, and the type ignores them.
    fn canonical<'a>(&mut self, key: Cow<'a, str>) -> Cow<'a, str> {
        let exact = self.names.iter().position(|name| *name == key);
        let folded = || self.names.iter().position(|name| name.eq_ignore_ascii_case(&key));
        match exact.or_else(folded) {
            Some(index) => {
                self.seen |= 1 << index;
                Cow::Borrowed(self.names[index])
            }
            None => key,
        }
    }

    fn next_missing(&mut self) -> Option<&'static str> {
        let index = self.seen.trailing_ones() as usize;
        self.seen |= self.seen + 1;
        self.names.get(index).copied()
    }
}

struct Entries<A> {
    inner: A,
    names: Option<Fields>,
    missing: Missing,
    /// True while the current field is a missing one.
    is_zero: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let mut fields = self.names.as_mut();
        let key = match (self.inner.next_key_seed(Key)?, &mut fields) {
            (Some(key), Some(fields)) => fields.canonical(key),
            (Some(key), None) => key,
            (None, _) => {
                self.is_zero = true;
                let fields = fields.filter(|_| self.missing == Missing::Zero);
                let Some(name) = fields.and_then(Fields::next_missing) else { return Ok(None) };
                Cow::Borrowed(name)
            }
        };
        seed.deserialize(CowStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = Seed(seed, self.missing);
        if self.is_zero { zero(seed, b"null") } else { self.inner.next_value_seed(seed) }
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }
}

/// Returns the field of an object. Its name matches in any case.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = object.as_object()?;
    let folded = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    fields.get(name).or_else(|| folded().map(|(_, value)| value))
}

/// Merges fields that a document has twice in different cases, as Go does. Keys of free maps do not change.
pub fn merge_duplicates(value: &mut Value) {
    const FREE: [&str; 5] = ["annotations", "sysctl", "unified", "rdma", "netDevices"];
    match value {
        Value::Object(fields) => {
            for (key, mut value) in std::mem::take(fields) {
                if !FREE.contains(&&*key) {
                    merge_duplicates(&mut value);
                }
                merge_field(fields, key, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(merge_duplicates),
        _ => {}
    }
}

fn merge_field(fields: &mut serde_json::Map<String, Value>, key: String, value: Value) {
    let Some((_, there)) = fields.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(&key))
    else {
        fields.insert(key, value);
        return;
    };
    match (there, value) {
        (Value::Object(there), Value::Object(fields)) => {
            fields.into_iter().for_each(|(key, value)| merge_field(there, key, value));
        }
        (_, Value::Null) => {}
        (there, value) => *there = value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        page_size: String,
        on: bool,
        limit: i64,
        names: Vec<String>,
        maps: HashMap<String, String>,
        inner: Option<Inner>,
        #[serde(default)]
        last: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Inner {
        ids: Vec<u32>,
    }

    fn read(text: &str, missing: Missing) -> Result<Outer, String> {
        let mut direct = serde_json::Deserializer::from_str(text);
        let direct = Outer::deserialize(Lenient(&mut direct, missing)).map_err(|e| e.to_string());
        let value: Value = serde_json::from_str(text).unwrap();
        let by_value = Outer::deserialize(Lenient(value, missing));
        assert_eq!(direct.as_ref().ok(), by_value.as_ref().ok(), "{text}");
        direct
    }

    fn zero() -> Outer {
        Outer {
            page_size: String::new(),
            on: false,
            limit: 0,
            names: Vec::new(),
            maps: HashMap::new(),
            inner: None,
            last: Inner::default(),
        }
    }

    #[test]
    fn null_is_zero() {
        let nulls = r#"{"pageSize": null, "on": null, "limit": null, "names": null, "maps": null,
            "inner": null, "last": {"ids": null}}"#;
        assert_eq!(read(nulls, Missing::Error).unwrap(), zero());
        let inner = r#"{"names": [null, "a"], "maps": {"x": null}, "inner": {"ids": [null]},
            "last": null}"#;
        let read = read(inner, Missing::Zero).unwrap();
        assert_eq!(read.names, ["", "a"]);
        assert_eq!(read.maps["x"], "");
        assert_eq!(read.inner.unwrap().ids, [0]);
        assert!(read.last.ids.is_empty());
    }

    #[test]
    fn what_is_missing() {
        assert_eq!(read("{}", Missing::Zero).unwrap(), zero());
        let inner = r#"{"inner": {}, "limit": 3}"#;
        let with = Outer { inner: Some(Inner::default()), limit: 3, ..zero() };
        assert_eq!(read(inner, Missing::Zero).unwrap(), with);
        assert!(read("{}", Missing::Error).unwrap_err().starts_with("missing field `pageSize`"));
    }

    #[test]
    fn names_in_any_case() {
        let odd = r#"{"PageSize": "a", "ON": true, "Inner": {"IDS": [1]}, "other": [1, {"a": 2}],
            "MAPS": {"Free": "k"}}"#;
        let read = |text: &str| read(text, Missing::Zero);
        let seen = read(odd).unwrap();
        assert_eq!((&*seen.page_size, seen.on), ("a", true));
        assert_eq!(seen.inner.unwrap().ids, [1]);
        assert_eq!(seen.maps["Free"], "k");
        let twice = read(r#"{"pagesize": "a", "pageSize": "b"}"#).unwrap_err();
        assert!(twice.starts_with("duplicate field `pageSize`"), "{twice}");
        assert!(read(r#"{"\u0070ageSize": "a"}"#).unwrap().page_size == "a");
    }

    #[test]
    fn duplicates_are_merged() {
        let merged = |mut value: Value| {
            merge_duplicates(&mut value);
            value
        };
        let cpu = json!({"resources": {"CPU": {"Cpus": "0"}, "cpu": {"shares": 5, "cpus": null}}});
        assert_eq!(merged(cpu), json!({"resources": {"CPU": {"Cpus": "0", "shares": 5}}}));
        let lists = json!([{"NAMES": ["a"], "names": ["b"]}]);
        assert_eq!(merged(lists), json!([{"NAMES": ["b"]}]));
        let free = json!({"annotations": {"a": "1", "A": "2"}});
        assert_eq!(merged(free.clone()), free);
    }

    #[test]
    fn other_types_are_refused() {
        for (text, expected) in [
            ("[]", "invalid type: sequence, expected struct Outer"),
            (r#"{"last": []}"#, "invalid type: sequence, expected struct Inner"),
            (r#"{"inner": [[1]]}"#, "invalid type: sequence, expected struct Inner"),
            (r#"{"maps": []}"#, "invalid type: sequence, expected a map"),
            (r#"{"names": {}}"#, "invalid type: map, expected a sequence"),
            (r#"{"names": "a"}"#, "invalid type: string \"a\", expected a sequence"),
            (r#"{"limit": 1.0}"#, "invalid type: floating point `1.0`, expected i64"),
            (r#"{"limit": "1"}"#, "invalid type: string \"1\", expected i64"),
            (r#"{"on": 1}"#, "invalid type: integer `1`, expected a boolean"),
            (r#"{"pageSize": 5}"#, "invalid type: integer `5`, expected a string"),
        ] {
            let text = read(text, Missing::Zero).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
            assert!(text.contains("line 1 column"), "{text}");
        }
    }
}
