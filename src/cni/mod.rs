//! `aril-cni`: networks of Aril for engines that call plugins of the Container Network Interface (CNI), versions
//! 0.3.0 to 1.1.0.
//!
//! # Theory of operation
//!
//! An engine runs the plugin with `CNI_*` in the environment and the network's configuration on stdin ([`config`]).
//! The plugin prints a result, or an error with a code of the specification, on stdout ([`output`]). To
//! [`crate::network`] an attachment ([`attachment`]) is a container: it holds a lease. It has a directory
//! ([`crate::network::marker`]) instead of a state directory. The directory is created before the lease and removed
//! after it, so DEL, GC and `aril reconcile` find everything that a killed ADD left. Addresses come from Aril, or
//! from the plugin that `ipam.type` names ([`delegate`]).

pub mod attachment;
pub mod config;
pub mod delegate;
pub mod go;
pub mod output;

use std::ffi::OsString;
use std::io::{Read, Write};

use config::{Call, Command, Environment};
use output::Failure;

/// Maximum length of a configuration, in bytes.
const LONGEST: u64 = 1 << 20;

/// Runs the plugin and returns its exit status.
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

/// Runs the command and returns the text to print.
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
