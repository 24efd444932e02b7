//! Starts a command and waits for it, at the lowest cost and equally for all contenders: std's spawn is posix_spawn
//! (vfork-like), so a big parent costs nothing.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Time from the spawn of `program` with `args` until it is reaped. Its stdout is discarded; its stderr goes into the
/// error if it fails.
pub fn timed(program: &Path, args: &[&str]) -> Result<Duration> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.spawn().with_context(|| program.display().to_string())?.wait()?;
    let taken = begin.elapsed();
    if !status.success() {
        bail!("{} {}: {status}", program.display(), args.join(" "));
    }
    Ok(taken)
}

/// Runs a command for its effect. An error contains its stderr, which goes to a file and not to a pipe: a detached
/// container keeps its copy open.
pub fn quiet(program: &Path, args: &[&str], scratch: &Path) -> Result<()> {
    let log = scratch.join("stderr");
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let status = command.status().with_context(|| program.display().to_string())?;
    if !status.success() {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        bail!("{} {}: {status}: {}", program.display(), args.join(" "), said.trim());
    }
    Ok(())
}

/// Peak resident memory of the process and of those that it reaped, in KiB, measured by the program `peak`.
pub fn peak_memory(program: &Path, args: &[String]) -> Result<u64> {
    let peak = std::env::current_exe()?.with_file_name("peak");
    let output = Command::new(&peak).arg(program).args(args).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.trim().parse().with_context(|| format!("peak {}: no figure", program.display()))
}
