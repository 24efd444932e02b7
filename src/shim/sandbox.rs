//! Serves `containerd.runtime.sandbox.v1.Sandbox`: a pod without a container of its own (containerd 2.x with
//! `sandboxer = "shim"`). The shim, or an [`anchor`], is the first process in the pod's namespaces.
//!
//! A pod stops when its containers have ended, and only then are its namespaces left.
//!
//! ```text
//! CreateSandbox --> Pod::parse --> namespaces (shim or anchor) --> StartSandbox --> containers join
//! StopSandbox, ShutdownSandbox --> kill containers --> remove them --> leave the namespaces
//! ```

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::SystemTime;

use super::anchor::{self, Started};
use super::exits::wait_response;
use super::metrics;
use super::model::{Exit, Removal, Reply};
use super::pod::Pod;
use super::rootfs;
use super::server::{Server, kill};
use super::status::{Code, Status};
use super::task::{EMPTY, Outcome, check_name};
use super::wire::{Any, Message, Writer};
use crate::cgroup::layout;

/// Name of the ttrpc service.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// State of the pod.
pub struct Sandbox {
    pub id: String,
    pub bundle: PathBuf,
    pub pod: Pod,
    phase: Phase,
    /// Process ID of the anchor, or of the shim.
    pid: i32,
    anchor: Option<i32>,
    started: Option<SystemTime>,
    exit: Option<Exit>,
    waiters: Vec<Reply>,
    /// Calls of StopSandbox that wait for the stop.
    stopping: Vec<Reply>,
    /// Calls of ShutdownSandbox that wait for the removal.
    leaving: Vec<Reply>,
}

enum Phase {
    Created,
    Starting(Box<Start>),
    Ready,
    Stopped,
}

struct Start {
    reply: Reply,
    anchor: Started,
    said: String,
    token: u64,
}

impl Sandbox {
    /// Returns true if containers may join.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Drops the replies of a closed connection.
    pub fn hang_up(&mut self, connection: u64) {
        self.waiters.retain(|reply| reply.connection != connection);
    }
}

impl Server {
    pub(super) fn sandbox_call(
        &mut self,
        reply: Reply,
        method: &str,
        message: &Message,
    ) -> Outcome {
        let id = message.text(1)?;
        match method {
            "CreateSandbox" => self.create_sandbox(id, message),
            "StartSandbox" => self.start_sandbox(id, reply),
            "Platform" => Ok(Some(platform())),
            "StopSandbox" => self.stop_sandbox(id, reply),
            "WaitSandbox" => self.wait_sandbox(id, reply),
            "SandboxStatus" => self.sandbox_status(id, message.flag(2)),
            "PingSandbox" => self.sandbox(id).and(EMPTY),
            "ShutdownSandbox" => self.shut_down_sandbox(id, reply),
            "SandboxMetrics" => self.sandbox_metrics(id),
            other => Err(Status::new(Code::Unimplemented, format!("method {other}"))),
        }
    }

    fn sandbox(&mut self, id: &str) -> Result<&mut Sandbox, Status> {
        let sandbox = self.sandbox.as_mut().filter(|sandbox| sandbox.id == id);
        sandbox.ok_or_else(|| Status::not_found(format!("sandbox {id} not found")))
    }

    fn create_sandbox(&mut self, id: &str, message: &Message) -> Outcome {
        check_name(id)?;
        if let Some(sandbox) = &self.sandbox {
            let text = format!("this shim has the sandbox {} already", sandbox.id);
            return Err(Status::new(Code::AlreadyExists, text));
        }
        let bundle = PathBuf::from(message.text(2)?);
        if !bundle.is_absolute() {
            return Err(Status::invalid(format!("bundle {bundle:?}: not an absolute path")));
        }
        let pod = Pod::parse(&Any::parse(message.bytes(4))?, message.text(5)?)?;
        // Errors of the configuration are reported before anything is created.
        pod.plan(None)?;
        if let Err(error) = pod.create_files(&bundle) {
            // The first error is the one to report.
            let _ = rootfs::unmount(&bundle);
            return Err(error.into());
        }
        self.sandbox = Some(Sandbox {
            id: id.to_owned(),
            bundle,
            pod,
            phase: Phase::Created,
            pid: 0,
            anchor: None,
            started: None,
            exit: None,
            waiters: Vec::new(),
            stopping: Vec::new(),
            leaving: Vec::new(),
        });
        EMPTY
    }

