//! The child: runs the steps of the plan, waits for the order to run or for `start`, and executes the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;

use super::protocol::{ChildEnd, Order, Report};
use super::{gate, reaper};
use crate::error::Fault;
use crate::error::fault::{Attempt, ChildResult};
use crate::fs::{Proc, Root};
use crate::hook::{HookContext, Point};
use crate::identity::{environment, executable};
use crate::plan::{Script, Step};
use crate::sys::clone::SingleThread;
use crate::sys::process::Vector;
use crate::sys::timeline::SharedClock;
use crate::sys::{self, process};
use crate::{
    cgroup, console, hook, identity, landlock, limits, namespace, network, rootfs, seccomp,
};

/// Everything that the child needs. The parent prepares it before the clone, and the child has a copy in memory.
pub struct Child<'a> {
    pub link: ChildEnd,
    pub script: &'a Script,
    /// The child waits for [`Order::Proceed`]: the parent writes id maps, or moves the child to its cgroup, first.
    pub held: bool,
    /// The child was cloned as not dumpable. Otherwise it becomes so after its id maps are written: an
    /// unprivileged user cannot write the maps of a process that is not dumpable.
    pub hidden: bool,
    /// For an exec: pidfd of the container's init, and the namespaces to enter.
    pub joins: Option<(BorrowedFd<'a>, Entry)>,
    pub cgroup: &'a [cgroup::Step],
    pub tasks: &'a [Option<OwnedFd>],
    pub proc: &'a Proc,
    /// Mount sources that the parent opened.
    pub trees: Vec<Option<OwnedFd>>,
    /// Sources of volumes that have content already, and are not filled.
    pub complete_volumes: &'a [CString],
    /// Descriptor of the exec fifo, for `create`. Without it, the parent sends [`Order::Run`].
    pub gate: Option<BorrowedFd<'a>>,
    /// The process is confined like its program, and becomes dumpable, before it waits. An unprivileged user
    /// can then `exec` in a created container, and the parent can fetch the seccomp listener. Only root on the
    /// host can access a process that is not dumpable.
    pub opens: bool,
    /// Standard descriptors to replace by copies of the first descriptor.
    pub released: Option<(BorrowedFd<'a>, &'a [RawFd])>,
    /// Console socket, which receives the terminal's master.
    pub console: Option<BorrowedFd<'a>>,
    pub hooks: &'a HookSettings<'a>,
    pub clock: Option<&'a SharedClock>,
}

/// Namespaces of a container that an exec process enters.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// `CLONE_NEW*` of the namespaces to enter before any step. The child was not cloned in them.
    pub rest: i32,
    /// `CLONE_NEW*` of the namespaces to enter at [`Step::Enter`].
    pub later: i32,
    /// The container has a user namespace: entered by the relay already, or part of `rest`.
    pub user: bool,
}

/// Input and directory of the hooks that the child runs.
pub struct HookSettings<'a> {
    /// Serializes the OCI state for a hook. The pid is the child's in its pid namespace.
    pub state: &'a dyn Fn(Point, i32) -> Vec<u8>,
    /// Working directory of createContainer hooks: the rootfs, by its path on the host.
    pub rootfs: CString,
}

/// Runs the child: executes the container's program, or exits. Without a program it exits after the steps.
pub fn main(mut child: Child<'_>) -> Infallible {
    let (number, fault) = match child.become_program() {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let message = format!("{fault}\n");
    if child.link.send(&Report::Failed { step: number, fault }).is_err() {
        // After the gate no parent reads the report. The fault goes to the container's stderr.
        let _ = nix::unistd::write(std::io::stderr(), message.as_bytes());
    }
    sys::clone::exit_now(1)
}

/// State that steps of the setup share.
struct SetupState<'a> {
    rootfs: rootfs::child::State<'a>,
    /// Index of the step that runs.
    number: u32,
    /// The container's root directory, opened after pivot_root(2).
    root: Option<Root>,
    cwd_pending: bool,
    home: Option<CString>,
    executable: Option<CString>,
    /// Landlock ruleset, which is enforced last.
    ruleset: Option<OwnedFd>,
    /// Seccomp listener. It stays open until execve, so that the parent can fetch it.
    listener: Option<OwnedFd>,
    /// Aril's binary, if `--init` makes it the init process.
    init: Option<OwnedFd>,
}

