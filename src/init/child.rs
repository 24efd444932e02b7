//! The new process: replays its steps, waits at the gate, becomes the container's program.

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
use crate::sys::process::Vector;
use crate::sys::timeline::SharedClock;
use crate::sys::{self, process};
use crate::{
    cgroup, console, hook, identity, landlock, limits, namespace, network, rootfs, seccomp,
};

/// What the parent prepared; the child has it by being a fork.
pub struct Child<'a> {
    pub link: ChildEnd,
    pub script: &'a Script,
    /// The parent writes id maps, or has it moved to its cgroup, first.
    pub held: bool,
    /// It was made so that nobody may look into it, which else waits for its id maps: the files of a
    /// hidden process are closed to an ordinary user who has to write them.
    pub hidden: bool,
    /// The container to enter, by its init: for an exec.
    pub joins: Option<(BorrowedFd<'a>, Entry)>,
    pub cgroup: &'a [cgroup::Step],
    pub tasks: &'a [Option<OwnedFd>],
    pub proc: &'a Proc,
    /// Mount sources that the parent opened.
    pub trees: Vec<Option<OwnedFd>>,
    /// Present if `start` will come; else the parent says when.
    pub gate: Option<BorrowedFd<'a>>,
    /// Before it waits, the process is confined like its program, and then becomes accessible to an
    /// ordinary user: to `exec` in a created container, and to the parent, which takes the seccomp
    /// listener. The kernel closes a process that is not dumpable to all but the host's root.
    pub opens: bool,
    /// Standard descriptors that become copies of the first one.
    pub released: Option<(BorrowedFd<'a>, &'a [RawFd])>,
    /// Where the terminal's master goes.
    pub console: Option<BorrowedFd<'a>>,
    pub hooks: &'a HookWorld<'a>,
    pub clock: Option<&'a SharedClock>,
}

/// Which namespaces of a container the process of an exec has to enter.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// `CLONE_NEW*` of those that it is not born in.
    pub rest: i32,
    /// `CLONE_NEW*` of those that it enters at [`Step::Enter`].
    pub later: i32,
    /// There is a user namespace, entered by now or among the rest.
    pub user: bool,
}

/// What the hooks that the child runs find.
pub struct HookWorld<'a> {
    /// The state document, with the pid that the child has in its own namespace.
    pub state: &'a dyn Fn(Point, i32) -> Vec<u8>,
    /// Where createContainer hooks start: the rootfs, by its path on the host.
    pub rootfs: CString,
}

/// Never returns: the container's program, or an exit. A script without a program ends with its steps.
pub fn main(mut child: Child<'_>) -> Infallible {
    let (number, fault) = match child.become_program() {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let message = format!("{fault}\n");
    if child.link.send(&Report::Failed { step: number, fault }).is_err() {
        // It came through the gate, where no parent waits any more: who reads the container's
        // output is told.
        let _ = nix::unistd::write(std::io::stderr(), message.as_bytes());
    }
    sys::clone::exit_now(1)
}

/// What the steps hand to each other.
struct World<'a> {
    rootfs: rootfs::child::State<'a>,
    /// Of the step that runs.
    number: u32,
    /// The container's root, once we live in it.
    inside: Option<Root>,
    cwd_pending: bool,
    home: Option<CString>,
    executable: Option<CString>,
    /// To be enforced last.
    ruleset: Option<OwnedFd>,
    /// Open until execve, which is after the parent has taken it.
    listener: Option<OwnedFd>,
    /// Aril's own binary, where that becomes the init process.
    init: Option<OwnedFd>,
}

impl World<'_> {
    fn inside(&mut self) -> ChildResult<&Root> {
        if self.inside.is_none() {
            self.inside = Some(Root::current().during("open /")?);
        }
        Ok(self.inside.as_ref().expect("opened above"))
    }
}

impl<'a> Child<'a> {
    fn become_program(&mut self) -> Result<Infallible, (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        self.begin().map_err(outside_steps)?;
        // Never dropped: its descriptors are closed by number, and it ends with an exec or an exit.
        let mut world = ManuallyDrop::new(World {
            rootfs: rootfs::child::State::new(self.proc, std::mem::take(&mut self.trees)),
            number: 0,
            inside: None,
            cwd_pending: false,
            home: None,
            executable: None,
            ruleset: None,
            listener: None,
            init: None,
        });
        let (preparation, _) = self.script.preparation_and_confinement();
        for (number, step) in preparation.iter().enumerate() {
            world.number = number as u32;
            if let Err(fault) = self.step(step, &mut world) {
                world.rootfs.undo_mounts();
                return Err((number as u32, fault));
            }
            self.mark(number);
        }
        if self.script.program.argv.is_empty() {
            self.link.send(&Report::Ready).during("send").map_err(outside_steps)?;
            sys::clone::exit_now(0);
        }
        self.execute(&mut world)
    }