    fn start_sandbox(&mut self, id: &str, reply: Reply) -> Outcome {
        let sandbox = self.sandbox(id)?;
        if !matches!(sandbox.phase, Phase::Created) {
            return Err(Status::refused(format!("sandbox {id} was started before")));
        }
        if sandbox.pod.needs_anchor() {
            let anchor = anchor::start(&sandbox.pod)?;
            let token = self.await_anchor(anchor.ready.as_fd())?;
            let start = Start { reply, anchor, said: String::new(), token };
            self.sandbox(id)?.phase = Phase::Starting(Box::new(start));
            return Ok(None);
        }
        if let Some(sandbox) = &self.sandbox {
            self.home.enter_pod(&sandbox.pod)?;
        }
        Ok(Some(self.sandbox(id)?.begin(std::process::id() as i32)))
    }

    /// Handles output, or the end, of a starting anchor.
    pub(super) fn read_anchor(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let Phase::Starting(start) = &mut sandbox.phase else { return };
        let Some(answer) = start.anchor.answer(&mut start.said) else { return };
        let phase = std::mem::replace(&mut sandbox.phase, Phase::Created);
        let answer = answer.map(|pid| {
            sandbox.anchor = Some(pid);
            sandbox.begin(pid)
        });
        if let Phase::Starting(start) = phase {
            self.forget_anchor(start.anchor.ready.as_fd(), start.token);
            self.answer(start.reply, answer.map_err(Status::from));
        }
        self.settle_sandbox();
    }

    /// Handles the end of the anchor, with which the pod has stopped. Returns false for another process.
    pub(super) fn anchor_ended(&mut self, pid: i32, exit: Exit) -> bool {
        let Some(sandbox) = self.sandbox.as_mut().filter(|s| s.anchor == Some(pid)) else {
            return false;
        };
        sandbox.anchor = None;
        self.sandbox_stopped(exit);
        true
    }

    fn stop_sandbox(&mut self, id: &str, reply: Reply) -> Outcome {
        let sandbox = self.sandbox(id)?;
        if matches!(sandbox.phase, Phase::Stopped) {
            return EMPTY;
        }
        sandbox.stopping.push(reply);
        self.settle_sandbox();
        Ok(None)
    }

    pub(super) fn shut_down_sandbox(&mut self, id: &str, reply: Reply) -> Outcome {
        if self.sandbox.is_none() {
            // A sandbox that could not be created: containerd shuts the shim down.
            if self.containers.is_empty() {
                self.last = Some(reply.connection);
                self.shut_down();
            }
            return EMPTY;
        }
        self.sandbox(id)?.leaving.push(reply);
        self.settle_sandbox();
        Ok(None)
    }

    /// Continues a requested stop or removal of the pod, as far as the state of its containers allows.
    pub(super) fn settle_sandbox(&mut self) {
        let Some(sandbox) = &self.sandbox else { return };
        let starting = matches!(sandbox.phase, Phase::Starting(_));
        if starting || sandbox.stopping.is_empty() && sandbox.leaving.is_empty() {
            return;
        }
        let leaving = !sandbox.leaving.is_empty();
        if !matches!(sandbox.phase, Phase::Stopped) {
            if !self.all_killed() {
                return;
            }
            self.sandbox_stopped(Exit { status: 0, at: SystemTime::now() });
        }
        if !leaving {
            return;
        }
        let left: Vec<String> = self.containers.keys().cloned().collect();
        if left.is_empty() {
            let leaving = self.sandbox.take().map(|sandbox| sandbox.leaving);
            for reply in leaving.into_iter().flatten() {
                self.last = Some(reply.connection);
                self.answer(reply, Ok(vec![]));
            }
            return self.shut_down();
        }
        for id in left {
            self.remove_unasked(&id);
        }
    }

