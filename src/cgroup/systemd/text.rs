//! Parses the GVariant text format, in which annotations give properties: `'text'`, `true`, `uint64 5`, `['a', 'b']`,
//! `@a(ss) []`, `<byte 1>`.

use std::borrow::Cow;
use std::num::ParseIntError;

use super::Value;

type Result<T> = std::result::Result<T, String>;

const KEYWORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

/// Depth limit: deeper than any property, and far from the end of the stack.
const DEPTH: usize = 16;

/// Parses a value.
///
/// # Errors
///
/// The text is no value, is too deep, or has a rest.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value(None)?;
    parser.space();
    match parser.rest {
        "" => Ok(value),
        rest => Err(format!("unexpected {rest:?} behind the value")),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn need(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.wanted(token)) }
    }

    fn wanted(&self, what: &str) -> String {
        match self.rest {
            "" => format!("unexpected end, wanted {what}"),
            rest => format!("unexpected {rest:?}, wanted {what}"),
        }
    }

    /// Takes letters and digits, up to the next other character.
    fn word(&self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric());
        &self.rest[..end.unwrap_or(self.rest.len())]
    }

    /// Parses a value, with `wanted` of that type.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value> {
        if self.depth == DEPTH {
            return Err("nested too deeply".to_owned());
        }
        self.depth += 1;
        let value = self.any_value(wanted)?;
        self.depth -= 1;
        match wanted {
            Some(wanted) if value.signature() != wanted => {
                Err(format!("a value of type {:?}, wanted {wanted:?}", value.signature()))
            }
            _ => Ok(value),
        }
    }

    fn any_value(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.space();
        if self.eat("@") {
            let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
            let (signature, rest) = self.rest.split_at(end);
            if !matches!(complete_type(signature), Some((_, ""))) {
                return Err(format!("invalid type {signature:?}"));
            }
            self.rest = rest;
            return self.value(Some(signature));
        }
        match self.rest.bytes().next() {
            Some(b'\'' | b'"') => self.string().map(|text| of_type(text, wanted)),
            Some(b'[') => self.array(wanted),
            Some(b'(') => self.structure(wanted),
            Some(b'{') => self.dictionary(wanted),
            Some(b'<') => {
                self.need("<")?;
                let value = self.value(None)?;
                self.need(">")?;
                Ok(value.variant())
            }
            Some(b'+' | b'-' | b'.' | b'0'..=b'9') => self.number(wanted),
            _ => self.named(),
        }
    }

    /// Parses a value that begins with a letter.
    fn named(&mut self) -> Result<Value> {
        let word = self.word();
        let rest = &self.rest[word.len()..];
        match word {
            "true" | "false" => {
                self.rest = rest;
                return Ok((word == "true").into());
            }
            // A string of bytes; it ends with a NUL.
            "b" if rest.starts_with(['\'', '"']) => {
                self.rest = rest;
                let mut bytes = self.string()?.into_bytes();
                bytes.push(0);
                return Ok(Value::bytes(&bytes));
            }
            _ => {}
        }
        let Some((_, signature)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word) else {
            return Err(self.wanted("a value"));
        };
        self.rest = rest;
        self.value(Some(signature))
    }

    fn string(&mut self) -> Result<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == quote => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                '\0' => return Err("a NUL in a string".to_owned()),
                '\\' => text.push(escaped(&mut chars)?),
                c => text.push(c),
            }
        }
        Err(format!("a string without an end: {:?}", self.rest))
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let hexadecimal = text.trim_start_matches(['+', '-']).starts_with("0x");
        let fraction = !hexadecimal && text.contains('.');
        let value = match wanted {
            Some("d") => double(text).ok_or(()),
            None if fraction => double(text).ok_or(()),
            wanted => integer(text, wanted.unwrap_or("i")),
        };
        value.map_err(|()| match wanted {
            Some(wanted) => format!("{text:?} is no number of type {wanted:?}"),
            None => format!("{text:?} is no number of 32 bits: say int64 or uint64 before it"),
        })
    }

    /// Parses values up to `close`, separated by commas. Each has the type of the first, unless the type is known.
    fn array(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.need("[")?;
        let mut element = wanted.and_then(|w| w.strip_prefix('a')).map(str::to_owned);
        let mut values = Vec::new();
        while !self.eat("]") {
            if !values.is_empty() {
                self.need(",")?;
            }
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature().into_owned());
            values.push(value);
        }
        let element = element.ok_or("an empty array without a type: say @as [], for instance")?;
        Ok(Value::Array(Cow::Owned(element), values))
    }

    fn structure(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.need("(")?;
        let mut types = wanted.and_then(|w| w.strip_prefix('(')?.strip_suffix(')'));
        let mut members = Vec::new();
        while !self.eat(")") {
            if !members.is_empty() {
                self.need(",")?;
                if self.eat(")") {
                    break; // (1,) has one member.
                }
            }
            let (member, rest) = types.and_then(complete_type).unzip();
            types = rest;
            members.push(self.value(member)?);
        }
        if members.is_empty() {
            return Err("an empty structure".to_owned());
        }
        Ok(Value::Structure(members))
    }

    fn dictionary(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.need("{")?;
        let inner = wanted.and_then(|w| w.strip_prefix("a{")?.strip_suffix('}'));
        let mut types =
            inner.and_then(complete_type).map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut entries = Vec::new();
        while !self.eat("}") {
            if !entries.is_empty() {
                self.need(",")?;
            }
            let key = self.value(types.as_ref().map(|(key, _)| &**key))?;
            self.need(":")?;
            let value = self.value(types.as_ref().map(|(_, value)| &**value))?;
            types.get_or_insert_with(|| {
                (key.signature().into_owned(), value.signature().into_owned())
            });
            entries.push(Value::Entry(Box::new((key, value))));
        }
        let (key, value) = types.ok_or("an empty dictionary without a type")?;
        Ok(Value::Array(format!("{{{key}{value}}}").into(), entries))
    }
}

