//! Waits for a process in the foreground: forwards signals to it and its terminal to the caller, and returns its status.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::notify::{BARRIER, Socket};
use crate::console::Relay;
use crate::error::{Error, Kind, OsContext, Result};
use crate::id::HostPid;
use crate::seccomp::report::Refusals;
use crate::sys::pidfd::Ended;
use crate::sys::{self, Errno};

/// Signals, blocked before the clone so that no SIGCHLD is lost, and read by signalfd(2).
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    pub(super) fn block() -> Result<Self> {
        // With SIGCHLD ignored by the caller, the kernel would discard the status.
        sys::signal::default(libc::SIGCHLD);
        sys::signal::block_all().os("sigprocmask", "")?;
        Ok(Self(sys::signal::descriptor().os("signalfd", "")?))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes this process a subreaper, so that no orphan of the container is left.
pub(super) fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).os("prctl", "PR_SET_CHILD_SUBREAPER")
}

/// Work while a process runs.
#[derive(Default)]
pub(super) struct Tasks<'a> {
    pub relay: Option<Relay>,
    pub refusals: Option<&'a mut Refusals>,
    pub notify: Option<Socket>,
}

/// Number of interrupts in a row after which the program is considered to ignore them, as in Docker's client.
const INTERRUPTS: u32 = 3;
/// Maximum time between two interrupts of a row.
const ON_END: Duration = Duration::from_secs(5);

/// Waits for the end of the process. `None` after the third interrupt: the process continues.
pub(super) fn wait(
    pid: HostPid,
    pidfd: &OwnedFd,
    signals: &Signals,
    mut tasks: Tasks,
    warn: &dyn Fn(&str),
) -> Result<Option<Ended>> {
    let mut interrupts = Interrupts::default();
    loop {
        let woken = wait_for(signals, pidfd, &tasks)?;
        if let Some(refusals) = &mut tasks.refusals {
            refusals.answer()?;
        }
        if let Some(terminal) = &mut tasks.relay
            && !terminal.advance()?
        {
            tasks.relay = None;
        }
        if let Some(socket) = tasks.notify.as_mut().filter(|_| woken.notified) {
            socket.advance(warn);
        }
        if woken.signalled {
            interrupts.count(take_signals(pid, pidfd.as_fd(), signals, tasks.relay.as_ref())?);
        }
        if woken.ended {
            if let Some(terminal) = &mut tasks.relay {
                terminal.drain()?;
            }
            let status = sys::pidfd::wait(pidfd.as_fd(), true).os("waitid", pid)?;
            settle(tasks.notify, warn)?;
            return Ok(Some(status.unwrap_or(Ended::Exited(0))));
        }
        if interrupts.are_enough() {
            return Ok(None);
        }
    }
}

/// Waits until the host has handled the process's readiness notification, until the process has ended, or for the third
/// interrupt. `signals` are forwarded to the process.
pub(super) fn until_ready(
    pid: HostPid,
    init: BorrowedFd<'_>,
    signals: Option<&Signals>,
    mut socket: Socket,
    warn: &dyn Fn(&str),
) -> Result<()> {
    let mut interrupts = Interrupts::default();
    let mut deadline = None;
    while let Some(descriptor) = socket.descriptor() {
        let mut polled =
            vec![PollFd::new(descriptor, PollFlags::POLLIN), PollFd::new(init, PollFlags::POLLIN)];
        polled.extend(signals.map(|signals| PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)));
        let woken = poll_until(&mut polled, deadline)?;
        let [notified, ended] = [0, 1].map(|n| is_ready(&polled[n]));
        let signalled = polled.get(2).is_some_and(is_ready);
        if let Some(signals) = signals.filter(|_| signalled) {
            interrupts.count(take_signals(pid, init, signals, None)?);
        }
        // Data first: the process may have sent the notification and ended.
        if notified {
            socket.advance(warn);
            deadline = socket.awaits_host().then(|| Instant::now() + BARRIER);
        } else if ended || !woken || interrupts.are_enough() {
            break;
        }
    }
    Ok(())
}

