//! The host's part in the setup of a container's process, which runs at the same time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::creation::Creation;
use super::handover::Released;
use super::{hooks, inspect};
use crate::error::{Error, OsContext, Result};
use crate::fs::{Proc, process};
use crate::hook::Point;
use crate::id::HostPid;
use crate::init::child::{self, Child, HookSettings};
use crate::init::gate;
use crate::init::parent::{self, Init, Request};
use crate::namespace::{Kind, host_id};
use crate::path::c_path;
use crate::plan::effect::Stage;
use crate::rootfs::parent::inherited;
use crate::state::{Phase, Status};
use crate::volume::Claim;
use crate::{cgroup, identity, limits, rootfs, sys};

impl Creation<'_> {
    /// Creates the process and sets it up. With `park` it waits for `start` at the FIFO.
    pub(super) fn spawn(&mut self, park: bool) -> Result<Init> {
        let first = self.spawn_once(park);
        if first.is_err() && self.host.cgroup.retry_by_moving() {
            self.host.slot.remove_fifo()?;
            return self.spawn_once(park);
        }
        first
    }

    fn spawn_once(&mut self, park: bool) -> Result<Init> {
        let proc = Proc::of_the_host()?;
        let gate = if park { Some(self.gate()?) } else { None };
        let opens = self.opens(park);
        let mut trees = rootfs::parent::open_trees(self.prepared.plan.script.rootfs_steps())?;
        if let Some((overlay, made)) = self.prepared.plan.script.overlay().zip(trees.first_mut()) {
            rootfs::overlay::parent::show(overlay, made.as_mut())?;
        }
        if let Some(Some(root)) =
            trees.first().filter(|_| self.prepared.plan.script.mounts_for_caller())
        {
            self.host.record.root_mount = Some(inherited::mount_id(root)?);
            self.host.slot.write_intent(&self.host.record)?;
        }
        let hooks = HookSettings {
            state: &|point, pid| self.hook_state(point, pid),
            rootfs: c_path("rootfs", &self.prepared.plan.rootfs)?,
        };
        let cgroup = &self.host.cgroup;
        let notifies = self.prepared.plan.script.notifies();
        let init = parent::spawn(
            &self.prepared.plan.namespaces,
            cgroup.clone_target(),
            notifies,
            |link| {
                child::main(Child {
                    link,
                    script: &self.prepared.plan.script,
                    held: self.prepared.plan.namespaces.new_maps.is_some() || cgroup.moves,
                    hidden: self.prepared.plan.namespaces.hidden,
                    joins: None,
                    cgroup: &self.prepared.plan.cgroup.steps,
                    tasks: &cgroup.tasks,
                    proc: &proc,
                    trees,
                    complete_volumes: &self.host.complete_volumes,
                    gate: gate.as_ref().map(AsFd::as_fd),
                    opens,
                    released: self.released.as_ref().map(Released::replaced),
                    console: self.sockets.console(),
                    hooks: &hooks,
                    clock: self.clock.as_ref(),
                })
            },
        )?;
        self.give_pipes();
        self.host.time.mark_clone();
        self.set_up(&proc, &init)?;
        Ok(init)
    }

    /// Gives the terminal to the container's user, if that user has an ID on the host.
    fn give_pipes(&self) {
        let script = &self.prepared.plan.script;
        let maps = self.prepared.plan.namespaces.maps.as_ref().filter(|_| script.console.is_none());
        if let Some(uid) = maps.and_then(|maps| host_id(&maps.uid, script.program.uid)) {
            identity::parent::change_pipe_owner(uid);
        }
    }

    fn gate(&self) -> Result<OwnedFd> {
        self.host.slot.make_fifo()?;
        gate::close(&self.host.slot.fifo())
    }

    /// Returns true if the init process of an ordinary user becomes accessible to that user: see [`Child::opens`].
    fn opens(&self, park: bool) -> bool {
        let script = &self.prepared.plan.script;
        let wanted = park || script.notifies();
        // Processes in a joined user namespace could access init before its filter is loaded.
        let among_others =
            self.prepared.plan.namespaces.new_maps.is_none() && script.filter().is_some();
        wanted && !among_others && !nix::unistd::geteuid().is_root()
    }

    /// State that hooks of the child read from stdin.
    fn hook_state(&self, point: Point, pid: i32) -> Vec<u8> {
        let status =
            if point == Point::StartContainer { Status::Created } else { Status::Creating };
        // The same document was encoded for the runtime's hooks, or would have been.
        inspect::state_document(&self.host.record, status, Some(HostPid(pid))).unwrap_or_default()
    }

    /// Sets up the host side while the child runs, then answers the child's requests.
    fn set_up(&mut self, proc: &Proc, init: &Init) -> Result<()> {
        if let Err(error) = self.set_up_host(proc, init) {
            let failure = init.failure(&self.prepared.plan.script);
            return Err(failure.map_or(error, |failure| self.why_it_died(failure)));
        }
        let mut limited = false;
        let ready = init
            .until_ready(&self.prepared.plan.script, |request| {
                if request == Request::Hooks {
                    // The hooks see the final cgroup.
                    limited = true;
                    self.limit_memory(init)?;
                }
                self.serve(request, init)
            })
            .map_err(|e| self.why_it_died(e));
        if let Some(clock) = self.clock.as_ref().filter(|_| crate::time::has_log()) {
            self.host
                .time
                .tell_steps(clock, self.prepared.plan.script.steps.iter().map(ToString::to_string));
            if ready.is_ok() {
                crate::time::log_step("init: closing the pipe to signal completion", 0);
            }
        }
        ready?;
        self.host.claims.drain(..).try_for_each(Claim::filled)?;
        self.host.time.mark("wait until it is set up");
        if !limited {
            self.limit_memory(init)?;
            self.host.time.mark("limit memory");
        }
        Ok(())
    }

    /// Applies everything that needs the child's process. If the child fails in the meantime, an error here is a consequence.
    fn set_up_host(&mut self, proc: &Proc, init: &Init) -> Result<()> {
        if let Some(score) = self.prepared.plan.script.oom_score_adj {
            limits::parent::set_oom_score_adj(proc, init.pid, score)?;
        }
        self.apply_to(Stage::Held, init)?;
        let cgroup = &mut self.host.cgroup;
        let held_for_maps = self.prepared.plan.namespaces.new_maps.is_some() && !cgroup.moves;
        if held_for_maps {
            init.proceed()?;
        }
        cgroup::parent::complete(&self.prepared.plan.cgroup, cgroup, init.pid)?;
        if let Some(group) = &self.host.record.intel_rdt {
            limits::rdt::parent::join(group, init.pid)?;
        }
        if cgroup.moves {
            init.proceed()?;
        }
        self.host.time.mark("set limits and the device filter");
        self.apply_to(Stage::Process, init)?;
        self.write_down(init)?;
        self.host.time.mark("write down the process");
        Ok(())
    }

    /// Applies the effects of a stage that need the process.
    fn apply_to(&mut self, stage: Stage, init: &Init) -> Result<()> {
        let plan = &self.prepared.plan;
        let mut effects = plan.effects().filter(|effect| effect.stage() == stage);
        effects.try_for_each(|effect| self.host.apply_to(effect, &plan.namespaces, init))
    }

    fn limit_memory(&self, init: &Init) -> Result<()> {
        let cgroup = &self.host.cgroup;
        cgroup::memory::limit(&self.prepared.plan.cgroup, cgroup)?;
        let limited = self.prepared.plan.cgroup.memory_limit().is_some();
        if limited && sys::pidfd::wait_end(init.pidfd(), 0).os("poll", "pidfd")? {
            let text = "the container's process was killed when its memory was limited";
            return Err(self.why_it_died(Error::system(text)));
        }
        Ok(())
    }

    fn serve(&self, request: Request, init: &Init) -> Result<()> {
        let script = &self.prepared.plan.script;
        match request {
            // It was made before anything was served.
            Request::Network => Ok(()),
            Request::Limits => limits::parent::set_rlimits(init.pid, &script.rlimits),
            Request::Hooks => {
                [Point::Prestart, Point::CreateRuntime].into_iter().try_for_each(|point| {
                    let pid = Some(init.pid);
                    hooks::run(point, &script.hooks, &self.host.record, Status::Creating, pid)
                })
            }
            Request::Listener(fd) => {
                if let Some(refusals) = &self.refusals {
                    return init.count_refusals(refusals, fd);
                }
                let state = inspect::oci_state(&self.host.record, Status::Creating, Some(init.pid));
                init.hand_over_listener(script, fd, state)
            }
        }
    }

    fn why_it_died(&self, error: Error) -> Error {
        self.out_of_memory().unwrap_or(error)
    }

    pub(super) fn out_of_memory(&self) -> Option<Error> {
        cgroup::memory::oom_error(&self.prepared.plan.cgroup, &self.host.record.cgroup_paths)
    }

    /// Prepares the record that later verbs read.
    fn write_down(&mut self, init: &Init) -> Result<()> {
        let stat = process::stat(init.pid)?
            .ok_or_else(|| Error::system("the container's process is gone"))?;
        let namespace = |kind: Kind| {
            let path = format!("/proc/{}/ns/{}", init.pid, kind.file());
            (kind.record_key().to_owned(), PathBuf::from(path))
        };
        self.host.record.phase = Phase::Created;
        self.host.record.init_process_pid = init.pid;
        self.host.record.init_process_start = stat.start;
        self.host.record.namespace_paths =
            self.prepared.plan.namespaces.kinds().map(|(kind, _)| namespace(kind)).collect();
        self.host.slot.write_config(&self.prepared.settled.config.bytes)?;
        self.written = Some(self.host.slot.prepare(&self.host.record)?);
        Ok(())
    }
}
