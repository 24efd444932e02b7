//! The shim's own log: the `log` fifo of its bundle, whose lines the daemon copies to its own log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use crate::time::rfc3339;

/// The log, or nothing if the fifo cannot be opened.
pub struct Log(Option<File>);

impl Log {
    /// Log, which is empty without a reader: a missing log is no reason to fail.
    pub fn open(bundle: &Path) -> Self {
        let mut options = OpenOptions::new();
        let open = options.write(true).custom_flags(libc::O_NONBLOCK).open(bundle.join("log"));
        Self(open.ok())
    }

    /// Writes an error.
    pub fn error(&mut self, message: &str) {
        self.write("error", message);
    }

    /// Writes a warning.
    pub fn warn(&mut self, message: &str) {
        self.write("warning", message);
    }

    fn write(&mut self, level: &str, message: &str) {
        if let Some(file) = &mut self.0 {
            let line = line(SystemTime::now(), level, message);
            // A daemon that is stopped, or slow, loses lines.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Formats a line like logrus, which the daemon's other shims use.
fn line(time: SystemTime, level: &str, message: &str) -> String {
    let time = rfc3339(time);
    format!("time={time:?} level={level} msg={message:?} runtime=io.containerd.aril.v2\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_logrus_writes_them() {
        assert_eq!(
            line(SystemTime::UNIX_EPOCH, "error", "a \"b\""),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\"\" runtime=io.containerd.aril.v2\n"
        );
    }
}
