//! Reports the ends of processes in order, and removes what is no longer needed.
//!
//! TaskExit follows TaskStart, the TaskExit of an exec precedes that of init, and an OOM event precedes the exit that
//! it explains. An end that was observed is therefore kept in [`Process::ended`] until it can be reported.
//!
//! ```text
//! SIGCHLD --reap--> Process::ended --settle--> TaskExit (publisher), replies to Wait, removal for Delete
//! ```

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::members;
use super::metrics;
use super::model::{Exit, Phase, Process, ProcessKey, Removal, Reply};
use super::rootfs;
use super::server::Server;
use super::status::Status;
use super::stdio::Unopened;
use super::wire::Writer;

impl Server {
    /// Reports the ends that can be reported now.
    pub(super) fn settle(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let ripe = |process: &Process| process.ended.is_some() && process.phase == Phase::Running;
        let execs: Vec<String> =
            container.execs.iter().filter(|(_, p)| ripe(p)).map(|(exec, _)| exec.clone()).collect();
        let init = &container.init;
        let init_ended = init.ended.is_some() && init.phase != Phase::Starting;
        for exec in execs {
            self.tell_of_exit(&ProcessKey { id: id.to_owned(), exec });
        }
        if init_ended {
            self.init_ended(id);
        }
        self.finish_removals(Instant::now());
        self.settle_sandbox();
    }

    fn init_ended(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.init.phase != Phase::Stopped {
            container.init.phase = Phase::Stopped;
            let alone = container.config.has_own_pids();
            self.tell_of_oom(id);
            self.forget_memory(id);
            self.read_last_metrics(id);
            if !alone && let Err(status) = self.ask_kill_rest(id) {
                self.note("kill what init left", &status);
            }
        }
        if self.containers.get(id).is_some_and(|container| !container.has_live_execs()) {
            self.tell_of_exit(&ProcessKey::init(id));
        }
    }

