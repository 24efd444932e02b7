//! Command-line options.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub const USAGE: &str = "usage: bench [options]
  --aril PATH         Measure this aril (default: RUNTIME, else none)
  --floor PATH        Use this floor program (default: beside this program)
  --peer NAME=PATH    Measure this runtime too; may be repeated (default: crun and runc in PATH)
  --bundle DIR        Use config.json and rootfs of this bundle (default: bundles/busybox)
  --seccomp FILE      Use this seccomp object for run-seccomp (default: bundles/seccomp.json)
  --ops A,B           Measure these of run run-seccomp cycle exec state empty (default: all)
  --iterations N      Rounds in a tight loop (default: 200)
  --rested N          Rounds with a 100 ms rest before each command (default: 60; 0: none)
  --systemd           Use --systemd-cgroup on a host with systemd and cgroup2; without the floor
  --output DIR        Write bench.json, bench.md and bench.svg here (default: target/bench)";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Run,
    RunSeccomp,
    Cycle,
    Exec,
    State,
    Empty,
}

impl Operation {
    pub const ALL: [Operation; 6] = [
        Operation::Empty,
        Operation::Run,
        Operation::RunSeccomp,
        Operation::Cycle,
        Operation::Exec,
        Operation::State,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Run => "run",
            Operation::RunSeccomp => "run-seccomp",
            Operation::Cycle => "cycle",
            Operation::Exec => "exec",
            Operation::State => "state",
            Operation::Empty => "empty",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Operation::Run => "run /bin/true",
            Operation::RunSeccomp => "run /bin/true, Docker's seccomp",
            Operation::Cycle => "create + start + delete",
            Operation::Exec => "exec /bin/true",
            Operation::State => "state",
            Operation::Empty => "an empty static program",
        }
    }
}

pub struct Options {
    pub aril: Option<PathBuf>,
    pub floor: PathBuf,
    pub peers: Vec<(String, PathBuf)>,
    pub bundle: PathBuf,
    pub seccomp: PathBuf,
    pub operations: Vec<Operation>,
    pub iterations: usize,
    pub rested: usize,
    pub rests: Vec<Duration>,
    /// Create containers with the systemd cgroup driver.
    pub systemd: bool,
    pub output: PathBuf,
}

pub fn parse(args: impl Iterator<Item = String>) -> Result<Options> {
    let here = std::env::current_exe()?;
    let mut options = Options {
        aril: std::env::var_os("RUNTIME").map(PathBuf::from),
        floor: here.with_file_name("floor"),
        peers: Vec::new(),
        bundle: PathBuf::from("bundles/busybox"),
        seccomp: PathBuf::from("bundles/seccomp.json"),
        operations: Operation::ALL.to_vec(),
        iterations: 200,
        rested: 60,
        rests: Vec::new(),
        systemd: false,
        output: PathBuf::from("target/bench"),
    };
    let mut args = args;
    while let Some(flag) = args.next() {
        if flag == "--help" || flag == "-h" {
            println!("{USAGE}");
            std::process::exit(0);
        }
        if flag == "--systemd" {
            options.systemd = true;
            continue;
        }
        let value = args.next().with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
        match flag.as_str() {
            "--aril" => options.aril = Some(value.into()),
            "--floor" => options.floor = value.into(),
            "--peer" => options.peers.push(peer(&value)?),
            "--bundle" => options.bundle = value.into(),
            "--seccomp" => options.seccomp = value.into(),
            "--ops" => options.operations = operations(&value)?,
            "--iterations" => options.iterations = count(&flag, &value)?,
            "--rested" => options.rested = count(&flag, &value)?,
            "--output" => options.output = value.into(),
            _ => bail!("unknown option {flag}\n{USAGE}"),
        }
    }
    if options.peers.is_empty() {
        options.peers = ["crun", "runc"].iter().filter_map(|name| installed(name)).collect();
    }
    if options.iterations > 0 {
        options.rests.push(Duration::ZERO);
    }
    if options.rested > 0 {
        options.rests.push(Duration::from_millis(100));
    }
    Ok(options)
}

fn peer(value: &str) -> Result<(String, PathBuf)> {
    let (name, path) = value.split_once('=').context("--peer takes NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

fn count(flag: &str, value: &str) -> Result<usize> {
    value.parse().with_context(|| format!("{flag} {value}: not a number"))
}

fn operations(list: &str) -> Result<Vec<Operation>> {
    list.split(',')
        .map(|name| {
            let found = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            found.with_context(|| format!("--ops: unknown operation {name}"))
        })
        .collect()
}

fn installed(name: &str) -> Option<(String, PathBuf)> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|at| at.is_file())?;
    Some((name.to_owned(), found))
}
