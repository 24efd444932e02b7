//! Memory that parent and child share, in which the child stores the time when each of its steps ends.

use super::{Errno, Result};

/// Times in nanoseconds of CLOCK_MONOTONIC, one per step. 0 for a step that has not ended.
pub struct SharedClock {
    slots: *mut u64,
    len: usize,
}

impl SharedClock {
    /// Maps memory for `len` steps.
    ///
    /// # Errors
    ///
    /// An error of mmap(2).
    pub fn new(len: usize) -> Result<Self> {
        // SAFETY: this is an anonymous mapping at an address that the kernel chooses.
        let slots = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len.max(1) * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if slots == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { slots: slots.cast(), len })
    }

    /// Stores the current time.
    pub fn mark(&self, slot: usize) {
        if slot < self.len {
            // SAFETY: the address is in the mapping and aligned. One process writes to it. The reader reads after a
            // message through a socket, which orders the two.
            unsafe { self.slots.add(slot).write_volatile(now()) }
        }
    }

    /// Reads the time of a step. `None` if the step has not ended.
    pub fn read(&self, slot: usize) -> Option<u64> {
        // SAFETY: the address is in the mapping, see `mark`.
        let at = if slot < self.len { unsafe { self.slots.add(slot).read_volatile() } } else { 0 };
        (at != 0).then_some(at)
    }
}

impl Drop for SharedClock {
    fn drop(&mut self) {
        // SAFETY: `new` created the mapping, and no reference to it exists.
        unsafe { libc::munmap(self.slots.cast(), self.len.max(1) * size_of::<u64>()) };
    }
}

/// Returns the time in nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