fn of_type(text: String, wanted: Option<&str>) -> Value {
    match wanted {
        Some("o") => Value::ObjectPath(text),
        Some("g") => Value::Signature(text),
        _ => Value::String(text),
    }
}

fn escaped(chars: &mut std::str::Chars) -> Result<char> {
    let digits = match chars.next() {
        Some('a') => return Ok('\x07'),
        Some('b') => return Ok('\x08'),
        Some('f') => return Ok('\x0c'),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('v') => return Ok('\x0b'),
        Some('u') => 4,
        Some('U') => 8,
        Some(c) => return Ok(c),
        None => return Err("a string without an end".to_owned()),
    };
    let code: String = chars.take(digits).collect();
    let number = u32::from_str_radix(&code, 16).ok();
    number
        .and_then(char::from_u32)
        .filter(|c| *c != '\0')
        .ok_or_else(|| format!("invalid character {code:?} in a string"))
}

/// Parses digits with a decimal point. No property has an exponent.
fn double(text: &str) -> Option<Value> {
    const PLACES: usize = 15;
    let digits = text.trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if fraction.len() > PLACES || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_u64.pow(fraction.len() as u32);
    let value = whole as f64 + fraction.parse::<u64>().ok()? as f64 / scale as f64;
    Some(Value::Double(if text.starts_with('-') { -value } else { value }))
}

fn integer(text: &str, signature: &str) -> std::result::Result<Value, ()> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = match digits.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    let number = magnitude.map_err(|_: ParseIntError| ())?;
    let number = if negative { -number } else { number };
    let value = match signature {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::Int16),
        "q" => number.try_into().map(Value::Uint16),
        "i" => number.try_into().map(Value::Int32),
        "u" => number.try_into().map(Value::Uint32),
        "x" => number.try_into().map(Value::Int64),
        "t" => number.try_into().map(Value::Uint64),
        _ => return Err(()),
    };
    value.map_err(|_| ())
}

/// Splits a signature into its first complete type and the rest.
fn complete_type(signature: &str) -> Option<(&str, &str)> {
    let length = match signature.bytes().next()? {
        b'a' => 1 + complete_type(&signature[1..])?.0.len(),
        open @ (b'(' | b'{') => {
            let close = if open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while *signature.as_bytes().get(at)? != close {
                at += complete_type(&signature[at..])?.0.len();
            }
            at + 1
        }
        b'b' | b'y' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
        | b'v' => 1,
        _ => return None,
    };
    Some(signature.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_annotations_have_them() {
        for (text, value) in [
            ("'inactive-or-failed'", Value::from("inactive-or-failed")),
            ("\"it's\"", "it's".into()),
            (r"'it\'s\n\u00e9'", "it's\n\u{e9}".into()),
            (" true ", true.into()),
            ("boolean false", false.into()),
            ("5", Value::Int32(5)),
            ("-0x10", Value::Int32(-16)),
            ("uint64 5", Value::Uint64(5)),
            ("byte 0xff", Value::Byte(255)),
            ("int64 -1", Value::Int64(-1)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("-.25", Value::Double(-0.25)),
            ("@t 7", Value::Uint64(7)),
            ("['a.service', 'b.service']", Value::strings(["a.service", "b.service"])),
            ("@as []", Value::strings([])),
            ("[byte 1, 2]", Value::bytes(&[1, 2])),
            ("b'ab'", Value::bytes(b"ab\0")),
            ("<'x'>", Value::from("x").variant()),
            ("('a', 1)", Value::Structure(vec!["a".into(), Value::Int32(1)])),
            (
                "@a(st) [('a', 1)]",
                Value::Array(
                    "(st)".into(),
                    vec![Value::Structure(vec!["a".into(), Value::Uint64(1)])],
                ),
            ),
            (
                "{'a': uint32 1}",
                Value::Array(
                    "{su}".into(),
                    vec![Value::Entry(Box::new(("a".into(), Value::Uint32(1))))],
                ),
            ),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_says_why() {
        for (text, why) in [
            ("", "unexpected end, wanted a value"),
            ("inactive", "unexpected \"inactive\", wanted a value"),
            ("'a' 'b'", "unexpected \"'b'\" behind the value"),
            ("'a", "a string without an end: \"'a\""),
            ("[1, 'a']", "a value of type \"s\", wanted \"i\""),
            ("[]", "an empty array without a type: say @as [], for instance"),
            ("5000000000", "\"5000000000\" is no number of 32 bits: say int64 or uint64 before it"),
            ("uint64 -1", "\"-1\" is no number of type \"t\""),
            ("byte 256", "\"256\" is no number of type \"y\""),
            ("boolean 1", "\"1\" is no number of type \"b\""),
            ("@a 1", "invalid type \"a\""),
            ("[1 2]", "unexpected \"2]\", wanted ,"),
            ("'\\u0000'", "invalid character \"0000\" in a string"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&deep), Err("nested too deeply".to_owned()));
    }

    #[test]
    fn signatures_are_split_into_types() {
        assert_eq!(complete_type("a{sv}as"), Some(("a{sv}", "as")));
        assert_eq!(complete_type("(a(ss)t)u"), Some(("(a(ss)t)", "u")));
        assert_eq!(complete_type("(ss"), None);
        assert_eq!(complete_type("z"), None);
    }
}
