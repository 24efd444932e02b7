//! `create` and `run`: create a container from a bundle, and start it for `run`.

use std::os::fd::AsFd;
use std::time::SystemTime;

use super::creation::Creation;
use super::handover::Released;
use super::monitor::Monitored;
use super::prepare::{ContainerRequest, Purpose, prepare};
use super::timeline::Timeline;
use super::{foreground, notify, start};
use crate::error::{Error, Result};
use crate::state::{ExitFile, Store};
use crate::sys::pidfd::Ended;

#[derive(Debug)]
pub struct Run {
    pub create: ContainerRequest,
    pub detach: bool,
    /// True if the detached container closes the caller's pipes and terminal.
    pub release: bool,
    /// True if this process becomes the monitor of the detached container.
    pub monitored: bool,
    pub subreaper: bool,
    /// True if the container is kept after its end, until `delete`.
    pub keep: bool,
    /// True if the system calls that the seccomp profile rejects are counted. Not with `detach`.
    pub seccomp_report: bool,
}

/// Result of a verb that creates a process.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Exit status of the program, for a foreground verb.
    pub code: u8,
    pub timeline: Option<Timeline>,
    /// Report of the system calls that the seccomp profile rejected.
    pub refusals: Option<String>,
    /// Container that this process monitors.
    pub monitored: Option<Monitored>,
}

/// Creates a container. `warn` gets a message for each odd but accepted value.
///
/// # Errors
///
/// The config is invalid, the id is in use, or the kernel rejects a step. Every effect is then undone.
pub fn create(store: &Store, request: &ContainerRequest, warn: &dyn Fn(&str)) -> Result<Outcome> {
    let mut time = Timeline::start();
    let purpose = Purpose::Create { detach: true, seccomp_report: false };
    let prepared = prepare(store, request, purpose, &mut time)?;
    let mut creation = Creation::begin(store, request, prepared, time, warn)?;
    let init = creation.spawn(true)?;
    creation.announce(&init, request)?;
    init.park()?;
    creation.host.time.mark("leave it at the gate");
    Ok(creation.keep(0))
}

/// Creates a container and executes its program. In the foreground, waits for its end and deletes it.
///
/// # Errors
///
/// As for [`create`]. The program's own failure is its exit status.
pub fn run(store: &Store, request: &Run, warn: &dyn Fn(&str)) -> Result<Outcome> {
    if request.subreaper && !request.detach {
        foreground::become_subreaper()?;
    }
    let mut time = Timeline::start();
    let Run { detach, seccomp_report, .. } = *request;
    let purpose = Purpose::Create { detach, seccomp_report };
    let prepared = prepare(store, &request.create, purpose, &mut time)?;
    let mut creation = Creation::begin(store, &request.create, prepared, time, warn)?;
    creation.host.record.deleted_at_end = !request.keep;
    if request.monitored || !request.detach && request.keep {
        creation.exit = Some(ExitFile::make(&creation.host.slot)?);
    }
    if request.detach && request.release {
        creation.released = Some(Released::find()?);
    }
    let signals = foreground::Signals::block()?;
    let init = creation.spawn(false)?;
    creation.announce(&init, &request.create)?;
    let notify = notify::Socket::bind(creation.host.slot.path(), init.pid)?;
    let relay = creation.sockets.relay()?;
    let pid = init.pid;
    let pidfd = init.run(&creation.prepared.plan.script)?;
    let started = SystemTime::now();
    creation.host.time.mark("execute the program");
    start::poststart(&creation.host.slot, &creation.host.record, pidfd.as_fd())?;
    creation.host.leave_devices();
    creation.host.slot.unlock();
    if request.detach {
        if let Some(socket) = notify {
            foreground::until_ready(pid, pidfd.as_fd(), Some(&signals), socket, warn)?;
        }
        let monitored = creation.exit.take().map(|exit| Monitored { pid, exit });
        return Ok(Outcome { monitored, ..creation.keep(0) });
    }
    let refusals = creation.refusals.clone();
    let mut counted = refusals.as_ref().map(|refusals| refusals.borrow_mut());
    let tasks = foreground::Tasks { relay, refusals: counted.as_deref_mut(), notify };
    let ended = foreground::wait(pid, &pidfd, &signals, tasks, warn)?;
    drop(counted);
    let id = &request.create.id;
    let Some(ended) = ended else {
        creation.keep(0);
        let hint = format!("`aril delete --force {id}` ends and removes it");
        return Err(foreground::left(&format!("container {id}"), hint));
    };
    creation.host.time.mark("wait for its end");
    if ended == Ended::Signaled(libc::SIGKILL) {
        creation.out_of_memory().iter().for_each(|why| warn(&why.to_string()));
    }
    // The container's exit status takes precedence over errors of its record or its removal.
    if request.keep {
        let recorded = creation.record_end(id, ended, started);
        recorded.unwrap_or_else(|e: Error| warn(&e.to_string()));
    } else {
        creation.delete(id).unwrap_or_else(|e| warn(&e.to_string()));
        creation.host.time.mark("remove what is left");
    }
    Ok(creation.keep(ended.code() as u8))
}
