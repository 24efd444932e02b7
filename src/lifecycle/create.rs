//! `create` and `run`: create a container from a bundle, and start it for `run`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use super::handover::{Handover, Released, Sockets};
use super::monitor::Monitored;
use super::timeline::Timeline;
use super::{end, foreground, inspect, network, notify, rollback, start, userns};
use crate::console::parent::PidfdOwner;
use crate::error::{Error, Kind as ErrorKind, OsContext, Result};
use crate::fs::record::Prepared;
use crate::fs::{Proc, process};
use crate::hook::Point;
use crate::id::{ContainerId, HostPid};
use crate::init::child::{self, Child, HookSettings};
use crate::init::gate;
use crate::init::parent::{self, Init, Request};
use crate::namespace::{Kind, host_id};
use crate::network::device;
use crate::network::lease::Lease;
use crate::network::names::parent as names;
use crate::network::parent::{attach, claim};
use crate::network::pasta;
use crate::path::c_path;
use crate::plan::compile::{self, Options};
use crate::plan::facts::{HostFacts, Systemd};
use crate::plan::{ContainerPlan, Step};
use crate::rootfs::parent::inherited;
use crate::seccomp::report::Refusals;
use crate::spec::grant::Policy;
use crate::spec::{self, Config, Extensions, OperatorGrant};
use crate::state::{ExitFile, NOTIFY, Phase, Record, Settings, Slot, Status, Store, boot_id};
use crate::sys::timeline::SharedClock;
use crate::sys::{self, pidfd::Ended};
use crate::time::rfc3339;
use crate::volume::{Claim, Volumes};
use crate::{cgroup, identity, limits, rootfs};

#[derive(Debug)]
pub struct Create {
    pub id: ContainerId,
    /// Bundle directory, absolute.
    pub bundle: PathBuf,
    /// Config to use instead of the bundle's: changed by options, or made without a bundle.
    pub config: Option<Config>,
    pub volumes: Option<NamedVolumes>,
    pub handover: Handover,
    pub no_pivot: bool,
    /// `--allow-host-mounts`.
    pub host_mounts: bool,
    pub new_keyring: bool,
    /// True if Aril's init process runs the program as its child.
    pub init: bool,
    /// systemd that creates the cgroup, with `--systemd-cgroup`.
    pub systemd: Option<Systemd>,
    pub rootless_cgroups: bool,
    /// `--cgroup-manager disabled`.
    pub no_cgroup: bool,
    pub timeline: bool,
    /// Requests of options that a config cannot have.
    pub extensions: Extensions,
    /// Annotations of the config that have an effect.
    pub policy: Policy,
}

/// Volumes that the config mounts.
#[derive(Debug, Clone)]
pub struct NamedVolumes {
    pub all: Volumes,
    pub names: Vec<String>,
}

