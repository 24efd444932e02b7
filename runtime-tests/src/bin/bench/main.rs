//! `bench`: measures the floor, aril and the peers that work, side by side, in a pure cgroup v2 view.
//!
//! A round runs every contender once, so that disturbances of the machine affect all alike. The order rotates from
//! round to round. Nothing is pinned: the start of a container is two processes that may run on two CPUs, and a
//! pinned one is not what users get. Every operation is measured in a tight loop, and again with a rest before each
//! command, because a loop hides the kernel's grace periods. in a loop.

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
    let setup = workload::Setup::prepare(&options)?;
    let contenders = contender::all(&options, &setup);
    let mut report = report::Report::new(&contenders, &options);
    for operation in &options.operations {
        for &rest in &options.rests {
            workload::measure(*operation, rest, &contenders, &options, &setup, &mut report)?;
        }
    }
    report.measure_memory(&contenders, &setup)?;
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
