//! Monitor of a detached container: a process of Aril that is the parent of init, and waits for its end.
//!
//! ```text
//! aril run -d --rootfs
//!   |  fork ---------------> monitor, in a session of its own
//!   |  signals ------------>   makes the container, as a foreground run does
//!   |  <------ one byte ----   the container runs; nothing of the caller's is open any more
//!   |  prints the id         executes itself again as `aril-monitor ROOT ID PID`: what making the
//!   exits                    container took is no longer in memory
//!                            waits for init; records how it ended; releases its network, or deletes it
//! ```
//!
//! Its standard output is `exit.json`, whose lock it holds: see [`crate::state::ExitFile`]. It has no other
//! file open. It stays in the cgroup of its caller: what the container uses is not charged to it, and the
//! OOM killer of the container's cgroup does not see it. A signal other than KILL and TERM is ignored.
//! If it is killed, the container goes on, and its exit status is lost.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::SystemTime;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};

use super::foreground::{self, Signals};
use super::{end, rollback};
use crate::error::{Error, Kind, OsContext, Result};
use crate::id::{ContainerId, HostPid};
use crate::init::seal;
use crate::path::c_path;
use crate::state::{ExitFile, Store};
use crate::sys;
use crate::sys::clone::{SingleThread, Spawned};
use crate::sys::open::open;
use crate::sys::pidfd::{self, Ended};
use crate::sys::process::{self, Vector};

/// First word of the monitor's command line.
const NAME: &str = "aril-monitor";

/// Variables by which systemd is found, to remove a scope. The rest of the caller's environment is dropped.
const VARIABLES: [&str; 3] =
    ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"];

/// Result of [`fork`] in each of the two processes.
#[derive(Debug)]
pub enum Process {
    /// In the caller's process: exit status. The container runs, or the monitor has failed and reported why.
    Caller(u8),
    Monitor(Monitor),
}

/// Running container, for its monitor.
#[derive(Debug)]
pub struct Monitored {
    pub pid: HostPid,
    pub exit: ExitFile,
}

/// Monitor that creates the container.
#[derive(Debug)]
pub struct Monitor {
    report: OwnedFd,
}

/// Forks the monitor. In the caller's process it returns when the container runs or its creation has failed.
///
/// # Errors
///
/// The process cannot be cloned.
pub fn fork() -> Result<Process> {
    let signals = Signals::block()?;
    let (running, report) = sys::spawn::pipe().os("pipe", "")?;
    let caller = nix::unistd::getpid();
    if let Some(monitor) = sys::clone::fork(SingleThread::proof()).os("fork", "")? {
        drop(report);
        return until_running(&monitor, &running, &signals).map(Process::Caller);
    }
    drop(running);
    nix::unistd::setsid().os("setsid", "")?;
    // Killed with the caller, until the container runs.
    process::set_parent_death_signal(libc::SIGKILL).os("prctl", "PR_SET_PDEATHSIG")?;
    if nix::unistd::getppid() != caller {
        sys::clone::exit_now(1);
    }
    sys::signal::unblock_all().os("sigprocmask", "")?;
    Ok(Process::Monitor(Monitor { report }))
}