    /// Reads the metrics before systemd removes the cgroup of a scope whose last process has ended.
    fn read_last_metrics(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id)
            && let Some(paths) = &container.cgroup
            && let Ok(Some(picture)) = metrics::read(paths)
        {
            container.metrics = Some(picture);
        }
    }

    fn tell_of_exit(&mut self, target: &ProcessKey) {
        let process = self.containers.get_mut(&target.id).and_then(|c| c.process(&target.exec));
        let Some((process, exit)) = process.and_then(|p| p.ended.take().map(|exit| (p, exit)))
        else {
            return;
        };
        process.exit = Some(exit);
        process.phase = Phase::Stopped;
        let pid = process.pid as u64;
        let waiters = std::mem::take(&mut process.waiters);
        for reply in waiters {
            self.answer(reply, Ok(wait_response(exit)));
        }
        let name = if target.is_init() { &target.id } else { &target.exec };
        let event = Writer::new()
            .bytes(1, &target.id)
            .bytes(2, name)
            .number(3, pid)
            .number(4, exit.status.into())
            .time(5, Some(exit.at));
        self.publish("exit", "TaskExit", event);
    }

    pub(super) fn relay_ended(&mut self, target: &ProcessKey, token: u64, sink: OwnedFd) {
        if let Some(process) =
            self.containers.get_mut(&target.id).and_then(|c| c.process(&target.exec))
        {
            process.outputs.retain(|output| *output != token);
            process.input = process.input.filter(|input| *input != token);
            if process.held.close_reader(&sink) {
                process.unopened.push(Unopened::new(sink));
            }
        }
        let now = Instant::now();
        self.close_opened(now);
        self.finish_removals(now);
    }

    /// Closes the outputs that have ended and that a client has open: the client reads to their end.
    pub(super) fn close_opened(&mut self, now: Instant) {
        for container in self.containers.values_mut() {
            for process in [&mut container.init].into_iter().chain(container.execs.values_mut()) {
                process.unopened.retain_mut(|output| output.is_unread(now));
            }
        }
    }

    // Deletion.

    /// Handles the end of the runtime's `delete`.
    pub(super) fn deleted(&mut self, id: &str, outcome: Result<(), Status>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        match outcome {
            Ok(()) => {
                if let Some(removal) = &mut container.init.removal {
                    removal.deleted = true;
                }
                self.finish_removals(Instant::now());
            }
            Err(status) => {
                if let Some(removal) = container.init.removal.take() {
                    self.answer(removal.reply, Err(status.clone()));
                }
                self.cannot_leave(&status);
            }
        }
    }

    /// Removes the processes for which all conditions of a Delete are met.
    pub(super) fn finish_removals(&mut self, now: Instant) {
        let mut ready = Vec::new();
        for (id, container) in &self.containers {
            let execs = container.execs.iter().map(|(exec, process)| (exec.as_str(), process));
            for (exec, process) in [("", &container.init)].into_iter().chain(execs) {
                if process.removal.as_ref().is_some_and(|removal| is_ready(process, removal, now)) {
                    ready.push(ProcessKey { id: id.clone(), exec: exec.to_owned() });
                }
            }
        }
        for target in ready {
            self.remove(&target);
        }
    }

    fn remove(&mut self, target: &ProcessKey) {
        let Some(container) = self.containers.get_mut(&target.id) else { return };
        if !target.is_init() {
            let Some(mut process) = container.execs.remove(&target.exec) else { return };
            let _ = std::fs::remove_file(container.bundle.join(format!("{}.pid", target.exec)));
            if let Some(reply) = self.release(&mut process) {
                self.answer(reply, Ok(delete_response(&process)));
            }
            return;
        }
        if let Err(error) = rootfs::unmount(&container.bundle) {
            // The engine removes the bundle, but not while a file system is mounted in it.
            if let Some(removal) = container.init.removal.take() {
                self.answer(removal.reply, Err(error.into()));
            }
            return;
        }
        let Some(mut container) = self.containers.remove(&target.id) else { return };
        for process in container.execs.values_mut() {
            self.release(process);
        }
        let reply = self.release(&mut container.init);
        let exit = container.init.exit;
        let event = Writer::new()
            .bytes(1, &target.id)
            .number(2, container.init.pid as u64)
            .number(3, exit.map_or(0, |exit| exit.status.into()))
            .time(4, exit.map(|exit| exit.at));
        self.publish("delete", "TaskDelete", event);
        members::remove(&self.bundle, &target.id);
        if let Some(reply) = reply {
            self.answer(reply, Ok(delete_response(&container.init)));
        }
        self.settle_sandbox();
    }

    /// Releases relays, logger and waiting calls of a removed process.
    fn release(&mut self, process: &mut Process) -> Option<Reply> {
        for token in process.outputs.drain(..).chain(process.input.take()) {
            self.end_relay(token);
        }
        if let Some(logger) = process.logger.take() {
            self.end_logger(logger);
        }
        for reply in std::mem::take(&mut process.waiters) {
            self.answer(reply, Err(Status::not_found("process was deleted")));
        }
        process.removal.take().map(|removal| removal.reply)
    }
}

fn is_ready(process: &Process, removal: &Removal, now: Instant) -> bool {
    let ended = process.pid == 0 || process.exit.is_some();
    let drained = process.outputs.is_empty() || removal.deadline <= now;
    removal.deleted && ended && drained
}

/// Encodes the response of Wait.
pub fn wait_response(exit: Exit) -> Vec<u8> {
    Writer::new().number(1, exit.status.into()).time(2, Some(exit.at)).finish()
}

fn delete_response(process: &Process) -> Vec<u8> {
    Writer::new()
        .number(1, process.pid as u64)
        .number(2, process.exit.map_or(0, |exit| exit.status.into()))
        .time(3, process.exit.map(|exit| exit.at))
        .finish()
}
