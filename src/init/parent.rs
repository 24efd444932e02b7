//! The parent: clones the child, serves its requests, and orders it to run or to wait for `start`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::State;

use super::protocol::{self, ChildEnd, Order, ParentEnd, Report};
use super::relay;
use crate::error::fault::ChildResult;
use crate::error::{Context, Error, Fault, Kind as ErrorKind, OsContext, Result, text};
use crate::id::HostPid;
use crate::identity::executable::NOT_IN_PATH;
use crate::namespace::{self, Kind, plan::Plan};
use crate::plan::{Script, Step};
use crate::rootfs;
use crate::seccomp;
use crate::seccomp::report::Refusals;
use crate::sys::clone::SingleThread;
use crate::sys::{self, Errno};

/// Step index of a fault before the first step or after the last.
pub(super) const NO_STEP: u32 = u32::MAX;

/// Command line of the child until it executes its program.
const SETUP_COMMAND_LINE: &CStr = c"aril init";

/// Child process during setup. Dropping it before [`Init::park`] or [`Init::run`] kills and reaps the process.
#[derive(Debug)]
pub struct Init {
    pub pid: HostPid,
    pidfd: Option<OwnedFd>,
    link: ParentEnd,
    /// Report of the child that arrived before the relay's report of its pid.
    early: RefCell<Option<Report>>,
    /// Refused system calls of the child, for `--seccomp-report`.
    refusals: RefCell<Option<Rc<RefCell<Refusals>>>>,
    /// Relay that can send a descriptor of the child.
    lender: RefCell<Option<Lender>>,
}

/// Relay that shares the child's descriptors. Dropping it ends and reaps the relay.
#[derive(Debug)]
struct Lender {
    socket: Option<OwnedFd>,
    relay: OwnedFd,
}

impl Drop for Lender {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = sys::pidfd::wait(self.relay.as_fd(), true);
    }
}

/// Requests that the child sends to the parent during setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Run the hooks of the runtime's namespaces.
    Hooks,
    /// Set the child's rlimits.
    Limits,
    /// Connect the container to its network.
    Network,
    /// Fetch the seccomp listener, which has this descriptor number in the child.
    Listener(i32),
}

