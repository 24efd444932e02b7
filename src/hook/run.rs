//! Runs hooks one after the other. Error texts are runc's, because operators search for them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Hook, HookContext, Point};
use crate::error::text;
use crate::sys::clone::Spawned;
use crate::sys::pidfd::{self, Ended};
use crate::sys::process::{Vector, set_nonblocking};
use crate::sys::spawn::{Image, Refusal, pipe, spawn};
use crate::sys::{Errno, Result as SysResult};

/// Maximum number of bytes kept of each of a hook's stdout and stderr, for the error.
const CAPTURE_MAX: usize = 64 << 10;

/// Returns an iterator that runs each hook when its outcome is requested, in order.
///
/// # Errors
///
/// A hook cannot be started. Its own failure is part of the outcome.
pub fn run<'a>(
    point: Point,
    hooks: &'a [Hook],
    context: &'a HookContext,
) -> impl Iterator<Item = Result<(), String>> + 'a {
    hooks.iter().enumerate().map(move |(index, hook)| {
        run_one(hook, context).map_err(|why| format!("error running {point} hook #{index}: {why}"))
    })
}

fn run_one(hook: &Hook, context: &HookContext) -> Result<(), String> {
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    let (child, mut streams) = start(hook, context)?;
    let finished = streams.exchange(&child, deadline).map_err(|e| failed("poll", e))?;
    if !finished {
        // Fails only if the process is already gone.
        let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    }
    let ended = pidfd::wait(child.pidfd.as_fd(), true).map_err(|e| failed("wait", e))?;
    if let (false, Some(timeout)) = (finished, hook.timeout) {
        return Err(format!("hook ran past specified timeout of {:.1}s", timeout.as_secs_f64()));
    }
    match ended {
        None | Some(Ended::Exited(0)) => Ok(()),
        Some(ended) => {
            let [stdout, stderr] = streams.captured();
            Err(format!("{}, stdout: {stdout}, stderr: {stderr}", describe_end(ended)))
        }
    }
}

fn failed(call: &str, errno: Errno) -> String {
    format!("{call}: {}", text::errno(errno))
}

fn start<'a>(hook: &Hook, context: &HookContext<'a>) -> Result<(Spawned, Streams<'a>), String> {
    let image = Image {
        path: &hook.path,
        argv: Vector::new(&hook.argv),
        env: Vector::new(hook.env.as_deref().unwrap_or(context.env)),
        cwd: context.cwd,
    };
    let pipes = || SysResult::Ok([pipe()?, pipe()?, pipe()?]);
    let [(input, state), (stdout, output), (stderr, errors)] =
        pipes().map_err(|e| failed("pipe2", e))?;
    let child =
        spawn(&image, [input.as_fd(), output.as_fd(), errors.as_fd()]).map_err(|refusal| {
            let path = hook.path.to_string_lossy();
            match refusal {
                Refusal::Spawn(errno) => failed("fork", errno),
                Refusal::Exec(errno) => failed(&format!("fork/exec {path}"), errno),
                Refusal::Chdir(errno) => {
                    let cwd = context.cwd.unwrap_or_default().to_string_lossy();
                    failed(&format!("chdir {cwd}"), errno)
                }
            }
        })?;
    let streams = Streams {
        _input: input,
        state: Some(File::from(state)),
        unsent: context.state,
        outputs: [Capture::new(stdout), Capture::new(stderr)],
    };
    Ok((child, streams))
}

struct Streams<'a> {
    /// The hook's end of its stdin. Held open so that writing to a hook that does not read it raises no SIGPIPE,
    /// which this process may no longer ignore.
    _input: OwnedFd,
    /// Closed when everything is written, which the hook sees as the end of the file.
    state: Option<File>,
    unsent: &'a [u8],
    outputs: [Capture; 2],
}

struct Capture {
    /// `None` after the end of the file.
    source: Option<File>,
    bytes: Vec<u8>,
}

impl Streams<'_> {
    /// Writes the state and reads output until the child ends. Returns false if it has not ended by the deadline.
    fn exchange(&mut self, child: &Spawned, deadline: Option<Instant>) -> SysResult<bool> {
        if let Some(state) = &self.state {
            set_nonblocking(state)?;
        }
        for source in self.outputs.iter().filter_map(|capture| capture.source.as_ref()) {
            set_nonblocking(source)?;
        }
        loop {
            self.move_bytes();
            if pidfd::wait_end(child.pidfd.as_fd(), 0)? {
                self.move_bytes();
                return Ok(true);
            }
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            self.wait(child, left)?;
        }
    }

    fn wait(&self, child: &Spawned, left: Option<Duration>) -> SysResult<()> {
        let mut fds = vec![PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.state.iter().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLOUT)));
        let sources = self.outputs.iter().filter_map(|capture| capture.source.as_ref());
        fds.extend(sources.map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
        // Rounded up, so that the last millisecond is not spent polling; limited to poll's range.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn move_bytes(&mut self) {
        if let Some(state) = &mut self.state {
            match state.write(self.unsent) {
                Ok(length) => self.unsent = &self.unsent[length..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // A hook may close its stdin before it has read the state.
                Err(_) => self.unsent = &[],
            }
            if self.unsent.is_empty() {
                self.state = None;
            }
        }
        self.outputs.iter_mut().for_each(Capture::read);
    }

    fn captured(&self) -> [std::borrow::Cow<'_, str>; 2] {
        [&self.outputs[0], &self.outputs[1]].map(|capture| String::from_utf8_lossy(&capture.bytes))
    }
}

