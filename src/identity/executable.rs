//! Finds the program of `args[0]`, and executes it. Errors have the texts of Go's os/exec, which engines search for.
//!
//! The lookup runs at `create`, in the container and as its user, so that `create` reports a missing program. execve
//! uses the path again: with an open close-on-exec descriptor, a script's interpreter could not open the script. Both
//! happen in the container's root, after [`super::descriptors`] has closed all descriptors that lead out of it.

use std::ffi::{CStr, CString};

use crate::error::fault::{ChildResult, Fault};
use crate::error::{Error, Result, text};
use crate::sys::Errno;
use crate::sys::process::{self, Vector};

/// End of the error for a name that is in no directory of PATH.
pub const NOT_IN_PATH: &str = "executable file not found in $PATH";

/// Converts `args` for execve, without system calls.
///
/// # Errors
///
/// There are no arguments, or one contains a NUL byte.
pub fn argv(args: Option<&[String]>) -> Result<Vec<CString>> {
    let args = args.unwrap_or_default();
    if args.is_empty() {
        return Err(Error::config("args must not be empty"));
    }
    args.iter()
        .map(|arg| {
            CString::new(arg.as_str())
                .map_err(|_| Error::config(format!("args: {arg:?} contains nul byte (\\x00)")))
        })
        .collect()
}

/// Finds the file of the program `name`. `path` is PATH of the container's environment.
///
/// # Errors
///
/// The file does not exist, is a directory or not executable, or is in a relative directory of PATH.
pub fn resolve(name: &CStr, path: &[u8]) -> ChildResult<CString> {
    if name.to_bytes().contains(&b'/') {
        return match check(name) {
            Ok(()) => Ok(name.into()),
            Err(why) => Err(refused(name, &why)),
        };
    }
    for dir in path.split(|byte| *byte == b':').filter(|_| !path.is_empty()) {
        let candidate = join(dir, name);
        if check(&candidate).is_err() {
            continue;
        }
        if !dir.starts_with(b"/") {
            let why = "cannot run executable found relative to current directory";
            return Err(refused(name, why));
        }
        return Ok(candidate);
    }
    Err(refused(name, NOT_IN_PATH))
}

/// Executes `path`. Returns only on an error. The caller creates the vectors before a seccomp filter could deny memory.
pub fn execute(path: &CStr, argv: &Vector, environment: &Vector) -> Fault {
    let errno = process::execve(path, argv, environment);
    Fault::refused(format!("exec {}: {}", path.to_string_lossy(), text::errno(errno)))
}

fn refused(name: &CStr, why: &str) -> Fault {
    Fault::refused(format!("exec: {:?}: {why}", name.to_string_lossy()))
}

fn join(dir: &[u8], name: &CStr) -> CString {
    let dir = match dir {
        [] => b".",
        _ => dir.strip_suffix(b"/").unwrap_or(dir),
    };
    // Neither part contains a NUL byte: one is a part of a C string, the other is a C string.
    CString::new([dir, b"/", name.to_bytes()].concat()).unwrap_or_default()
}

fn check(file: &CStr) -> std::result::Result<(), String> {
    let stat = nix::sys::stat::stat(file)
        .map_err(|errno| format!("stat {}: {}", file.to_string_lossy(), text::errno(errno)))?;
    let errno = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        Errno::EISDIR
    } else {
        match process::may_execute(file) {
            // A seccomp filter that does not know faccessat2 returns one of these errors. Then the mode decides.
            Err(Errno::ENOSYS | Errno::EPERM) if stat.st_mode & 0o111 != 0 => return Ok(()),
            Err(Errno::ENOSYS | Errno::EPERM) => Errno::EACCES,
            Err(errno) => errno,
            Ok(()) => return Ok(()),
        }
    };
    Err(text::errno(errno).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn message(name: &str, path: &str) -> String {
        let name = CString::new(name).unwrap();
        let fault = resolve(&name, path.as_bytes()).unwrap_err();
        assert_eq!(fault.errno, Errno::UnknownErrno);
        fault.call.into_owned()
    }

    #[test]
    fn the_texts_are_gos() {
        let dir = std::env::temp_dir().join(format!("aril-executable-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("plain"), "").unwrap();
        fs::write(dir.join("tool"), "").unwrap();
        fs::set_permissions(dir.join("tool"), Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let path = dir.to_str().unwrap();

        for (name, why) in [
            (at("none"), format!("stat {}: no such file or directory", at("none"))),
            (at("plain/x"), format!("stat {}: not a directory", at("plain/x"))),
            (at("plain"), "permission denied".to_owned()),
            (at("sub"), "is a directory".to_owned()),
            ("plain".to_owned(), "executable file not found in $PATH".to_owned()),
            (String::new(), "executable file not found in $PATH".to_owned()),
        ] {
            assert_eq!(message(&name, path), format!("exec: {name:?}: {why}"));
        }
        let found = resolve(c"tool", format!("/nowhere:{path}/").as_bytes()).unwrap();
        assert_eq!(found.to_str().unwrap(), at("tool"));
        assert_eq!(message("tool", ""), "exec: \"tool\": executable file not found in $PATH");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_refused_image_is_named() {
        let argv = [c"x".into()];
        let fault = execute(c"/proc/version", &Vector::new(&argv), &Vector::new(&[]));
        assert_eq!(fault.call, "exec /proc/version: permission denied");
    }

    #[test]
    fn args_are_checked() {
        let message = |args: Option<&[String]>| argv(args).unwrap_err().to_string();
        assert_eq!(message(None), "args must not be empty");
        assert_eq!(message(Some(&[])), "args must not be empty");
        assert_eq!(message(Some(&["a\0".into()])), "args: \"a\\0\" contains nul byte (\\x00)");
        assert_eq!(argv(Some(&[String::new()])).unwrap(), [CString::default()]);
    }
}