impl SetupState<'_> {
    fn root(&mut self) -> ChildResult<&Root> {
        if self.root.is_none() {
            self.root = Some(Root::current().during("open /")?);
        }
        Ok(self.root.as_ref().expect("opened above"))
    }
}

impl<'a> Child<'a> {
    fn become_program(&mut self) -> Result<Infallible, (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        self.begin().map_err(outside_steps)?;
        // Never dropped: descriptors are closed by number, and the process ends with an execve or an exit.
        let mut setup = ManuallyDrop::new(SetupState {
            rootfs: rootfs::child::State::new(
                self.proc,
                std::mem::take(&mut self.trees),
                self.complete_volumes,
            ),
            number: 0,
            root: None,
            cwd_pending: false,
            home: None,
            executable: None,
            ruleset: None,
            listener: None,
            init: None,
        });
        let (preparation, _) = self.script.preparation_and_confinement();
        for (number, step) in preparation.iter().enumerate() {
            setup.number = number as u32;
            if let Err(fault) = self.step(step, &mut setup) {
                setup.rootfs.undo_mounts();
                return Err((number as u32, fault));
            }
            self.mark(number);
        }
        if self.script.program.argv.is_empty() {
            self.link.send(&Report::Ready).during("send").map_err(outside_steps)?;
            sys::clone::exit_now(0);
        }
        self.execute(&mut setup)
    }

    fn mark(&self, step: usize) {
        if let Some(clock) = self.clock {
            clock.mark(step);
        }
    }

    /// Prepares the process before any step: parent death signal, signal mask, cgroups, namespaces, session.
    fn begin(&self) -> ChildResult<()> {
        process::set_parent_death_signal(libc::SIGKILL).during("prctl PR_SET_PDEATHSIG")?;
        sys::signal::reset_until_exec().during("sigprocmask")?;
        for step in self.cgroup {
            cgroup::child::run(step, self.tasks)?;
        }
        // A limit on open files may leave no room for one descriptor per hierarchy. Their owner never drops them.
        for tasks in self.tasks.iter().flatten() {
            nix::unistd::close(tasks.as_raw_fd()).during("close")?;
        }
        if let Some((null, numbers)) = self.released {
            for number in numbers {
                process::replace(*number, null).during("dup2")?;
            }
        }
        self.wait_if_held()?;
        if let Some((init, kinds)) = self.joins {
            if kinds.rest != 0 {
                sys::namespace::setns(init, kinds.rest).during("setns")?;
            }
            if kinds.user {
                namespace::child::become_root()?;
            }
        }
        if !self.hidden {
            process::set_dumpable(false).during("prctl PR_SET_DUMPABLE")?;
        }
        nix::unistd::setsid().map(drop).during("setsid")?;
        self.script.passed.protect()
    }

    fn wait_if_held(&self) -> ChildResult<()> {
        if self.held {
            self.link.expect(Order::Proceed).during("wait for id maps and cgroup")?;
        }
        Ok(())
    }