#[derive(Debug)]
pub struct Run {
    pub create: Create,
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
pub fn create(store: &Store, request: &Create, warn: &dyn Fn(&str)) -> Result<Outcome> {
    let mut creation = Creation::begin(store, request, true, warn)?;
    let init = creation.spawn(true)?;
    creation.announce(&init, request)?;
    init.park()?;
    creation.time.mark("leave it at the gate");
    Ok(creation.keep(0))
}

pub fn run(store: &Store, request: &Run, warn: &dyn Fn(&str)) -> Result<Outcome> {
    if request.subreaper && !request.detach {
        foreground::become_subreaper()?;
    }
    let mut creation = Creation::begin(store, &request.create, request.detach, warn)?;
    if request.seccomp_report {
        creation.count_refusals()?;
    }
    creation.record.deleted_at_end = !request.keep;
    if request.monitored || !request.detach && request.keep {
        creation.exit = Some(ExitFile::make(&creation.slot)?);
    }
    if request.detach && request.release {
        creation.released = Some(Released::find()?);
    }
    let signals = foreground::Signals::block()?;
    let init = creation.spawn(false)?;
    creation.announce(&init, &request.create)?;
    let notify = notify::Socket::bind(creation.slot.path(), init.pid)?;
    let relay = creation.sockets.relay()?;
    let pid = init.pid;
    let pidfd = init.run(&creation.plan.script)?;
    let started = SystemTime::now();
    creation.time.mark("execute the program");
    start::poststart(&creation.slot, &creation.record, pidfd.as_fd())?;
    creation.moved = None;
    creation.slot.unlock();
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
    let Some(ended) = ended else {
        creation.undo = false;
        let id = &request.create.id;
        let hint = format!("`aril delete --force {id}` ends and removes it");
        return Err(foreground::left(&format!("container {id}"), hint));
    };
    creation.time.mark("wait for its end");
    if ended == Ended::Signaled(libc::SIGKILL) {
        creation.out_of_memory().iter().for_each(|why| warn(&why.to_string()));
    }
    // The container's exit status takes precedence over errors of its record or its removal.
    if request.keep {
        let recorded = creation.record_end(&request.create.id, ended, started);
        recorded.unwrap_or_else(|e| warn(&e.to_string()));
    } else {
        creation.delete(&request.create.id).unwrap_or_else(|e| warn(&e.to_string()));
        creation.time.mark("remove what is left");
    }
    Ok(creation.keep(ended.code() as u8))
}

/// A container that is being created. If it is dropped before `keep`, its effects are undone.
struct Creation<'a> {
    /// Gets a message for each odd but accepted value.
    warn: &'a dyn Fn(&str),
    time: Timeline,
    plan: ContainerPlan,
    slot: Slot,
    record: Record,
    /// The bundle's config.json as it was read.
    config: Vec<u8>,
    /// Complete record that is not committed yet.
    written: Option<Prepared>,
    sockets: Sockets,
    cgroup: Option<cgroup::parent::Created>,
    /// True once this create made the resctrl groups. Before that they may belong to another container.
    has_resctrl: bool,
    /// Lease and link on a network of Aril.
    lease: Option<Lease>,
    shared: Option<network::Shared>,
    /// Network devices of the host that were moved into the container.
    moved: Option<device::parent::MovedDevices>,
    /// Memory in which the child marks its steps, for the timeline and debug messages.
    clock: Option<SharedClock>,
    wants_timeline: bool,
    /// Named volumes, locked until their content is complete.
    claims: Vec<Claim>,
    /// Report of the seccomp profile, if it was requested.
    refusals: Option<Rc<RefCell<Refusals>>>,
    /// Descriptors of the caller that a detached container closes.
    released: Option<Released>,
    /// File in which the end is recorded.
    exit: Option<ExitFile>,
    undo: bool,
}

