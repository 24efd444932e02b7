//! Staying with a process until it ends: signals go to it, its terminal's bytes to the caller, its
//! status back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::console::Relay;
use crate::error::{OsContext, Result};
use crate::id::HostPid;
use crate::seccomp::report::Refusals;
use crate::sys::pidfd::Ended;
use crate::sys::{self, Errno};

/// Blocked from before the clone, so that no SIGCHLD is lost, and read as they come.
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    pub(super) fn block() -> Result<Self> {
        // Ignored by the caller, SIGCHLD would take the status away from us.
        sys::signal::default(libc::SIGCHLD);
        sys::signal::block_all().os("sigprocmask", "")?;
        Ok(Self(sys::signal::descriptor().os("signalfd", "")?))
    }
}

/// Orphans of the container become our children, so that none is left when we go.
pub(super) fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).os("prctl", "PR_SET_CHILD_SUBREAPER")
}

pub(super) fn wait(
    pid: HostPid,
    pidfd: &OwnedFd,
    signals: &Signals,
    mut relay: Option<Relay>,
    mut refusals: Option<&mut Refusals>,
) -> Result<Ended> {
    loop {
        let listener = refusals.as_deref().and_then(Refusals::descriptor);
        let (signalled, ended) = wait_for(signals, pidfd, relay.as_ref(), listener)?;
        if let Some(refusals) = &mut refusals {
            refusals.answer()?;
        }
        if let Some(terminal) = &mut relay
            && !terminal.advance()?
        {
            relay = None;
        }
        if signalled {
            take_signals(pid, pidfd.as_fd(), signals, relay.as_ref())?;
        }
        if ended {
            if let Some(terminal) = &mut relay {
                terminal.drain()?;
            }
            let status = sys::pidfd::wait(pidfd.as_fd(), true).os("waitid", pid)?;
            return Ok(status.unwrap_or(Ended::Exited(0)));
        }
    }
}

/// Whether a signal has come, and whether the process has ended; the terminal and the refusals move
/// by themselves.
fn wait_for(
    signals: &Signals,
    pidfd: &OwnedFd,
    relay: Option<&Relay>,
    listener: Option<BorrowedFd<'_>>,
) -> Result<(bool, bool)> {
    let mut polled = vec![
        PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
    ];
    polled.extend(relay.map(Relay::fds).into_iter().flatten());
    polled.extend(listener.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => {
                other.os("poll", "")?;
                break;
            }
        };
    }
    let ready = |p: &PollFd<'_>| p.revents().is_some_and(|r| !r.is_empty());
    Ok((ready(&polled[0]), ready(&polled[1])))
}

fn take_signals(
    pid: HostPid,
    pidfd: BorrowedFd<'_>,
    signals: &Signals,
    relay: Option<&Relay>,
) -> Result<()> {
    while let Some(signal) = sys::signal::next(signals.0.as_fd()).os("read", "signalfd")? {
        match signal {
            libc::SIGCHLD => reap_others(pid),
            libc::SIGWINCH if relay.is_some() => {
                // A caller's terminal that has gone has no size any more.
                let _ = relay.map(Relay::resize);
            }
            // Ours alone: a write of ours to a closed pipe.
            libc::SIGPIPE => {}
            // Go programs get these by the thousand from their own runtime and expect no effect.
            libc::SIGURG => {}
            other => match sys::pidfd::send_signal(pidfd, other) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).os("kill", pid),
            },
        }
    }
    Ok(())
}

/// Orphans that a subreaper was given; the process that we stay with is left to its pidfd.
fn reap_others(pid: HostPid) {
    loop {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
        let ended = nix::sys::wait::waitid(nix::sys::wait::Id::All, flags);
        let other = match ended {
            Ok(WaitStatus::Exited(other, _) | WaitStatus::Signaled(other, _, _)) => other,
            _ => return,
        };
        if other == Pid::from_raw(pid.0) || waitpid(other, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}
