//! Event loop: one thread that waits for all events at once.
//!
//! No code here waits for a single event. A command of the runtime is a child whose end is reported by SIGCHLD; the
//! [`Job`] holds what follows. A request that needs a command is answered then.
//!
//! ```text
//! listener, connections, signals, relays, loggers, OOM --epoll--> server --> task, exits, publisher
//! ```

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::jobs::{Job, Prepared};
use super::log::Log;
use super::membership::HostNamespaces;
use super::model::{Container, Exit, Process, ProcessKey, Reply};
use super::publisher::Publisher;
use super::relay::{Relay, Waits};
use super::sandbox::Sandbox;
use super::status::Status;
use super::ttrpc::{Answer, Call, Connection, REQUEST, RESPONSE, response};
use super::wire::Writer;
use crate::error::{OsContext, Result};
use crate::sys::pidfd::{self, Ended};
use crate::sys::signal;

/// A shim without containers ends after this time without a connection,
const FORGOTTEN: Duration = Duration::from_secs(10);
/// and after this time with one: a daemon that was killed between `start` and `Create` connects when it is back, and
/// never sends a request.
const UNUSED: Duration = Duration::from_secs(60);
/// Time limit for sending the last answers and events.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Owner of a descriptor in the loop.
#[derive(Debug, Clone)]
enum Source {
    Children,
    Listener,
    Connection,
    Publisher,
    /// Memory events of the container with this id.
    Oom(String),
    Relay,
    /// Sink of the relay with this token.
    Sink(u64),
    Logger,
    Anchor,
}

struct Flow {
    target: ProcessKey,
    relay: Relay,
    /// Token of the sink while it is waited for; the source is not watched then.
    blocked: Option<u64>,
}

/// Logger whose input was closed, and which gets time to write the rest.
struct Leaving {
    pid: i32,
    deadline: Instant,
    asked: bool,
}

/// State of the shim.
pub struct Server {
    pub(super) namespace: String,
    pub(super) socket: PathBuf,
    pub(super) log: Log,
    epoll: Epoll,
    sources: BTreeMap<u64, Source>,
    tokens: u64,
    children: OwnedFd,
    listener: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    publisher: Publisher,
    publishing: Option<u64>,
    flows: BTreeMap<u64, Flow>,
    /// Bundle that the shim was started for. It has the files that concern all containers of the shim.
    pub(super) bundle: PathBuf,
    /// Sandbox of containerd 2.x, if containerd has created one in this shim.
    pub(super) sandbox: Option<Sandbox>,
    pub(super) home: HostNamespaces,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) jobs: BTreeMap<i32, Job>,
    /// Processes that start when their logger is ready.
    pub(super) prepared: BTreeMap<u64, Prepared>,
    leaving: Vec<Leaving>,
    /// Ends of processes whose pid no command has reported yet.
    unclaimed: BTreeMap<i32, Exit>,
    /// Time since which the shim has had nothing to do.
    idle: Option<Instant>,
    /// End of the shim at the latest, after Shutdown.
    ends_at: Option<Instant>,
    /// Connection whose close is waited for at the end: Go's client of ttrpc may take a close by the shim for an
    /// error, even if it has the answer.
    pub(super) last: Option<u64>,
    pub(super) calls: u64,
}