impl<'a> Creation<'a> {
    /// Prepares everything but the process.
    fn begin(
        store: &Store,
        request: &Create,
        detach: bool,
        warn: &'a dyn Fn(&str),
    ) -> Result<Self> {
        let mut time = Timeline::start();
        request.handover.passed.check()?;
        let mut config = match &request.config {
            Some(config) => config.clone(),
            None => spec::load(&request.bundle)?,
        };
        let systemd = request.systemd.is_some();
        let annotations = config.spec.annotations().iter().flatten();
        let admitted = request.policy.admit(annotations, &request.extensions, systemd)?;
        let grant = admitted.grant;
        if pasta::is_wanted(&grant) {
            let privileged = nix::unistd::geteuid().is_root() && !process::in_user_namespace();
            pasta::edit(&mut config.spec, privileged)?;
            config.encode()?;
        }
        let ids = userns::choose(store, &mut config, &grant)?;
        time.mark("load config.json");
        let shared = network::edit(store, &mut config.spec, &grant)?;
        let facts = HostFacts::gather(&config.spec, &grant, &request.bundle, request.systemd)?;
        time.mark("look at the host");
        let options = request.options(store, detach);
        let plan = compile::container(&request.id, &config.spec, &grant, &options, &facts)?;
        time.mark("plan");
        plan.script.note_filter();
        let warnings = config.warnings.iter().chain(&admitted.warnings).chain(&plan.warnings);
        warnings.for_each(|w| warn(w));
        let sockets = request.handover.connect(plan.script.console.as_ref())?;
        let slot = store.create(&request.id)?;
        let mut record = intent(&plan, &config, grant, request);
        record.ids = ids.as_ref().map(|ids| ids.claim);
        record.boot = boot_id()?;
        let clock = (request.timeline || crate::time::has_log())
            .then(|| SharedClock::new(plan.script.steps.len()));
        let clock = clock.transpose().os("mmap", "")?;
        let mut creation = Self {
            warn,
            time,
            plan,
            slot,
            record,
            config: config.bytes,
            written: None,
            sockets,
            cgroup: None,
            has_resctrl: false,
            lease: None,
            shared,
            moved: None,
            clock,
            wants_timeline: request.timeline,
            claims: Vec::new(),
            refusals: None,
            released: None,
            exit: None,
            undo: true,
        };
        creation.take_network()?;
        creation.prepare(request, options.notify_directory.as_deref())?;
        Ok(creation)
    }

    /// Takes the lease before the intent is written, which names it.
    fn take_network(&mut self) -> Result<()> {
        let holder = network::holder(&self.slot, &self.record);
        self.lease = match (&self.plan.network, &self.shared) {
            (Some(attachment), _) => Some(claim(attachment, &holder)?),
            (None, Some(shared)) => shared.hold(&holder)?,
            (None, None) => None,
        };
        self.record.network = self.lease.as_ref().map(Lease::reference);
        if let Some(names) = &self.plan.names {
            let lease = self.lease.as_ref();
            let warnings = names::write(names, self.slot.path(), lease, &holder)?;
            warnings.iter().for_each(|w| (self.warn)(w));
        }
        Ok(())
    }

    fn count_refusals(&mut self) -> Result<()> {
        if notify::wanted() {
            return Err(Error::new(
                ErrorKind::Usage,
                "--seccomp-report cannot be used where NOTIFY_SOCKET is set",
            ));
        }
        let filter = self.plan.script.steps.iter_mut().find_map(|step| match step {
            Step::Seccomp(filter) => Some(filter),
            _ => None,
        });
        let none = || Error::config("--seccomp-report: the config has no seccomp profile");
        let refusals = Refusals::watch(filter.ok_or_else(none)?)?;
        self.refusals = Some(Rc::new(RefCell::new(refusals)));
        Ok(())
    }

    /// Writes the intent, then applies the effects on the host that do not need the process.
    fn prepare(&mut self, request: &Create, notify_directory: Option<&Path>) -> Result<()> {
        self.slot.write_intent(&self.record)?;
        if let Some(volumes) = &request.volumes {
            self.claim(volumes)?;
        }
        if let Some(overlay) = self.plan.script.overlay() {
            let warning = rootfs::overlay::parent::prepare(overlay)?;
            warning.iter().for_each(|warning| (self.warn)(warning));
        }
        if let Some(path) = notify_directory {
            std::fs::create_dir(path).os("mkdir", path.display())?;
        }
        self.time.mark("write down the intent");
        let created = cgroup::parent::create(&self.plan.cgroup)?;
        created.warnings.iter().for_each(|w| (self.warn)(w));
        if created.paths.is_empty() && !self.plan.namespaces.is_new(Kind::Pid) {
            (self.warn)(
                "the container has no cgroup and no private pid namespace, so its processes cannot all be found and \
                 killed. Such configuration is strongly discouraged",
            );
        }
        self.record.cgroup_paths = created.paths.clone();
        self.cgroup = Some(created);
        self.time.mark("make the cgroup");
        if let Some(plan) = &self.plan.rdt {
            let _made = limits::rdt::parent::prepare(plan)?;
            self.has_resctrl = true;
            self.time.mark("make the resctrl group");
        }
        Ok(())
    }

