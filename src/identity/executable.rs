//! From `args` to execve: the texts are those of Go's os/exec, which engines search for.
//!
//! The lookup runs in the container, as its user, at create, so that a missing program is the
//! error of `create`. Execution goes by path again: an open descriptor could not run a script,
//! whose interpreter would find it closed. Both happen in the container's root, and
//! [`super::descriptors`] has closed what could lead out of it by then.

use std::ffi::{CStr, CString};

use crate::error::fault::{ChildResult, Fault};
use crate::error::{Error, Result, text};
use crate::sys::Errno;
use crate::sys::process::{self, Vector};

/// The end of the error for a name that no directory of PATH has.
pub const NOT_IN_PATH: &str = "executable file not found in $PATH";

/// `args`, ready for execve. Pure.
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

/// The file that `name` stands for. `path` is PATH of the container's environment.
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

/// Becomes `path`. Returns only the kernel's refusal. The vectors were made before a filter could
/// refuse the memory.
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
    // Neither part holds a NUL: one was split from a C string, the other is one.
    CString::new([dir, b"/", name.to_bytes()].concat()).unwrap_or_default()
}

fn check(file: &CStr) -> std::result::Result<(), String> {
    let stat = nix::sys::stat::stat(file)
        .map_err(|errno| format!("stat {}: {}", file.to_string_lossy(), text::errno(errno)))?;
    let errno = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        Errno::EISDIR
    } else {
        match process::may_execute(file) {
            // A filter that knows no faccessat2 answers either: judge by the mode.
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
