//! A point of a run: the call of a process at which a fault happens.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};
use nix::errno::Errno;

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the process before the call.
    Kill,
    /// SIGKILL to the process after the call.
    KillAfter,
    /// SIGKILL to all processes of the command, before the call.
    KillAll,
    /// The call is not made, and returns this error.
    Fail(Errno),
    /// The process stays stopped before the call while another command runs.
    Hold,
}

/// Call `call` (from 1) of process `process` (from 0, in the order of their creation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub process: usize,
    pub call: usize,
    pub fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::KillAfter => f.write_str("kill-after"),
            Self::KillAll => f.write_str("kill-all"),
            Self::Fail(errno) => write!(f, "{}", *errno as i32),
            Self::Hold => f.write_str("hold"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.process, self.call, self.fault)
    }
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let mut next = || parts.next().context("a point is PROCESS:CALL:FAULT");
        let (process, call, fault) = (next()?.parse()?, next()?.parse()?, next()?);
        let fault = match fault {
            "kill" => Fault::Kill,
            "kill-after" => Fault::KillAfter,
            "kill-all" => Fault::KillAll,
            "hold" => Fault::Hold,
            number => match Errno::from_raw(number.parse()?) {
                Errno::UnknownErrno => bail!("{number}: no such error"),
                errno => Fault::Fail(errno),
            },
        };
        Ok(Self { process, call, fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_they_are_printed() {
        for text in ["0:1:kill", "1:20:kill-after", "1:7:kill-all", "0:3:28", "0:3:hold"] {
            assert_eq!(text.parse::<Point>().expect(text).to_string(), text);
        }
        for text in ["", "1:2", "a:1:kill", "0:1:maim", "0:1:99999"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