    /// Kills the containers of the pod. Returns true if none runs any more.
    fn all_killed(&mut self) -> bool {
        let mut paused = Vec::new();
        let mut all = true;
        for (id, container) in &self.containers {
            let init = &container.init;
            if init.exit.is_some() {
                continue;
            }
            all = false;
            if init.pid == 0 || init.ended.is_some() {
                continue;
            }
            match container.paused {
                true => paused.push(id.clone()),
                // The process is a child and not reaped, so its pid is not reused.
                false => drop(kill(init.pid, libc::SIGKILL)),
            }
        }
        for id in paused {
            // The runtime can thaw a container to kill it.
            if let Err(status) = self.ask_kill_rest(&id) {
                self.note("kill what is paused", &status);
            }
        }
        all
    }

    /// Deletes a container as by a Delete call without an answer.
    fn remove_unasked(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.init.removal.is_some() {
            return;
        }
        container.init.removal = Some(Removal::without_reply());
        if let Err(status) = self.ask_delete(id, true) {
            self.cannot_leave(&status);
        }
    }

    /// Reports that a container cannot be removed to the calls that wait for the removal of the pod; containerd may
    /// repeat them.
    pub(super) fn cannot_leave(&mut self, status: &Status) {
        let leaving = self.sandbox.as_mut().map(|s| std::mem::take(&mut s.leaving));
        for reply in leaving.into_iter().flatten() {
            self.answer(reply, Err(status.clone()));
        }
    }

    fn sandbox_stopped(&mut self, exit: Exit) {
        self.home.return_to_host();
        let Some(sandbox) = &mut self.sandbox else { return };
        sandbox.phase = Phase::Stopped;
        sandbox.exit = Some(exit);
        if let Some(anchor) = sandbox.anchor.take() {
            // The process is a child and not reaped, so its pid is not reused.
            let _ = kill(anchor, libc::SIGKILL);
        }
        let unmounted = rootfs::unmount(&sandbox.bundle);
        let waiters = std::mem::take(&mut sandbox.waiters);
        let stopping = std::mem::take(&mut sandbox.stopping);
        if let Err(error) = unmounted {
            self.note("unmount the shared memory", &error.into());
        }
        for reply in waiters {
            self.answer(reply, Ok(wait_response(exit)));
        }
        for reply in stopping {
            self.answer(reply, Ok(vec![]));
        }
    }

    fn wait_sandbox(&mut self, id: &str, reply: Reply) -> Outcome {
        let sandbox = self.sandbox(id)?;
        if let Some(exit) = sandbox.exit {
            return Ok(Some(wait_response(exit)));
        }
        sandbox.waiters.push(reply);
        Ok(None)
    }

    fn sandbox_status(&mut self, id: &str, verbose: bool) -> Outcome {
        let sandbox = self.sandbox(id)?;
        let state = if sandbox.is_ready() { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" };
        let mut response = Writer::new()
            .bytes(1, id)
            .number(2, sandbox.pid as u64)
            .bytes(3, state)
            .time(5, sandbox.started)
            .time(6, sandbox.exit.map(|exit| exit.at));
        if verbose {
            let info = serde_json::json!({"pid": sandbox.pid, "anchor": sandbox.anchor.is_some()});
            let entry = Writer::new().bytes(1, "info").bytes(2, info.to_string());
            response = response.message(4, entry);
        }
        Ok(Some(response.finish()))
    }

    /// Reads the metrics of the pod's cgroup, which the kubelet creates and which contains all of its containers.
    fn sandbox_metrics(&mut self, id: &str) -> Outcome {
        let none = || Status::not_found("the pod has no cgroup");
        let cgroup = &self.sandbox(id)?.pod.cgroup;
        if cgroup.as_os_str().is_empty() {
            return Err(none());
        }
        let paths = layout::paths_at(cgroup)?;
        let picture = metrics::read(&paths)?.ok_or_else(none)?;
        let metric = Writer::new().time(1, Some(SystemTime::now())).bytes(2, id).any(3, &picture);
        Ok(Some(Writer::new().message(1, metric).finish()))
    }
}

impl Sandbox {
    /// Marks the sandbox as ready: from now on containers may join.
    fn begin(&mut self, pid: i32) -> Vec<u8> {
        let now = SystemTime::now();
        (self.phase, self.pid, self.started) = (Phase::Ready, pid, Some(now));
        Writer::new().number(1, pid as u64).time(2, Some(now)).finish()
    }
}

/// Returns containerd.types.Platform, with Go's names of architectures.
fn platform() -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = Writer::new().bytes(1, "linux").bytes(2, architecture);
    Writer::new().message(1, platform).finish()
}