    fn claim(&mut self, volumes: &NamedVolumes) -> Result<()> {
        for name in &volumes.names {
            let claim = volumes.all.claim(name, self.slot.path())?;
            if !claim.fill {
                self.plan.script.keep_as_it_is(&volumes.all.source(name));
            }
            self.claims.push(claim);
        }
        self.time.mark("take the volumes");
        Ok(())
    }

    /// Creates the process and sets it up. With `park` it waits for `start` at the FIFO.
    fn spawn(&mut self, park: bool) -> Result<Init> {
        let first = self.spawn_once(park);
        if first.is_err() && self.cgroup.as_mut().is_some_and(|cgroup| cgroup.moves_instead()) {
            self.slot.remove_fifo()?;
            return self.spawn_once(park);
        }
        first
    }

    fn spawn_once(&mut self, park: bool) -> Result<Init> {
        let proc = Proc::of_the_host()?;
        let gate = if park { Some(self.gate()?) } else { None };
        let opens = self.opens(park);
        let mut trees = rootfs::parent::open_trees(self.plan.script.rootfs_steps())?;
        if let Some((overlay, made)) = self.plan.script.overlay().zip(trees.first_mut()) {
            rootfs::overlay::parent::show(overlay, made.as_mut())?;
        }
        if let Some(Some(root)) = trees.first().filter(|_| self.plan.script.mounts_for_caller()) {
            self.record.root_mount = Some(inherited::mount_id(root)?);
            self.slot.write_intent(&self.record)?;
        }
        let hooks = HookSettings {
            state: &|point, pid| self.hook_state(point, pid),
            rootfs: c_path("rootfs", &self.plan.rootfs)?,
        };
        let cgroup = self.cgroup.as_ref().expect("made by `prepare`");
        let notifies = self.plan.script.notifies();
        let init = parent::spawn(&self.plan.namespaces, cgroup.birthplace(), notifies, |link| {
            child::main(Child {
                link,
                script: &self.plan.script,
                held: self.plan.namespaces.new_maps.is_some() || cgroup.moves,
                hidden: self.plan.namespaces.hidden,
                joins: None,
                cgroup: &self.plan.cgroup.steps,
                tasks: &cgroup.tasks,
                proc: &proc,
                trees,
                gate: gate.as_ref().map(AsFd::as_fd),
                opens,
                released: self.released.as_ref().map(Released::replaced),
                console: self.sockets.console(),
                hooks: &hooks,
                clock: self.clock.as_ref(),
            })
        })?;
        self.give_pipes();
        self.time.mark_clone();
        self.set_up(&proc, &init)?;
        Ok(init)
    }

    /// Gives the terminal to the container's user, if that user has an ID on the host.
    fn give_pipes(&self) {
        let script = &self.plan.script;
        let maps = self.plan.namespaces.maps.as_ref().filter(|_| script.console.is_none());
        if let Some(uid) = maps.and_then(|maps| host_id(&maps.uid, script.program.uid)) {
            identity::parent::change_pipe_owner(uid);
        }
    }

    fn gate(&self) -> Result<OwnedFd> {
        self.slot.make_fifo()?;
        gate::close(&self.slot.fifo())
    }

    /// Returns true if the init process of an ordinary user becomes accessible to that user: see [`Child::opens`].
    fn opens(&self, park: bool) -> bool {
        let script = &self.plan.script;
        let wanted = park || script.notifies();
        // Processes in a joined user namespace could access init before its filter is loaded.
        let among_others = self.plan.namespaces.new_maps.is_none() && script.filter().is_some();
        wanted && !among_others && !nix::unistd::geteuid().is_root()
    }

