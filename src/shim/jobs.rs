//! Starts commands of the runtime, and continues when they have ended.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::command::{self, Command, errno};
use super::console::ConsoleSocket;
use super::delete::ATTEMPTS;
use super::model::{Phase, ProcessKey, Reply};
use super::server::{Server, kill};
use super::status::{Code, Status};
use super::stdio::{self, Logger, Open, Relayed, StreamRequest, Terminal};
use super::ttrpc::Answer;
use super::wire::{Any, Writer};
use crate::cgroup::layout;
use crate::error::OsContext;
use crate::fs::record;
use crate::sys::pidfd::Ended;
use crate::sys::spawn::pipe;
use crate::sys::tty;

/// Time limit for a logger to report that it is ready.
const LOGGER: Duration = Duration::from_secs(10);

/// Running command.
pub struct Job {
    target: ProcessKey,
    reply: Option<Reply>,
    verb: Verb,
    /// Output of the command; for `create` and `exec` the container's own streams.
    output: Option<OwnedFd>,
    log: PathBuf,
}

enum Verb {
    Create(CreatedProcess),
    Exec(CreatedProcess),
    Start,
    Delete,
    Kill,
    /// Kills processes that outlived an init without a pid namespace of its own.
    KillRest,
    Pids,
    Pause,
    Resume,
    Update,
    /// Follows a `create` that was killed itself: its leftovers are removed before the failure is reported. This
    /// command may be killed as well, and is repeated up to this number of times.
    Undo(Status, u32),
}

/// Streams of a process that is being created.
struct CreatedProcess {
    pid_file: PathBuf,
    console: Option<(ConsoleSocket, Terminal)>,
    held: stdio::Held,
    input: Option<(OwnedFd, OwnedFd)>,
    outputs: Vec<(OwnedFd, OwnedFd)>,
}

impl Job {
    /// Returns true if the end of the command reports the pid of a process that may have ended already.
    pub fn makes_process(&self) -> bool {
        matches!(self.verb, Verb::Create(_) | Verb::Exec(_))
    }
}

/// Process that waits until its logger is ready.
pub struct Prepared {
    target: ProcessKey,
    reply: Reply,
    open: Open,
    must_answer: bool,
    ready: OwnedFd,
    pub deadline: Instant,
}

impl Prepared {
    /// Returns the descriptor that becomes readable when the logger is ready.
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// Call of the runtime for a container, whose answer is pending.
pub struct Request<'a> {
    pub id: &'a str,
    pub reply: Option<Reply>,
    pub words: &'a [&'a str],
    pub input: &'a [u8],
}

impl Server {
    // Processes.

    /// Opens the streams, starts the logger if there is one, then the runtime.
    pub(super) fn make(&mut self, target: &ProcessKey, reply: Reply) -> Result<(), Status> {
        let container = self.containers.get_mut(&target.id).ok_or_else(not_created)?;
        let owner = (container.options.io_uid, container.options.io_gid);
        let relayed = match container.config.is_labelled() {
            true => Relayed::All,
            false if target.is_init() => Relayed::Nothing,
            false => Relayed::OutputFifos,
        };
        let process = container.process(&target.exec).ok_or_else(not_created)?;
        let mut open = stdio::open(&StreamRequest { stdio: &process.stdio, owner, relayed })?;
        let Some((logger, readers)) = open.logger.take() else {
            return self.launch(target, reply, open);
        };
        let (ready, writer) = pipe().os("pipe2", "logger")?;
        let descriptors = [readers[0].as_fd(), readers[1].as_fd(), writer.as_fd()];
        let env = self.logger_environment(&target.id)?;
        let pid = command::spawn_logger(&logger.argv, &env, &descriptors, &self.home)?;
        if let Some(process) =
            self.containers.get_mut(&target.id).and_then(|c| c.process(&target.exec))
        {
            process.logger = Some(pid);
        }
        let Logger { must_answer, .. } = logger;
        let deadline = Instant::now() + LOGGER;
        let prepared =
            Prepared { target: target.clone(), reply, open, must_answer, ready, deadline };
        Ok(self.await_logger(prepared)?)
    }

    fn logger_environment(&self, id: &str) -> Result<[CString; 2], Status> {
        let variable = |key: &str, value: &str| {
            CString::new(format!("{key}={value}")).map_err(|_| Status::invalid("NUL in an id"))
        };
        Ok([variable("CONTAINER_ID", id)?, variable("CONTAINER_NAMESPACE", &self.namespace)?])
    }

