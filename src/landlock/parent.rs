//! Asks the kernel for its Landlock ABI version.

use crate::sys::{self, Errno};

/// Landlock ABI version of the kernel, or why it has none.
pub fn version() -> Result<u32, Errno> {
    sys::landlock::version()
}
