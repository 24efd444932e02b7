//! `aril ps`: the host's `ps`, reduced to the processes of a container.

#![expect(clippy::disallowed_types, reason = "ps(1) of the host, with the caller's options")]

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use super::output::compact;
use crate::error::{Error, Result};

/// Returns process IDs as JSON on one line, which engines decode.
pub fn json(pids: &[i32]) -> String {
    let mut text = compact(&pids);
    text.push('\n');
    text
}

/// Runs `ps` with `options`, by default `-ef`.
///
/// # Errors
///
/// `ps` cannot be executed, or prints no column of pids.
pub fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let output = Command::new("ps").args(options).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::system("exec: \"ps\": executable file not found in $PATH")
            .hint("ps --format json needs no program"),
        _ => Error::io("exec", "ps", &error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let words = options.join(" ");
        return Err(Error::system(format!("ps {words}: {}: {}", output.status, said.trim())));
    }
    filter(&String::from_utf8_lossy(&output.stdout), pids)
}

/// Returns the header, and the lines with a process ID of `pids`.
fn filter(listing: &str, pids: &[i32]) -> Result<String> {
    let mut lines = listing.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|title| title == "PID").ok_or_else(|| {
        Error::system("ps printed no PID column").hint("add pid to its -o option")
    })?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(is_ours)).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 init 42
u             42       1  0 10:00 ?        00:00:00 sleep 9
u            421      42  0 10:00 ?        00:00:00 sleep 9
";

    #[test]
    fn keeps_the_head_and_the_processes_asked_for() {
        let kept = filter(LISTING, &[42, 7]).unwrap();
        let lines: Vec<_> = LISTING.lines().collect();
        assert_eq!(kept, format!("{}\n{}\n", lines[0], lines[2]));
        assert_eq!(filter("PID CMD\n", &[1]).unwrap(), "PID CMD\n");
    }

    #[test]
    fn needs_the_column() {
        for listing in ["", "COMMAND\nsh\n"] {
            assert_eq!(filter(listing, &[1]).unwrap_err().to_string(), "ps printed no PID column");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(json(&[7, 8]), "[7,8]\n");
        assert_eq!(json(&[]), "[]\n");
    }
}
