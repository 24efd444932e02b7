//! Serves `containerd.task.v2.Task` and `v3.Task`, which are the same under two names.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::exits::wait_response;
use super::inside;
use super::jobs::{already_finished, no_exec, not_created};
use super::members::{self, Member};
use super::metrics;
use super::model::{Config, Container, Phase, Process, ProcessKey, Removal, Reply};
use super::options::Options;
use super::rootfs::{self, Mount};
use super::sandbox;
use super::server::Server;
use super::status::{Code, Status};
use super::stdio::Stdio;
use super::ttrpc::Call;
use super::wire::{Any, Message, Writer};
use crate::sys::tty::{self, Size};

/// Time limit for a Delete to wait for the rest of an output that another process keeps open.
const DRAIN: Duration = Duration::from_secs(10);

/// Result of a call: an answer, or `None` if a command that was started will give it.
pub type Outcome = Result<Option<Vec<u8>>, Status>;

/// Empty reply.
pub const EMPTY: Outcome = Ok(Some(Vec::new()));

impl Server {
    pub(super) fn call(&mut self, reply: Reply, call: &Call) {
        let outcome = match call.service.as_str() {
            "containerd.task.v2.Task" | "containerd.task.v3.Task" => {
                Message::parse(&call.payload).and_then(|m| self.task(reply, &call.method, &m))
            }
            sandbox::SERVICE => Message::parse(&call.payload)
                .and_then(|m| self.sandbox_call(reply, &call.method, &m)),
            other => Err(Status::new(Code::Unimplemented, format!("service {other}"))),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(payload)) => self.answer(reply, Ok(payload)),
            Err(status) => self.answer(reply, Err(status)),
        }
    }

    fn task(&mut self, reply: Reply, method: &str, message: &Message) -> Outcome {
        let id = message.text(1)?;
        let addressed = || -> Result<ProcessKey, Status> {
            Ok(ProcessKey { id: id.to_owned(), exec: message.text(2)?.to_owned() })
        };
        match method {
            "Create" => self.create(id, message, reply).inspect_err(|_| self.never_joined(id)),
            "Start" => self.start(&addressed()?, reply),
            "Exec" => self.exec(&addressed()?, message),
            "State" => self.state(&addressed()?),
            "Delete" => self.delete(&addressed()?, reply),
            "Kill" => self.kill(&addressed()?, message, reply),
            "Wait" => self.wait(&addressed()?, reply),
            "ResizePty" => self.resize(&addressed()?, message),
            "CloseIO" => self.close_io(&addressed()?, message),
            "Pids" => self.pids(id, reply),
            "Pause" => self.pause(id, true, reply),
            "Resume" => self.pause(id, false, reply),
            "Update" => {
                let resources = message.message(2)?;
                let json = resources.bytes(2);
                self.with_init(id, |server| server.ask_update(id, json, reply))
            }
            "Stats" => self.stats(id),
            "Connect" => self.connect(id),
            "Shutdown" => self.shutdown(id, reply),
            "Checkpoint" => {
                Err(Status::new(Code::Unimplemented, "checkpoint is not supported by this shim"))
            }
            other => Err(Status::new(Code::Unimplemented, format!("method {other}"))),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Status> {
        self.containers.get_mut(id).ok_or_else(not_created)
    }

    fn process(&mut self, target: &ProcessKey) -> Result<&mut Process, Status> {
        self.container(&target.id)?.process(&target.exec).ok_or_else(no_exec)
    }

    /// Starts a command for a container that has a process.
    fn with_init(
        &mut self,
        id: &str,
        begin: impl FnOnce(&mut Self) -> Result<(), Status>,
    ) -> Outcome {
        let init = &self.container(id)?.init;
        if init.phase == Phase::Creating || init.exit.is_some() {
            return Err(Status::refused("container not running"));
        }
        begin(self)?;
        Ok(None)
    }

    fn create(&mut self, id: &str, message: &Message, reply: Reply) -> Outcome {
        check_name(id)?;
        let bundle = PathBuf::from(message.text(2)?);
        if !bundle.is_absolute() {
            return Err(Status::invalid(format!("bundle {:?}: not an absolute path", bundle)));
        }
        if self.containers.contains_key(id) {
            return Err(Status::new(Code::AlreadyExists, format!("container {id} already exists")));
        }
        let checkpoint = message.text(8)?;
        if !checkpoint.is_empty() {
            let text = "restoring a checkpoint is not supported by this shim";
            return Err(Status::new(Code::Unimplemented, text));
        }
        let mounts = message.all(3).map(Mount::parse).collect::<Result<Vec<_>, Status>>()?;
        let mut options = Options::decode(&Any::parse(message.bytes(10))?)?;
        // containerd passes options to other shims than its own only if no pod has a user namespace, and Docker passes
        // none to a shim that it knows by name alone.
        let mut config = Config::read(&bundle);
        options.systemd_cgroup |= config.has_systemd_cgroup();
        self.join_pod(id, &bundle, &options)?;
        if self.sandbox.is_some() {
            // `join_pod` has added the pod's settings to the file.
            config = Config::read(&bundle);
        }
        let container = Container {
            inside: inside::words(&mounts, &options, &config),
            config,
            mounts,
            checkpoint: checkpoint.to_owned(),
            init: Process::new(stdio(message, 4)?, Phase::Creating, Vec::new()),
            execs: Default::default(),
            paused: false,
            cgroup: None,
            oom: None,
            metrics: None,
            options,
            bundle,
        };
        // Before anything exists that a cleanup needs them for.
        container.options.store(&container.bundle)?;
        if container.inside.is_none() {
            rootfs::mount(&container.bundle, &container.mounts)?;
        }
        let bundle = container.bundle.clone();
        self.containers.insert(id.to_owned(), container);
        self.make(&ProcessKey::init(id), reply).inspect_err(|_| self.never_made(id, &bundle))?;
        Ok(None)
    }

    /// Adds the container to the pod of this shim. If the shim is killed, containerd requests a cleanup only for the
    /// container that the shim was started for, so that container's bundle lists the others.
    fn join_pod(&mut self, id: &str, bundle: &Path, options: &Options) -> Result<(), Status> {
        if bundle != self.bundle && self.bundle.is_dir() {
            let member = Member { bundle: bundle.to_owned(), options: options.clone() };
            members::add(&self.bundle, id, &member)?;
        }
        match &self.sandbox {
            Some(sandbox) if !sandbox.is_ready() => {
                Err(Status::refused("the sandbox is not running"))
            }
            Some(sandbox) => Ok(sandbox.pod.share(&sandbox.bundle, bundle)?),
            None => Ok(()),
        }
    }

    /// Undoes `join_pod` after a failed Create, unless the container existed before.
    fn never_joined(&self, id: &str) {
        if !self.containers.contains_key(id) {
            members::remove(&self.bundle, id);
        }
    }

    fn never_made(&mut self, id: &str, bundle: &Path) {
        if let Some(container) = self.containers.remove(id)
            && let Some(logger) = container.init.logger
        {
            self.end_logger(logger);
        }
        self.forget_bundle(id, bundle);
    }

    /// Removes what the shim has added to the bundle of a container that was not created.
    pub(super) fn forget_bundle(&mut self, id: &str, bundle: &Path) {
        if let Err(error) = rootfs::unmount(bundle) {
            self.note("unmount rootfs", &error.into());
        }
        members::remove(&self.bundle, id);
    }

    fn start(&mut self, target: &ProcessKey, reply: Reply) -> Outcome {
        let init = &self.container(&target.id)?.init;
        if !target.is_init() && (init.ended.is_some() || init.exit.is_some()) {
            let text = format!("container {} init process is not running", target.id);
            return Err(Status::refused(text));
        }
        let process = self.process(target)?;
        match process.phase {
            Phase::Created if process.removal.is_none() => process.phase = Phase::Starting,
            Phase::Stopped => return Err(Status::refused("cannot start a stopped process")),
            Phase::Running => return Err(Status::refused("cannot start a running process")),
            _ => return Err(Status::refused("the process is just being made or removed")),
        }
        let begun = if target.is_init() {
            self.ask_start(&target.id, reply)
        } else {
            self.make(target, reply)
        };
        if let Err(status) = begun {
            if let Ok(process) = self.process(target) {
                process.phase = Phase::Created;
            }
            return Err(status);
        }
        Ok(None)
    }

    fn exec(&mut self, target: &ProcessKey, message: &Message) -> Outcome {
        check_name(&target.exec)?;
        let container = self.container(&target.id)?;
        if container.init.ended.is_some() || container.init.exit.is_some() {
            let text = format!("container {} init process is not running", target.id);
            return Err(Status::refused(text));
        }
        if container.execs.contains_key(&target.exec) {
            let text = format!("exec {} already exists", target.exec);
            return Err(Status::new(Code::AlreadyExists, text));
        }
        let spec = Any::parse(message.bytes(7))?;
        let stdio = stdio(message, 3)?;
        let spec = with_terminal(spec.value, stdio.terminal);
        let process = Process::new(stdio, Phase::Created, spec);
        container.execs.insert(target.exec.clone(), process);
        let event = Writer::new().bytes(1, &target.id).bytes(2, &target.exec);
        self.publish("exec-added", "TaskExecAdded", event);
        EMPTY
    }

    fn state(&mut self, target: &ProcessKey) -> Outcome {
        let container = self.container(&target.id)?;
        let (paused, bundle) = (container.paused, container.bundle.display().to_string());
        let process = container.process(&target.exec).ok_or_else(no_exec)?;
        let (stdio, exit) = (&process.stdio, process.exit);
        let response = Writer::new()
            .bytes(1, &target.id)
            .bytes(2, bundle)
            .number(3, process.pid as u64)
            .number(4, status(process, paused))
            .bytes(5, &stdio.stdin)
            .bytes(6, &stdio.stdout)
            .bytes(7, &stdio.stderr)
            .number(8, stdio.terminal.into())
            .number(9, exit.map_or(0, |exit| exit.status.into()))
            .time(10, exit.map(|exit| exit.at))
            .bytes(11, &target.exec);
        Ok(Some(response.finish()))
    }

    fn delete(&mut self, target: &ProcessKey, reply: Reply) -> Outcome {
        let process = self.process(target)?;
        let created = process.phase == Phase::Created && process.ended.is_none();
        if process.exit.is_none() && !created {
            return Err(Status::refused("cannot delete a running process"));
        }
        if process.removal.is_some() {
            return Err(Status::refused("the process is just being removed"));
        }
        // The runtime does not know an exec that has not started, nor an init that was never created.
        let deleted = !target.is_init();
        let deadline = Instant::now() + DRAIN;
        process.removal = Some(Removal { reply, deleted, deadline });
        if target.is_init()
            && let Err(status) = self.ask_delete(&target.id, created)
        {
            if let Ok(process) = self.process(target) {
                process.removal = None;
            }
            return Err(status);
        }
        self.finish_removals(Instant::now());
        Ok(None)
    }

    fn kill(&mut self, target: &ProcessKey, message: &Message, reply: Reply) -> Outcome {
        let (signal, all) = (message.number(3), message.flag(4));
        let process = self.process(target)?;
        if process.exit.is_some() || process.ended.is_some() {
            return Err(already_finished());
        }
        if !target.is_init() {
            let pid = process.pid;
            return match process.phase {
                Phase::Running => Self::kill_exec(pid, signal).map(Some),
                _ => Err(Status::refused("process not created")),
            };
        }
        if process.phase == Phase::Creating {
            return Err(Status::refused("process not created"));
        }
        self.ask_kill(&target.id, signal, all, reply)?;
        Ok(None)
    }

    fn wait(&mut self, target: &ProcessKey, reply: Reply) -> Outcome {
        let process = self.process(target)?;
        if let Some(exit) = process.exit {
            return Ok(Some(wait_response(exit)));
        }
        process.waiters.push(reply);
        Ok(None)
    }

    fn resize(&mut self, target: &ProcessKey, message: &Message) -> Outcome {
        let clip = |number: u64| number.min(u16::MAX.into()) as u16;
        let size = Size { columns: clip(message.number(3)), rows: clip(message.number(4)) };
        let process = self.process(target)?;
        match &process.console {
            Some(master) => tty::set_size(master.as_fd(), size)
                .map_err(|e| Status::unknown(format!("resize: {}", super::command::errno(e))))?,
            // Applied when there is a terminal.
            None => process.size = Some(size),
        }
        EMPTY
    }

    fn close_io(&mut self, target: &ProcessKey, message: &Message) -> Outcome {
        let process = self.process(target)?;
        if message.flag(3) {
            process.stdin_closed = true;
            process.held.stdin = None;
        }
        EMPTY
    }

    fn pause(&mut self, id: &str, pause: bool, reply: Reply) -> Outcome {
        let init = &self.container(id)?.init;
        if init.phase == Phase::Created {
            let verb = if pause { "pause" } else { "resume" };
            return Err(Status::refused(format!("cannot {verb} task in created state")));
        }
        self.with_init(id, |server| server.ask_pause(id, pause, reply))
    }

    /// Lists the processes. For a container that has ended it lists init: containerd 1.7 deletes a shim without
    /// processes when the daemon restarts, and with it the exit status that the shim keeps.
    fn pids(&mut self, id: &str, reply: Reply) -> Outcome {
        let init = &self.container(id)?.init;
        if init.exit.is_some() {
            let process = Writer::new().number(1, init.pid as u64);
            return Ok(Some(Writer::new().message(1, process).finish()));
        }
        self.with_init(id, |server| server.ask_pids(id, reply))
    }

    fn stats(&mut self, id: &str) -> Outcome {
        let container = self.container(id)?;
        let none = || Status::not_found("cgroup does not exist");
        let paths = container.cgroup.as_ref().ok_or_else(none)?;
        let now = metrics::read(paths)?;
        let picture = now.or_else(|| container.metrics.clone()).ok_or_else(none)?;
        Ok(Some(Writer::new().any(1, &picture).finish()))
    }

    /// Never fails: the caller tests if the shim answers.
    fn connect(&mut self, id: &str) -> Outcome {
        let pid = self.containers.get(id).map_or(0, |container| container.init.pid);
        let own = u64::from(std::process::id());
        Ok(Some(Writer::new().number(1, own).number(2, pid as u64).finish()))
    }

    /// Ends the shim after its last container; other containers of the group keep it. A call with the name of the
    /// sandbox comes from a containerd that was killed while it created the sandbox, and does not know it any more.
    fn shutdown(&mut self, id: &str, reply: Reply) -> Outcome {
        match &self.sandbox {
            Some(sandbox) if sandbox.id == id => return self.shut_down_sandbox(id, reply),
            None if self.containers.is_empty() => self.shut_down(),
            _ => {}
        }
        EMPTY
    }
}

/// Decodes the streams from four fields in a row; the first is true for a terminal.
fn stdio(message: &Message, first: u64) -> Result<Stdio, Status> {
    let text = |field: u64| message.text(first + field).map(str::to_owned);
    let (stdin, stdout, stderr) = (text(1)?, text(2)?, text(3)?);
    Ok(Stdio { stdin, stdout, stderr, terminal: message.flag(first) })
}

/// Sets `terminal` in process.json to that of the request, which decides: a client may send the container's own
/// process, whose field describes init. A document that cannot be parsed stays as it is: the runtime reports why.
fn with_terminal(spec: Vec<u8>, terminal: bool) -> Vec<u8> {
    let Ok(Value::Object(mut process)) = serde_json::from_slice(&spec) else { return spec };
    let said = process.get("terminal").and_then(Value::as_bool).unwrap_or_default();
    if said == terminal {
        return spec;
    }
    process.insert("terminal".into(), terminal.into());
    Value::Object(process).to_string().into_bytes()
}

/// Returns containerd.v1.types.Status.
fn status(process: &Process, paused: bool) -> u64 {
    const CREATED: u64 = 1;
    const RUNNING: u64 = 2;
    const STOPPED: u64 = 3;
    const PAUSED: u64 = 4;
    match process.phase {
        _ if process.exit.is_some() => STOPPED,
        _ if paused => PAUSED,
        Phase::Creating | Phase::Created | Phase::Starting => CREATED,
        Phase::Running | Phase::Stopped => RUNNING,
    }
}

/// Checks an id, which becomes part of the names of files in the bundle.
///
/// # Errors
///
/// The id is empty, too long, or contains other characters.
pub fn check_name(name: &str) -> Result<(), Status> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c));
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || name.contains(odd) {
        return Err(Status::invalid(format!("{name:?}: not an identifier")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_bundle() {
        for name in ["a", "A_b-1.c"] {
            check_name(name).unwrap();
        }
        for name in ["", "../x", "a/b", ".", "a\0"] {
            assert_eq!(check_name(name).unwrap_err().code, Code::InvalidArgument, "{name:?}");
        }
    }

    #[test]
    fn the_request_decides_on_the_terminal_of_an_exec() {
        let of = |spec: &str, terminal| {
            let spec = with_terminal(spec.as_bytes().to_vec(), terminal);
            String::from_utf8(spec).unwrap()
        };
        let value =
            |text: String| serde_json::from_str::<Value>(&text).unwrap()["terminal"].clone();
        assert_eq!(value(of(r#"{"terminal":true,"args":["sh"]}"#, false)), false);
        assert_eq!(value(of(r#"{"args":["sh"]}"#, true)), true);
        assert_eq!(value(of(r#"{"terminal":false}"#, true)), true);
        for same in [r#"{ "terminal": true }"#, r#"{ "terminal":null,"x":1}"#, "nonsense", "[]"] {
            assert_eq!(of(same, same.contains("true")), same, "untouched");
        }
    }

    #[test]
    fn streams_of_both_requests() {
        let create = Writer::new().number(4, 1).bytes(5, "i").bytes(6, "o").bytes(7, "e").finish();
        let read = stdio(&Message::parse(&create).unwrap(), 4).unwrap();
        assert_eq!(
            (&*read.stdin, &*read.stdout, &*read.stderr, read.terminal),
            ("i", "o", "e", true)
        );
    }
}