    pub(super) fn logger_ready(&mut self, prepared: Prepared, late: bool) {
        let Prepared { target, reply, open, must_answer, ready, .. } = prepared;
        let mut byte = [0];
        let answered = !late && nix::unistd::read(&ready, &mut byte) == Ok(1);
        let outcome = if late {
            Err(Status::unknown("logging binary: not ready after 10 seconds"))
        } else if must_answer && !answered {
            Err(Status::unknown("logging binary did not call ready"))
        } else {
            self.launch(&target, reply, open)
        };
        if let Err(status) = outcome {
            self.not_made(&target, reply, status);
        }
    }

    fn launch(&mut self, target: &ProcessKey, reply: Reply, open: Open) -> Result<(), Status> {
        self.calls += 1;
        let number = self.calls;
        let Open { child, held, input, outputs, terminal, .. } = open;
        let console = terminal.map(|terminal| {
            ConsoleSocket::bind(&self.socket, number).map(|socket| (socket, terminal))
        });
        let console = console.transpose()?;
        let container = self.containers.get(&target.id).ok_or_else(not_created)?;
        let bundle = container.bundle.clone();
        let bundle_text = bundle.display().to_string();
        let pid_file = if target.is_init() {
            bundle.join("init.pid")
        } else {
            bundle.join(format!("{}.pid", target.exec))
        };
        let pid_text = pid_file.display().to_string();
        let socket = console.as_ref().map(|(socket, _)| socket.path.display().to_string());
        let spec = command::file_of_call(&bundle, "process", number).display().to_string();
        let mut words: Vec<&str> = Vec::new();
        if target.is_init() {
            words.extend(["create", "--bundle", &bundle_text, "--pid-file", &pid_text]);
            words.extend(socket.as_deref().into_iter().flat_map(|s| ["--console-socket", s]));
            words.extend(container.inside.iter().flatten().map(String::as_str));
            words.extend(container.options.no_pivot_root.then_some("--no-pivot"));
            words.extend(container.options.no_new_keyring.then_some("--no-new-keyring"));
        } else {
            let process = container.execs.get(&target.exec).ok_or_else(no_exec)?;
            record::write(spec.as_ref(), 0o600, &process.spec)?;
            words.extend(["exec", "--process", &spec]);
            words.extend(socket.as_deref().into_iter().flat_map(|s| ["--console-socket", s]));
            words.extend(["--detach", "--pid-file", &pid_text]);
        }
        words.push(&target.id);
        let log = command::file_of_call(&bundle, "log", number);
        let call = Command {
            options: &container.options,
            namespace: &self.namespace,
            bundle: &bundle,
            log: Some(&log),
            words: &words,
            home: &self.home,
        };
        let spawned = call.spawn(child.each_ref().map(AsFd::as_fd));
        let pid = spawned.inspect_err(|_| drop(std::fs::remove_file(&spec)))?;
        let made = CreatedProcess { pid_file, console, held, input, outputs };
        let verb = if target.is_init() { Verb::Create(made) } else { Verb::Exec(made) };
        let job = Job { target: target.clone(), reply: Some(reply), verb, output: None, log };
        self.jobs.insert(pid, job);
        Ok(())
    }

    /// Releases what a failed `create` or `exec` leaves of the process.
    pub(super) fn not_made(&mut self, target: &ProcessKey, reply: Reply, status: Status) {
        if let Some(process) =
            self.containers.get_mut(&target.id).and_then(|c| c.process(&target.exec))
        {
            process.phase = Phase::Created;
            process.held = stdio::Held::default();
            if let Some(logger) = process.logger.take() {
                self.end_logger(logger);
            }
        }
        if target.is_init()
            && let Some(container) = self.containers.remove(&target.id)
        {
            self.forget_bundle(&target.id, &container.bundle);
        }
        self.answer(reply, Err(status));
        if !target.is_init() {
            // Init's exit may have waited for it.
            return self.settle(&target.id);
        }
        self.settle_sandbox();
    }

    // Other commands.

    /// Starts a command whose output is read at its end.
    fn ask(&mut self, request: &Request, verb: Verb) -> Result<(), Status> {
        self.calls += 1;
        let container = self.containers.get(request.id).ok_or_else(not_created)?;
        let log = command::file_of_call(&container.bundle, "log", self.calls);
        let call = Command {
            options: &container.options,
            namespace: &self.namespace,
            bundle: &container.bundle,
            log: Some(&log),
            words: request.words,
            home: &self.home,
        };
        let output = command::scratch(b"")?;
        let input = command::scratch(request.input)?;
        let pid = call.spawn([input.as_fd(), output.as_fd(), output.as_fd()])?;
        let target = ProcessKey::init(request.id);
        let job = Job { target, reply: request.reply, verb, output: Some(output), log };
        self.jobs.insert(pid, job);
        Ok(())
    }

