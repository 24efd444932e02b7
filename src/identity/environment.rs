//! Plans the environment of the container's process, and finds its HOME.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use crate::error::{Error, Result};
use crate::fs::{Proc, Root};

/// Maximum number of bytes that are read from the container's passwd file, and of one line.
const PASSWD_MAX: u64 = 10 << 20;
const LINE_MAX: u64 = 64 << 10;

/// Environment of the container's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `NAME=VALUE`, ready for execve.
    pub variables: Vec<CString>,
    /// True if HOME is missing, and [`home`] must be appended.
    pub needs_home: bool,
}

impl Environment {
    /// Returns the value of PATH, in which `args[0]` is looked up.
    pub fn path(&self) -> &[u8] {
        let value = |v: &'_ CString| v.to_bytes().starts_with(b"PATH=");
        self.variables.iter().find(|v| value(v)).map_or(b"", |v| &v.to_bytes()[b"PATH=".len()..])
    }
}

/// Removes duplicate names: the last value of a name stays, at its position. Makes no system calls.
///
/// # Errors
///
/// A variable has no `=`, an empty name, or a NUL byte.
pub fn plan(variables: &[String]) -> Result<Environment> {
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(variables.len() + 1);
    let mut needs_home = true;
    for variable in variables.iter().rev() {
        let (name, value) = split(variable)?;
        // An empty HOME counts as missing.
        if !seen.insert(name) || (name == "HOME" && value.is_empty()) {
            continue;
        }
        needs_home &= name != "HOME";
        kept.push(CString::new(variable.as_str()).map_err(|_| {
            Error::config(format!(
                "invalid environment variable {name:?}: contains nul byte (\\x00)"
            ))
        })?);
    }
    kept.reverse();
    Ok(Environment { variables: kept, needs_home })
}

fn split(variable: &str) -> Result<(&str, &str)> {
    match variable.split_once('=') {
        None => Err(Error::config("invalid environment variable: missing '='")),
        Some(("", _)) => Err(Error::config("invalid environment variable: name cannot be empty")),
        Some(pair) => Ok(pair),
    }
}

/// Returns `HOME=` with the home directory of `uid` in the container's passwd file, or `/`.
///
/// Called in the child. The file belongs to the container, and may have any type and content.
pub fn home(root: &Root, proc: &Proc, uid: u32) -> CString {
    let passwd = root.regular_file(c"/etc/passwd", proc).ok().flatten();
    let passwd = passwd.map(|fd| BufReader::new(File::from(fd).take(PASSWD_MAX)));
    let home = passwd.and_then(|file| home_of(file, uid));
    let mut variable = b"HOME=".to_vec();
    variable.extend(home.unwrap_or_else(|| b"/".to_vec()));
    CString::new(variable).unwrap_or_else(|_| c"HOME=/".into())
}

/// Returns the sixth field of the first line whose third field is `uid`.
fn home_of(mut passwd: impl BufRead, uid: u32) -> Option<Vec<u8>> {
    let uid = uid.to_string();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = passwd.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).ok()?;
        // This is the end of the file, or a line too long for a passwd file.
        if length == 0 || length as u64 == LINE_MAX {
            return None;
        }
        let mut fields = line.trim_ascii().split(|byte| *byte == b':');
        if fields.nth(2) == Some(uid.as_bytes()) {
            return fields.nth(2).filter(|home| !home.is_empty()).map(<[u8]>::to_vec);
        }
    }
}

/// Checks for `runtime-tests/fuzz/` that a result is a field of the file.
#[cfg(fuzzing)]
pub fn check_passwd(passwd: &[u8]) {
    for uid in [0, 8, 1000, u32::MAX] {
        let Some(home) = home_of(passwd, uid) else { continue };
        assert!(!home.is_empty() && !home.contains(&b':') && !home.contains(&b'\n'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(variables: &[&str]) -> Result<Environment> {
        plan(&variables.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn texts(environment: &Environment) -> Vec<&str> {
        environment.variables.iter().map(|v| v.to_str().unwrap()).collect()
    }

    #[test]
    fn the_last_value_wins_at_its_own_place() {
        let environment = planned(&["A=1", "B=2", "A=3", "HOME=/h", "C=x=y"]).unwrap();
        assert_eq!(texts(&environment), ["B=2", "A=3", "HOME=/h", "C=x=y"]);
        assert!(!environment.needs_home);
    }

    #[test]
    fn an_empty_home_is_none() {
        let environment = planned(&["HOME=/a", "PATH=/bin", "HOME="]).unwrap();
        assert_eq!(texts(&environment), ["PATH=/bin"]);
        assert!(environment.needs_home);
        assert_eq!(environment.path(), b"/bin");
        assert!(planned(&[]).unwrap().needs_home);
        assert_eq!(planned(&[]).unwrap().path(), b"");
    }

    #[test]
    fn variables_are_checked() {
        for (variable, message) in [
            ("A", "invalid environment variable: missing '='"),
            ("", "invalid environment variable: missing '='"),
            ("=a", "invalid environment variable: name cannot be empty"),
            ("A=\0", "invalid environment variable \"A\": contains nul byte (\\x00)"),
        ] {
            assert_eq!(planned(&[variable]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn home_is_found_by_number_only() {
        let passwd = "# comment\n1000:x:0:0::/wrong:\nroot:x:0:0:root:/root:/bin/sh\n\
                      u:x:1000:1000::/home/u:\nv:x:1001:1001:::\nw:x:01002:1:::/w\n";
        let home = |uid| home_of(passwd.as_bytes(), uid);
        assert_eq!(home(1000).as_deref(), Some(&b"/home/u"[..]));
        assert_eq!(home(0).as_deref(), Some(&b"/wrong"[..]));
        assert_eq!(home(1001), None);
        assert_eq!(home(1002), None);
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let endless = std::io::repeat(b'x').take(LINE_MAX * 2);
        assert_eq!(home_of(BufReader::new(endless), 0), None);
    }

    #[test]
    fn a_passwd_that_is_no_file_is_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("aril-passwd-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        let root = Root::new(File::open(&dir).unwrap().into());
        let proc = Proc::of_the_host().unwrap();
        assert_eq!(home(&root, &proc, 0).as_c_str(), c"HOME=/");

        let passwd = dir.join("etc/passwd");
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(home(&root, &proc, 0).as_c_str(), c"HOME=/");

        std::fs::remove_file(&passwd).unwrap();
        std::fs::write(dir.join("real"), "r:x:0:0::/inside:\n").unwrap();
        // The file is in the container's root, not on the host.
        std::os::unix::fs::symlink("/real", &passwd).unwrap();
        assert_eq!(home(&root, &proc, 0).as_c_str(), c"HOME=/inside");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