    fn step(&self, step: &Step, setup: &mut SetupState<'a>) -> ChildResult<()> {
        match step {
            Step::Namespace(step) => namespace::child::run(step, self.proc),
            Step::Network(network::Step::LoopbackUp) => network::child::loopback_up(),
            Step::Network(network::Step::WaitForLink) => {
                self.link.send(&Report::Network).during("send")?;
                self.link.expect(Order::Served).during("wait for the link")
            }
            Step::Rootfs(step) => {
                if setup.rootfs.needs_parent(step)? {
                    let source = self.request_source(setup.number)?;
                    setup.rootfs.take_source(source);
                }
                rootfs::child::run(step, &mut setup.rootfs)
            }
            Step::Enter => {
                let (init, kinds) = self.joins.ok_or(Fault::refused("no container to enter"))?;
                sys::namespace::setns(init, kinds.later).during("setns")?;
                setup.rootfs.remember_mounts();
                Ok(())
            }
            Step::RuntimeHooks => {
                self.link.send(&Report::Hooks).during("send")?;
                self.link.expect(Order::Served).during("wait for the hooks")
            }
            Step::ContainerHooks => setup.rootfs.with_callers_umask(|| {
                self.run_hooks(Point::CreateContainer, &[], Some(&self.hooks.rootfs))
            }),
            Step::Terminal(size) => self.terminal(*size, setup),
            Step::Limits(step) => limits::child::run(step),
            Step::Rlimits(_) => {
                self.link.send(&Report::Limits).during("send")?;
                self.link.expect(Order::Served).during("wait for the limits")
            }
            Step::Identity(step) => {
                let cwd_pending = setup.cwd_pending;
                let root = setup.root()?;
                let mut context = identity::child::Context { proc: self.proc, root, cwd_pending };
                identity::child::run(step, &mut context)?;
                setup.cwd_pending = context.cwd_pending;
                Ok(())
            }
            Step::Home => {
                let uid = self.script.program.uid;
                setup.home = Some(environment::home(setup.root()?, self.proc, uid));
                Ok(())
            }
            Step::Landlock(ruleset) => {
                let made = landlock::child::make(ruleset, setup.root()?)?;
                if let Some(init) = self.own_init(setup)? {
                    landlock::child::allow_program(ruleset, made.as_fd(), init)?;
                }
                setup.ruleset = Some(made);
                Ok(())
            }
            Step::CloseDescriptors => self.close_descriptors(setup),
            Step::Seccomp(filter) => self.load(filter, setup),
            Step::LookUpProgram => {
                let program = &self.script.program;
                let path = program.environment.path();
                setup.executable = Some(executable::resolve(&program.argv[0], path)?);
                // From here on an end of file on the socket shows that the parent has ended.
                process::set_parent_death_signal(0).during("prctl PR_SET_PDEATHSIG")
            }
        }
    }

    /// Asks the parent to open the mount source of step `number` in this mount namespace.
    fn request_source(&self, number: u32) -> ChildResult<OwnedFd> {
        let namespace = self.proc.mount_namespace().during("open /proc/self/ns/mnt")?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = sys::open::open(c"/", flags).during("open /")?;
        self.link.request_source(number, [namespace.as_fd(), root.as_fd()]).during("open_tree")
    }

    fn run_hooks(&self, point: Point, env: &[CString], cwd: Option<&CStr>) -> ChildResult<()> {
        let state = (self.hooks.state)(point, nix::unistd::getpid().as_raw());
        let around = HookContext { state: &state, env, cwd };
        hook::child::run(point, self.script.hooks.at(point), &around)
    }

    fn terminal(
        &self,
        size: Option<sys::tty::Size>,
        setup: &mut SetupState<'a>,
    ) -> ChildResult<()> {
        let devpts = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let devpts = setup.root()?.open(c"/dev/pts", devpts).during("open /dev/pts")?;
        let terminal = console::child::open(devpts.as_fd(), size)?;
        if self.joins.is_none() {
            rootfs::child::bind_console(&setup.rootfs, terminal.slave.as_fd())?;
        }
        let socket =
            self.console.ok_or(Fault::refused("set up the terminal: no console socket"))?;
        console::send_master(socket, terminal.master.as_fd()).during("sendmsg console socket")?;
        console::child::attach(terminal.slave.as_fd())
    }

    /// Closes descriptors that the child inherited, before a seccomp filter can deny it. A path in the container,
    /// such as /proc/self/fd/7, must lead to none of them (CVE-2024-21626).
    fn close_descriptors(&self, setup: &mut SetupState<'a>) -> ChildResult<()> {
        setup.root()?;
        self.own_init(setup)?;
        let set = |resource| self.script.rlimits.iter().any(|limit| limit.resource == resource);
        process::restore_soft_limits(set);
        let (until_confined, until_execve) = self.last_descriptors(setup);
        self.script.passed.close_others(&mut [until_confined, until_execve].concat())
    }

    /// Opens Aril's binary if `--init` is given. The host's procfs must still be open.
    fn own_init<'w>(&self, setup: &'w mut SetupState<'a>) -> ChildResult<Option<BorrowedFd<'w>>> {
        if self.script.program.under_init && setup.init.is_none() {
            setup.init = Some(self.proc.own_binary().during("open /proc/self/exe")?);
        }
        Ok(setup.init.as_ref().map(AsFd::as_fd))
    }

    /// Returns true if the seccomp filter is loaded before the process waits for `start`. The filter then applies
    /// to the wait.
    fn confined_first(&self) -> bool {
        self.opens || self.script.notifies()
    }