/// Clones the child into `cgroup` (cgroup v2) and the namespaces of `plan`, and writes its id maps.
/// A held child waits for [`Init::proceed`]. `notifies` says that its filter will have a seccomp listener.
///
/// # Errors
/// If a namespace cannot be joined or created, or an id map cannot be written.
pub fn spawn(
    plan: &Plan,
    cgroup: Option<BorrowedFd<'_>>,
    notifies: bool,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Result<Init> {
    let (parent_end, child_end) = protocol::pair().os("socketpair", "")?;
    if plan.hidden {
        hide()?;
    }
    let init = if plan.relay {
        let link = (parent_end, child_end);
        // A process in a cgroup namespace cannot be cloned into a cgroup outside of it (ENOENT, where cgroup2 is
        // mounted with nsdelegate). Then the relay is cloned into the container's cgroup, and its child inherits it.
        let cgroups = match plan.joined_before_clone.iter().any(|join| join.kind == Kind::Cgroup) {
            true => (cgroup, None),
            false => (None, cgroup),
        };
        spawn_by_relay(|| relay::enter(plan), plan.clone_flags, cgroups, link, notifies, child)?
    } else {
        spawn_directly(plan, cgroup, parent_end, child_end, child)?
    };
    if let Some(maps) = &plan.new_maps {
        namespace::parent::write_maps(init.pid, maps)?;
    }
    Ok(init)
}

/// Clones a child into the user and pid namespaces of a running container, for an unprivileged caller. Such a
/// caller may enter the pid namespace only from within the user namespace.
///
/// # Errors
/// If a namespace cannot be entered, or clone3(2) fails.
pub fn spawn_inside(
    container: BorrowedFd<'_>,
    cgroup: Option<BorrowedFd<'_>>,
    notifies: bool,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Result<Init> {
    let link = protocol::pair().os("socketpair", "")?;
    let enter = || relay::enter_container(container);
    spawn_by_relay(enter, 0, (None, cgroup), link, notifies, child)
}

/// Makes this process not dumpable (PR_SET_DUMPABLE). A child inherits that, so no process that sees its pid or
/// owns its user namespace can ever access its memory and descriptors (CVE-2016-9962).
///
/// # Errors
/// If prctl(2) fails.
pub fn hide() -> Result<()> {
    sys::process::set_dumpable(false).os("prctl PR_SET_DUMPABLE", "")
}

fn spawn_directly(
    plan: &Plan,
    cgroup: Option<BorrowedFd<'_>>,
    link: ParentEnd,
    child_end: ChildEnd,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Result<Init> {
    for join in &plan.joined_before_clone {
        // Joining a pid namespace changes the namespace of children only, not of this process.
        let path = || join.path.to_string_lossy().into_owned();
        let what = || format!("join {} namespace", join.kind.oci());
        debug_assert_eq!(join.kind, Kind::Pid);
        let fd = namespace::child::open_namespace(join);
        let fd = fd.map_err(|f| Error::os("open", path(), f.errno)).context(what)?;
        sys::namespace::setns(fd.as_fd(), join.kind.flag()).os("setns", path()).context(what)?;
    }
    if plan.new_time {
        namespace::parent::new_time_namespace(plan.time_offsets.as_deref())?;
    }
    let parent_raw = link.as_raw();
    let _shown = sys::entry::hide_command_line(SingleThread::proof(), SETUP_COMMAND_LINE);
    let spawned = sys::clone::clone3(SingleThread::proof(), plan.clone_flags, cgroup, || {
        // The child's copy of the parent's end would hide the parent's death from it.
        let _ = nix::unistd::close(parent_raw);
        child(child_end)
    })
    .os("clone3", "")
    .context(|| "create the container's process".to_owned())?;
    Ok(Init {
        pid: HostPid(spawned.pid),
        pidfd: Some(spawned.pidfd),
        link,
        early: RefCell::default(),
        refusals: RefCell::default(),
        lender: RefCell::default(),
    })
}

/// Clones a relay, which clones the child. The two cgroups are the relay's and the child's.
fn spawn_by_relay(
    enter: impl FnOnce() -> ChildResult<()>,
    clone_flags: u64,
    (own_cgroup, cgroup): (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>),
    (link, child_end): (ParentEnd, ChildEnd),
    notifies: bool,
    child: impl FnOnce(ChildEnd) -> Infallible,
) -> Result<Init> {
    let (socket, lender) = match notifies {
        true => Some(sys::socket::pair().os("socketpair", "")?).unzip(),
        false => (None, None),
    };
    let parents = [Some(link.as_raw()), socket.as_ref().map(AsRawFd::as_raw_fd)];
    let shown = sys::entry::hide_command_line(SingleThread::proof(), SETUP_COMMAND_LINE);
    let relay = sys::clone::clone3(SingleThread::proof(), 0, own_cgroup, || {
        for end in parents.into_iter().flatten() {
            let _ = nix::unistd::close(end);
        }
        relay::main(enter, clone_flags, cgroup, child_end, lender, child)
    })
    .os("clone3", "")
    .context(|| "create the relay process".to_owned())?;
    drop(shown);
    let received = receive_pid(&link);
    let relay = Lender { socket, relay: relay.pidfd };
    // A relay without a socket ends at once.
    let lender = Some(relay).filter(|relay| relay.socket.is_some());
    match received? {
        (Some(pid), early) => {
            // The child of this process, which has not reaped it: the kernel cannot have reused the pid.
            let pidfd = sys::pidfd::open(pid).os("pidfd_open", pid)?;
            Ok(Init {
                pid: HostPid(pid),
                pidfd: Some(pidfd),
                link,
                early: RefCell::new(early),
                refusals: RefCell::default(),
                lender: RefCell::new(lender),
            })
        }
        (None, Some(Report::Failed { fault, .. })) => {
            Err(refused(&fault).context("join namespaces"))
        }
        _ => Err(Error::system("the relay process died while it joined namespaces")),
    }
}

/// Receives the child's pid from the relay, and a report of the child that may arrive first. The child sends one
/// report before it waits for an answer.
fn receive_pid(link: &ParentEnd) -> Result<(Option<i32>, Option<Report>)> {
    let mut early = None;
    loop {
        match link.receive().os("receive", "from the relay")? {
            Some(Report::Cloned(pid)) => return Ok((Some(pid), early)),
            // From the relay: it failed. From the child: the relay's report with the pid follows.
            Some(report) => early = Some(report),
            None => return Ok((None, early)),
        }
    }
}

/// Converts a fault to an error.
fn refused(fault: &Fault) -> Error {
    match fault.errno {
        Errno::UnknownErrno => Error::system(fault.call.clone().into_owned()),
        errno => Error::os(fault.call.clone(), "", errno),
    }
}

/// Converts a fault to an error with the step that failed, and a hint. The error of a missing program has no
/// step: callers look for its text at the end of the line.
fn failed(script: &Script, step: u32, fault: &Fault) -> Error {
    let said = fault.to_string();
    let error = match script.steps.get(step as usize) {
        Some(Step::LookUpProgram) => refused(fault).of_kind(of_program(&said)),
        Some(step) => refused(fault).context(step.attempt()),
        None => refused(fault),
    };
    let executed = step == NO_STEP && said.starts_with("exec ");
    let error = if executed { error.of_kind(of_program(&said)) } else { error };
    let refused = |errno| executed && said.ends_with(&*text::errno(errno));
    if refused(Errno::EACCES) && script.landlock().is_some() {
        error.hint(
            "the rules of --landlock must allow to read and execute the program, its \
             interpreter and its libraries",
        )
    } else if refused(Errno::ENOENT) {
        error.hint("the program exists, but its loader, or the interpreter that its #! line names, does not")
    } else if refused(Errno::ENOEXEC) {
        error.hint("the program is for another machine architecture, or a script without a #! line")
    } else {
        error
    }
}

/// Returns the kind of error for a program that is missing or cannot be executed, by the text of its fault.
fn of_program(said: &str) -> ErrorKind {
    let missing = [&*text::errno(Errno::ENOENT), &*text::errno(Errno::ENOTDIR), NOT_IN_PATH];
    if missing.iter().any(|reason| said.ends_with(reason)) {
        ErrorKind::NoProgram
    } else {
        ErrorKind::NotExecutable
    }
}

impl Init {
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("taken only by consuming self").as_fd()
    }

    fn send(&self, order: Order) -> Result<()> {
        match self.link.send(order) {
            // The child has ended. The next receive reports the cause.
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            other => other.os("send", "to the container's process"),
        }
    }

    /// Tells the child that its id maps are written and that it is in its cgroup.
    ///
    /// # Errors
    /// If the message cannot be sent. A child that has ended is no error here.
    pub fn proceed(&self) -> Result<()> {
        self.send(Order::Proceed)
    }

    /// Serves a child without a program until it has done all its steps.
    ///
    /// # Errors
    /// If a step fails, or the child ends before it is ready.
    pub fn until_done(&self, script: &Script) -> Result<()> {
        loop {
            match self.receive()? {
                Some(Report::Ready) => return Ok(()),
                Some(Report::Source(step)) => self.open_source(script, step)?,
                Some(Report::Failed { step, fault }) => return Err(failed(script, step, &fault)),
                Some(_) => return Err(unexpected()),
                None => return Err(self.died()),
            }
        }
    }

    /// Serves the child's requests until it is ready.
    ///
    /// # Errors
    /// If a step or `serve` fails, or the child ends before it is ready.
    pub fn until_ready(
        &self,
        script: &Script,
        mut serve: impl FnMut(Request) -> Result<()>,
    ) -> Result<()> {
        let mut prepared = false;
        loop {
            match self.receive()? {
                Some(Report::Ready) => return Ok(()),
                Some(Report::Prepared) => prepared = true,
                Some(Report::Listener(fd)) => serve(Request::Listener(fd))?,
                Some(Report::Failed { step, fault }) => {
                    return Err(in_init(failed(script, step, &fault)));
                }
                None => return Err(in_init(self.died())),
                // A dumpable child may be controlled by another process of its user: no more requests.
                Some(_) if prepared => return Err(unexpected()),
                Some(Report::Hooks) => self.serve(Request::Hooks, &mut serve)?,
                Some(Report::Network) => self.serve(Request::Network, &mut serve)?,
                Some(Report::Limits) => self.serve(Request::Limits, &mut serve)?,
                Some(Report::Source(step)) => self.open_source(script, step).map_err(in_init)?,
                Some(Report::Cloned(_)) => return Err(unexpected()),
            }
        }
    }

    /// Opens a mount source that the child cannot access, in the child's mount namespace.
    fn open_source(&self, script: &Script, number: u32) -> Result<()> {
        let step = match script.steps.get(number as usize) {
            Some(Step::Rootfs(step)) => step,
            _ => return Err(unexpected()),
        };
        let mut descriptors = self.link.take_descriptors().into_iter();
        let (namespace, root) =
            descriptors.next().zip(descriptors.next()).ok_or_else(unexpected)?;
        let source = rootfs::parent::open_source(step, namespace.as_fd(), root.as_fd())?;
        match self.link.send_source(source.as_fd()) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            other => other.os("send", "to the container's process"),
        }
    }

    fn serve(&self, request: Request, serve: &mut impl FnMut(Request) -> Result<()>) -> Result<()> {
        serve(request)?;
        self.send(Order::Served)
    }

    fn receive(&self) -> Result<Option<Report>> {
        if let Some(early) = self.early.take() {
            return Ok(Some(early));
        }
        if let Some(refusals) = &*self.refusals.borrow() {
            self.answer_until_report(&mut refusals.borrow_mut())?;
        }
        self.link.receive().os("receive", "from the container's process")
    }

    /// Returns the error of a child that has already failed. The parent's own error, such as ESRCH, is then a consequence.
    pub fn failure(&self, script: &Script) -> Option<Error> {
        loop {
            let mut polled = [PollFd::new(self.link.as_fd(), PollFlags::POLLIN)];
            if self.early.borrow().is_none() && poll(&mut polled, PollTimeout::ZERO) != Ok(1) {
                return None;
            }
            match self.receive().ok()? {
                Some(Report::Failed { step, fault }) => {
                    return Some(in_init(failed(script, step, &fault)));
                }
                None => return Some(in_init(self.died())),
                Some(_) => {}
            }
        }
    }

    fn died(&self) -> Error {
        match sys::pidfd::wait(self.pidfd(), true) {
            Ok(Some(sys::pidfd::Ended::Signaled(signal))) => {
                Error::system(format!("the container's process was killed by signal {signal}"))
            }
            Ok(Some(sys::pidfd::Ended::Exited(code))) => Error::system(format!(
                "the container's process exited with {code} before it was ready"
            )),
            _ => Error::system("the container's process died before it was ready"),
        }
    }

    /// Answers seccomp notifications of the child until its next report arrives.
    fn answer_until_report(&self, refusals: &mut Refusals) -> Result<()> {
        loop {
            refusals.answer()?;
            let mut polled = vec![PollFd::new(self.link.as_fd(), PollFlags::POLLIN)];
            let listener = refusals.descriptor();
            polled.extend(listener.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.os("poll", "seccomp listener")?,
            };
            if polled[0].revents().is_some_and(|events| !events.is_empty()) {
                return Ok(());
            }
        }
    }

    /// Fetches the seccomp listener, descriptor `fd` of the child, and answers its notifications from now on.
    ///
    /// # Errors
    /// If the descriptor cannot be fetched.
    pub fn count_refusals(&self, refusals: &Rc<RefCell<Refusals>>, fd: i32) -> Result<()> {
        refusals.borrow_mut().listen(self.take_listener(fd)?);
        *self.refusals.borrow_mut() = Some(Rc::clone(refusals));
        Ok(())
    }

    /// Fetches descriptor `fd` of the child. The child does not send it: its filter may deny sendmsg(2).
    fn take_listener(&self, fd: i32) -> Result<OwnedFd> {
        match self.lender.take().as_ref().and_then(|lender| lender.socket.as_ref()) {
            Some(socket) => {
                relay::borrow(socket.as_fd(), fd).os("receive", "from the relay process")
            }
            None => sys::pidfd::getfd(self.pidfd(), fd).os("pidfd_getfd", fd),
        }
    }

    /// Sends the seccomp listener, descriptor `fd` of the child, to the seccomp agent.
    ///
    /// # Errors
    /// If the descriptor cannot be fetched, or the agent's socket cannot be used.
    pub fn hand_over_listener(&self, script: &Script, fd: i32, state: State) -> Result<()> {
        let listener = script
            .seccomp_listener
            .as_ref()
            .ok_or_else(|| Error::system("hand over the seccomp listener: no listenerPath"))?;
        let fetched = self.take_listener(fd)?;
        seccomp::parent::send_listener(listener, self.pid.0, state, fetched.as_fd())
    }

    /// Orders the child to wait for `start`. Returns its pidfd.
    ///
    /// # Errors
    /// If the order cannot be sent.
    pub fn park(self) -> Result<OwnedFd> {
        self.send(Order::Park)?;
        Ok(self.keep())
    }

    /// Orders the child to execute its program, and waits until it has. Returns its pidfd.
    ///
    /// # Errors
    /// If a last step or execve(2) fails.
    pub fn run(self, script: &Script) -> Result<OwnedFd> {
        self.send(Order::Run)?;
        match self.receive()? {
            None => Ok(self.keep()),
            Some(Report::Failed { step, fault }) => {
                let error = failed(script, step, &fault);
                // The error of execve(2) has no prefix, as in runc.
                Err(if error.is_of_program() { error } else { in_init(error) })
            }
            Some(_) => Err(unexpected()),
        }
    }

    fn keep(mut self) -> OwnedFd {
        self.pidfd.take().expect("taken once")
    }
}

fn unexpected() -> Error {
    Error::os("receive", "from the container's process", Errno::EPROTO)
}

/// Adds the prefixes that callers know from runc.
fn in_init(error: Error) -> Error {
    error.context("error during container init").context("unable to start container process")
}

impl Drop for Init {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::pidfd::wait(pidfd.as_fd(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_exit_with_127_and_others_with_126() {
        for (said, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory", 127),
            ("exec /x: no such file or directory", 127),
            ("exec: \"/etc\": is a directory", 126),
            ("exec: \"/x\": permission denied", 126),
            ("exec /x: exec format error", 126),
            ("exec: \"x\": cannot run executable found relative to current directory", 126),
        ] {
            assert_eq!(of_program(said).exit_code(), code, "{said}");
        }
    }

    #[test]
    fn a_report_before_the_pid_is_kept() {
        let failed = || Report::Failed {
            step: NO_STEP,
            fault: Fault { call: "setns".into(), errno: Errno::EPERM },
        };
        for (said, told) in [
            (vec![Report::Cloned(7)], (Some(7), None)),
            (vec![Report::Limits, Report::Cloned(7)], (Some(7), Some(Report::Limits))),
            (vec![failed(), Report::Cloned(7)], (Some(7), Some(failed()))),
            (vec![failed()], (None, Some(failed()))),
            (vec![], (None, None)),
        ] {
            let (parent, child) = protocol::pair().unwrap();
            said.iter().for_each(|report| child.send(report).unwrap());
            drop(child);
            assert_eq!(receive_pid(&parent).unwrap(), told, "{said:?}");
        }
    }
}