    fn mark(&self, step: usize) {
        if let Some(clock) = self.clock {
            clock.mark(step);
        }
    }

    /// Before any step: whose child we are, which signals count, and where we live.
    fn begin(&self) -> ChildResult<()> {
        process::set_parent_death_signal(libc::SIGKILL).during("prctl PR_SET_PDEATHSIG")?;
        sys::signal::reset_until_exec().during("sigprocmask")?;
        for step in self.cgroup {
            cgroup::child::run(step, self.tasks)?;
        }
        // A limit on open files may leave no room for one in each hierarchy. They are not dropped here.
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

    fn step(&self, step: &Step, world: &mut World<'a>) -> ChildResult<()> {
        match step {
            Step::Namespace(step) => namespace::child::run(step, self.proc),
            Step::Network(network::Step::LoopbackUp) => network::child::loopback_up(),
            Step::Network(network::Step::WaitForLink) => {
                self.link.send(&Report::Network).during("send")?;
                self.link.expect(Order::Served).during("wait for the link")
            }
            Step::Rootfs(step) => {
                if world.rootfs.needs_parent(step)? {
                    let source = self.request_source(world.number)?;
                    world.rootfs.take_source(source);
                }
                rootfs::child::run(step, &mut world.rootfs)
            }
            Step::Enter => {
                let (init, kinds) = self.joins.ok_or(Fault::refused("no container to enter"))?;
                sys::namespace::setns(init, kinds.later).during("setns")?;
                world.rootfs.remember_mounts();
                Ok(())
            }
            Step::RuntimeHooks => {
                self.link.send(&Report::Hooks).during("send")?;
                self.link.expect(Order::Served).during("wait for the hooks")
            }
            Step::ContainerHooks => world.rootfs.with_callers_umask(|| {
                self.run_hooks(Point::CreateContainer, &[], Some(&self.hooks.rootfs))
            }),
            Step::Terminal(size) => self.terminal(*size, world),
            Step::Limits(step) => limits::child::run(step),
            Step::Rlimits(_) => {
                self.link.send(&Report::Limits).during("send")?;
                self.link.expect(Order::Served).during("wait for the limits")
            }
            Step::Identity(step) => {
                let cwd_pending = world.cwd_pending;
                let root = world.inside()?;
                let mut context = identity::child::Context { proc: self.proc, root, cwd_pending };
                identity::child::run(step, &mut context)?;
                world.cwd_pending = context.cwd_pending;
                Ok(())
            }
            Step::Home => {
                let uid = self.script.program.uid;
                world.home = Some(environment::home(world.inside()?, self.proc, uid));
                Ok(())
            }
            Step::Landlock(ruleset) => {
                let made = landlock::child::make(ruleset, world.inside()?)?;
                if let Some(init) = self.own_init(world)? {
                    landlock::child::allow_program(ruleset, made.as_fd(), init)?;
                }
                world.ruleset = Some(made);
                Ok(())
            }
            Step::CloseDescriptors => self.close_descriptors(world),
            Step::Seccomp(filter) => self.load(filter, world),
            Step::LookUpProgram => {
                let program = &self.script.program;
                let path = program.environment.path();
                world.executable = Some(executable::resolve(&program.argv[0], path)?);
                // From here on an end of file on the socket tells that the parent is gone.
                process::set_parent_death_signal(0).during("prctl PR_SET_PDEATHSIG")
            }
        }
    }

    /// The source of the mount of step `number`, opened by the parent in this mount namespace.
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

    fn terminal(&self, size: Option<sys::tty::Size>, world: &mut World<'a>) -> ChildResult<()> {
        let devpts = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let devpts = world.inside()?.open(c"/dev/pts", devpts).during("open /dev/pts")?;
        let terminal = console::child::open(devpts.as_fd(), size)?;
        if self.joins.is_none() {
            rootfs::child::bind_console(&world.rootfs, terminal.slave.as_fd())?;
        }
        let socket = self.console.ok_or(Fault::refused("nobody takes the terminal"))?;
        console::send_master(socket, terminal.master.as_fd()).during("sendmsg console socket")?;
        console::child::attach(terminal.slave.as_fd())
    }

    /// While no filter can stop it: closes what came with the fork. A path of the container's, such
    /// as /proc/self/fd/7, must not lead to any of it (CVE-2024-21626).
    fn close_descriptors(&self, world: &mut World<'a>) -> ChildResult<()> {
        world.inside()?;
        self.own_init(world)?;
        let set = |resource| self.script.rlimits.iter().any(|limit| limit.resource == resource);
        process::restore_soft_limits(set);
        let (until_confined, until_execve) = self.last_descriptors(world);
        self.script.passed.close_others(&mut [until_confined, until_execve].concat())
    }

    /// Aril's binary, if `--init` asks for it. Opened while the host's procfs is.
    fn own_init<'w>(&self, world: &'w mut World<'a>) -> ChildResult<Option<BorrowedFd<'w>>> {
        if self.script.program.under_init && world.init.is_none() {
            world.init = Some(self.proc.own_binary().during("open /proc/self/exe")?);
        }
        Ok(world.init.as_ref().map(AsFd::as_fd))
    }

    /// The filter is loaded before the process waits for `start`, which is then one of its system calls.
    fn confined_first(&self) -> bool {
        self.opens || self.script.notifies()
    }

    /// Descriptors that are needed until the process is confined, and those needed until execve, which
    /// closes them.
    fn last_descriptors(&self, world: &World<'a>) -> (Vec<RawFd>, Vec<RawFd>) {
        let root = world.inside.as_ref().map(|root| root.as_fd().as_raw_fd());
        let ruleset = world.ruleset.as_ref().map(AsRawFd::as_raw_fd);
        let mut until_confined: Vec<_> = root.into_iter().chain(ruleset).collect();
        let mut until_execve: Vec<_> = self.link.descriptors().collect();
        until_execve.extend(world.init.as_ref().map(AsRawFd::as_raw_fd));
        let gate = self.gate.map(|gate| gate.as_raw_fd());
        if self.confined_first() { &mut until_execve } else { &mut until_confined }.extend(gate);
        (until_confined, until_execve)
    }

    fn load(&self, filter: &seccomp::Filter, world: &mut World<'a>) -> ChildResult<()> {
        if let Some(listener) = seccomp::child::load(filter)? {
            self.link.send(&Report::Listener(listener.as_raw_fd())).during("send")?;
            world.listener = Some(listener);
        }
        Ok(())
    }

    /// Becomes what the program will be to the kernel: nothing is opened after this.
    fn confine(&self, world: &mut World<'a>) -> Result<(), (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        if let Some(ruleset) = &world.ruleset {
            landlock::child::enforce(ruleset.as_fd()).map_err(outside_steps)?;
        }
        for fd in self.last_descriptors(world).0 {
            nix::unistd::close(fd).during("close").map_err(outside_steps)?;
        }
        let (preparation, confinement) = self.script.preparation_and_confinement();
        for (number, step) in (preparation.len()..).zip(confinement) {
            self.step(step, world).map_err(|fault| (number as u32, fault))?;
            self.mark(number);
        }
        Ok(())
    }

