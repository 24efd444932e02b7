//! The process that joins namespaces for a child that could not.
//!
//! It enters what it is told, clones the child as its own *sibling* (CLONE_PARENT), so that the
//! parent stays the parent and gets the exit status, and ends.

use std::convert::Infallible;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::protocol::{ChildEnd, Report};
use crate::error::Fault;
use crate::error::fault::{Attempt, ChildResult};
use crate::namespace::{self, plan::Plan};
use crate::sys;

/// Runs in the relay.
pub(super) fn main(
    plan: &Plan,
    cgroup: Option<BorrowedFd<'_>>,
    link: ChildEnd,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Infallible {
    let link = std::cell::RefCell::new(Some(link));
    let cloned = prepare(plan).and_then(|()| {
        let flags = plan.clone_flags | libc::CLONE_PARENT as u64;
        sys::clone::clone3(flags, cgroup, || {
            child(link.borrow_mut().take().expect("the child's own copy, taken once"))
        })
        .during("clone3")
    });
    let link = link.take().expect("only the child takes it");
    let report = match cloned {
        Ok(spawned) => Report::Cloned(spawned.pid),
        Err(fault) => Report::Failed { step: super::parent::NO_STEP, fault },
    };
    let _ = link.send(&report);
    sys::clone::exit_now(0)
}

fn prepare(plan: &Plan) -> ChildResult<()> {
    // Opened before any is entered: behind a new mount namespace the paths may mean something else.
    let mut opened: Vec<(&namespace::Join, OwnedFd)> = Vec::new();
    for join in &plan.joined_before_clone {
        opened.push((join, namespace::child::open_namespace(join)?));
    }
    for (join, fd) in &opened {
        namespace::child::enter(join, fd).map_err(|fault| named(join, fault))?;
    }
    if plan.new_time {
        namespace::parent::new_time_namespace(plan.time_offsets.as_deref())
            .map_err(|e| Fault::refused(e.to_string()))?;
    }
    Ok(())
}

fn named(join: &namespace::Join, fault: Fault) -> Fault {
    let call = format!("{} {}", fault.call, join.path.to_string_lossy());
    Fault { call: call.into(), errno: fault.errno }
}
