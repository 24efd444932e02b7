//! Brings up the loopback interface in the container's new network namespace.

use crate::error::fault::{Attempt, ChildResult};
use crate::sys;

/// Brings up `lo` in this network namespace.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn loopback_up() -> ChildResult<()> {
    sys::namespace::loopback_up().during("ioctl SIOCSIFFLAGS lo")
}
