//! Inside the new network namespace.

use super::Step;
use crate::error::fault::{Attempt, ChildResult};
use crate::sys;

pub fn run(step: &Step) -> ChildResult<()> {
    match step {
        Step::LoopbackUp => sys::namespace::loopback_up().during("ioctl SIOCSIFFLAGS lo"),
    }
}
