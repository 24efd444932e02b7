//! Network of the container. So far what the specification asks of a new network namespace: its
//! loopback device is up.

pub mod child;
pub mod definition;
pub mod device;
pub mod firewall;
pub mod guard;
pub mod lease;
pub mod link;
pub mod listener;
pub mod marker;
pub mod names;
pub mod parent;
pub mod pasta;
pub mod plan;
pub mod publish;
pub mod rate;
pub mod store;
pub mod subnet;

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    LoopbackUp,
    /// The parent makes the link while the child does something else: what needs it waits here.
    WaitForLink,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoopbackUp => f.write_str("bring lo up"),
            Self::WaitForLink => f.write_str("wait for the link"),
        }
    }
}
