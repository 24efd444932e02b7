//! Identifiers with a type of their own: container IDs, process IDs, and the user and group names of options.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// ID of a container: one or more of `[A-Za-z0-9_+.-]`, not beginning with a dot.
///
/// The ID becomes the name of a directory, a cgroup and a keyring, so it is checked before any use. A leading dot is
/// rejected, as in crun: `.` and `..` are special, and other such names are hidden.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks `text` and returns it as a container ID.
    ///
    /// # Errors
    ///
    /// `text` is empty, begins with a dot, or contains another character than those allowed.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::new(Kind::Usage, "container id cannot be empty"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
        let other = text.chars().find(|c| !c.is_ascii() || !allowed(*c as u8));
        let reason = match other {
            Some(c) => format!("invalid character {c:?}"),
            None if text.starts_with('.') => "it begins with a dot".to_owned(),
            None => return Ok(Self(text.to_owned())),
        };
        let text = format!("invalid container ID format: {text:?}: {reason}");
        Err(Error::new(Kind::Usage, text).hint("an id is made of letters, digits and _ + - ."))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for ContainerId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

/// Process ID (pid) in the pid namespace of the calling process, never one that a container sees.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct HostPid(pub i32);

impl fmt::Display for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses decimal digits. Other text, with a sign for example, is `None`; `str::parse` would accept a sign.
pub fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// User or group from the command line, or from a field of passwd(5).
///
/// `run`, `exec` and the image's files share this parser. A text that another parser could read as a number (out of
/// range, signed, padded, hexadecimal, with a fraction or an exponent) is an error and never a name, because the
/// image's passwd file could map such a name to root (CVE-2016-3697, CVE-2024-40635, CVE-2026-46680).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Principal<'a> {
    /// Parses a decimal ID or a name.
    ///
    /// # Errors
    ///
    /// Returns the reason if `text` is neither an ID nor a name.
    pub fn parse(text: &'a str) -> std::result::Result<Self, &'static str> {
        match number(text) {
            // setresuid(2) and related calls use this value for "unchanged".
            Some(u32::MAX) => Err("4294967295 is not an ID"),
            Some(id) => Ok(Self::Number(id)),
            None if text.is_empty() => Err("it is empty"),
            None if resembles_a_number(text) => {
                Err("an ID is written in decimal digits, from 0 to 4294967294")
            }
            None => Ok(Self::Name(text)),
        }
    }
}

/// Returns true if another parser could read `text` as a number.
///
/// Names that useradd(8) accepts start with a letter, a digit, `_` or `.`, and contain no blank.
fn resembles_a_number(text: &str) -> bool {
    if text.starts_with(['-', '+']) || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return true;
    }
    let based = ["0x", "0X", "0o", "0O", "0b", "0B"].iter().any(|base| text.starts_with(base));
    let grouped = |c: char| c.is_numeric() || matches!(c, '_' | '.' | ',' | '\'');
    let float = text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok();
    based || float || text.contains(char::is_numeric) && text.chars().all(grouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_any_notation_is_never_a_name() {
        for (text, id) in [("0", 0), ("007", 7), ("4294967294", u32::MAX - 1)] {
            assert_eq!(Principal::parse(text), Ok(Principal::Number(id)), "{text}");
        }
        for name in ["root", "_apt", "systemd-network", "3proxy", "user.name", "9p", "name$", "e3"]
        {
            assert_eq!(Principal::parse(name), Ok(Principal::Name(name)));
        }
        for text in [
            "",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "99999999999999999999999999",
            "00000000004294967296",
            "-1",
            "-0",
            "--1",
            "+0",
            "+root",
            " 0",
            "0 ",
            "0\n",
            "\t0",
            "0x0",
            "0X0",
            "0b0",
            "0o0",
            "0.0",
            "0.",
            "0e0",
            "1e3",
            "1_000",
            "1,000",
            "\u{661}",
            "\u{ff10}",
            "\u{b2}",
            "ro ot",
            "root\0",
            "\u{a0}0",
        ] {
            assert!(Principal::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ids() {
        for good in ["a", "a-b_c.d+e", "0", "a..", "-x"] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "..a", "a/b", "a b", "ü", "a\0"] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
