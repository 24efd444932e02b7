//! Asks the kernel for its Landlock ABI version.

use crate::sys::{self, Errno};

/// Landlock ABI version of the kernel, or why it has none.
///
/// # Errors
///
/// The kernel has no Landlock, or it is disabled.
pub fn version() -> Result<u32, Errno> {
    sys::landlock::version()
}
