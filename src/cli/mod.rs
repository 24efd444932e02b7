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
pub mod ps;
mod reconcile;
mod resources;
pub mod root;
pub mod spec;
pub mod stats;
pub mod table;
pub mod value;
pub mod version;
mod volume;

use std::ffi::OsString;

use crate::error::Error;
use crate::init::seal::seal;
use dispatch::Caller;
use log::Sink;

/// An error, and how the program ends with it.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub code: u8,
    /// Of a command whose words could not be told apart: it goes to stdout, above the error.
    pub help: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, code: 1, help: None }
    }
}

/// The whole program: the command line, our own name first, to an exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    let mut sink = Sink::stderr();
    match run(words, &mut sink) {
        Ok(code) => code,
        Err(Failure { error, code, help }) => {
            if let Some(help) = help {
                // The error itself is about to be told; that its help is not is no news.
                _ = output::print(&format!("Incorrect Usage: {error}\n\n{help}\n"));
            }
            sink.fatal(&error);
            code
        }
    }
}

/// In two stages: the log must be open before the verb's own words are read, so that a mistake in
/// them is found there.
fn run(all: Vec<OsString>, sink: &mut Sink) -> Result<u8, Failure> {
    let (global, words) = table::globals(all.iter().skip(1).cloned().collect())?;
    if words.first().is_some_and(|verb| table::enters_container(verb)) {
        seal(&all)?;
    }
    *sink = Sink::open(global.log.as_deref(), global.log_format, global.debug)?;
    let command = table::command(&words)?;
    dispatch::dispatch(&Caller { global: &global, sink }, command)
}
