//! Formats times, and logs the duration of each step of a verb for debugging.

use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::timeline::now;

type Log = Box<dyn Fn(&str) + Send + Sync>;

/// Log of steps, with `--debug`.
static LOG: OnceLock<Log> = OnceLock::new();
/// End of the last step.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Logs each further step of this process to `log`.
pub fn set_log(log: Log) {
    LAST.store(now(), Relaxed);
    // A second call has no effect: a process runs one verb.
    let _ = LOG.set(log);
}

/// True after [`set_log`].
pub fn has_log() -> bool {
    LOG.get().is_some()
}

/// Logs a decision, which has no duration.
pub fn note(what: impl Display) {
    if let Some(log) = LOG.get() {
        log(&what.to_string());
    }
}

/// Logs that a step has ended, and the time since the end of the last one.
pub fn step(what: impl Display) {
    if LOG.get().is_some() {
        let end = now();
        let took = end.saturating_sub(LAST.swap(end, Relaxed));
        log_step(what, took);
    }
}

/// Logs a step that another process has timed, in nanoseconds.
#[cold]
pub fn log_step(what: impl Display, took: u64) {
    if let Some(log) = LOG.get() {
        log(&format!("{what} ({}.{:03} ms)", took / 1_000_000, took / 1000 % 1000));
    }
}

/// Formats a time in UTC by RFC 3339, like Go's `RFC3339Nano`: without trailing zeroes in the fraction.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() != 0 {
        let fraction = format!(".{:09}", since.subsec_nanos());
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Date of a day counted from 1970-01-01. Years are counted from 1 March of year 0: the leap day is then the last day
/// of its year, and the months' lengths follow a linear formula.
fn civil(days: u64) -> (u64, u64, u64) {
    const FROM_MARCH_0000: u64 = 719_468;
    const ERA: u64 = 146_097; // days in 400 years
    let days = days + FROM_MARCH_0000;
    let (era, of_era) = (days / ERA, days % ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> String {
        rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399, 0), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800, 0), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_709_164_800, 0), "2024-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599, 0), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn fractions_have_no_trailing_zeroes() {
        assert_eq!(at(0, 1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(at(0, 120_000_000), "1970-01-01T00:00:00.12Z");
    }

    #[test]
    fn before_the_epoch_is_the_epoch() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
