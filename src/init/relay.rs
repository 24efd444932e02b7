//! The relay: a process that joins namespaces, and then clones the child into them.
//!
//! The child is the relay's *sibling* (CLONE_PARENT), so the parent gets its exit status. The relay then ends.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::protocol::{ChildEnd, Report};
use crate::error::Fault;
use crate::error::fault::{Attempt, ChildResult};
use crate::namespace::{self, Kind, plan::Plan};
use crate::sys::clone::SingleThread;
use crate::sys::{self, Errno, socket};

/// Runs the relay: calls `enter`, then clones the child. With a `lender` socket it also serves one [`borrow`].
pub(super) fn main(
    enter: impl FnOnce() -> ChildResult<()>,
    clone_flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    link: ChildEnd,
    lender: Option<OwnedFd>,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Infallible {
    let link = match &lender {
        Some(lender) => link.shared_with_relay(lender.as_raw_fd()),
        None => link,
    };
    let link = std::cell::RefCell::new(Some(link));
    let cloned = enter().and_then(|()| {
        let shared = lender.as_ref().map_or(0, |_| libc::CLONE_FILES);
        let flags = clone_flags | (libc::CLONE_PARENT | shared) as u64;
        sys::clone::clone3(SingleThread::proof(), flags, cgroup, || {
            child(link.borrow_mut().take().expect("the child's own copy, taken once"))
        })
        .during("clone3")
    });
    let link = link.take().expect("only the child takes it");
    let report = match cloned {
        Ok(spawned) => {
            // Not closed: in a shared descriptor table the child may have reused the number.
            std::mem::forget(spawned.pidfd);
            Report::Cloned(spawned.pid)
        }
        Err(fault) => Report::Failed { step: super::parent::NO_STEP, fault },
    };
    let _ = link.send(&report);
    if let Some(lender) = lender {
        let _ = lend(lender.as_fd());
    }
    sys::clone::exit_now(0)
}

/// Sends one descriptor of the child to the parent, which names its number. The relay shares the child's
/// descriptor table, but not its seccomp filter, which may deny sendmsg(2). An unprivileged parent cannot fetch
/// the descriptor from the child, which runs as another user.
fn lend(lender: BorrowedFd<'_>) -> sys::Result<()> {
    let mut number = [0; size_of::<RawFd>()];
    match socket::receive(lender, &mut number)? {
        (length, _) if length == number.len() => {
            socket::send_numbered(lender, &[0], &[RawFd::from_le_bytes(number)]).map(drop)
        }
        // The parent has closed its end: it needs no descriptor.
        _ => Ok(()),
    }
}

/// Receives the child's descriptor `number` from the relay, in the parent: see [`lend`].
pub(super) fn borrow(lender: BorrowedFd<'_>, number: RawFd) -> sys::Result<OwnedFd> {
    socket::send(lender, &number.to_le_bytes(), &[])?;
    let (_, lent) = socket::receive(lender, &mut [0; 1])?;
    lent.into_iter().next().ok_or(Errno::EBADF)
}

/// Joins the namespaces that a container's plan names, and creates its time namespace.
pub(super) fn enter(plan: &Plan) -> ChildResult<()> {
    // All are opened before any is entered: in another mount namespace the paths may name other files.
    let mut opened: Vec<(&namespace::Join, OwnedFd)> = Vec::new();
    for join in &plan.joined_before_clone {
        opened.push((join, namespace::child::open_namespace(join)?));
    }
    // Root must enter the other namespaces before the user namespace, in which it has no capabilities over them.
    // An unprivileged user has capabilities over namespaces only from within the user namespace that owns them.
    let mut postponed = Vec::new();
    for (join, fd) in &opened {
        match namespace::child::enter(join, fd) {
            Err(fault) if fault.errno == Errno::EPERM && join.kind != Kind::User => {
                postponed.push((join, fd));
            }
            entered => entered.map_err(|fault| named(join, fault))?,
        }
    }
    for (join, fd) in postponed {
        namespace::child::enter(join, fd).map_err(|fault| named(join, fault))?;
    }
    if plan.new_time {
        // An unprivileged user cannot write the time offsets of a process that is not dumpable.
        namespace::parent::new_time_namespace(plan.time_offsets.as_deref())
            .map_err(|e| Fault::refused(e.to_string()))?;
    }
    match plan.new_maps {
        None if !plan.hidden => hide(),
        _ => Ok(()),
    }
}

/// Makes the relay, and the child that inherits it, inaccessible to processes of the container (CVE-2016-9962).
fn hide() -> ChildResult<()> {
    sys::process::set_dumpable(false).during("prctl PR_SET_DUMPABLE")
}

/// Enters the user namespace of a running container, and sets its pid namespace for the child.
pub(super) fn enter_container(init: BorrowedFd<'_>) -> ChildResult<()> {
    hide()?;
    for kind in [Kind::User, Kind::Pid] {
        let entered = sys::namespace::setns(init, kind.flag());
        entered.map_err(|errno| Fault {
            call: format!("setns the container's {} namespace", kind.oci()).into(),
            errno,
        })?;
    }
    Ok(())
}

fn named(join: &namespace::Join, fault: Fault) -> Fault {
    let call = format!("{} {}", fault.call, join.path.to_string_lossy());
    Fault { call: call.into(), errno: fault.errno }
}
