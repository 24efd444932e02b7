//! Network of the container. So far what the specification asks of a new network namespace: its
//! loopback device is up.

pub mod child;
pub mod device;
pub mod link;
pub mod pasta;
pub mod subnet;

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    LoopbackUp,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoopbackUp => f.write_str("bring lo up"),
        }
    }
}
