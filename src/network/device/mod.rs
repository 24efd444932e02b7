//! `linux.netDevices`: devices of the host that the container gets.
//!
//! # Theory of operation
//!
//! The parent moves them while the child sets itself up, before any hook. A move and a new name are
//! one request; the kernel takes a device down when it moves it, and its addresses with it: those
//! that last and reach beyond the link are read before and given back after, then the device is up
//! again. When the namespace ends the kernel gives physical devices back to the host and destroys
//! virtual ones; if the container does not come to be they are all given back, as they came.

pub mod parent;
pub mod plan;

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name on the host.
    pub host: String,
    /// In the container. A `%d` in it becomes the first number that is free.
    pub name: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "move network device {} into the container", self.host)?;
        if self.name != self.host { write!(f, " as {}", self.name) } else { Ok(()) }
    }
}
