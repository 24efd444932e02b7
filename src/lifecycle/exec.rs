//! `exec`: runs a further process in a running container.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use super::create::Outcome;
use super::handover::Handover;
use super::{foreground, inspect, view};
use crate::console::parent::PidfdOwner;
use crate::error::{Context, Error, Kind as ErrorKind, OsContext, Result};
use crate::fs::process::in_user_namespace;
use crate::fs::{Proc, Root};
use crate::id::ContainerId;
use crate::identity::account;
use crate::init::child::{self, Child, Entry, HookSettings};
use crate::init::parent::{self, Init, Request};
use crate::namespace::{self, Kind};
use crate::plan::ExecPlan;
use crate::plan::compile::{self, ExecOptions};
use crate::plan::edits::{self, Edits};
use crate::plan::facts::ProcessFacts;
use crate::state::{Created, Live, Observed, Paused, Record, Running, Status, Store, observe};
use crate::sys::pidfd::Ended;
use crate::sys::{self, Errno};
use crate::time::step;
use crate::{cgroup, identity, limits, spec};

#[derive(Debug)]
pub struct Exec {
    pub id: ContainerId,
    pub process: Source,
    pub handover: Handover,
    pub detach: bool,
    /// Path of `--cgroup`, below the container's cgroup.
    pub cgroups: Vec<String>,
    pub ignore_paused: bool,
}

/// Source of the process.
#[derive(Debug)]
pub enum Source {
    /// File with the complete process.
    File(PathBuf),
    /// Process of the container's config, with edits.
    Edited(Box<Edits>),
}

/// Runs a process in a container. In the foreground, waits for its end.
///
/// # Errors
///
/// The status of the container does not permit it, the process is invalid, or the kernel rejects a step.
pub fn exec(store: &Store, request: &Exec, warn: &dyn Fn(&str)) -> Result<Outcome> {
    request.handover.passed.check()?;
    let slot = store.open(&request.id)?;
    let record = inspect::record(&slot, &request.id)?;
    let live = live(observe(&slot, &record)?, request.ignore_paused)?;
    let config = inspect::stored_config(&slot)?;
    let process = request.process(&config.spec, &record, &live, warn)?;
    let plan = plan(request, &config.spec, &record, &process)?;
    plan.warnings.iter().for_each(|w| warn(w));

    step("read the stored config, and plan");
    plan.script.note_filter();
    let mut sockets = request.handover.connect(plan.script.console.as_ref())?;
    let signals = foreground::Signals::block()?;
    let init = record.init_process_pid.0;
    let target = cgroup::exec::target(&record.cgroup_paths, &request.cgroups, init)?;
    let entering = Entering { request, record: &record, container: live.init(), plan: &plan };
    let init = entering.spawn(&target, sockets.console())?;
    step("init: child process in init()");
    step("wait until the process is set up");
    request.handover.deliver(&sockets, PidfdOwner::Exec, &init)?;
    let relay = sockets.relay()?;
    let pid = init.pid;
    step("setns_init: about to exec");
    let pidfd = init.run(&plan.script)?;
    step("execute the program");
    if request.detach {
        return Ok(Outcome::default());
    }
    let tasks = foreground::Tasks { relay, ..Default::default() };
    let Some(ended) = foreground::wait(pid, &pidfd, &signals, tasks, warn)? else {
        let hint = format!("`kill -9 {pid}` on the host ends it");
        return Err(foreground::left(&format!("process {pid} of container {}", request.id), hint));
    };
    step("wait for its end");
    if ended == Ended::Signaled(libc::SIGKILL) {
        cgroup::memory::describe_oom_kills(&record.cgroup_paths).iter().for_each(|why| warn(why));
    }
    Ok(Outcome { code: ended.code() as u8, ..Outcome::default() })
}

/// Returns the process of a container in which another process can be started.
fn live(observed: Observed, ignore_paused: bool) -> Result<Live> {
    Err(Error::state(match observed {
        Observed::Created(Created(live)) | Observed::Running(Running(live)) => return Ok(live),
        Observed::Paused(Paused(live)) if ignore_paused => return Ok(live),
        Observed::Paused(_) => {
            "cannot exec in a paused container (use --ignore-paused to override)"
        }
        Observed::Stopped => return Err(stopped()),
        Observed::Creating(_) => "cannot exec in a container that is still being created",
    }))
}

