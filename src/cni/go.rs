//! Decodes JSON like Go's `encoding/json`, because Go programs write what the plugin reads.
//!
//! * A field's name matches in any case: go-cni sends `HostPort` where libcni sends `hostPort`. Returned names are
//!   lower-case.
//! * `null`, as Go writes a nil slice, map or pointer, counts as an absent field.
//! * If a field occurs twice, the last value counts; two objects are merged.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Document with lower-case field names and without nulls. A document that is only `null` is `Value::Null`.
#[derive(Debug, Default)]
pub struct Document(pub Value);

/// Parses a document.
///
/// # Errors
/// Fails if the text is not JSON.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Document>(text).map(|document| document.0)
}

/// Folds a name like Go's `unicode.SimpleFold`: besides upper and lower case, U+017F equals s and U+212A equals k.
fn folded(name: &str) -> String {
    name.chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c == '\u{17f}' { 's' } else { c })
        .collect()
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Document(value)) = access.next_element()? {
            if !value.is_null() {
                all.push(value);
            }
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Document(value))) = access.next_entry::<String, Document>()? {
            match (all.get_mut(&folded(&name)), value) {
                (_, Value::Null) => {}
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (_, value) => {
                    all.insert(folded(&name), value);
                }
            }
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_match_in_any_case() {
        let wanted = json!({"hostport": 80, "hostip": ""});
        for text in [
            r#"{"hostPort":80,"hostIP":""}"#,
            r#"{"HostPort":80,"HostIP":""}"#,
            r#"{"HOSTPORT":80,"hostip":""}"#,
            "{\"ho\u{17f}tPort\":80,\"hostIp\":\"\"}",
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        assert_eq!(read("{\"\u{212a}\":1}"), json!({"k": 1}));
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(read(r#"{"a":null,"b":{"c":null},"d":[null,1,[null]]}"#), {
            json!({"b": {}, "d": [1, []]})
        });
        assert_eq!(read("null"), Value::Null);
    }

    #[test]
    fn the_last_of_duplicate_fields_counts() {
        assert_eq!(read(r#"{"a":1,"A":2}"#), json!({"a": 2}));
        assert_eq!(read(r#"{"A":2,"a":null}"#), json!({"a": 2}));
        assert_eq!(read(r#"{"a":{"b":1,"c":1},"A":{"C":2}}"#), json!({"a": {"b": 1, "c": 2}}));
        assert!(parse(b"{").is_err() && parse(b"").is_err());
    }
}
