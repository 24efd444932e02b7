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
    if !names_reason {
        return Some(format!("it does not say {reason:?}"));
    }
    let named = text.lines().any(|line| names_something(line, &reason, &said_by_libc(errno)));
    (!named).then(|| format!("it names neither {call} nor {object:?}"))
}

/// Prefixes of errors that say which command failed, and not at what.
const PREFIXES: [&str; 5] = [
    "error: ",
    "aril run failed: ",
    "aril create failed: ",
    "unable to start container process: ",
    "error during container init: ",
];

/// True if a line has more than a prefix before the reason: the call, its object, or what it was for.
fn names_something(line: &str, reason: &str, other: &str) -> bool {
    let Some(end) = line.find(reason).or_else(|| line.find(other)) else { return false };
    let named = PREFIXES
        .iter()
        .fold(&line[..end], |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest));
    named.contains(char::is_alphanumeric)
}

/// Text of strerror(3), as std and Go have it.
fn said_by_libc(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
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
            ("error: aril run failed: no space left on device", "mkdir", "/run/c"),
            ("mkdir /run/c: permission denied", "mkdir", "/run/c"),
        ];
        for (text, call, object) in bad {
            assert!(fault(text, full, call, object).is_some(), "{text}");
        }
        assert_eq!(fault("", None, "mkdir", ""), None, "it was killed");
    }
}