/// Waits until the host has handled the last notification, while its sender exists.
fn settle(socket: Option<Socket>, warn: &dyn Fn(&str)) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let Some(mut socket) = socket else { return Ok(()) };
    if !socket.awaits_host() {
        socket.advance(warn);
    }
    if let Some(barrier) = socket.descriptor().filter(|_| socket.awaits_host()) {
        let mut polled = [PollFd::new(barrier, PollFlags::POLLIN)];
        poll_until(&mut polled, Some(Instant::now() + PATIENCE))?;
    }
    Ok(())
}

/// Waits. Returns false if the time has passed.
pub(super) fn poll_until(polled: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(polled, timeout) {
            Err(Errno::EINTR) => continue,
            other => return Ok(other.os("poll", "")? > 0),
        }
    }
}

pub(super) fn is_ready(polled: &PollFd<'_>) -> bool {
    polled.revents().is_some_and(|events| !events.is_empty())
}

/// Row of interrupts.
#[derive(Default)]
struct Interrupts {
    last: Option<Instant>,
    number: u32,
}

impl Interrupts {
    fn count(&mut self, more: u32) {
        if more == 0 {
            return;
        }
        let soon = self.last.is_some_and(|last| last.elapsed() < ON_END);
        self.number = if soon { self.number + more } else { more };
        self.last = Some(Instant::now());
    }

    fn are_enough(&self) -> bool {
        self.number >= INTERRUPTS
    }
}

/// Reason for the end of a wait. The terminal and the seccomp report are served without one.
struct Woken {
    signalled: bool,
    ended: bool,
    notified: bool,
}

fn wait_for(signals: &Signals, pidfd: &OwnedFd, tasks: &Tasks) -> Result<Woken> {
    let mut polled = vec![
        PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
    ];
    let notify = tasks.notify.as_ref().and_then(Socket::descriptor);
    polled.extend(notify.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    polled.extend(tasks.relay.as_ref().map(Relay::fds).into_iter().flatten());
    let listener = tasks.refusals.as_deref().and_then(Refusals::descriptor);
    polled.extend(listener.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    poll_until(&mut polled, None)?;
    let notified = notify.is_some() && is_ready(&polled[2]);
    Ok(Woken { signalled: is_ready(&polled[0]), ended: is_ready(&polled[1]), notified })
}

/// Forwards signals, and returns the number of interrupts.
pub(super) fn take_signals(
    pid: HostPid,
    pidfd: BorrowedFd<'_>,
    signals: &Signals,
    relay: Option<&Relay>,
) -> Result<u32> {
    let mut interrupts = 0;
    while let Some(signal) = sys::signal::next(signals.0.as_fd()).os("read", "signalfd")? {
        match signal {
            libc::SIGCHLD => reap_others(pid),
            libc::SIGWINCH if relay.is_some() => {
                // A closed terminal has no size.
                let _ = relay.map(Relay::resize);
            }
            // Only for this process: it wrote to a closed pipe.
            libc::SIGPIPE => {}
            // Go's runtime sends these to its own programs by the thousand.
            libc::SIGURG => {}
            other => match sys::pidfd::send_signal(pidfd, other) {
                Ok(()) | Err(Errno::ESRCH) => interrupts += u32::from(other == libc::SIGINT),
                Err(errno) => return Err(errno).os("kill", pid),
            },
        }
    }
    Ok(interrupts)
}

/// Third interrupt of the caller.
pub(super) fn left(what: &str, hint: String) -> Error {
    let text = format!("interrupted {INTERRUPTS} times: {what} is left running");
    Error::new(Kind::Interrupted, text).hint(hint)
}

/// Reaps orphans. The awaited process is left to its pidfd.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_on_end() {
        let mut interrupts = Interrupts::default();
        for (more, enough) in [(1, false), (0, false), (1, false), (1, true)] {
            interrupts.count(more);
            assert_eq!(interrupts.are_enough(), enough);
        }
        // Long after the second interrupt.
        let last = Instant::now().checked_sub(ON_END);
        let mut interrupts = Interrupts { last, number: 2 };
        interrupts.count(1);
        assert!(!interrupts.are_enough());
        interrupts.count(2);
        assert!(interrupts.are_enough());
    }
}
