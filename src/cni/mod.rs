//! `aril-cni`: networks of ours for engines that call plugins of the Container Network Interface,
//! versions 0.3.0 to 1.1.0.
//!
//! # Theory of operation
//!
//! An engine runs the plugin with `CNI_*` in the environment and the network's configuration on stdin
//! ([`config`]), and reads a result, or an error with a code of the specification, on stdout
//! ([`output`]). An attachment ([`attachment`]) is a container like any other to [`crate::network`]:
//! it holds a lease, and what stands for its state directory is a folder ([`crate::network::marker`]), made
//! before the lease and removed after it, so that DEL, GC and `aril reconcile` find whatever a killed
//! ADD has left. Addresses are our own, or those of the plugin that `ipam.type` names ([`delegate`]).

pub mod attachment;
pub mod config;
pub mod delegate;
pub mod go;
pub mod output;

use std::ffi::OsString;
use std::io::{Read, Write};

use config::{Call, Command, Environment};
use output::Failure;

/// The longest configuration that is read.
const LONGEST: u64 = 1 << 20;

/// The whole program, to an exit code.
pub fn main(_: Vec<OsString>) -> u8 {
    let mut input = Vec::new();
    let read = std::io::stdin().take(LONGEST).read_to_end(&mut input);
    let version = config::version_of(&input);
    let done = read
        .map_err(|e| Failure::new(output::IO, format!("read the configuration: {e}")))
        .and_then(|_| run(&input));
    let (text, code) = match done {
        Ok(text) => (text, 0),
        Err(failure) => (failure.text(&version), 1),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

/// What is printed.
fn run(input: &[u8]) -> Result<String, Failure> {
    let environment = Environment::of_this_process();
    let command = environment.command()?;
    if command == Command::Version {
        return Ok(output::versions(&config::version_of(input)));
    }
    if command == Command::Del {
        return attachment::del(&Call::of_del(&environment, input)?).map(|()| String::new());
    }
    let call = Call::parse(command, &environment, input)?;
    match command {
        Command::Add => attachment::add(&call),
        Command::Check => attachment::check(&call).map(|()| String::new()),
        Command::Gc => attachment::collect(&call).map(|()| String::new()),
        Command::Status => attachment::status(&call).map(|()| String::new()),
        Command::Del | Command::Version => unreachable!("answered above"),
    }
}
