//! Whether an error message says what failed.

use nix::errno::Errno;

/// Returns what is wrong with the output of a command that failed, if anything: a panic, no text, or a text that names neither
/// the call nor its object.
pub fn fault(stderr: &str, errno: Option<Errno>, call: &str, object: &str) -> Option<String> {
    let text = stderr.to_lowercase();
    if text.contains("panicked") || text.contains("unreachable") {
        return Some("it panics".to_owned());
    }
    let errno = errno?;
    if text.trim().is_empty() {
        return Some("it says nothing".to_owned());
    }
    // Of the allocator, which cannot allocate a text.
    if errno == Errno::ENOMEM && text.contains("memory allocation of") {
        return None;
    }
    let reason = errno.desc().to_lowercase();
    let names_reason = text.contains(&reason) || text.contains(&said_by_libc(errno));
    // A group of calls has one message, such as that of a mount: then a path or a quoted name is the object.
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || "/:\"".contains(c)).collect();
    let names_object = text.contains(['/', '"'])
        || stem(object).is_some_and(|name| words.contains(&name.as_str()));
    let names_call = text.contains(&family(call)) || text.contains("netlink");
    match (names_reason, names_object || names_call) {
        (true, true) => None,
        (false, _) => Some(format!("it does not say {reason:?}")),
        (true, false) => Some(format!("it names neither {call} nor {object:?}")),
    }
}

/// Text of strerror(3), as std and Go have it.
fn said_by_libc(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Last component of a path.
fn stem(object: &str) -> Option<String> {
    let name = object.rsplit('/').find(|part| !part.is_empty())?;
    Some(name.to_lowercase())
}

/// Name of a call without its variants: `openat2` is `open`.
fn family(call: &str) -> String {
    let name = call.trim_end_matches(|c: char| c.is_ascii_digit());
    let name = name.strip_suffix("at").filter(|short| !short.ends_with("st")).unwrap_or(name);
    let known = [("newfst", "stat"), ("f", ""), ("l", ""), ("p", "")];
    for (prefix, rest) in known {
        if let Some(short) = name.strip_prefix(prefix)
            && ["stat", "chown", "chmod", "poll", "read", "write", "statfs"].contains(&short)
        {
            return format!("{rest}{short}");
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_messages_name_the_reason_and_the_call_or_its_object() {
        let full = Some(Errno::ENOSPC);
        let good = [
            ("mkdir /run/c: no space left on device", "mkdir", "/run/c"),
            ("write config: No space left on device (os error 28)", "write", ""),
            ("error mounting \"shm\": no space left on device", "fstat", ""),
            ("make the fifo exec.fifo: no space left on device", "mknodat", "exec.fifo"),
        ];
        for (text, call, object) in good {
            assert_eq!(fault(text, full, call, object), None, "{text}");
        }
        let bad = [
            ("", "mkdir", "/run/c"),
            ("thread 'main' panicked at", "mkdir", "/run/c"),
            ("it failed: no space left on device", "mkdir", "/run/c"),
            ("mkdir /run/c: permission denied", "mkdir", "/run/c"),
        ];
        for (text, call, object) in bad {
            assert!(fault(text, full, call, object).is_some(), "{text}");
        }
        assert_eq!(fault("", None, "mkdir", ""), None, "it was killed");
    }

    #[test]
    fn variants_of_a_call_have_one_name() {
        let families = [
            ("openat2", "open"),
            ("mkdirat", "mkdir"),
            ("fstat", "stat"),
            ("stat", "stat"),
            ("clone3", "clone"),
            ("pread64", "read"),
            ("fsopen", "fsopen"),
        ];
        for (call, family_name) in families {
            assert_eq!(family(call), family_name);
        }
    }
}