impl Server {
    /// Creates the server. All signals are blocked from here on.
    ///
    /// # Errors
    ///
    /// The event loop or a descriptor cannot be created.
    pub fn new(
        namespace: &str,
        socket: PathBuf,
        listener: OwnedFd,
        events: PathBuf,
        log: Log,
        bundle: PathBuf,
    ) -> Result<Self> {
        signal::block_all().os("sigprocmask", "")?;
        let mut server = Self {
            namespace: namespace.to_owned(),
            socket,
            log,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).os("epoll_create", "")?,
            sources: BTreeMap::new(),
            tokens: 0,
            children: signal::descriptor().os("signalfd", "")?,
            listener,
            connections: BTreeMap::new(),
            publisher: Publisher::new(namespace, events),
            publishing: None,
            flows: BTreeMap::new(),
            bundle,
            sandbox: None,
            home: HostNamespaces::default(),
            containers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            prepared: BTreeMap::new(),
            leaving: Vec::new(),
            unclaimed: BTreeMap::new(),
            idle: Some(Instant::now()),
            ends_at: None,
            last: None,
            calls: 0,
        };
        let children = server.token(Source::Children);
        let listening = server.token(Source::Listener);
        let input = EpollFlags::EPOLLIN;
        server.epoll.add(&server.children, EpollEvent::new(input, children)).os("epoll_ctl", "")?;
        server
            .epoll
            .add(&server.listener, EpollEvent::new(input, listening))
            .os("epoll_ctl", "")?;
        Ok(server)
    }

    /// Runs until the end of the shim.
    ///
    /// # Errors
    ///
    /// The event loop fails.
    pub fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        while !self.is_over(Instant::now()) {
            let ready = match self.epoll.wait(&mut events, self.timeout(Instant::now())) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno).os("epoll_wait", ""),
            };
            for event in &events[..ready] {
                self.attend(event.data());
            }
            self.keep_time(Instant::now());
        }
        Ok(())
    }

    // Deadlines.

    fn token(&mut self, source: Source) -> u64 {
        self.tokens += 1;
        self.sources.insert(self.tokens, source);
        self.tokens
    }

    fn watch(&mut self, fd: BorrowedFd, flags: EpollFlags, source: Source) -> Result<u64> {
        let token = self.token(source);
        let added = self.epoll.add(fd, EpollEvent::new(flags, token)).os("epoll_ctl", "");
        added.inspect_err(|_| drop(self.sources.remove(&token)))?;
        Ok(token)
    }

    fn unwatch(&mut self, fd: BorrowedFd, token: u64) {
        // A copy of the descriptor in another process would keep a closed one in the set.
        let _ = self.epoll.delete(fd);
        self.sources.remove(&token);
    }

    fn timeout(&self, now: Instant) -> EpollTimeout {
        let idle = self.idle.map(|since| since + self.patience());
        let leaving = self.leaving.iter().map(|logger| logger.deadline);
        let prepared = self.prepared.values().map(|prepared| prepared.deadline);
        let processes = || self.containers.values().flat_map(processes);
        let unopened = processes().flat_map(|p| &p.unopened).map(|output| output.look_at);
        let removals = processes().filter_map(|p| p.removal.as_ref());
        // A process that waits for another event than time is woken by that event.
        let removals = removals.map(|removal| removal.deadline).filter(|at| *at > now);
        let all = [self.publisher.deadline(), idle, self.ends_at].into_iter().flatten();
        let next = all.chain(leaving).chain(prepared).chain(removals).chain(unopened).min();
        next.map_or(EpollTimeout::NONE, |at| {
            // Rounded up, to avoid a busy loop in the last millisecond.
            let left = at.saturating_duration_since(now).as_millis() + 1;
            EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
        })
    }

    fn keep_time(&mut self, now: Instant) {
        self.advance_publisher(now);
        self.start_overdue(now);
        self.finish_removals(now);
        self.close_opened(now);
        self.end_loggers(now);
        let busy = !self.containers.is_empty()
            || !self.jobs.is_empty()
            || !self.publisher.is_empty()
            || self.sandbox.is_some();
        self.idle = if busy { None } else { self.idle.or(Some(now)) };
    }

    fn patience(&self) -> Duration {
        if self.connections.is_empty() { FORGOTTEN } else { UNUSED }
    }

    fn is_over(&self, now: Instant) -> bool {
        let told = self.publisher.is_empty() && self.leaving.is_empty();
        let unsent = self.connections.values().any(Connection::is_unsent);
        let heard = self.last.is_none_or(|token| !self.connections.contains_key(&token));
        let idle = self.idle.is_some_and(|since| since + self.patience() <= now);
        idle || self.ends_at.is_some_and(|latest| (told && !unsent && heard) || latest <= now)
    }

    /// Removes the socket: no client may connect while the last answers are sent.
    pub(super) fn shut_down(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        self.ends_at = Some(Instant::now() + LAST_ANSWERS);
    }

    fn attend(&mut self, token: u64) {
        // Removed after the kernel reported it; tokens are not reused.
        let Some(source) = self.sources.get(&token).cloned() else { return };
        match source {
            Source::Children => self.reap(),
            Source::Listener => self.accept(),
            Source::Connection => self.serve(token),
            Source::Publisher => self.hear_daemon(),
            Source::Oom(id) => self.tell_of_oom(&id),
            Source::Relay => self.relay(token),
            Source::Sink(relay) => self.relay(relay),
            Source::Logger => self.logger_answered(token),
            Source::Anchor => self.read_anchor(),
        }
    }

    // Connections.

    fn accept(&mut self) {
        while let Ok(socket) = crate::sys::socket::accept(self.listener.as_fd()) {
            // The socket's mode has the same effect; this check also holds if the mode was changed.
            let own = nix::unistd::geteuid().as_raw();
            match getsockopt(&socket, PeerCredentials) {
                Ok(peer) if peer.uid() == 0 || peer.uid() == own => {}
                _ => continue,
            }
            match self.watch(socket.as_fd(), EpollFlags::EPOLLIN, Source::Connection) {
                Ok(token) => drop(self.connections.insert(token, Connection::new(socket))),
                Err(error) => self.log.error(&error.to_string()),
            }
        }
    }

    fn serve(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut read = connection.flush().and_then(|()| connection.fill());
        let mut frames = Vec::new();
        loop {
            match connection.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(closed) => {
                    read = Err(closed);
                    break;
                }
            }
        }
        for frame in frames.into_iter().filter(|frame| frame.kind == REQUEST) {
            let reply = Reply { connection: token, stream: frame.stream };
            match Call::parse(&frame.payload) {
                Ok(call) => self.call(reply, &call),
                Err(status) => self.answer(reply, Err(status)),
            }
        }
        match read {
            Ok(()) => self.want_output(token),
            Err(_) => self.hang_up(token),
        }
    }

    /// Forgets a closed connection: its calls get no answer, and their commands continue.
    fn hang_up(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        self.unwatch(connection.as_fd(), token);
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.hang_up(token);
        }
        for container in self.containers.values_mut() {
            for process in [&mut container.init].into_iter().chain(container.execs.values_mut()) {
                process.waiters.retain(|reply| reply.connection != token);
            }
        }
    }

    pub(super) fn answer(&mut self, reply: Reply, answer: Answer) {
        let Some(connection) = self.connections.get_mut(&reply.connection) else { return };
        // The loop notices a connection that is closed.
        if connection.send(reply.stream, RESPONSE, &response(&answer)).is_ok() {
            self.want_output(reply.connection);
        }
    }

    fn want_output(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else { return };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, connection.is_unsent());
        let mut event = EpollEvent::new(flags, token);
        let _ = self.epoll.modify(connection, &mut event);
    }

    // Events.

    pub(super) fn publish(&mut self, topic: &str, kind: &str, event: Writer) {
        self.publisher.push(&format!("/tasks/{topic}"), kind, event);
        self.advance_publisher(Instant::now());
    }

    fn advance_publisher(&mut self, now: Instant) {
        if self.publisher.connection().is_none() {
            self.forget_publisher();
        }
        if !self.publisher.advance(now) {
            return;
        }
        self.forget_publisher();
        let token = self.token(Source::Publisher);
        if let Some(connection) = self.publisher.connection() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            let _ = self.epoll.add(connection, event);
            self.publishing = Some(token);
        }
    }

    /// The connection itself is closed, which removes it from the set.
    fn forget_publisher(&mut self) {
        if let Some(token) = self.publishing.take() {
            self.sources.remove(&token);
        }
    }

    fn hear_daemon(&mut self) {
        let now = Instant::now();
        self.publisher.ready(now);
        self.advance_publisher(now);
    }

    // Children.

    fn reap(&mut self) {
        while let Ok(Some(_)) = signal::next(self.children.as_fd()) {}
        while let Ok(Some((pid, ended))) = pidfd::wait_any() {
            self.reaped(pid, ended);
        }
    }

    fn reaped(&mut self, pid: i32, ended: Ended) {
        if let Some(job) = self.jobs.remove(&pid) {
            self.finished(job, ended);
            if !self.jobs.values().any(Job::makes_process) {
                // No later request concerns it.
                self.unclaimed.clear();
            }
            return;
        }
        if let Some(at) = self.leaving.iter().position(|logger| logger.pid == pid) {
            self.leaving.swap_remove(at);
            return;
        }
        let exit = Exit { status: ended.code() as u32, at: SystemTime::now() };
        if self.anchor_ended(pid, exit) {
            return;
        }
        let of = self.containers.iter_mut().find_map(|(id, container)| {
            let execs = container.execs.values_mut();
            let mut all = [&mut container.init].into_iter().chain(execs);
            let process = all.find(|process| process.is_expected(pid))?;
            process.ended = Some(exit);
            Some(id.clone())
        });
        match of {
            Some(id) => self.settle(&id),
            None => {
                if self.jobs.values().any(Job::makes_process) {
                    self.unclaimed.insert(pid, exit);
                }
            }
        }
    }

    /// Takes the end of a process that ended before its pid was known.
    pub(super) fn claim(&mut self, pid: i32) -> Option<Exit> {
        let exit = self.unclaimed.remove(&pid)?;
        // Another process may have the pid in the meantime.
        let again = std::path::Path::new(&format!("/proc/{pid}")).exists();
        (!again).then_some(exit)
    }

    // Streams.

    /// Starts a relay and returns its token.
    pub(super) fn begin_relay(
        &mut self,
        target: &ProcessKey,
        ends: (OwnedFd, OwnedFd),
    ) -> Result<u64> {
        let relay = Relay::new(ends);
        let token = self.watch(relay.source.as_fd(), EpollFlags::EPOLLIN, Source::Relay)?;
        self.flows.insert(token, Flow { target: target.clone(), relay, blocked: None });
        Ok(token)
    }

    fn relay(&mut self, token: u64) {
        let Some(mut flow) = self.flows.remove(&token) else { return };
        match flow.relay.advance() {
            Waits::ForSource => {
                if let Some(sink) = flow.blocked.take() {
                    self.unwatch(flow.relay.sink.as_fd(), sink);
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
                    let _ = self.epoll.add(&flow.relay.source, event);
                }
                self.flows.insert(token, flow);
            }
            Waits::ForSink => {
                if flow.blocked.is_none() {
                    let _ = self.epoll.delete(&flow.relay.source);
                    let sink = flow.relay.sink.as_fd();
                    flow.blocked = self.watch(sink, EpollFlags::EPOLLOUT, Source::Sink(token)).ok();
                }
                self.flows.insert(token, flow);
            }
            Waits::Ended => {
                let target = flow.target.clone();
                let sink = self.drop_flow(token, flow);
                self.relay_ended(&target, token, sink);
            }
        }
    }

    /// Closes the source.
    fn drop_flow(&mut self, token: u64, flow: Flow) -> OwnedFd {
        self.unwatch(flow.relay.source.as_fd(), token);
        if let Some(sink) = flow.blocked {
            self.unwatch(flow.relay.sink.as_fd(), sink);
        }
        flow.relay.sink
    }

    pub(super) fn end_relay(&mut self, token: u64) {
        if let Some(flow) = self.flows.remove(&token) {
            drop(self.drop_flow(token, flow));
        }
    }

    // Loggers.

    pub(super) fn await_logger(&mut self, prepared: Prepared) -> Result<()> {
        let token = self.watch(prepared.ready(), EpollFlags::EPOLLIN, Source::Logger)?;
        self.prepared.insert(token, prepared);
        Ok(())
    }

    fn logger_answered(&mut self, token: u64) {
        if let Some(prepared) = self.prepared.remove(&token) {
            self.unwatch(prepared.ready(), token);
            self.logger_ready(prepared, false);
        }
    }

    /// Fails processes whose logger was not ready in time.
    fn start_overdue(&mut self, now: Instant) {
        let overdue = self.prepared.iter().find(|(_, prepared)| prepared.deadline <= now);
        if let Some(token) = overdue.map(|(token, _)| *token)
            && let Some(prepared) = self.prepared.remove(&token)
        {
            self.unwatch(prepared.ready(), token);
            self.logger_ready(prepared, true);
        }
    }

    /// Parts with a logger whose input is closed: it gets time to write the rest, then SIGTERM, then SIGKILL.
    pub(super) fn end_logger(&mut self, pid: i32) {
        const GRACE: Duration = Duration::from_secs(2);
        self.leaving.push(Leaving { pid, deadline: Instant::now() + GRACE, asked: false });
    }

    fn end_loggers(&mut self, now: Instant) {
        const LAST: Duration = Duration::from_secs(10);
        for logger in self.leaving.iter_mut().filter(|logger| logger.deadline <= now) {
            let signal = if logger.asked { libc::SIGKILL } else { libc::SIGTERM };
            // The process is a child and not reaped, so its pid is not reused.
            let _ = kill(logger.pid, signal);
            (logger.asked, logger.deadline) = (true, now + LAST);
        }
    }

    // Anchor of a pod.

    pub(super) fn await_anchor(&mut self, ready: BorrowedFd) -> Result<u64> {
        self.watch(ready, EpollFlags::EPOLLIN, Source::Anchor)
    }

    pub(super) fn forget_anchor(&mut self, ready: BorrowedFd, token: u64) {
        self.unwatch(ready, token);
    }

    // Memory.

    pub(super) fn watch_memory(&mut self, id: &str) -> Result<()> {
        let Some(paths) = self.containers.get(id).and_then(|c| c.cgroup.clone()) else {
            return Ok(());
        };
        let Some(watch) = crate::cgroup::oom::Watch::begin(&paths)? else { return Ok(()) };
        let source = Source::Oom(id.to_owned());
        let token = self.watch(watch.as_fd(), EpollFlags::EPOLLIN, source)?;
        if let Some(container) = self.containers.get_mut(id) {
            container.oom = Some((token, watch));
        }
        Ok(())
    }

    pub(super) fn tell_of_oom(&mut self, id: &str) {
        let Some((_, watch)) = self.containers.get_mut(id).and_then(|c| c.oom.as_mut()) else {
            return;
        };
        match watch.happened() {
            Ok(true) => self.publish("oom", "TaskOOM", Writer::new().bytes(1, id)),
            Ok(false) => {}
            // The cgroup is removed, or about to be.
            Err(_) => self.forget_memory(id),
        }
    }

    pub(super) fn forget_memory(&mut self, id: &str) {
        let watch = self.containers.get_mut(id).and_then(|container| container.oom.take());
        if let Some((token, watch)) = watch {
            self.unwatch(watch.as_fd(), token);
        }
    }

    /// Logs an error that no call can report.
    pub(super) fn note(&mut self, what: &str, status: &Status) {
        self.log.error(&format!("{what}: {}", status.message));
    }
}

fn processes(container: &Container) -> impl Iterator<Item = &Process> {
    [&container.init].into_iter().chain(container.execs.values())
}

pub(super) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    signal::send(pid, signal)
}
