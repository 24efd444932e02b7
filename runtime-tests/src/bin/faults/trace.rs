//! `faults trace REPORT POINT|count -- COMMAND ...`: runs a command under ptrace(2), with a fault at one of its calls.
//!
//! Process 0 is the command. The others are its descendants, until they execute a program: that is the container's. When the
//! command has ended and nothing more happens, the tracer ends, which releases processes that stay, such as a container's init
//! that waits for `start`. The report has lines of words that are separated by tabs: see [`Report`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{self, Object};
use crate::point::{Fault, Point};
use crate::tracee::{self, Stop};

/// Time after which a command hangs. A run without a fault takes some 50 ms.
const HANGS: Duration = Duration::from_secs(30);
/// Time without an event after which the processes that are left wait for something outside.
const QUIET: Duration = Duration::from_millis(40);
/// Longest time for which a process is held.
const HELD: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Tracee {
    number: usize,
    calls: usize,
    name: String,
    /// Error to return from the call that was skipped.
    error: Option<Errno>,
    dies_at_exit: bool,
    /// False before the stop with which a new process begins.
    begun: bool,
}

struct Tracer {
    report: File,
    path: PathBuf,
    point: Option<Point>,
    main: Pid,
    tracees: BTreeMap<Pid, Tracee>,
    seen: usize,
    held: Option<(Pid, Instant)>,
    ended: bool,
    last_event: Instant,
}

/// What a tracer wrote.
#[derive(Debug, Default)]
pub struct Report {
    /// Process, number, name and argument of each call.
    pub calls: Vec<(usize, usize, String, String)>,
    /// Name and argument of the call at the point, if the run came to it.
    pub reached: Option<(String, String)>,
    /// True once a process is held at the point.
    pub is_held: bool,
    /// Exit status of the command, or 128 and the number of the signal.
    pub status: Option<i32>,
    /// Processes and calls that a hanging command is in.
    pub hangs: Vec<String>,
}

impl Report {
    pub fn read(path: &Path) -> Self {
        let mut report = Self::default();
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let number = |index: usize| words.get(index).and_then(|w| w.parse().ok()).unwrap_or(0);
            let word = |index: usize| words.get(index).copied().unwrap_or_default().to_owned();
            match words[0] {
                "call" => report.calls.push((number(1), number(2), word(3), word(4))),
                "reached" => report.reached = Some((word(1), word(2))),
                "held" => report.is_held = true,
                "ended" => report.status = words.get(1).and_then(|w| w.parse().ok()),
                "hangs" => report.hangs.push(format!("process {} in {}", word(1), word(2))),
                _ => {}
            }
        }
        report
    }
}

/// File whose existence releases a held process.
pub fn release(report: &Path) -> PathBuf {
    report.with_extension("release")
}

pub fn main(words: &[OsString]) -> Result<()> {
    let [report, point, separator, program, arguments @ ..] = words else {
        bail!("usage: faults trace REPORT POINT|count -- COMMAND ...");
    };
    let point = match point.to_str() {
        Some("count") => None,
        Some(text) => Some(text.parse()?),
        None => bail!("a point is text"),
    };
    anyhow::ensure!(separator == "--", "-- before the command");
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: one system call between fork and exec, without arguments.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from)) };
    let path = PathBuf::from(report);
    let report = File::create(&path).with_context(|| path.display().to_string())?;
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let main = Pid::from_raw(child.id().cast_signed());
    let mut tracer = Tracer {
        report,
        path,
        point,
        main,
        tracees: BTreeMap::new(),
        seen: 0,
        held: None,
        ended: false,
        last_event: Instant::now(),
    };
    tracer.run()
}

