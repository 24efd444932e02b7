//! Names and numbers that look alike and must not be mixed up.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// A container's id: one or more of `[A-Za-z0-9_+.-]`, not `.` or `..`.
///
/// It names a directory, a cgroup and a keyring, so it is checked before anything touches a file
/// system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::new(Kind::Usage, "container id cannot be empty"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
        if text == "." || text == ".." || !text.bytes().all(allowed) {
            return Err(Error::new(Kind::Usage, format!("invalid container ID format: {text:?}"))
                .hint("an id is made of letters, digits and _ + - ."));
        }
        Ok(Self(text.to_owned()))
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

/// A process number in the runtime's own pid namespace, never one that a container sees.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "a-b_c.d+e", "0", "..a", "-x"] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\0"] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
