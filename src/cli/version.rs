//! `aril --version`.

use crate::spec::OCI_VERSION;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Named by whoever builds a release.
pub const COMMIT: Option<&str> = option_env!("ARIL_COMMIT");

/// `NAME version X`, then one `key: value` per line: dockerd cuts the first line at `version`, and
/// go-runc reads the lines by their keys.
pub fn text() -> String {
    let commit = COMMIT.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("aril version {VERSION}\n{commit}spec: {OCI_VERSION}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_engines_read_it() {
        let text = text();
        let (name, version) = text.lines().next().unwrap().split_once("version").unwrap();
        assert_eq!((name.trim(), version.trim()), ("aril", VERSION));
        assert!(text.lines().any(|line| line == "spec: 1.3.0"));
        assert_eq!(text.lines().filter(|line| line.contains("version")).count(), 1);
    }
}
