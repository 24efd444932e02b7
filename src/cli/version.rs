//! `aril --version`.

use super::help;
use crate::spec::OCI_VERSION;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit, which the build of a release sets.
pub const COMMIT: Option<&str> = option_env!("ARIL_COMMIT");

/// `NAME version X`, the commit, then one `key: value` per line: dockerd cuts the first line at `version`, and
/// go-runc reads the lines by their keys.
pub fn text() -> String {
    let (name, commit) = (help::called(), COMMIT.unwrap_or("unknown"));
    format!("{name} version {VERSION}\ncommit: {commit}\nspec: {OCI_VERSION}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_engines_read_it() {
        let text = text();
        let (name, version) = text.lines().next().unwrap().split_once("version").unwrap();
        assert_eq!((name.trim(), version.trim()), ("aril", VERSION));
        assert!(text.lines().nth(1).unwrap().starts_with("commit: "));
        assert_eq!(text.lines().nth(2), Some("spec: 1.3.0"));
        assert_eq!(text.lines().filter(|line| line.contains("version")).count(), 1);
    }
}