    pub(super) fn ask_start(&mut self, id: &str, reply: Reply) -> Result<(), Status> {
        let words = ["start", id];
        self.ask(&Request { id, reply: Some(reply), words: &words, input: b"" }, Verb::Start)
    }

    pub(super) fn ask_delete(&mut self, id: &str, force: bool) -> Result<(), Status> {
        let words: &[&str] = if force { &["delete", "--force", id] } else { &["delete", id] };
        self.ask(&Request { id, reply: None, words, input: b"" }, Verb::Delete)
    }

    pub(super) fn ask_kill(
        &mut self,
        id: &str,
        signal: u64,
        all: bool,
        reply: Reply,
    ) -> Result<(), Status> {
        let signal = signal.to_string();
        let words: &[&str] =
            if all { &["kill", "--all", id, &signal] } else { &["kill", id, &signal] };
        self.ask(&Request { id, reply: Some(reply), words, input: b"" }, Verb::Kill)
    }

    pub(super) fn ask_kill_rest(&mut self, id: &str) -> Result<(), Status> {
        let words = ["kill", "--all", id, "9"];
        self.ask(&Request { id, reply: None, words: &words, input: b"" }, Verb::KillRest)
    }

    pub(super) fn ask_pids(&mut self, id: &str, reply: Reply) -> Result<(), Status> {
        let words = ["ps", "--format", "json", id];
        self.ask(&Request { id, reply: Some(reply), words: &words, input: b"" }, Verb::Pids)
    }

    pub(super) fn ask_pause(&mut self, id: &str, pause: bool, reply: Reply) -> Result<(), Status> {
        let (words, verb) =
            if pause { (["pause", id], Verb::Pause) } else { (["resume", id], Verb::Resume) };
        self.ask(&Request { id, reply: Some(reply), words: &words, input: b"" }, verb)
    }

    pub(super) fn ask_update(&mut self, id: &str, json: &[u8], reply: Reply) -> Result<(), Status> {
        let words = ["update", "--resources=-", id];
        self.ask(&Request { id, reply: Some(reply), words: &words, input: json }, Verb::Update)
    }

    // Ends of commands.

    pub(super) fn finished(&mut self, job: Job, ended: Ended) {
        let Job { target, reply, verb, output, log } = job;
        let success = ended == Ended::Exited(0);
        let output = output.as_ref().map(command::said).unwrap_or_default();
        let reason = || command::why(Some(&log), &output, ended);
        let failure =
            |verb: &str| Status::unknown(format!("OCI runtime {verb} failed: {}", reason()));
        match verb {
            Verb::Create(made) => {
                for warning in command::warnings(&log) {
                    self.log.warn(&format!("{}: {warning}", target.id));
                }
                let outcome = if success { Ok(made) } else { Err(failure("create")) };
                self.created(&target, reply, outcome, ended);
            }
            Verb::Exec(made) => {
                let outcome = if success { Ok(made) } else { Err(failure("exec")) };
                self.executed(&target, reply, outcome);
            }
            Verb::Start => {
                let outcome = if success { Ok(()) } else { Err(failure("start")) };
                self.started(&target, reply, outcome);
            }
            Verb::Delete => {
                let reason = reason();
                let gone = success || reason.contains("does not exist");
                let outcome = if gone {
                    Ok(())
                } else {
                    Err(Status::unknown(format!("OCI runtime delete failed: {reason}")))
                };
                self.deleted(&target.id, outcome);
            }
            Verb::Kill => {
                self.finish(reply, if success { Ok(vec![]) } else { Err(kill_failed(&reason())) })
            }
            Verb::KillRest => {
                if !success {
                    self.note("kill what init left", &failure("kill"));
                }
            }
            Verb::Pids => {
                let answer =
                    if success { self.processes(&target.id, &output) } else { Err(failure("ps")) };
                self.finish(reply, answer);
            }
            Verb::Pause => self.paused(
                &target.id,
                reply,
                true,
                if success { Ok(()) } else { Err(failure("pause")) },
            ),
            Verb::Resume => self.paused(
                &target.id,
                reply,
                false,
                if success { Ok(()) } else { Err(failure("resume")) },
            ),
            Verb::Update => {
                self.finish(reply, if success { Ok(vec![]) } else { Err(failure("update")) })
            }
            Verb::Undo(status, more) => {
                if let Some(reply) = reply {
                    let again = matches!(ended, Ended::Signaled(_)).then_some(more);
                    self.undo(&target, reply, status, again.unwrap_or_default());
                }
            }
        }
        let _ = std::fs::remove_file(&log);
        let spec = log.display().to_string().replace("/log-", "/process-");
        let _ = std::fs::remove_file(spec);
    }