fn plan(request: &Exec, spec: &Spec, record: &Record, process: &Process) -> Result<ExecPlan> {
    let both = spec.process().iter().chain(std::iter::once(process));
    let facts = ProcessFacts::gather(both, in_user_namespace());
    let init = record.init_process_pid.to_string();
    let options = ExecOptions {
        detach: request.detach,
        // Root writes the maps of its containers, and does not deny setgroups(2).
        denies_setgroups: facts.rootless && namespace::parent::denies_setgroups(&init),
        console_socket: request.handover.console_socket.clone(),
        passed: request.handover.passed,
    };
    compile::exec(&request.id, spec, &record.grant, process, &options, &facts)
}

impl Exec {
    fn process(
        &self,
        spec: &Spec,
        record: &Record,
        live: &Live,
        warn: &dyn Fn(&str),
    ) -> Result<Process> {
        match &self.process {
            Source::File(path) => {
                let (process, warnings) = spec::load_process(path)?;
                warnings.iter().for_each(|w| warn(w));
                Ok(process)
            }
            Source::Edited(edits) => {
                let own = spec.process().clone();
                let own = own.ok_or_else(|| Error::config("the container has no process"))?;
                match edits.user.as_deref().filter(|user| !edits::is_numeric(user)) {
                    None => edits.apply(own, warn),
                    Some(user) => named(edits, user, record, live)?.apply(own, warn),
                }
            }
        }
    }
}

/// Looks up a user name in the container's present files, by descriptor and within its root.
fn named(edits: &Edits, user: &str, record: &Record, live: &Live) -> Result<Edits> {
    let root = Root::new(view::root_of_process(record.init_process_pid, live.init())?);
    let found = account::find_in(user, &[root]);
    let account = found.context(|| format!("find user {user:?} in the container"))?;
    let mut edits = edits.clone();
    edits.user = Some(format!("{}:{}", account.uid, account.gid));
    edits.additional_gids.extend(account.additional_gids);
    Ok(edits)
}

struct Entering<'a> {
    request: &'a Exec,
    record: &'a Record,
    /// pidfd of the container's init process.
    container: BorrowedFd<'a>,
    plan: &'a ExecPlan,
}

