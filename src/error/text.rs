//! Texts that other programs search for (source: the sources of these programs).

use std::borrow::Cow;

use nix::errno::Errno;

/// Returns the text of an errno from Go's table: dockerd, Podman, containerd and CRI-O match `permission denied`,
/// `no such file or directory` and others case-sensitively.
pub fn errno(errno: Errno) -> Cow<'static, str> {
    match errno {
        // nix and Go differ on these.
        Errno::EIO => "input/output error".into(),
        Errno::ENXIO => "no such device or address".into(),
        Errno::E2BIG => "argument list too long".into(),
        Errno::ENOEXEC => "exec format error".into(),
        Errno::EBUSY => "device or resource busy".into(),
        Errno::EBADF => "bad file descriptor".into(),
        Errno::EAGAIN => "resource temporarily unavailable".into(),
        Errno::ENOMEM => "cannot allocate memory".into(),
        Errno::EXDEV => "invalid cross-device link".into(),
        Errno::ENFILE => "too many open files in system".into(),
        Errno::ENOTTY => "inappropriate ioctl for device".into(),
        Errno::ERANGE => "numerical result out of range".into(),
        Errno::ELOOP => "too many levels of symbolic links".into(),
        Errno::EDQUOT => "disk quota exceeded".into(),
        Errno::ENOTSUP => "operation not supported".into(),
        Errno::UnknownErrno => "unknown error".into(),
        other => lower_first(other.desc()),
    }
}

fn lower_first(text: &'static str) -> Cow<'static, str> {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), chars.as_str()).into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_spells_them() {
        for (e, text) in [
            (Errno::ENOENT, "no such file or directory"),
            (Errno::EACCES, "permission denied"),
            (Errno::EPERM, "operation not permitted"),
            (Errno::ESRCH, "no such process"),
            (Errno::EISDIR, "is a directory"),
            (Errno::ENOTDIR, "not a directory"),
            (Errno::ENOSPC, "no space left on device"),
            (Errno::EROFS, "read-only file system"),
            (Errno::EINVAL, "invalid argument"),
        ] {
            assert_eq!(errno(e), text);
        }
    }
}
