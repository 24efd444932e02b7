//! The command line: reads the words, calls one verb, returns the exit status.
//!
//! [`argv`] reads words as Go's flag packages do. [`table`] is the table of verbs, which makes the flags and the help of
//! one verb. [`command`] is the command line as values. [`dispatch`] calls the verb, [`log`] reports errors. Only tables of
//! the verb are built, because engines call this program several times for each container.

pub mod argv;
mod claims;
pub mod command;
mod diff;
pub mod dispatch;
pub mod events;
mod explain;
pub mod features;
mod given;
mod help;
pub mod log;
pub mod network;
mod options;
pub mod output;
pub mod policy;
pub mod ps;
mod reconcile;
mod resources;
pub mod root;
pub mod spec;
pub mod stats;
mod suggest;
pub mod table;
pub mod value;
pub mod version;
mod volume;

use std::ffi::OsString;

use crate::error::Error;
use crate::init::reaper;
use crate::init::seal::seal;
use crate::lifecycle::monitor;
use dispatch::Caller;
use log::Sink;

/// An error, and the exit status with which the program ends.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, code: 1 }
    }
}

/// Runs the program. `words` is the command line with the program's name first. Returns the exit status.
pub fn main(words: Vec<OsString>) -> u8 {
    if let Some(code) = reaper::called(&words).or_else(|| monitor::called(&words)) {
        return code;
    }
    let mut sink = Sink::stderr();
    help::called_as(words.first());
    match run(words, &mut sink) {
        Ok(code) => code,
        Err(Failure { error, code }) => {
            sink.fatal(&error);
            code
        }
    }
}

/// Reads the global flags, opens the log, then reads the verb's words, so that errors in these are logged.
fn run(all: Vec<OsString>, sink: &mut Sink) -> Result<u8, Failure> {
    // The verb is not known yet, so any word counts: the program reads its options after it has executed itself again.
    if all.iter().skip(1).any(|word| table::enters_container(word)) {
        seal(&all)?;
    }
    let (global, words) = table::globals(all.iter().skip(1).cloned().collect())?;
    if words.first().is_some_and(|verb| table::enters_container(verb)) {
        crate::sys::process::raise_open_files();
    }
    // Before the log is opened, which must not get the number of a descriptor that is passed.
    let mut command = table::command(&words);
    if let Ok(command) = &mut command {
        dispatch::reserve_descriptors(command)?;
    }
    *sink = Sink::open(global.log.as_deref(), global.log_format, global.level)?;
    let command = command?;
    sink.watch_steps()?;
    crate::time::step(format_args!(
        "{} {}: read the command line",
        help::called(),
        version::VERSION
    ));
    dispatch::dispatch(&Caller { global: &global, sink }, command)
}