impl Entering<'_> {
    /// Creates the process and sets it up in the container.
    fn spawn(
        &self,
        target: &cgroup::exec::Target,
        console: Option<BorrowedFd<'_>>,
    ) -> Result<Init> {
        if let Some(cpus) = &self.plan.initial_affinity {
            limits::parent::set_initial_affinity(cpus)?;
            step(format_args!("nsexec: affinity: {cpus:#x}"));
        }
        let first = self.enter(target, console, false);
        match &target.dir {
            Some(dir) if first.is_err() && cgroup::clone::kills_child(dir) => {
                self.enter(target, console, true)
            }
            _ => first,
        }
    }

    /// Creates the process. `moves`: clone3 with CLONE_INTO_CGROUP is not possible for the target.
    fn enter(
        &self,
        target: &cgroup::exec::Target,
        console: Option<BorrowedFd<'_>>,
        moves: bool,
    ) -> Result<Init> {
        let init = match self.clone_into(target, moves, console) {
            // The container's cgroup accepts no process. The cgroup of init does.
            Err(e) if self.request.cgroups.is_empty() && admits_none(&e) => {
                let beside = target.with_cgroup_of(self.record.init_process_pid.0)?;
                self.clone_into(&beside, moves, console)?
            }
            // The user cannot write to a common parent of both cgroups, for example from a session to a
            // service.
            Err(e) if e.errno() == Some(Errno::EACCES) && self.may_be_moved() => {
                let init = self.clone_into(&cgroup::exec::Target::inherited(), true, console)?;
                cgroup::systemd::parent::attach(&self.record.cgroup_paths, init.pid)?;
                init.proceed()?;
                init
            }
            Err(e) if admits_none(&e) => return Err(cgroup::exec::not_added(e)),
            other => other?,
        };
        let script = &self.plan.script;
        init.until_ready(script, |request| match request {
            Request::Hooks | Request::Network => Ok(()),
            Request::Limits => limits::parent::set_rlimits(init.pid, &script.rlimits),
            Request::Listener(fd) => {
                let state = inspect::oci_state(self.record, Status::Running, Some(init.pid));
                init.hand_over_listener(script, fd, state)
            }
        })
        .map_err(|e| self.stopped_meanwhile(e))?;
        Ok(init)
    }

    /// Clones the process. `held`: it starts in the cgroup of this process, or beside the target, and waits until it is moved.
    fn clone_into(
        &self,
        target: &cgroup::exec::Target,
        held: bool,
        console: Option<BorrowedFd<'_>>,
    ) -> Result<Init> {
        let container = self.container;
        let proc = Proc::of_the_host()?;
        let kinds = kinds(self.record);
        let (pid, user) = (Kind::Pid.flag(), kinds & Kind::User.flag() != 0);
        // An ordinary user has no privileges over the pid namespace outside of its user namespace.
        let by_relay = user && !nix::unistd::geteuid().is_root();
        if !by_relay {
            // Before processes of the container can see the new process (CVE-2016-9962).
            parent::hide()?;
        }
        if kinds & pid != 0 && !by_relay {
            // setns(2) with a pid namespace affects only children of this process.
            sys::namespace::setns(container, pid)
                .os("setns", "the container's pid namespace")
                .map_err(|e| self.stopped_meanwhile(e))?;
        }
        let born_in = pid | if by_relay { Kind::User.flag() } else { 0 };
        if user && self.plan.script.console.is_none() {
            let map = namespace::parent::uid_map_of(self.record.init_process_pid.0);
            let map = map.map_err(|e| self.stopped_meanwhile(e))?;
            if let Some(uid) = namespace::host_id(&map, self.plan.script.program.uid) {
                identity::parent::change_pipe_owner(uid);
            }
        }
        let entry = Entry { rest: kinds & !born_in, later: 0, user };
        let no_hooks = HookSettings { state: &|_, _| Vec::new(), rootfs: Default::default() };
        let cgroup = target.dir.as_ref().filter(|_| !held).map(AsFd::as_fd);
        let main = |link| {
            child::main(Child {
                link,
                script: &self.plan.script,
                held,
                hidden: true,
                joins: Some((container, entry)),
                cgroup: &target.steps,
                tasks: &target.tasks,
                proc: &proc,
                trees: Vec::new(),
                complete_volumes: &[],
                gate: None,
                opens: false,
                released: None,
                console,
                hooks: &no_hooks,
                clock: None,
            })
        };
        step("nsexec container setup: enter the container's namespaces");
        let notifies = self.plan.script.notifies();
        let init = if by_relay {
            parent::spawn_inside(container, cgroup, notifies, main)
        } else {
            parent::spawn(&namespace::plan::Plan::default(), cgroup, notifies, main)
        }
        .map_err(|e| self.stopped_meanwhile(e))?;
        if let (true, Some(dir)) = (held, &target.dir) {
            cgroup::clone::move_into(dir, init.pid.0)?;
            init.proceed()?;
        }
        if let Some(group) = &self.record.intel_rdt {
            limits::rdt::parent::join(group, init.pid)?;
        }
        if let Some(score) = self.plan.script.oom_score_adj {
            limits::parent::set_oom_score_adj(&proc, init.pid, score)?;
        }
        Ok(init)
    }

    /// True if systemd created the cgroup and moves processes there.
    fn may_be_moved(&self) -> bool {
        self.record.systemd_cgroup && self.request.cgroups.is_empty()
    }

    /// Returns the error of a container that stopped in the meantime, instead of the failure that this caused.
    fn stopped_meanwhile(&self, error: Error) -> Error {
        let gone = sys::pidfd::wait_end(self.container, 0).unwrap_or(false);
        let error = if gone { stopped() } else { error };
        match cgroup::memory::describe_oom_kills(&self.record.cgroup_paths) {
            Some(why) => error.hint(why),
            None => error,
        }
    }
}

/// Returns the namespaces that the container does not share with the caller, as `CLONE_NEW*`.
pub(super) fn kinds(record: &Record) -> i32 {
    let has = |kind: &Kind| record.namespace_paths.contains_key(kind.record_key());
    Kind::ALL.iter().filter(|kind| has(kind)).map(|kind| kind.flag()).fold(0, |a, b| a | b)
}

/// See [`cgroup::exec::Target::beside`].
fn admits_none(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EBUSY | Errno::EOPNOTSUPP | Errno::ENODEV))
}

fn stopped() -> Error {
    Error::new(ErrorKind::State, "cannot exec in a stopped container")
}
