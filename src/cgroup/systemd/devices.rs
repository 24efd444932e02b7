//! Converts a device filter to the properties `DevicePolicy` and `DeviceAllow`.
//!
//! systemd makes a filter of these properties that permits at least as much as Aril's. Aril's filter decides. The
//! properties keep the container's devices when systemd realizes the cgroup again.

use super::{Property, Value};
use crate::cgroup::devices::{Filter, Kind, Node};

/// Converts the filter. `known` is the text of `/proc/devices`.
pub fn properties(filter: &Filter, known: &str) -> [Property; 2] {
    let (policy, allowed) = match filter.permitted() {
        // The properties cannot express "all but".
        None => ("auto", Vec::new()),
        Some(permitted) => {
            let entry = |(node, access): (Node, String)| {
                Value::Structure(vec![pattern(&node, known).into(), access.into()])
            };
            ("strict", permitted.into_iter().map(entry).collect())
        }
    };
    [
        Property::new("DevicePolicy", policy),
        Property::new("DeviceAllow", Value::Array("(ss)".into(), allowed)),
    ]
}

fn pattern(node: &Node, known: &str) -> String {
    let kind = match node.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (node.major, node.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => match group(node.kind, major, known) {
            Some(group) => format!("{kind}-{group}"),
            None => format!("{kind}-{major}"),
        },
        // One minor number of every major cannot be expressed.
        (None, _) => format!("{kind}-*"),
    }
}

/// Returns the kernel's name of a major number: older versions of systemd accept no number.
fn group(kind: Kind, major: u32, known: &str) -> Option<&str> {
    let section = match kind {
        Kind::Block => "Block devices:",
        Kind::Char => "Character devices:",
    };
    let lines = known.lines().skip_while(|line| *line != section).skip(1);
    lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (number, name) = line.trim_start().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: &str = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 x\n";

    fn shown(rules: serde_json::Value) -> String {
        let filter = Filter::compile(&serde_json::from_value::<Vec<_>>(rules).unwrap()).unwrap();
        properties(&filter, KNOWN).map(|p| p.to_string()).join(" ")
    }

    #[test]
    fn what_is_permitted() {
        let text = shown(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "access": "rw"},
            {"allow": true, "type": "c", "major": 7, "minor": 1, "access": "r"},
            {"allow": true, "type": "c", "major": 99, "access": "r"},
            {"allow": true, "type": "c", "minor": 99, "access": "r"},
        ]));
        assert!(text.starts_with("DevicePolicy=\"strict\" DeviceAllow=[("), "{text}");
        for entry in [
            r#"("block-*" "m")"#,
            r#"("block-sd" "rw")"#,
            r#"("/dev/char/7:1" "r")"#,
            r#"("char-99" "r")"#,
            r#"("char-*" "r")"#,
            r#"("char-pts" "rwm")"#,
            r#"("/dev/char/1:3" "rwm")"#,
        ] {
            assert!(text.contains(entry), "{entry}: {text}");
        }
    }

    #[test]
    fn all_but_is_left_to_us() {
        let all = json!([{"allow": true, "access": "rwm"}]);
        assert_eq!(shown(all), "DevicePolicy=\"auto\" DeviceAllow=[]");
        let but = json!([{"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "access": "rwm"}]);
        assert_eq!(shown(but), "DevicePolicy=\"auto\" DeviceAllow=[]");
    }
}
