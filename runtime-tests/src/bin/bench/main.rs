//! `bench`: the floor, aril and whichever peers work, side by side, in a pure cgroup2 view.
//!
//! A round runs every contender once, so that the machine's moods fall on all alike; the order is
//! rotated from round to round. Nothing is pinned: a container's start is two processes that may
//! run on two CPUs, and a pinned one would not be what users get. Every operation is measured in a
//! tight loop and again with a rest before each command, because the kernel's grace periods hide
//! in a loop.

mod chart;
mod command;
mod contender;
mod options;
mod report;
mod statistics;
mod workload;

use std::process::ExitCode;

use anyhow::Result;

fn bench() -> Result<()> {
    let options = options::parse(std::env::args().skip(1))?;
    let place = workload::Place::prepare(&options)?;
    let contenders = contender::all(&options, &place);
    let mut report = report::Report::new(&contenders, &options);
    for operation in &options.operations {
        for &rest in &options.rests {
            workload::measure(*operation, rest, &contenders, &options, &place, &mut report)?;
        }
    }
    report.measure_memory(&contenders, &place)?;
    print!("{}", report.table());
    report.write(&options.output)
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
