//! Starts and ends pasta.

#![expect(clippy::disallowed_types, reason = "pasta(1), which the operator installed")]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{NAME, pid_file};
use crate::error::{Context, Error, OsContext, Result};
use crate::id::HostPid;
use crate::sys::pidfd;

/// Options that forward nothing into the container, and nothing from it to the host's loopback.
const CLOSED: [&str; 11] = [
    "--config-net",
    "--quiet",
    "--no-map-gw",
    "--tcp-ports",
    "none",
    "--udp-ports",
    "none",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
];

/// Starts pasta and returns when the namespace of `pid` is connected; pasta then runs in the background.
///
/// # Errors
///
/// pasta is not installed, or fails.
pub fn start(state_directory: &Path, pid: HostPid) -> Result<()> {
    let output = Command::new(NAME)
        .args(CLOSED)
        .arg("--pid")
        .arg(pid_file(state_directory))
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = "network pasta: exec: \"pasta\": executable file not found in $PATH";
            return Err(Error::system(text)
                .hint("install the package passt, or use --network host or none"));
        }
        other => other.os("exec", NAME)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(Error::system(format!("network pasta: {}: {}", output.status, said.join("; ")))
        .hint("pasta needs /dev/net/tun, readable and writable by all users"))
}

/// Ends the pasta of a container. Some versions end on their own when the namespace is gone.
///
/// # Errors
///
/// The process exists and cannot be ended.
pub fn end(state_directory: &Path) -> Result<()> {
    const ROUNDS: usize = 10;
    const END_MS: i32 = 1000;
    let pid_file = pid_file(state_directory);
    // While pasta turns into a daemon, two processes exist for a moment.
    for _ in 0..ROUNDS {
        let found = processes(&pid_file);
        if found.is_empty() {
            break;
        }
        for pid in found {
            let Ok(process) = pidfd::open(pid) else { continue };
            // The pid may have been reused.
            if is_pasta_of(pid, &pid_file) {
                let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
                let ended = pidfd::wait_end(process.as_fd(), END_MS);
                ended.os("poll", "pidfd").context(|| format!("end pasta, process {pid}"))?;
            }
        }
    }
    Ok(())
}

fn processes(pid_file: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_pasta_of(*pid, pid_file)).collect()
}

/// True if the process has the arguments of [`start`].
fn is_pasta_of(pid: i32, pid_file: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == b"--pid") && words.next() == Some(pid_file.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_pasta_is_ended() {
        let directory = std::env::temp_dir().join(format!("aril-pasta-{}", std::process::id()));
        let start = |of: &Path| {
            let script = ["-c", "sleep 100; true", "--pid"];
            let child = Command::new("sh").args(script).arg(pid_file(of)).spawn().unwrap();
            // The kernel shows a new program's arguments a moment after execve.
            while processes(&pid_file(of)).is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let (mut ours, mut other) = (start(&directory), start(&directory.join("other")));
        end(&directory).unwrap();
        let alive = other.try_wait().unwrap().is_none();
        let ended = ours.wait().unwrap();
        end(&directory.join("other")).unwrap();
        other.wait().unwrap();
        assert!(alive && !ended.success());
    }
}
