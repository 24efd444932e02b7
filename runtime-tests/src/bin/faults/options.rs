//! The command line of the driver.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::point::Point;

const USAGE: &str = "faults [FLAG] ...
  --verbs VERB[:SHAPE[:VIEW]],...  Only these (VIEW: host or v2)
  --seconds N                      Points at random for this long, instead of all in order
  --seed N                         Seed of the random points
  --point PROCESS:CALL:FAULT       Only this point; FAULT: kill, kill-after, kill-all, hold, or the number of an error
  --table FILE                     Write the table of results to FILE
  --verbose                        Print each point";

#[derive(Debug)]
pub struct Options {
    pub verbs: Vec<String>,
    pub limit: Option<Duration>,
    pub seed: u64,
    pub point: Option<Point>,
    pub table: Option<String>,
    pub verbose: bool,
}

impl Options {
    pub fn parse(words: &[OsString]) -> Result<Self> {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let mut options =
            Self { verbs: Vec::new(), limit: None, seed, point: None, table: None, verbose: false };
        let mut words = words.iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let mut value = || words.next().context(USAGE);
            match word.as_str() {
                "--verbs" => options.verbs = value()?.split(',').map(str::to_owned).collect(),
                "--seconds" => options.limit = Some(Duration::from_secs(value()?.parse()?)),
                "--seed" => options.seed = value()?.parse()?,
                "--point" => options.point = Some(value()?.parse()?),
                "--table" => options.table = Some(value()?),
                "--verbose" => options.verbose = true,
                _ => bail!(USAGE),
            }
        }
        options.verbs.retain(|verb| !verb.is_empty());
        Ok(options)
    }

    /// True if the verb with this shape and view is wanted.
    pub fn wants(&self, verb: &str, shape: &str, view: &str) -> bool {
        let wanted = |pattern: &String| {
            pattern.split(':').zip([verb, shape, view]).all(|(part, name)| part == name)
        };
        self.verbs.is_empty() || self.verbs.iter().any(wanted)
    }
}
