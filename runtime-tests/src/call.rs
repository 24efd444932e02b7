//! One call of a program, with a time limit. Its stdio are files, never pipes: a container inherits them and outlives
//! the call.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::runtime;

/// Time after which a call counts as hanging, also on a machine with ten processes for each processor.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Call {
    stages: Vec<OsString>,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    stdin: Stdio,
    stdout: PathBuf,
    stderr: PathBuf,
    terminal: Option<[Stdio; 3]>,
    patience: Duration,
}

impl Call {
    /// Prepares a call. `outputs`: path of the outputs, `<outputs>.out` for stdout and `<outputs>.err` for stderr.
    pub fn new(program: &Path, dir: &Path, outputs: &Path) -> Self {
        Self {
            stages: Vec::new(),
            argv: vec![program.into()],
            env: Vec::new(),
            dir: dir.into(),
            stdin: Stdio::null(),
            stdout: outputs.with_extension("out"),
            stderr: outputs.with_extension("err"),
            terminal: None,
            patience: PATIENCE,
        }
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// Runs the program in a stage: see `stage --help`. Later stages are inner ones.
    #[must_use]
    pub fn stage<A: AsRef<OsStr>>(mut self, stage: impl IntoIterator<Item = A>) -> Self {
        self.stages.extend(stage.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Puts these words before the command line: a program that runs it.
    #[must_use]
    pub fn before(mut self, words: &[OsString]) -> Self {
        self.argv.splice(0..0, words.iter().cloned());
        self
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().into()));
        self
    }

    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = dir.into();
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Makes stdin, stdout and stderr this terminal, which becomes the controlling terminal.
    #[must_use]
    pub fn on_terminal(mut self, slave: &std::os::fd::OwnedFd) -> Self {
        let copy = || Stdio::from(slave.try_clone().expect("dup"));
        self.terminal = Some([copy(), copy(), copy()]);
        self.stage(["terminal"])
    }

    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Passes the command line to a shell script as its arguments: `"$@"` is the command.
    #[must_use]
    pub fn in_shell(mut self, script: &str) -> Self {
        let mut argv: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(Into::into).into();
        argv.append(&mut self.argv);
        self.argv = argv;
        self
    }

    #[track_caller]
    pub fn spawn(self) -> Running {
        let mut words = Vec::new();
        if !self.stages.is_empty() {
            words.push(runtime::own_directory().join("stage").into_os_string());
            words.extend(self.stages);
            words.push("--".into());
        }
        words.extend(self.argv);
        let mut line = String::new();
        for (key, value) in &self.env {
            let _ = write!(line, "{}={value:?} ", key.display());
        }
        for word in &words {
            let _ = write!(line, "{} ", word.display());
        }

        let create = |path: &Path| File::create(path).expect("an output file");
        let [stdin, stdout, stderr] = self.terminal.unwrap_or_else(|| {
            [self.stdin, create(&self.stdout).into(), create(&self.stderr).into()]
        });
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.env)
            .current_dir(self.dir)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        Running { child, line, patience: self.patience, stdout: self.stdout, stderr: self.stderr }
    }

    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().wait()
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.output().ok()
    }
}

/// Running call.
pub struct Running {
    pub child: Child,
    pub line: String,
    patience: Duration,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        // The child is not reaped before `wait`, so the pid is still its own.
        let _ = nix::sys::signal::kill(self.pid(), signal);
    }

    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    #[track_caller]
    pub fn wait(mut self) -> Output {
        let start = Instant::now();
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if start.elapsed() > self.patience {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "hangs: {}\nstdout: {}\nstderr: {}",
                    self.line,
                    text(&self.stdout),
                    text(&self.stderr)
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        Output {
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            code: status.code(),
            signal: status.signal(),
            line: self.line,
        }
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

#[derive(Debug, Clone)]
pub struct Output {
    pub line: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self:#?}");
        self
    }

    /// Asserts success without output: engines parse stdout and stderr together.
    #[track_caller]
    pub fn silent(self) -> Self {
        let out = self.ok();
        assert!(out.stdout.is_empty() && out.stderr.is_empty(), "not silent: {out:#?}");
        out
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        // runc's text log quotes its messages.
        let said = self.stderr.replace("\\\"", "\"");
        assert!(said.contains(text), "no {text:?} on stderr of {self:#?}");
        self
    }

    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} on stdout of {self:#?}");
        self
    }
}
