//! Operations on the text of paths. Nothing here accesses the file system.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Removes `.`, `..` and repeated slashes from the text, like Go's `filepath.Clean`. `..` does not go above a leading
/// `/`.
pub fn clean(path: &Path) -> PathBuf {
    if is_clean(path) {
        return path.to_owned();
    }
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            Component::RootDir | Component::Normal(_) => out.push(part),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

/// True if `clean` would change nothing. Most paths of a config are clean, and a config may have hundreds.
fn is_clean(path: &Path) -> bool {
    let parts =
        path.as_os_str().as_bytes().strip_prefix(b"/").map(|rest| rest.split(|b| *b == b'/'));
    parts.is_some_and(|mut parts| parts.all(|part| !matches!(part, b"" | b"." | b"..")))
}

/// Joins a relative `path` to `base`, and cleans the result.
pub fn absolute(base: &Path, path: &Path) -> PathBuf {
    clean(&base.join(path))
}

/// Converts a path to a C string. `what` names the field in the error.
///
/// # Errors
///
/// The path contains a NUL byte, at which the kernel would cut it (the class of CVE-2021-43784).
pub fn c_path(what: &str, path: &Path) -> Result<CString> {
    c_string(what, path.as_os_str().as_bytes())
}

/// Converts bytes to a C string. `what` names the field in the error.
///
/// # Errors
///
/// The bytes contain a NUL byte.
pub fn c_string(what: &str, bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| {
        Error::config(format!("{what} contains a NUL byte: {:?}", String::from_utf8_lossy(bytes)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_like_go() {
        for (input, output) in [
            ("/a/./b//c", "/a/b/c"),
            ("/a/.b/..c", "/a/.b/..c"),
            ("/a/", "/a"),
            ("/", "/"),
            ("/../a", "/a"),
            ("a/../..", ".."),
            ("", "."),
            ("/a/..", "/"),
            ("./x", "x"),
            ("../../x/..", "../.."),
        ] {
            assert_eq!(clean(Path::new(input)).as_os_str(), output, "{input}");
        }
        assert_eq!(absolute(Path::new("/b"), Path::new("../c")), Path::new("/c"));
        assert_eq!(absolute(Path::new("/b"), Path::new("/c/")), Path::new("/c"));
    }
}
