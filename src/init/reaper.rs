//! `--init`: runs Aril as the container's init process, with the container's program as its child.
//!
//! Most programs are not written to be pid 1: they do not reap orphans, and the kernel drops signals to pid 1 for
//! which it has no handler. So the last step of a start executes Aril's binary again, by file descriptor, as
//! `aril-init PROGRAM ARGUMENTS`. Its memory then holds nothing of the host, and the container cannot write the
//! sealed binary (see [`super::seal`]). The init process executes the program in a child, forwards signals to it,
//! reaps orphans, and exits with the program's exit status.

use std::ffi::{CString, OsString};
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::error::fault::{Attempt, ChildResult};
use crate::error::{Fault, OsContext, Result, text};
use crate::hook::parent::own_environment;
use crate::identity::executable;
use crate::sys::clone::SingleThread;
use crate::sys::pidfd::{Ended, wait_any};
use crate::sys::process::{self, Vector};
use crate::sys::{self, Errno, signal};

/// First word of the command line, and name of the process.
pub const NAME: &std::ffi::CStr = c"aril-init";

/// Executes `binary` as the init process. Returns only if execveat(2) fails.
pub(super) fn execute(binary: BorrowedFd<'_>, argv: &Vector, environment: &Vector) -> Fault {
    let errno = process::execute_descriptor(binary, argv, environment);
    Fault::refused(format!("exec aril-init: {}", text::errno(errno)))
}

/// Runs the init process if the command line `words` is one, and returns its exit status.
pub fn called(words: &[OsString]) -> Option<u8> {
    let [name, program @ ..] = words else { return None };
    if name.as_encoded_bytes() != NAME.to_bytes() || program.len() < 2 {
        return None;
    }
    let words: Vec<_> =
        program.iter().filter_map(|word| CString::new(word.clone().into_vec()).ok()).collect();
    Some(run(&words).unwrap_or_else(|error| {
        // The container's stderr is the only output.
        let _ = writeln!(std::io::stderr(), "aril-init: {error}");
        1
    }))
}

/// Runs the program: the first word is its path, the others are its arguments.
fn run(words: &[CString]) -> Result<u8> {
    signal::block_all().os("sigprocmask", "")?;
    let signals = signal::descriptor().os("signalfd", "")?;
    nix::sys::prctl::set_name(NAME).os("prctl", "PR_SET_NAME")?;
    // Needed where this process is not pid 1 of a pid namespace.
    nix::sys::prctl::set_child_subreaper(true).os("prctl", "PR_SET_CHILD_SUBREAPER")?;
    let Some(program) = sys::clone::fork(SingleThread::proof()).os("fork", "")? else {
        let fault = become_program(words);
        let message = fault.to_string();
        let _ = writeln!(std::io::stderr(), "{message}");
        let missing = message.ends_with(&*text::errno(Errno::ENOENT));
        sys::clone::exit_now(if missing { 127 } else { 126 });
    };
    loop {
        let mut polled = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.os("poll", "signalfd")?,
        };
        while let Some(signal) = signal::next(signals.as_fd()).os("read", "signalfd")? {
            match signal {
                libc::SIGCHLD => {}
                // An error means that the program has just ended. It is reaped next.
                signal => drop(signal::send(program.pid, signal)),
            }
        }
        if let Some(ended) = reap(program.pid)? {
            return Ok(ended.code() as u8);
        }
    }
}

/// Reaps all children that have ended. Returns how `program` ended, if it is one of them.
fn reap(program: libc::pid_t) -> Result<Option<Ended>> {
    let mut of_program = None;
    loop {
        match wait_any() {
            Ok(Some((pid, ended))) if pid == program => of_program = Some(ended),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::ECHILD) => return Ok(of_program),
            Err(errno) => return Err(errno).os("waitid", ""),
        }
    }
}

/// Executes the program in a new process group, which becomes the terminal's foreground group.
fn become_program(words: &[CString]) -> Fault {
    if let Err(fault) = prepare() {
        return fault;
    }
    let Some((path, arguments)) = words.split_first() else { return Fault::refused("no program") };
    let environment = own_environment();
    executable::execute(path, &Vector::new(arguments), &Vector::new(&environment))
}

fn prepare() -> ChildResult<()> {
    nix::unistd::setpgid(Pid::this(), Pid::this()).during("setpgid")?;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        // Fails on a terminal of another session. A background process may do this while SIGTTOU is blocked.
        let _ = nix::unistd::tcsetpgrp(&stdin, nix::unistd::getpid());
    }
    process::restore_soft_limits(|_| false);
    signal::reset().during("sigprocmask")
}
