//! Finds the field of a JSON document that an error belongs to. serde_json reports only line and column.

/// Returns the text of the error after the field, as in `linux.namespaces[2].type: unknown variant ...`.
#[cold]
pub fn with_field(text: &[u8], error: &serde_json::Error) -> String {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let offset = lines.map(<[u8]>::len).sum::<usize>() + error.column();
    match field(&text[..offset.min(text.len())]) {
        place if place.is_empty() => error.to_string(),
        place => format!("{place}: {error}"),
    }
}

enum Level<'a> {
    Object(Option<&'a [u8]>),
    Array(usize),
}

/// Returns the field at the end of the cut text. After the end of a value, the field stays the same until a comma. A
/// complete object is one value.
fn field(text: &[u8]) -> String {
    let mut levels = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match (byte, levels.last_mut()) {
            (b'{', _) => levels.push(Level::Object(None)),
            (b'[', _) => levels.push(Level::Array(0)),
            (b'}' | b']', _) => drop(levels.pop()),
            (b',', Some(Level::Array(index))) => *index += 1,
            (b',', Some(Level::Object(key))) => *key = None,
            (b'"', level) => {
                let string = string(&text[at..]);
                at += string.len() + 1;
                if let Some(Level::Object(key @ None)) = level {
                    *key = Some(string);
                }
            }
            _ => {}
        }
    }
    levels.iter().fold(String::new(), |path, level| match level {
        Level::Object(None) => path,
        Level::Object(Some(key)) => join(path, &String::from_utf8_lossy(key)),
        Level::Array(index) => format!("{path}[{index}]"),
    })
}

/// Returns the string up to its closing quotation mark.
fn string(text: &[u8]) -> &[u8] {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    &text[..end.unwrap_or(text.len())]
}

/// Appends a key to a path. Names of annotations and sysctls contain dots, so they are quoted.
fn join(path: String, key: &str) -> String {
    match (key.contains(['.', '/']), path.is_empty()) {
        (true, _) => format!("{path}[\"{key}\"]"),
        (false, true) => key.to_owned(),
        (false, false) => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    #[test]
    fn the_field_where_a_text_is_cut() {
        for (text, expected) in [
            ("", ""),
            ("{", ""),
            (r#"{"a": "x""#, "a"),
            (r#"{"a": [1, {"b\"[": 2}, {"c": {"#, "a[2].c"),
            (r#"{"a": [1, {"b\"[": 2}, {"c": {"d": "}""#, "a[2].c.d"),
            (r#"{"a": {"b": 1}"#, "a"),
            (r#"{"a": {"b": 1}, "c": {"net.ipv4.x": 5"#, "c[\"net.ipv4.x\"]"),
            (r#"{"a": "\\", "b": 1"#, "b"),
            ("}]],,\"", ""),
        ] {
            assert_eq!(field(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_the_types_refuse() {
        for (text, expected) in [
            (
                r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"x"}]}}"#,
                "linux.namespaces[1].type: ",
            ),
            ("{\n \"process\": {\"user\": {\"uid\": -1,\n \"gid\": 0}}}", "process.user.uid: "),
            (r#"{"mounts":[{"type":"proc"}]}"#, "mounts[0]: missing field `destination`"),
            (r#"{"hostname":5}"#, "hostname: invalid type"),
            (r#"{"hostname":"a",}"#, "trailing comma"),
            (r#"{"linux":{"sysctl":{"a.b":1}}}"#, "linux.sysctl[\"a.b\"]: "),
        ] {
            let error = serde_json::from_str::<Spec>(text).unwrap_err();
            let said = with_field(text.as_bytes(), &error);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
