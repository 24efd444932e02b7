//! The command line: words in, one verb called, an exit code out.
//!
//! [`argv`] reads words as Go's flag packages do; [`table`] is the table of verbs, from which the
//! chosen one's flags, and help, are made; [`command`] is what was asked for, as values; [`dispatch`]
//! calls the verb; [`log`] says what went wrong. Nothing is built that the verb does not need:
//! engines call this program several times for each container.

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

/// An error, and how the program ends with it.
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

/// The whole program: the command line, our own name first, to an exit code.
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

/// In two stages: the log must be open before a mistake in the verb's own words is reported.
fn run(all: Vec<OsString>, sink: &mut Sink) -> Result<u8, Failure> {
    // Any word, not only the verb: what the first image of the program reads, the second reads again.
    if all.iter().skip(1).any(|word| table::enters_container(word)) {
        seal(&all)?;
    }
    let (global, words) = table::globals(all.iter().skip(1).cloned().collect())?;
    if words.first().is_some_and(|verb| table::enters_container(verb)) {
        crate::sys::process::raise_open_files();
    }
    // Before the log is opened: it must not get the number of a descriptor that is passed.
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
