//! Network of a container: networks with bridges, leases and published ports, pasta for rootless containers, moved
//! devices, and the loopback device of a new network namespace.

pub mod address;
pub mod child;
pub mod definition;
pub mod device;
pub mod firewall;
pub mod kernel;
pub mod link;
pub mod marker;
pub mod names;
pub mod pasta;
pub mod plan;
pub mod ports;

use std::fmt;

/// Network step of the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    LoopbackUp,
    /// Wait until the parent has created the link, which it does while the child sets itself up.
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