    /// State that hooks of the child read from stdin.
    fn hook_state(&self, point: Point, pid: i32) -> Vec<u8> {
        let status =
            if point == Point::StartContainer { Status::Created } else { Status::Creating };
        // The same document was encoded for the runtime's hooks, or would have been.
        inspect::state_document(&self.record, status, Some(HostPid(pid))).unwrap_or_default()
    }

    /// Sets up the host side while the child runs, then answers the child's requests.
    fn set_up(&mut self, proc: &Proc, init: &Init) -> Result<()> {
        if let Some(score) = self.plan.script.oom_score_adj {
            limits::parent::set_oom_score_adj(proc, init.pid, score)?;
        }
        if inspect::uses_pasta(&self.record) {
            // While init waits: later an ordinary user cannot access it.
            pasta::start(self.slot.path(), init.pid)?;
            self.time.mark("connect the network");
        }
        let cgroup = self.cgroup.as_mut().expect("made by `prepare`");
        let held_for_maps = self.plan.namespaces.new_maps.is_some() && !cgroup.moves;
        if held_for_maps {
            init.proceed()?;
        }
        cgroup::parent::complete(&self.plan.cgroup, cgroup, init.pid)?;
        if let Some(group) = &self.record.intel_rdt {
            limits::rdt::parent::join(group, init.pid)?;
        }
        if cgroup.moves {
            init.proceed()?;
        }
        self.move_devices(init)?;
        self.time.mark("set limits and the device filter");
        if let (Some(lease), Some(attachment)) = (&self.lease, &self.plan.network) {
            let warnings = attach(lease, attachment.rate, init.pid.0, init.pidfd())?;
            warnings.iter().for_each(|w| (self.warn)(w));
            self.time.mark("attach to the network");
        }
        self.write_down(init)?;
        self.time.mark("write down the process");
        let mut limited = false;
        let ready = init
            .until_ready(&self.plan.script, |request| {
                if request == Request::Hooks {
                    // The hooks see the final cgroup.
                    limited = true;
                    self.limit_memory(init)?;
                }
                self.serve(request, init)
            })
            .map_err(|e| self.why_it_died(e));
        if let Some(clock) = self.clock.as_ref().filter(|_| crate::time::has_log()) {
            self.time.tell_steps(clock, self.plan.script.steps.iter().map(ToString::to_string));
            if ready.is_ok() {
                crate::time::log_step("init: closing the pipe to signal completion", 0);
            }
        }
        ready?;
        self.claims.drain(..).try_for_each(Claim::filled)?;
        self.time.mark("wait until it is set up");
        if !limited {
            self.limit_memory(init)?;
            self.time.mark("limit memory");
        }
        Ok(())
    }

    /// Moves network devices, before hooks that may set their routes.
    fn move_devices(&mut self, init: &Init) -> Result<()> {
        if self.plan.net_devices.is_empty() {
            return Ok(());
        }
        let namespaces = &self.plan.namespaces;
        let path = match namespaces.joined(Kind::Net) {
            Some(path) => path.to_string_lossy().into_owned(),
            None => format!("/proc/{}/ns/net", init.pid),
        };
        let namespace = File::open(&path).os("open", &path)?;
        let moved = self.moved.insert(device::parent::MovedDevices::into(namespace));
        moved.take(&self.plan.net_devices)?;
        self.time.mark("move network devices");
        Ok(())
    }

    fn limit_memory(&self, init: &Init) -> Result<()> {
        let cgroup = self.cgroup.as_ref().expect("made by `prepare`");
        cgroup::memory::limit(&self.plan.cgroup, cgroup)?;
        let limited = self.plan.cgroup.memory_limit().is_some();
        if limited && sys::pidfd::wait_end(init.pidfd(), 0).os("poll", "pidfd")? {
            let text = "the container's process was killed when its memory was limited";
            return Err(self.why_it_died(Error::system(text)));
        }
        Ok(())
    }

