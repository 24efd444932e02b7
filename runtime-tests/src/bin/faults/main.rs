//! `faults`: every system call that a command of aril makes is the last one in some run, and fails in another.
//!
//! The driver runs a command once under ptrace(2) to count its calls, then again for each [`point::Point`], with a fault there.
//! After each run it compares the host with a listing from before ([`listing`]): equal at once, or after the commands that an
//! operator would use (`delete --force`, `reconcile`). `docs/reliability.md` describes the results.

mod attempt;
mod calls;
mod listing;
mod message;
mod neighbour;
mod options;
mod point;
mod private;
mod report;
mod shape;
mod sweep;
mod trace;
mod tracee;
mod verbs;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "trace") {
        return trace::main(&words[1..]).map(|()| ExitCode::SUCCESS);
    }
    let options = options::Options::parse(&words)?;
    private::run(|| sweep::all(&options))
}