/// Forwards the caller's signals until the monitor reports or ends.
fn until_running(monitor: &Spawned, running: &OwnedFd, signals: &Signals) -> Result<u8> {
    loop {
        let mut polled = [
            PollFd::new(running.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        foreground::poll_until(&mut polled, None)?;
        if foreground::is_ready(&polled[0]) {
            break;
        }
        foreground::take_signals(HostPid(monitor.pid), monitor.pidfd.as_fd(), signals, None)?;
    }
    if nix::unistd::read(running, &mut [0]).os("read", "pipe")? == 1 {
        return Ok(0);
    }
    match pidfd::wait(monitor.pidfd.as_fd(), true).os("waitid", monitor.pid)? {
        Some(Ended::Signaled(signal)) => {
            let text = format!("the process that made the container was killed by signal {signal}");
            Err(Error::system(text).hint("`aril delete --force` removes what it left"))
        }
        ended => Ok(ended.map_or(1, |ended| ended.code() as u8)),
    }
}

impl Monitor {
    /// Reports to the caller that the container runs, then waits for its end. The exit status is the container's.
    ///
    /// # Errors
    ///
    /// The end cannot be recorded.
    pub fn stay(self, root: &Path, id: &ContainerId, container: Monitored) -> Result<u8> {
        let null = open("/dev/null", OFlag::O_RDWR).os("open", "/dev/null")?;
        nix::unistd::chdir("/").os("chdir", "/")?;
        process::replace(0, &null).os("dup2", "/dev/null")?;
        process::replace(1, &container.exit).os("dup2", "exit.json")?;
        process::replace(2, &null).os("dup2", "/dev/null")?;
        process::cloexec_from(3).os("close_range", "")?;
        process::set_parent_death_signal(0).os("prctl", "PR_SET_PDEATHSIG")?;
        let program = seal::unsealed()?;
        let words = [
            text(NAME)?,
            c_path("root", root)?,
            text(id.as_str())?,
            text(&container.pid.to_string())?,
        ];
        let variables: Vec<_> = VARIABLES.iter().filter_map(|name| variable(name)).collect();
        // A killed caller does not read.
        let _ = nix::unistd::write(&self.report, b"r");
        process::restore_soft_limits(|_| false);
        process::execve(&program, &Vector::new(&words), &Vector::new(&variables));
        // Out of memory, or the program was removed: continue without the exec.
        attend(root, id, container.pid)
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::system(format!("{text:?} has a NUL")))
}

#[expect(clippy::disallowed_methods, reason = "what the monitor keeps of its caller")]
fn variable(name: &str) -> Option<CString> {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(std::env::var_os(name)?);
    CString::new(text.into_vec()).ok()
}

/// Runs the monitor if `words` are a monitor's command line, and returns the exit status.
pub fn called(words: &[OsString]) -> Option<u8> {
    let [name, root, id, pid] = words else { return None };
    if name != NAME {
        return None;
    }
    let pid = pid.to_str()?.parse().ok().map(HostPid)?;
    let id = ContainerId::parse(id.to_str()?).ok()?;
    // There is no terminal and no log: the container's state shows that the end is unknown.
    Some(attend(Path::new(root), &id, pid).unwrap_or(1))
}

fn attend(root: &Path, id: &ContainerId, init: HostPid) -> Result<u8> {
    let started = SystemTime::now();
    let exit = ExitFile::inherited()?;
    // The memory has no secrets, but processes of the container may have the same user and the host's pid namespace.
    process::set_dumpable(false).os("prctl", "PR_SET_DUMPABLE")?;
    nix::sys::prctl::set_name(&text(NAME)?).os("prctl", "PR_SET_NAME")?;
    sys::signal::unblock(libc::SIGTERM).os("sigprocmask", "")?;
    let ended = loop {
        let (pid, ended) = sys::wait::next_child().os("waitid", init)?;
        if pid == init.0 {
            break ended;
        }
    };
    sys::signal::block_all().os("sigprocmask", "")?;
    finish(root, id, &exit, ended, started)?;
    Ok(ended.code() as u8)
}

fn finish(
    root: &Path,
    id: &ContainerId,
    exit: &ExitFile,
    ended: Ended,
    started: SystemTime,
) -> Result<()> {
    let store = Store::new(root.to_owned());
    let record = store.open(id).and_then(|slot| slot.read()).ok().flatten();
    exit.record(&end::exit(ended, started, record.as_ref()))?;
    let slot = match store.lock_patiently(id) {
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    // The id may belong to another container now.
    if exit.is_deleted()? {
        return Ok(());
    }
    match slot.read()? {
        Some(record) if record.deleted_at_end => rollback::after_end(&slot, &record, &|_| {}),
        Some(record) => end::disconnect(&slot, record),
        None => Ok(()),
    }
}