    fn finish(&mut self, reply: Option<Reply>, answer: Answer) {
        if let Some(reply) = reply {
            self.answer(reply, answer);
        }
    }

    fn created(
        &mut self,
        target: &ProcessKey,
        reply: Option<Reply>,
        outcome: Result<CreatedProcess, Status>,
        ended: Ended,
    ) {
        let adopted = outcome.and_then(|made| self.adopt(target, made));
        let Some(reply) = reply else { return };
        let status = match adopted {
            Ok(pid) => {
                let event = self.creation(&target.id, pid);
                self.publish("create", "TaskCreate", event);
                if let Err(error) = self.watch_memory(&target.id) {
                    self.note("watch memory", &error.into());
                }
                self.answer(reply, Ok(Writer::new().number(1, pid as u64).finish()));
                return self.settle(&target.id);
            }
            Err(status) => status,
        };
        // The command has reported its failure and left nothing. A command that was killed could do neither, nor a
        // command that succeeded and whose container the shim cannot adopt.
        if matches!(ended, Ended::Exited(code) if code != 0) {
            return self.not_made(target, reply, status);
        }
        self.undo(target, reply, status, ATTEMPTS);
    }

    /// Removes the leftovers. `attempts`: number of times that the runtime may still be called.
    fn undo(&mut self, target: &ProcessKey, reply: Reply, status: Status, attempts: u32) {
        let words = ["delete", "--force", &target.id];
        let request = Request { id: &target.id, reply: Some(reply), words: &words, input: b"" };
        let begun =
            attempts > 0 && self.ask(&request, Verb::Undo(status.clone(), attempts - 1)).is_ok();
        if !begun {
            self.not_made(target, reply, status);
        }
    }

    fn creation(&self, id: &str, pid: i32) -> Writer {
        let Some(container) = self.containers.get(id) else { return Writer::new() };
        let event = Writer::new().bytes(1, id).bytes(2, container.bundle.display().to_string());
        let event = container.mounts.iter().fold(event, |event, m| event.message(3, m.writer()));
        event.message(4, container.io()).bytes(5, &container.checkpoint).number(6, pid as u64)
    }

    fn executed(
        &mut self,
        target: &ProcessKey,
        reply: Option<Reply>,
        outcome: Result<CreatedProcess, Status>,
    ) {
        let Some(reply) = reply else { return };
        match outcome.and_then(|made| self.adopt(target, made)) {
            Ok(pid) => {
                let event = Writer::new().bytes(1, &target.id).bytes(2, &target.exec);
                self.publish("exec-started", "TaskExecStarted", event.number(3, pid as u64));
                self.answer(reply, Ok(Writer::new().number(1, pid as u64).finish()));
                self.settle(&target.id);
            }
            Err(status) => self.not_made(target, reply, status),
        }
    }

    /// Adopts the process that a command has created.
    fn adopt(&mut self, target: &ProcessKey, made: CreatedProcess) -> Result<i32, Status> {
        let pid = command::read_pid(&made.pid_file)?;
        let console = match made.console {
            Some((socket, terminal)) => Some((socket.receive()?, terminal)),
            None => None,
        };
        let ended = self.claim(pid);
        let mut input = made.input;
        let mut outputs = made.outputs;
        let mut master = None;
        if let Some((console, terminal)) = console {
            let copy = || console.try_clone().os("dup", "console");
            if let Some(stdin) = terminal.stdin {
                input = Some((stdin, copy()?));
            }
            // A terminal needs a reader, or its programs block.
            let sink = terminal.stdout.map_or_else(stdio::null_device, Ok)?;
            outputs.push((copy()?, sink));
            master = Some(console);
        }
        let input = input.map(|ends| self.begin_relay(target, ends)).transpose()?;
        let outputs = outputs.into_iter().map(|ends| self.begin_relay(target, ends));
        let outputs = outputs.collect::<crate::error::Result<Vec<u64>>>()?;
        let container = self.containers.get_mut(&target.id).ok_or_else(not_created)?;
        if target.is_init() {
            container.cgroup = layout::paths_of(pid).ok();
        }
        let process = container.process(&target.exec).ok_or_else(no_exec)?;
        process.pid = pid;
        process.ended = ended;
        process.held = made.held;
        if process.stdin_closed {
            process.held.stdin = None;
        }
        process.input = input;
        process.outputs = outputs;
        process.phase = if target.is_init() { Phase::Created } else { Phase::Running };
        if let (Some(size), Some(master)) = (process.size, &master) {
            let _ = tty::set_size(master.as_fd(), size);
        }
        process.console = master;
        Ok(pid)
    }