    fn serve(&self, request: Request, init: &Init) -> Result<()> {
        let script = &self.plan.script;
        match request {
            // It was made before anything was served.
            Request::Network => Ok(()),
            Request::Limits => limits::parent::set_rlimits(init.pid, &script.rlimits),
            Request::Hooks => {
                [Point::Prestart, Point::CreateRuntime].into_iter().try_for_each(|point| {
                    let pid = Some(init.pid);
                    inspect::run_hooks(point, &script.hooks, &self.record, Status::Creating, pid)
                })
            }
            Request::Listener(fd) => {
                if let Some(refusals) = &self.refusals {
                    return init.count_refusals(refusals, fd);
                }
                let state = inspect::oci_state(&self.record, Status::Creating, Some(init.pid));
                init.hand_over_listener(script, fd, state)
            }
        }
    }

    fn why_it_died(&self, error: Error) -> Error {
        self.out_of_memory().unwrap_or(error)
    }

    fn out_of_memory(&self) -> Option<Error> {
        cgroup::memory::why_killed(&self.plan.cgroup, &self.record.cgroup_paths)
    }

    /// Prepares the record that later verbs read.
    fn write_down(&mut self, init: &Init) -> Result<()> {
        let stat = process::stat(init.pid)
            .ok_or_else(|| Error::system("the container's process is gone"))?;
        let namespace = |kind: Kind| {
            let path = format!("/proc/{}/ns/{}", init.pid, kind.file());
            (kind.record_key().to_owned(), PathBuf::from(path))
        };
        self.record.phase = Phase::Created;
        self.record.init_process_pid = init.pid;
        self.record.init_process_start = stat.start;
        self.record.namespace_paths =
            self.plan.namespaces.kinds().map(|(kind, _)| namespace(kind)).collect();
        self.slot.write_config(&self.config)?;
        self.written = Some(self.slot.prepare(&self.record)?);
        Ok(())
    }

    /// Commits the record, and reports the container to the caller.
    fn announce(&mut self, init: &Init, request: &Create) -> Result<()> {
        if let Some(record) = self.written.take() {
            record.commit()?;
        }
        request.handover.deliver(&self.sockets, PidfdOwner::Init, init)?;
        self.time.mark("tell of the process");
        Ok(())
    }

    /// Keeps the container: nothing is undone on drop.
    fn keep(mut self, code: u8) -> Outcome {
        self.undo = false;
        let mut time = std::mem::take(&mut self.time);
        let clock = self.clock.take().filter(|_| self.wants_timeline);
        let timeline = clock.map(|clock| {
            time.add_steps(&clock, self.plan.script.steps.iter().map(ToString::to_string));
            time
        });
        let refusals = self.refusals.as_ref().map(|refusals| refusals.borrow().to_string());
        Outcome { code, timeline, refusals, monitored: None }
    }

    /// Records the end of the container and releases its network, unless it has been deleted. Other verbs may have written
    /// the record.
    fn record_end(&mut self, id: &ContainerId, ended: Ended, started: SystemTime) -> Result<()> {
        if let Some(file) = &self.exit {
            file.record(&end::exit(ended, started, Some(&self.record)))?;
        }
        match self.slot.relock(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        self.slot.read()?.map_or(Ok(()), |record| end::disconnect(&self.slot, record))
    }

    /// Deletes the container at the end of a foreground run. Another process may have deleted it before.
    fn delete(&mut self, id: &ContainerId) -> Result<()> {
        self.undo = false;
        match self.slot.relock(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| rollback::after_end(&self.slot, &self.record, self.warn)),
        }
    }
}

