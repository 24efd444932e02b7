//! What the kernel can restrict.

use crate::sys::{self, Errno};

/// The version of its interface, or why there is none.
pub fn version() -> Result<u32, Errno> {
    sys::landlock::version()
}