    fn started(&mut self, target: &ProcessKey, reply: Option<Reply>, outcome: Result<(), Status>) {
        let Some(container) = self.containers.get_mut(&target.id) else { return };
        let pid = container.init.pid as u64;
        container.init.phase = if outcome.is_ok() { Phase::Running } else { Phase::Created };
        if outcome.is_ok() {
            self.publish("start", "TaskStart", Writer::new().bytes(1, &target.id).number(2, pid));
        }
        self.finish(reply, outcome.map(|()| Writer::new().number(1, pid).finish()));
        self.settle(&target.id);
    }

    fn paused(
        &mut self,
        id: &str,
        reply: Option<Reply>,
        paused: bool,
        outcome: Result<(), Status>,
    ) {
        if outcome.is_ok() {
            if let Some(container) = self.containers.get_mut(id) {
                container.paused = paused;
            }
            let (topic, kind) =
                if paused { ("paused", "TaskPaused") } else { ("resumed", "TaskResumed") };
            self.publish(topic, kind, Writer::new().bytes(1, id));
        }
        self.finish(reply, outcome.map(|()| vec![]));
    }

    /// Converts the output of `ps --format json` to containerd.v1.types.ProcessInfo.
    fn processes(&self, id: &str, output: &str) -> Answer {
        let pids: Vec<u64> = serde_json::from_str(output)
            .map_err(|e| Status::unknown(format!("OCI runtime ps: {e}: {output:?}")))?;
        let execs = self.containers.get(id).map(|container| &container.execs);
        let info = |pid: u64| {
            let info = Writer::new().number(1, pid);
            let head = |(_, process): &(&String, &super::model::Process)| process.pid as u64 == pid;
            let Some((exec, _)) = execs.and_then(|execs| execs.iter().find(head)) else {
                return info;
            };
            let details = Writer::new().bytes(1, exec).finish();
            info.any(2, &Any::new("containerd.runc.v1.ProcessDetails", details))
        };
        let all = pids.into_iter().fold(Writer::new(), |all, pid| all.message(1, info(pid)));
        Ok(all.finish())
    }

    /// Sends a signal to an exec's process. It is the shim's child and not reaped, so its pid is not reused.
    pub(super) fn kill_exec(pid: i32, signal: u64) -> Answer {
        let signal = i32::try_from(signal).map_err(|_| Status::invalid("no such signal"))?;
        match kill(pid, signal) {
            Ok(()) => Ok(vec![]),
            Err(nix::errno::Errno::ESRCH) => Err(already_finished()),
            Err(e) => Err(Status::unknown(format!("kill {pid}: {}", errno(e)))),
        }
    }
}

/// Errors in runc's words, which containerd understands.
fn kill_failed(reason: &str) -> Status {
    let ended = ["os: process already finished", "container not running"];
    if ended.iter().any(|text| reason.contains(text))
        || reason.to_lowercase().contains("no such process")
    {
        return already_finished();
    }
    if reason.contains("does not exist") {
        return Status::not_found("no such container");
    }
    Status::unknown(format!("unknown error after kill: {reason}"))
}

/// Returns the status of a process that has ended.
pub fn already_finished() -> Status {
    Status::not_found("process already finished")
}

/// Returns the status of a container that does not exist.
pub fn not_created() -> Status {
    Status::not_found("container not created")
}

/// Returns the status of an exec process that does not exist.
pub fn no_exec() -> Status {
    Status::new(Code::NotFound, "process does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_words_have_codes() {
        for (reason, code) in [
            ("container not running", Code::NotFound),
            ("kill: No such process", Code::NotFound),
            ("container does not exist", Code::NotFound),
            ("permission denied", Code::Unknown),
        ] {
            assert_eq!(kill_failed(reason).code, code, "{reason}");
        }
    }
}
