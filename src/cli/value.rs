//! Parses values of flags. Numbers are decimal digits unless a function says otherwise.

use std::time::Duration;

use nix::sys::signal::Signal;
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

/// Parses a boolean as Go's `strconv.ParseBool` does.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub use crate::id::number;

/// Parses a number with an optional sign, in decimal or hexadecimal (`0x1f`), as Go does.
pub fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let all_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
        let n = all_hex.then(|| i64::from_str_radix(hex, 16).ok()).flatten()?;
        return Some(if text.starts_with('-') { -n } else { n });
    }
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub use crate::spec::size::bytes;

/// Parses `NAME=VALUE`.
pub fn assignment(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
    Some((name.to_owned(), value.to_owned()))
}

/// Parses `NAME=SOFT[:HARD]` of setrlimit(2), as Docker and Podman write it: `nofile=1024:2048`, `core=-1`.
pub fn ulimit(text: &str) -> Option<PosixRlimit> {
    let (name, limits) = text.split_once('=')?;
    let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let kind = serde_json::from_value::<PosixRlimitType>(name.into());
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Some(u64::MAX),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    let rlimit = PosixRlimitBuilder::default().typ(kind.ok()?).soft(soft).hard(hard).build();
    rlimit.ok().filter(|_| soft <= hard)
}

/// Parses a duration as Go's `time.ParseDuration` does: numbers with units, such as `1m30s`. A negative one is rejected.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.')?;
        let (amount, after) = rest.split_at(end);
        // Of two units with the same start, the longer first.
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("\u{b5}s", 1e-6),
            ("\u{3bc}s", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, scale) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        seconds += amount.parse::<f64>().ok()? * scale;
        rest = &after[unit.len()..];
    }
    let positive = !text.starts_with('-');
    let duration = Duration::try_from_secs_f64(if positive { seconds } else { 0.0 }).ok()?;
    // The range of Go's durations, 292 years: times beyond it overflow.
    (duration.as_nanos() <= i64::MAX as u128).then_some(duration)
}

/// Highest signal number of the kernel, including real-time signals.
const LAST_SIGNAL: u32 = 64;

/// First real-time signal of C libraries, which reserve two of the kernel's.
const SIGRTMIN: u32 = 34;

/// Parses a signal: a number, or a name in any case with or without `SIG`. 0 checks for existence. Real-time signals are
/// `RTMIN`, `RTMIN+n`, `RTMAX-n` and `RTMAX`.
pub fn signal(text: &str) -> Option<i32> {
    if let Some(n) = number(text.strip_prefix('+').unwrap_or(text)) {
        return (n <= LAST_SIGNAL).then_some(n as i32);
    }
    let upper = text.to_ascii_uppercase();
    let name = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        // The C library's name, if the number has no other.
        "UNUSED" => "SYS",
        name => name,
    };
    if let Some(n) = real_time(name) {
        return (SIGRTMIN..=LAST_SIGNAL).contains(&n).then_some(n as i32);
    }
    format!("SIG{name}").parse().ok().map(|signal: Signal| signal as i32)
}

/// Returns the number of a name such as `RTMIN+3`.
fn real_time(name: &str) -> Option<u32> {
    let offset = |rest: &str, sign| match rest {
        "" => Some(0),
        rest => number(rest.strip_prefix(sign)?),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return SIGRTMIN.checked_add(offset(rest, '+')?);
    }
    LAST_SIGNAL.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        for (text, soft, hard) in [
            ("nofile=1024:2048", 1024, 2048),
            ("NPROC=7", 7, 7),
            ("core=-1", u64::MAX, u64::MAX),
            ("memlock=0:unlimited", 0, u64::MAX),
        ] {
            let limit = ulimit(text).unwrap();
            assert_eq!((limit.soft(), limit.hard()), (soft, hard), "{text}");
        }
        for text in
            ["", "nofile", "nofile=", "nofile=2:1", "nofile=1:", "files=1", "core=+1", "core=-2"]
        {
            assert!(ulimit(text).is_none(), "{text}");
        }
        assert_eq!(assignment("a.b==c"), Some(("a.b".into(), "=c".into())));
        assert_eq!((assignment("a"), assignment("=a")), (None, None));
    }

    #[test]
    fn numbers() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("4294967295"), Some(u32::MAX));
        for bad in ["", "-1", "+1", "1,2", " 1", "0x1", "4294967296"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, n) in [
            ("-1", -1),
            ("0", 0),
            ("17", 17),
            ("512m", 512 << 20),
            ("1GiB", 1 << 30),
            ("2 Kb", 2048),
            ("1.5k", 1536),
            ("3b", 3),
            ("4T", 4 << 40),
        ] {
            assert_eq!(bytes(text), Some(n), "{text}");
        }
        for (text, n) in
            [(".5k", 512), ("1.", 1), ("+2m", 2 << 20), ("1e3", 1000), ("1E3 kib", 1000 << 10)]
        {
            assert_eq!(bytes(text), Some(n), "{text}");
        }
        for bad in [
            "",
            "m",
            "-2",
            "1x",
            "1  k",
            "1.2.3",
            "9223372036854775807k",
            ".",
            "e3",
            "1e999",
            "inf",
            "nan1",
            "1e3x",
            "--1",
            "5 kk",
            "1ek",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        for (text, n) in [("-5", -5), ("+5", 5), ("0x1F", 31), ("-0x1", -1), ("010", 10)] {
            assert_eq!(integer(text), Some(n), "{text}");
        }
        for bad in ["", "-", "0x", "5k", "1.5", "--5", "0x+5", "+-5"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("5s", 5000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("0", 0),
            ("+2s", 2000),
            (".5s", 500),
            ("1h", 3_600_000),
            ("2000us", 2),
            ("3000\u{b5}s", 3),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("-1s"), Some(Duration::ZERO));
        for bad in ["", "-", "1", "s", "1x", "1 s", "5s2"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn signals() {
        for name in ["9", "KILL", "kill", "SIGKILL", "sigKill"] {
            assert_eq!(signal(name), Some(libc::SIGKILL), "{name}");
        }
        assert_eq!(signal("0"), Some(0));
        assert_eq!(signal("64"), Some(64));
        assert_eq!(signal("SIGIOT"), Some(libc::SIGABRT));
        assert_eq!(signal("cld"), Some(libc::SIGCHLD));
        assert_eq!(signal("SIGPOLL"), Some(libc::SIGIO));
        for (name, n) in [
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMIN+0", 34),
            ("RTMIN+30", 64),
            ("SIGRTMAX", 64),
            ("rtmax-14", 50),
            ("SIGRTMAX-30", 34),
            ("SIGSTKFLT", 16),
            ("PWR", 30),
            ("UNUSED", 31),
            ("+9", 9),
            ("09", 9),
        ] {
            assert_eq!(signal(name), Some(n), "{name}");
        }
        for bad in [
            "",
            "SIG",
            "65",
            "-9",
            "SIGSIGKILL",
            "NOPE",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN3",
            "RTMIN+x",
            "RTMIN+4294967295",
            "RT",
            " 9",
            "0x9",
        ] {
            assert_eq!(signal(bad), None, "{bad:?}");
        }
    }
}