impl Capture {
    fn new(source: OwnedFd) -> Self {
        Self { source: Some(source.into()), bytes: Vec::new() }
    }

    /// Reads what is available. Discards what exceeds the maximum.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(source) = &mut self.source {
            match source.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    let room = CAPTURE_MAX - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.source = None,
            }
        }
    }
}

/// Describes the end of a process like Go's os/exec.
fn describe_end(ended: Ended) -> String {
    const SIGNALS: [&str; 32] = [
        "signal 0",
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
        "stack fault",
        "child exited",
        "continued",
        "stopped (signal)",
        "stopped",
        "stopped (tty input)",
        "stopped (tty output)",
        "urgent I/O condition",
        "CPU time limit exceeded",
        "file size limit exceeded",
        "virtual timer expired",
        "profiling timer expired",
        "window changed",
        "I/O possible",
        "power failure",
        "bad system call",
    ];
    match ended {
        Ended::Exited(code) => format!("exit status {code}"),
        Ended::Signaled(signal) => {
            let name = usize::try_from(signal).ok().and_then(|n| SIGNALS.get(n));
            name.map_or_else(
                || format!("signal: signal {signal}"),
                |name| format!("signal: {name}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn hook(script: &str) -> Hook {
        let argv = ["name0", "-c", script].map(|arg| CString::new(arg).unwrap()).to_vec();
        Hook { path: c"/bin/sh".into(), argv, env: None, timeout: None }
    }

    fn run_script(script: &str, state: &[u8]) -> Result<(), String> {
        let context = HookContext { state, env: &[c"A=b".into()], cwd: Some(c"/usr") };
        run(Point::CreateRuntime, &[hook("true"), hook(script)], &context).collect()
    }

    #[test]
    fn a_hook_gets_state_environment_and_directory() {
        let script = r#"read -r line; [ "$line" = '{"id":1}' ] && [ "$A" = b ] && [ "$PWD" = /usr ] && [ "$0" = name0 ]"#;
        assert_eq!(run_script(script, b"{\"id\":1}\n"), Ok(()));
    }

    #[test]
    fn failures_show_output() {
        assert_eq!(
            run_script("echo out; echo err >&2; exit 3", b"").unwrap_err(),
            "error running createRuntime hook #1: exit status 3, stdout: out\n, stderr: err\n"
        );
        assert_eq!(
            run_script("kill -9 $$", b"").unwrap_err(),
            "error running createRuntime hook #1: signal: killed, stdout: , stderr: "
        );
    }

    #[test]
    fn unread_state_and_endless_output_do_not_block() {
        let state = vec![b'x'; 1 << 20];
        assert_eq!(run_script("exit 0", &state), Ok(()));
        assert_eq!(run_script("[ $(wc -c) = 1048576 ]", &state), Ok(()));
        let why = run_script("head -c 1000000 /dev/zero; exit 1", b"").unwrap_err();
        assert!(why.len() < 2 * CAPTURE_MAX, "{}", why.len());
    }

    #[test]
    fn processes_that_a_hook_leaves_are_not_waited_for() {
        let pid = std::env::temp_dir().join(format!("aril-hook-{}", std::process::id()));
        let script = format!("exec sleep 1000 & echo $! > {}; exit 0", pid.display());
        assert_eq!(run_script(&script, b""), Ok(()));
        let text = std::fs::read_to_string(&pid).unwrap();
        std::fs::remove_file(&pid).unwrap();
        let left = nix::unistd::Pid::from_raw(text.trim().parse().unwrap());
        // The process that the hook started still runs: it was not waited for.
        nix::sys::signal::kill(left, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_timeout_ends_the_hook() {
        let mut slow = hook("exec sleep 9");
        slow.timeout = Some(Duration::from_millis(100));
        let context = HookContext { state: b"", env: &[], cwd: None };
        assert_eq!(
            run(Point::Poststop, &[slow], &context).next().unwrap().unwrap_err(),
            "error running poststop hook #0: hook ran past specified timeout of 0.1s"
        );
    }

    #[test]
    fn errors_name_what_cannot_be_executed() {
        let mut none = hook("");
        none.path = c"/nonexistent".into();
        let mut context = HookContext { state: b"", env: &[], cwd: None };
        assert_eq!(
            run(Point::Prestart, &[none.clone()], &context).next().unwrap().unwrap_err(),
            "error running prestart hook #0: fork/exec /nonexistent: no such file or directory"
        );
        context.cwd = Some(c"/nonexistent/cwd");
        assert_eq!(
            run(Point::Prestart, &[none], &context).next().unwrap().unwrap_err(),
            "error running prestart hook #0: chdir /nonexistent/cwd: no such file or directory"
        );
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "a test asks for the shell")]
    fn a_magic_link_is_executed_as_it_is() {
        let mut link = hook("exit 0");
        let shell = std::process::Command::new("/bin/sh")
            .args(["-c", "read line"])
            .stdin(std::process::Stdio::piped())
            .spawn();
        let mut shell = shell.unwrap();
        link.path = CString::new(format!("/proc/{}/exe", shell.id())).unwrap();
        let context = HookContext { state: b"", env: &[], cwd: None };
        let outcome = run(Point::Prestart, &[link], &context).next().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(outcome, Ok(()));
    }
}
