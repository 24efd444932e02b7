//! `containerd.task.v2.Task` and `v3.Task`, which are the same under two names.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::exits::wait_response;
use super::inside;
use super::jobs::{already_finished, no_exec, not_created};
use super::members::{self, Member};
use super::metrics;
use super::model::{Config, Container, Phase, Process, Removal, Reply, Who};
use super::options::Options;
use super::rootfs::{self, Mount};
use super::sandbox;
use super::server::Server;
use super::status::{Code, Status};
use super::stdio::Stdio;
use super::ttrpc::Call;
use super::wire::{Any, Message, Writer};
use crate::sys::tty::{self, Size};

/// How long a Delete waits for the rest of an output that somebody else keeps open.
const DRAIN: Duration = Duration::from_secs(10);

/// Answered now, or by what was begun.
pub type Outcome = Result<Option<Vec<u8>>, Status>;

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
        let addressed = || -> Result<Who, Status> {
            Ok(Who { id: id.to_owned(), exec: message.text(2)?.to_owned() })
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

    fn process(&mut self, who: &Who) -> Result<&mut Process, Status> {
        self.container(&who.id)?.process(&who.exec).ok_or_else(no_exec)
    }

    /// Begins a command for a container that has a process.
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
        // containerd passes options to shims of its own only where a pod has a user namespace, and Docker none to a
        // shim that it knows by name alone.
        let mut config = Config::read(&bundle);
        options.systemd_cgroup |= config.has_systemd_cgroup();
        self.join_pod(id, &bundle, &options)?;
        if self.sandbox.is_some() {
            // join_pod has written what the pod adds to it.
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
        // Before there is anything to clean up.
        container.options.store(&container.bundle)?;
        if container.inside.is_none() {
            rootfs::mount(&container.bundle, &container.mounts)?;
        }
        let bundle = container.bundle.clone();
        self.containers.insert(id.to_owned(), container);
        self.make(&Who::init(id), reply).inspect_err(|_| self.never_made(id, &bundle))?;
        Ok(None)
    }

    /// What a container has of others in the same shim. When that is killed, containerd asks to clean up
    /// after the one that the shim was started for, who thus has to know of the others.
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

    /// A Create failed, and not because there is such a container.
    fn never_joined(&self, id: &str) {
        if !self.containers.contains_key(id) {
            members::remove(&self.bundle, id);
        }
    }

    fn never_made(&mut self, id: &str, bundle: &Path) {
        if let Some(container) = self.containers.remove(id)
            && let Some(logger) = container.init.logger
        {
            self.part_with_logger(logger);
        }
        self.forget_bundle(id, bundle);
    }

    /// What we have put into and beside the bundle of a container that was not made.
    pub(super) fn forget_bundle(&mut self, id: &str, bundle: &Path) {
        if let Err(error) = rootfs::unmount(bundle) {
            self.note("unmount rootfs", &error.into());
        }
        members::remove(&self.bundle, id);
    }

    fn start(&mut self, who: &Who, reply: Reply) -> Outcome {
        let init = &self.container(&who.id)?.init;
        if !who.is_init() && (init.ended.is_some() || init.exit.is_some()) {
            let text = format!("container {} init process is not running", who.id);
            return Err(Status::refused(text));
        }
        let process = self.process(who)?;
        match process.phase {
            Phase::Created if process.removal.is_none() => process.phase = Phase::Starting,
            Phase::Stopped => return Err(Status::refused("cannot start a stopped process")),
            Phase::Running => return Err(Status::refused("cannot start a running process")),
            _ => return Err(Status::refused("the process is just being made or removed")),
        }
        let begun =
            if who.is_init() { self.ask_start(&who.id, reply) } else { self.make(who, reply) };
        if let Err(status) = begun {
            if let Ok(process) = self.process(who) {
                process.phase = Phase::Created;
            }
            return Err(status);
        }
        Ok(None)
    }

    fn exec(&mut self, who: &Who, message: &Message) -> Outcome {
        check_name(&who.exec)?;
        let container = self.container(&who.id)?;
        if container.init.ended.is_some() || container.init.exit.is_some() {
            let text = format!("container {} init process is not running", who.id);
            return Err(Status::refused(text));
        }
        if container.execs.contains_key(&who.exec) {
            let text = format!("exec {} already exists", who.exec);
            return Err(Status::new(Code::AlreadyExists, text));
        }
        let spec = Any::parse(message.bytes(7))?;
        let stdio = stdio(message, 3)?;
        let spec = with_terminal(spec.value, stdio.terminal);
        let process = Process::new(stdio, Phase::Created, spec);
        container.execs.insert(who.exec.clone(), process);
        let event = Writer::new().bytes(1, &who.id).bytes(2, &who.exec);
        self.publish("exec-added", "TaskExecAdded", event);
        EMPTY
    }

    fn state(&mut self, who: &Who) -> Outcome {
        let container = self.container(&who.id)?;
        let (paused, bundle) = (container.paused, container.bundle.display().to_string());
        let process = container.process(&who.exec).ok_or_else(no_exec)?;
        let (stdio, exit) = (&process.stdio, process.exit);
        let response = Writer::new()
            .bytes(1, &who.id)
            .bytes(2, bundle)
            .number(3, process.pid as u64)
            .number(4, status(process, paused))
            .bytes(5, &stdio.stdin)
            .bytes(6, &stdio.stdout)
            .bytes(7, &stdio.stderr)
            .number(8, stdio.terminal.into())
            .number(9, exit.map_or(0, |exit| exit.status.into()))
            .time(10, exit.map(|exit| exit.at))
            .bytes(11, &who.exec);
        Ok(Some(response.finish()))
    }

    fn delete(&mut self, who: &Who, reply: Reply) -> Outcome {
        let process = self.process(who)?;
        let created = process.phase == Phase::Created && process.ended.is_none();
        if process.exit.is_none() && !created {
            return Err(Status::refused("cannot delete a running process"));
        }
        if process.removal.is_some() {
            return Err(Status::refused("the process is just being removed"));
        }
        // An exec is ours alone, and so is an init that was never made.
        let deleted = !who.is_init();
        let deadline = Instant::now() + DRAIN;
        process.removal = Some(Removal { reply, deleted, deadline });
        if who.is_init()
            && let Err(status) = self.ask_delete(&who.id, created)
        {
            if let Ok(process) = self.process(who) {
                process.removal = None;
            }
            return Err(status);
        }
        self.finish_removals(Instant::now());
        Ok(None)
    }

    fn kill(&mut self, who: &Who, message: &Message, reply: Reply) -> Outcome {
        let (signal, all) = (message.number(3), message.flag(4));
        let process = self.process(who)?;
        if process.exit.is_some() || process.ended.is_some() {
            return Err(already_finished());
        }
        if !who.is_init() {
            let pid = process.pid;
            return match process.phase {
                Phase::Running => Self::kill_exec(pid, signal).map(Some),
                _ => Err(Status::refused("process not created")),
            };
        }
        if process.phase == Phase::Creating {
            return Err(Status::refused("process not created"));
        }
        self.ask_kill(&who.id, signal, all, reply)?;
        Ok(None)
    }

    fn wait(&mut self, who: &Who, reply: Reply) -> Outcome {
        let process = self.process(who)?;
        if let Some(exit) = process.exit {
            return Ok(Some(wait_response(exit)));
        }
        process.waiters.push(reply);
        Ok(None)
    }

    fn resize(&mut self, who: &Who, message: &Message) -> Outcome {
        let clip = |number: u64| number.min(u16::MAX.into()) as u16;
        let size = Size { columns: clip(message.number(3)), rows: clip(message.number(4)) };
        let process = self.process(who)?;
        match &process.console {
            Some(master) => tty::set_size(master.as_fd(), size)
                .map_err(|e| Status::unknown(format!("resize: {}", super::command::errno(e))))?,
            // Applied when there is one; nothing to be done for what has none.
            None => process.size = Some(size),
        }
        EMPTY
    }

    fn close_io(&mut self, who: &Who, message: &Message) -> Outcome {
        let process = self.process(who)?;
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

    /// Of a container that has ended, its init: containerd 1.7 deletes a shim without processes when it starts again,
    /// and with it the exit status that the shim keeps.
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

    /// Never fails: who asks wants to know that there is somebody.
    fn connect(&mut self, id: &str) -> Outcome {
        let pid = self.containers.get(id).map_or(0, |container| container.init.pid);
        let own = u64::from(std::process::id());
        Ok(Some(Writer::new().number(1, own).number(2, pid as u64).finish()))
    }

    /// Of the last container's: the others of a group need us. In the name of a sandbox it comes from a
    /// containerd that was killed while it made that, and does not know of it any more.
    fn shutdown(&mut self, id: &str, reply: Reply) -> Outcome {
        match &self.sandbox {
            Some(sandbox) if sandbox.id == id => return self.shut_down_sandbox(id, reply),
            None if self.containers.is_empty() => self.shut_down(),
            _ => {}
        }
        EMPTY
    }
}

/// The streams are in four fields in a row, of which the first says whether they are a terminal.
fn stdio(message: &Message, first: u64) -> Result<Stdio, Status> {
    let text = |field: u64| message.text(first + field).map(str::to_owned);
    let (stdin, stdout, stderr) = (text(1)?, text(2)?, text(3)?);
    Ok(Stdio { stdin, stdout, stderr, terminal: message.flag(first) })
}

/// process.json with the request's `terminal`, which decides: a client may send the container's own process, whose
/// field says what init has. A document that cannot be read stays as it is: the runtime says why.
fn with_terminal(spec: Vec<u8>, terminal: bool) -> Vec<u8> {
    let Ok(Value::Object(mut process)) = serde_json::from_slice(&spec) else { return spec };
    let said = process.get("terminal").and_then(Value::as_bool).unwrap_or_default();
    if said == terminal {
        return spec;
    }
    process.insert("terminal".into(), terminal.into());
    Value::Object(process).to_string().into_bytes()
}

/// containerd.v1.types.Status.
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

/// It becomes part of the names of files in the bundle.
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