impl Drop for Creation<'_> {
    /// Undoes the effects. Drop of `Init` has killed and reaped the process. The first error is the one to report; effects that
    /// cannot be undone are warnings.
    fn drop(&mut self) {
        if !self.undo {
            return;
        }
        let moved = self.moved.take().map_or(Ok(()), |moved| moved.move_back());
        // A cgroup that this create did not make may belong to another container.
        let killed = match &self.cgroup {
            Some(created) => {
                self.record.systemd_cgroup = created.has_unit();
                cgroup::stored::kill_all(&self.record.cgroup_paths)
            }
            None => {
                self.record.forget_cgroups();
                Ok(())
            }
        };
        if !self.has_resctrl {
            self.record.intel_rdt = None;
        }
        let undone = rollback::run(&self.slot, &self.record, &self.plan.script.hooks, self.warn);
        if let Some(created) = &self.cgroup {
            created.remove_made();
        }
        let errors = [moved, killed, undone].into_iter().filter_map(Result::err);
        errors.for_each(|e| (self.warn)(&format!("undo what create did: {e}")));
    }
}

impl NamedVolumes {
    fn sources(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| self.all.source(name))
    }
}

impl Create {
    fn options(&self, store: &Store, detach: bool) -> Options {
        Options {
            bundle: self.bundle.clone(),
            state_directory: store.root().join(&self.id),
            fill: self.volumes.iter().flat_map(NamedVolumes::sources).collect(),
            no_pivot: self.no_pivot,
            host_mounts: self.host_mounts,
            new_keyring: self.new_keyring,
            init: self.init,
            rootless_cgroups: self.rootless_cgroups,
            no_cgroup: self.no_cgroup,
            detach,
            console_socket: self.handover.console_socket.clone(),
            passed: self.handover.passed,
            notify_directory: notify::wanted().then(|| store.root().join(&self.id).join(NOTIFY)),
        }
    }
}

fn intent(plan: &ContainerPlan, config: &Config, grant: OperatorGrant, request: &Create) -> Record {
    let mut annotations = config.spec.annotations().clone().unwrap_or_default();
    // Aril's report. A report of the config could be false.
    annotations.remove(spec::annotation::LANDLOCK_ENFORCED);
    if let Some(ruleset) = plan.script.landlock() {
        let enforced = format!("version {}: {}", ruleset.version, ruleset.restricts());
        annotations.insert(spec::annotation::LANDLOCK_ENFORCED.to_owned(), enforced);
    }
    let labels = labels(&annotations, &plan.bundle);
    Record {
        aril_version: crate::state::VERSION,
        phase: Phase::Creating,
        id: plan.id.to_string(),
        init_process_pid: HostPid(0),
        init_process_start: 0,
        boot: String::new(),
        deleted_at_end: false,
        created: rfc3339(SystemTime::now()),
        cgroup_paths: plan.cgroup.paths.clone(),
        namespace_paths: Default::default(),
        rootless: request.rootless_cgroups,
        systemd_cgroup: request.systemd.is_some(),
        intel_rdt: plan.rdt.as_ref().map(|rdt| rdt.group.clone()),
        private_pid_namespace: plan.namespaces.is_new(Kind::Pid),
        has_hooks: [Point::Poststart, Point::Poststop]
            .iter()
            .any(|point| !plan.script.hooks.at(*point).is_empty()),
        bundle: plan.bundle.clone(),
        network: None,
        annotations: annotations.into_iter().collect(),
        grant,
        overlay: plan.script.overlay().map(|overlay| overlay.layers.clone()),
        root_mount: None,
        ids: None,
        config: Settings { rootfs: plan.rootfs.clone(), labels },
    }
}

/// Returns labels as runc has them, which node agents read. `bundle` is set by Aril: an annotation of that name would lead
/// tools of root to a directory of the annotation's author.
fn labels(annotations: &HashMap<String, String>, bundle: &Path) -> Vec<String> {
    const BUNDLE: &str = "bundle=";
    let mut labels: Vec<_> = annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.retain(|label| !label.starts_with(BUNDLE));
    labels.push(format!("{BUNDLE}{}", bundle.display()));
    labels.sort();
    labels
}