    /// From here on nothing in this process is the host's but what it says to its parent.
    fn open_up(&self) -> ChildResult<()> {
        self.link.send(&Report::Prepared).during("send")?;
        sys::entry::forget_environment();
        process::set_dumpable(true).during("prctl PR_SET_DUMPABLE")
    }

    /// Waits for `start`, then executes the program. All that this needs is prepared before the filter
    /// is loaded.
    fn execute(&self, world: &mut World<'a>) -> Result<Infallible, (u32, Fault)> {
        let outside_steps = |fault| (super::parent::NO_STEP, fault);
        let program = &self.script.program;
        let mut variables = program.environment.variables.clone();
        variables.extend(world.home.clone());
        let executable = ManuallyDrop::new(world.executable.take());
        let path: &CStr = executable.as_deref().unwrap_or(&program.argv[0]);
        let (argv, environment) = (Vector::new(&program.argv), Vector::new(&variables));
        let words = [&[reaper::NAME.to_owned(), path.to_owned()], program.argv.as_slice()].concat();
        let init = Vector::new(&words);
        if self.opens {
            self.open_up().map_err(outside_steps)?;
        }
        if self.confined_first() {
            self.confine(world)?;
        }
        self.link.send(&Report::Ready).during("send").map_err(outside_steps)?;
        self.wait_to_be_let_go(world).map_err(outside_steps)?;
        if !self.confined_first() {
            self.confine(world)?;
        }
        if !self.script.hooks.at(Point::StartContainer).is_empty() {
            self.run_hooks(Point::StartContainer, &variables, None).map_err(outside_steps)?;
        }
        Err(outside_steps(match &world.init {
            None => executable::execute(path, &argv, &environment),
            Some(binary) => reaper::execute(binary.as_fd(), &init, &environment),
        }))
    }

    fn wait_to_be_let_go(&self, world: &mut World<'a>) -> ChildResult<()> {
        match self.link.receive().during("receive")? {
            Some(Order::Run) => Ok(()),
            Some(Order::Park) => {
                if self.opens {
                    // What can look into this process must not answer in the agent's place.
                    world.listener = None;
                }
                let gate = self.gate.ok_or(Fault::refused("there is no gate to wait at"))?;
                gate::wait(gate).during("write exec.fifo")
            }
            // The parent is gone before it had told anybody of us.
            Some(_) | None => sys::clone::exit_now(1),
        }
    }
}
