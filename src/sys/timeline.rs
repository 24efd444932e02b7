//! A page that parent and child share, into which the child writes when each of its steps ended.

use super::{Errno, Result};

/// Nanoseconds of CLOCK_MONOTONIC, one slot a step; zero where the step has not ended.
pub struct SharedClock {
    slots: *mut u64,
    len: usize,
}

impl SharedClock {
    pub fn new(len: usize) -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
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

    pub fn mark(&self, slot: usize) {
        if slot < self.len {
            // SAFETY: inside the mapping, aligned, and written by one process only; the reader reads
            // after a message through a socket, which orders the two.
            unsafe { self.slots.add(slot).write_volatile(now()) }
        }
    }

    pub fn read(&self, slot: usize) -> Option<u64> {
        // SAFETY: inside the mapping, see `mark`.
        let at = if slot < self.len { unsafe { self.slots.add(slot).read_volatile() } } else { 0 };
        (at != 0).then_some(at)
    }
}

impl Drop for SharedClock {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        unsafe { libc::munmap(self.slots.cast(), self.len.max(1) * size_of::<u64>()) };
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