    /// Lists the descriptors that are needed until the process is confined, and those until execve closes them.
    fn last_descriptors(&self, setup: &SetupState<'a>) -> (Vec<RawFd>, Vec<RawFd>) {
        let root = setup.root.as_ref().map(|root| root.as_fd().as_raw_fd());
        let ruleset = setup.ruleset.as_ref().map(AsRawFd::as_raw_fd);
        let mut until_confined: Vec<_> = root.into_iter().chain(ruleset).collect();
        let mut until_execve: Vec<_> = self.link.descriptors().collect();
        until_execve.extend(setup.init.as_ref().map(AsRawFd::as_raw_fd));
        let gate = self.gate.map(|gate| gate.as_raw_fd());
        if self.confined_first() { &mut until_execve } else { &mut until_confined }.extend(gate);
        (until_confined, until_execve)
    }

    fn load(&self, filter: &seccomp::Filter, setup: &mut SetupState<'a>) -> ChildResult<()> {
        if let Some(listener) = seccomp::child::load(filter)? {
            self.link.send(&Report::Listener(listener.as_raw_fd())).during("send")?;
            setup.listener = Some(listener);
        }
        Ok(())
    }

    /// Applies Landlock and the last steps, such as the seccomp filter. Opens no file, and nothing may be opened after.
    fn confine(&self, setup: &mut SetupState<'a>) -> Result<(), (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        if let Some(ruleset) = &setup.ruleset {
            landlock::child::enforce(ruleset.as_fd()).map_err(outside_steps)?;
        }
        for fd in self.last_descriptors(setup).0 {
            nix::unistd::close(fd).during("close").map_err(outside_steps)?;
        }
        let (preparation, confinement) = self.script.preparation_and_confinement();
        for (number, step) in (preparation.len()..).zip(confinement) {
            self.step(step, setup).map_err(|fault| (number as u32, fault))?;
            self.mark(number);
        }
        Ok(())
    }

    /// Makes the process dumpable, so that an unprivileged user can access it. Its memory and descriptors must
    /// hold nothing of the host but the socket to the parent.
    fn become_accessible(&self) -> ChildResult<()> {
        self.link.send(&Report::Prepared).during("send")?;
        sys::entry::clear_environment(SingleThread::proof());
        process::set_dumpable(true).during("prctl PR_SET_DUMPABLE")
    }

    /// Waits for the order to run or for `start`, then executes the program. All memory that this needs is
    /// allocated before the filter is loaded.
    fn execute(&self, setup: &mut SetupState<'a>) -> Result<Infallible, (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        let program = &self.script.program;
        let mut variables = program.environment.variables.clone();
        variables.extend(setup.home.clone());
        let executable = ManuallyDrop::new(setup.executable.take());
        let path: &CStr = executable.as_deref().unwrap_or(&program.argv[0]);
        let (argv, environment) = (Vector::new(&program.argv), Vector::new(&variables));
        let words = [&[reaper::NAME.to_owned(), path.to_owned()], program.argv.as_slice()].concat();
        let init = Vector::new(&words);
        if self.opens {
            self.become_accessible().map_err(outside_steps)?;
        }
        if self.confined_first() {
            self.confine(setup)?;
        }
        self.link.send(&Report::Ready).during("send").map_err(outside_steps)?;
        self.wait_for_order(setup).map_err(outside_steps)?;
        if !self.confined_first() {
            self.confine(setup)?;
        }
        if !self.script.hooks.at(Point::StartContainer).is_empty() {
            self.run_hooks(Point::StartContainer, &variables, None).map_err(outside_steps)?;
        }
        Err(outside_steps(match &setup.init {
            None => executable::execute(path, &argv, &environment),
            Some(binary) => reaper::execute(binary.as_fd(), &init, &environment),
        }))
    }

    fn wait_for_order(&self, setup: &mut SetupState<'a>) -> ChildResult<()> {
        match self.link.receive().during("receive")? {
            Some(Order::Run) => Ok(()),
            Some(Order::Park) => {
                if self.opens {
                    // A process that can access this one must not answer in place of the seccomp agent.
                    setup.listener = None;
                }
                let gate = self.gate.ok_or(Fault::refused("wait for start: no exec.fifo"))?;
                gate::wait(gate).during("write exec.fifo")
            }
            // The parent ended before it recorded the container.
            Some(_) | None => sys::clone::exit_now(1),
        }
    }
}
