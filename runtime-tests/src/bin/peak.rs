//! `peak PROGRAM ARGS...` runs a program and prints the peak resident memory, in KiB, of it and of all processes that
//! it reaped. It is a separate program because the kernel counts a process's memory from before its exec too: when
//! started from here, that is next to nothing.

use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [program, args @ ..] = args.as_slice() else { return ExitCode::FAILURE };
    let ended = Command::new(program).args(args).stdout(Stdio::null()).status();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    match (ended, usage) {
        (Ok(status), Ok(usage)) if status.success() => println!("{}", usage.max_rss()),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
