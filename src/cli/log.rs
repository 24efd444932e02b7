//! Writes messages to the file of `--log` and to standard error.
//!
//! With `--log` a fatal error is written twice. containerd reads the file after a failed
//! create or exec, and takes the last record of level `error`; for every other verb it sees only
//! stdout and stderr. conmon relays stderr regardless of `--log`. Podman reads the
//! whole file as *one* JSON object, so without `--debug` only warnings and the error are written. The file has no other
//! text than records.
//!
//! On stderr the error is one unquoted line, also without `--log`: CRI-O and podman search it for texts
//! like `exec: "sh": executable file not found in $PATH`, which a quoted record would have escaped.
//! Without `--log` the line begins with `error: `: scripts and test suites that do not look at the exit
//! status find runc's failures by that word, which is in its record (`level=error`). Not where the program
//! cannot be executed: runc's init process says that in a line of its own.
//!
//! The hint is advice for people. It never enters a record, where it would become part of the
//! engine's own error text. On stderr it is a line before the error, which stays the last line:
//! callers and runc's tests read the reason there. Aril's shim hands `create` and `exec` the container's own stderr and
//! reads the log: with [`STDERR_IS_THE_CONTAINERS`] in the environment, an error goes to the log file alone, or a
//! client would see it in the container's output as well as in the answer. The hint is left out when a caller has asked for a log
//! file, and where the program cannot be executed, for which runc's callers expect one line, unless
//! stderr is a terminal.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, OsContext, Result};
use crate::time::rfc3339;

/// Environment variable by which the shim reports that stderr is the container's.
pub const STDERR_IS_THE_CONTAINERS: &str = "ARIL_STDERR_IS_THE_CONTAINERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    Debug,
}

impl Level {
    /// Name of the level in logrus, which readers of the log compare.
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }
}

pub struct Sink {
    /// File of `--log`; `None` for standard error.
    file: Option<File>,
    format: Format,
    most: Level,
}

impl Sink {
    /// Returns the log before the command line was read: standard error.
    pub fn stderr() -> Self {
        Self { file: None, format: Format::Text, most: Level::Warning }
    }

    /// Opens the log, and creates its file first: containerd reports a missing file instead of the error.
    ///
    /// # Errors
    ///
    /// The file cannot be created, or the level or format is unknown.
    pub fn open(path: Option<&Path>, format: Format, most: Level) -> Result<Self> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o644).open(path).os("open", path.display())
        };
        Ok(Self { file: path.map(open).transpose()?, format, most })
    }

    /// Logs each step of this process, if debug messages are enabled.
    ///
    /// # Errors
    ///
    /// A logger is set already.
    pub fn watch_steps(&self) -> Result<()> {
        if self.most < Level::Debug {
            return Ok(());
        }
        let file = self.file.as_ref().map(File::try_clone).transpose().os("dup", "the log")?;
        let sink = Self { file, ..*self };
        crate::time::set_log(Box::new(move |message| sink.debug(message)));
        Ok(())
    }

    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    pub fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }

    /// Reports an error that affects a part of the output only.
    pub fn note(&self, error: &Error) {
        put(&mut std::io::stderr(), &format!("{error}\n"));
    }

    /// Reports the error that ends the program.
    #[expect(clippy::disallowed_methods, reason = "a mark for a later process of one command")]
    pub fn fatal(&self, error: &Error) {
        let message = error.to_string();
        if self.file.is_some() || self.format == Format::Json {
            self.write(Level::Error, &message);
        }
        if self.file.is_some() && std::env::var_os(STDERR_IS_THE_CONTAINERS).is_some() {
            return;
        }
        let watched = std::io::stderr().is_terminal();
        let advice = error.advice().filter(|_| watched || !error.is_of_program());
        let word = if error.is_of_program() { "" } else { "error: " };
        if let Some(text) = self.last_words(word, &message, advice, watched) {
            put(&mut std::io::stderr(), &text);
        }
    }

    /// Lines that [`Sink::fatal`] writes to stderr besides the record.
    fn last_words(
        &self,
        word: &str,
        message: &str,
        hint: Option<&str>,
        watched: bool,
    ) -> Option<String> {
        if self.file.is_none() && self.format == Format::Json {
            return None;
        }
        let hint = hint.filter(|_| watched || self.file.is_none());
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        let word = if self.file.is_none() { word } else { "" };
        Some(format!("{hint}{word}{message}\n"))
    }

    fn write(&self, level: Level, message: &str) {
        if level > self.most {
            return;
        }
        let text = record(self.format, level, message, SystemTime::now());
        match &self.file {
            Some(file) => put(&mut &*file, &text),
            None => put(&mut std::io::stderr(), &text),
        }
    }
}

/// Writes a record in one write(2), because other invocations append to the same file. Errors are ignored: the log is
/// the only place for them.
fn put(to: &mut dyn Write, text: &str) {
    _ = to.write_all(text.as_bytes());
}

fn record(format: Format, level: Level, message: &str, time: SystemTime) -> String {
    let (level, time) = (level.word(), rfc3339(time));
    let message = message.trim_end();
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", quoted(message)),
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
    }
}

/// Quotes text as Go's `%q` does.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => _ = write!(quoted, "\\x{:02x}", c as u32),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn sink(file: bool, format: Format) -> Sink {
        let file = file.then(|| File::open("/dev/null").unwrap());
        Sink { file, format, most: Level::Warning }
    }

    #[test]
    fn records() {
        let message = "exec: \"a\\b\": no\n";
        assert_eq!(
            record(Format::Json, Level::Error, message, UNIX_EPOCH),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"a\\\\b\\\": no\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(
            record(Format::Text, Level::Warning, "a \"b\"\n\x07", UNIX_EPOCH),
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\\n\\x07\"\n"
        );
    }

    #[test]
    fn a_record_is_one_line_whatever_the_message() {
        for format in [Format::Json, Format::Text] {
            let text = record(format, Level::Debug, "a\nb\r\u{1}\u{2028}é", UNIX_EPOCH);
            assert_eq!(text.matches('\n').count(), 1);
        }
    }

    #[test]
    fn last_words() {
        let said = |file, format, watched| {
            sink(file, format).last_words("error: ", "no", Some("try"), watched)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(said(false, Format::Text, false), text("hint: try\nerror: no\n"));
        assert_eq!(said(true, Format::Text, false), text("no\n"));
        assert_eq!(said(true, Format::Json, false), text("no\n"));
        assert_eq!(said(true, Format::Json, true), text("hint: try\nno\n"));
        assert_eq!(said(false, Format::Json, true), None);
    }

    #[test]
    fn the_file_is_appended_to_and_holds_only_what_its_level_admits() {
        let path = std::env::temp_dir().join(format!("aril-log-{}", std::process::id()));
        for most in [Level::Warning, Level::Debug] {
            let sink = Sink::open(Some(&path), Format::Json, most).unwrap();
            sink.debug("d");
            sink.warn("w");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let levels = text.lines().map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["level"].as_str().unwrap().to_owned()
        });
        assert!(levels.eq(["warning", "debug", "warning"]));
    }

    #[test]
    fn a_log_that_cannot_be_opened() {
        let error =
            Sink::open(Some(Path::new("/nope/log")), Format::Text, Level::Warning).err().unwrap();
        assert_eq!(error.to_string(), "open /nope/log: no such file or directory");
    }
}