impl Tracer {
    fn run(&mut self) -> Result<()> {
        let started = Instant::now();
        interrupt_waits()?;
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {
                    if self.is_done() {
                        return Ok(());
                    }
                    self.release_held();
                }
                Ok(status) => {
                    self.last_event = Instant::now();
                    self.handle(status)?;
                }
                Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(errno).context("waitpid"),
            }
            if started.elapsed() > HANGS {
                return self.give_up();
            }
        }
    }

    fn write(&mut self, line: &str) -> Result<()> {
        writeln!(self.report, "{line}").context("write the report")
    }

    fn is_done(&self) -> bool {
        self.ended && self.held.is_none() && self.last_event.elapsed() > QUIET
    }

    fn give_up(&mut self) -> Result<()> {
        let lines: Vec<String> = self
            .tracees
            .values()
            .map(|tracee| format!("hangs\t{}\t{}", tracee.number, tracee.name))
            .collect();
        lines.iter().try_for_each(|line| self.write(line))?;
        self.kill_all();
        Ok(())
    }

    fn kill_all(&self) {
        for pid in self.tracees.keys() {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }

    fn handle(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Exited(pid, code) => self.end(pid, code),
            WaitStatus::Signaled(pid, signal, _) => self.end(pid, 128 + signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
            WaitStatus::Stopped(pid, signal) => self.at_signal(pid, signal),
            _ => Ok(()),
        }
    }

    fn end(&mut self, pid: Pid, code: i32) -> Result<()> {
        self.tracees.remove(&pid);
        if self.held.is_some_and(|(held, _)| held == pid) {
            self.held = None;
        }
        if pid == self.main {
            self.ended = true;
            self.write(&format!("ended\t{code}"))?;
        }
        Ok(())
    }

    /// Adds a process at its first stop, or at its parent's report of it, whichever comes first.
    fn tracee(&mut self, pid: Pid) -> &mut Tracee {
        let seen = &mut self.seen;
        self.tracees.entry(pid).or_insert_with(|| {
            let number = *seen;
            *seen += 1;
            Tracee { number, ..Tracee::default() }
        })
    }

    fn at_signal(&mut self, pid: Pid, signal: Signal) -> Result<()> {
        let tracee = self.tracee(pid);
        if tracee.begun {
            proceed(pid, Some(signal));
            return Ok(());
        }
        // SIGTRAP of execve(2), or SIGSTOP of a new process.
        tracee.begun = true;
        if pid == self.main {
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC;
            ptrace::setoptions(pid, options).context("PTRACE_SETOPTIONS")?;
        }
        proceed(pid, None);
        Ok(())
    }

    fn at_event(&mut self, pid: Pid, event: i32) -> Result<()> {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Ok(child) = ptrace::getevent(pid) {
                    self.tracee(Pid::from_raw(i32::try_from(child)?));
                }
            }
            // The command executes itself from a sealed copy; a descendant executes another program.
            libc::PTRACE_EVENT_EXEC if pid != self.main => {
                self.tracees.remove(&pid);
                let _ = ptrace::detach(pid, None);
                return Ok(());
            }
            _ => {}
        }
        proceed(pid, None);
        Ok(())
    }

    fn at_call(&mut self, pid: Pid) -> Result<()> {
        match tracee::stop(pid) {
            Ok(Stop::Entry { number, arguments }) => self.at_entry(pid, number, arguments),
            Ok(Stop::Exit) => {
                self.at_exit(pid);
                Ok(())
            }
            // It was killed in the meantime.
            Ok(Stop::Other) | Err(_) => {
                proceed(pid, None);
                Ok(())
            }
        }
    }

    fn at_entry(&mut self, pid: Pid, number: i64, arguments: [u64; 6]) -> Result<()> {
        let kind = calls::of(number);
        let kind = kind.filter(|_| !cannot_fail(number, arguments[1]));
        let name = kind.map_or_else(|| format!("call {number}"), |kind| kind.name.to_owned());
        let path = match kind.map_or(Object::None, |kind| kind.object) {
            Object::None => None,
            Object::Path(index) => tracee::string(pid, arguments[index]),
            Object::Descriptor => tracee::file(pid, arguments[0]),
        };
        let path = path.unwrap_or_default();
        let tracee = self.tracee(pid);
        tracee.calls += 1;
        tracee.name.clone_from(&name);
        let (process, call) = (tracee.number, tracee.calls);
        let Some(point) = self.point else {
            self.write(&format!("call\t{process}\t{call}\t{name}\t{path}"))?;
            proceed(pid, None);
            return Ok(());
        };
        if (point.process, point.call) == (process, call) {
            self.write(&format!("reached\t{name}\t{path}"))?;
            return self.inject(pid, point.fault);
        }
        proceed(pid, None);
        Ok(())
    }

    fn inject(&mut self, pid: Pid, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => drop(kill(pid, Signal::SIGKILL)),
            Fault::KillAll => self.kill_all(),
            Fault::KillAfter => self.tracee(pid).dies_at_exit = true,
            Fault::Fail(errno) => {
                tracee::skip_call(pid).context("skip the call")?;
                self.tracee(pid).error = Some(errno);
            }
            Fault::Hold => {
                self.held = Some((pid, Instant::now()));
                return self.write("held");
            }
        }
        proceed(pid, None);
        Ok(())
    }

    fn at_exit(&mut self, pid: Pid) {
        let tracee = self.tracee(pid);
        if let Some(errno) = tracee.error.take() {
            let _ = tracee::set_error(pid, errno);
        }
        if std::mem::take(&mut tracee.dies_at_exit) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        proceed(pid, None);
    }

    fn release_held(&mut self) {
        if let Some((pid, since)) = self.held
            && (since.elapsed() > HELD || release(&self.path).exists())
        {
            self.held = None;
            self.last_event = Instant::now();
            proceed(pid, None);
        }
    }
}

/// True for a call that fails with some arguments only: to unlock an open file, or to read its flags.
fn cannot_fail(number: i64, argument: u64) -> bool {
    let duplicates = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].map(|command| command as u64);
    match number {
        libc::SYS_flock => argument == libc::LOCK_UN as u64,
        libc::SYS_fcntl => !duplicates.contains(&argument),
        _ => false,
    }
}

/// Makes waits return EINTR every 10 ms, to look at the time.
fn interrupt_waits() -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action) }.context("sigaction")?;
    let often = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    let timer = libc::itimerval { it_interval: often, it_value: often };
    // SAFETY: the timer is read before the call returns.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    Errno::result(set).map(drop).context("setitimer")
}

/// Lets a process go on to its next stop. A process that was killed in the meantime is no error (ESRCH).
fn proceed(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let file = std::env::temp_dir().join(format!("aril-faults-{}", std::process::id()));
        let text = "call\t0\t1\texecve\t/bin/true\nreached\topen\t/a b\nheld\nended\t137\nhangs\t1\tread\n";
        std::fs::write(&file, text).expect("a file");
        let report = Report::read(&file);
        std::fs::remove_file(&file).expect("remove");
        assert_eq!(report.calls, [(0, 1, "execve".to_owned(), "/bin/true".to_owned())]);
        assert_eq!(report.reached, Some(("open".to_owned(), "/a b".to_owned())));
        assert!(report.is_held);
        assert_eq!(report.status, Some(137));
        assert_eq!(report.hangs, ["process 1 in read"]);
    }
}
