//! `linux.netDevices`: network devices of the host that move into the container.
//!
//! # Theory of operation
//!
//! The parent moves the devices while the child sets itself up, before any hook. One request moves and renames a
//! device. The kernel takes a device down when it moves it and drops its addresses. The permanent addresses of global
//! scope are therefore read before the move and added again after it; then the device is brought up. When the
//! namespace ends, the kernel returns physical devices to the host and destroys virtual ones. If the start of the
//! container fails, all devices are moved back with the name and state that they had.

pub mod effect;
pub mod plan;

use std::fmt;

/// Device to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name on the host.
    pub host: String,
    /// Name in the container. The kernel replaces `%d` by the first free number.
    pub name: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "move network device {} into the container", self.host)?;
        if self.name != self.host { write!(f, " as {}", self.name) } else { Ok(()) }
    }
}
