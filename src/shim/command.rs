//! Runs the runtime as a command: its arguments, its streams, and what it printed.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;

use super::membership::HostNamespaces;
use super::options::Options;
use crate::cli::log::STDERR_IS_THE_CONTAINERS;
use crate::error::{Error, OsContext, Result, text};
use crate::fs::record;
use crate::path::{c_path, c_string};
use crate::sys::pidfd::Ended;
use crate::sys::process::Vector;
use crate::sys::spawn::{Image, Refusal, SpawnOptions, spawn_with};

/// Maximum length of an answer that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// A call of the runtime. The command is killed with the shim, so that it does not run beside a cleanup.
pub struct Command<'a> {
    pub options: &'a Options,
    pub namespace: &'a str,
    pub bundle: &'a Path,
    /// Log of this call alone: an entry of another call would be taken for its error.
    pub log: Option<&'a Path>,
    pub words: &'a [&'a str],
    /// Namespaces in which the command starts, if the shim has left them.
    pub home: &'a HostNamespaces,
}

impl Command<'_> {
    fn argv(&self) -> Result<Vec<CString>> {
        let root = self.options.state_root(self.namespace);
        let mut words = vec![self.options.binary()?, c"--root".into(), c_path("root", &root)?];
        if let Some(log) = self.log {
            words.extend([c"--log".into(), c_path("log", log)?]);
            words.extend([c"--log-format".into(), c"json".into()]);
        }
        if self.options.systemd_cgroup {
            words.push(c"--systemd-cgroup".into());
        }
        if self.words.first() == Some(&"create") {
            for word in self.options.annotation_words() {
                words.push(c_string("argument", word.as_bytes())?);
            }
        }
        for word in self.words {
            words.push(c_string("argument", word.as_bytes())?);
        }
        Ok(words)
    }

    /// Starts the command and returns its pid; the server reaps it like every child.
    ///
    /// # Errors
    ///
    /// The binary is not found, or cannot be executed.
    pub fn spawn(&self, stdio: [BorrowedFd; 3]) -> Result<i32> {
        let argv = self.argv()?;
        let cwd = c_path("bundle", self.bundle)?;
        let mut env = environment();
        if self.log.is_some() {
            let variable = format!("{STDERR_IS_THE_CONTAINERS}=1");
            env.push(c_string("environment", variable.as_bytes())?);
        }
        let image = Image {
            path: &argv[0],
            argv: Vector::new(&argv),
            env: Vector::new(&env),
            cwd: Some(&cwd),
        };
        let namespaces = self.home.namespaces();
        let extras = SpawnOptions {
            dies_with_parent: true,
            namespaces: &namespaces,
            ..SpawnOptions::default()
        };
        spawn_with(&image, stdio, extras)
            .map(|child| child.pid)
            .map_err(|refusal| refused(&argv[0], self.bundle, refusal))
    }
}

fn refused(program: &CString, cwd: &Path, refusal: Refusal) -> Error {
    let program = program.to_string_lossy();
    match refusal {
        Refusal::Spawn(errno) => Error::os("clone", "", errno),
        Refusal::Chdir(errno) => Error::os("chdir", cwd.display(), errno),
        Refusal::Exec(errno) => Error::os("fork/exec", program, errno)
            .hint("is BinaryName in the options of the runtime an executable?"),
    }
}

/// Starts another program, with these arguments, variables and descriptors from 3 on.
///
/// # Errors
///
/// The program is not found, or cannot be executed.
pub fn spawn_logger(
    argv: &[CString],
    env: &[CString],
    descriptors: &[BorrowedFd],
    home: &HostNamespaces,
) -> Result<i32> {
    let null = super::stdio::null_device()?;
    let image = Image { path: &argv[0], argv: Vector::new(argv), env: Vector::new(env), cwd: None };
    let namespaces = home.namespaces();
    let extras = SpawnOptions { descriptors, namespaces: &namespaces, ..SpawnOptions::default() };
    spawn_with(&image, [null.as_fd(); 3], extras)
        .map(|child| child.pid)
        .map_err(|refusal| refused(&argv[0], Path::new("/"), refusal))
}

/// Returns the shim's environment, without NOTIFY_SOCKET, by which the shim's own service manager is notified.
#[expect(clippy::disallowed_methods, reason = "aril gets containerd's environment")]
pub fn environment() -> Vec<CString> {
    let keep = std::env::vars_os().filter(|(key, _)| key != "NOTIFY_SOCKET");
    keep.filter_map(|(key, value)| {
        CString::new([key.into_vec(), value.into_vec()].join(&b'=')).ok()
    })
    .collect()
}

/// Creates a file in memory, which needs no reader while the command runs.
///
/// # Errors
///
/// No memory or descriptor is free.
pub fn scratch(text: &[u8]) -> Result<OwnedFd> {
    let fd = memfd_create(c"aril-shim", MFdFlags::MFD_CLOEXEC).os("memfd_create", "")?;
    if !text.is_empty() {
        let mut file = File::from(fd.try_clone().os("dup", "memfd")?);
        let write = file.write_all(text).and_then(|()| file.seek(SeekFrom::Start(0)));
        write.os("write", "memfd")?;
    }
    Ok(fd)
}

/// Reads all that was written to a [`scratch`] file.
pub fn said(scratch: &OwnedFd) -> String {
    let mut bytes = Vec::new();
    if let Ok(copy) = scratch.try_clone() {
        let mut file = File::from(copy);
        let read = file.seek(SeekFrom::Start(0));
        // An unreadable file counts as empty.
        let _ = read.and_then(|_| file.take(LONGEST as u64).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[derive(Deserialize)]
struct Record {
    level: String,
    msg: String,
}

fn records(log: &Path) -> Vec<Record> {
    let log = record::read(log, LONGEST).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Lists the warnings of a command, such as ignored annotations.
pub fn warnings(log: &Path) -> Vec<String> {
    let warnings = records(log).into_iter().filter(|record| record.level == "warning");
    warnings.map(|record| record.msg).collect()
}

/// Returns why a command failed: the last error of its log, otherwise its output, otherwise how it ended.
pub fn why(log: Option<&Path>, output: &str, ended: Ended) -> String {
    let last = log
        .map(records)
        .unwrap_or_default()
        .into_iter()
        .rfind(|r| r.level == "error" || r.level == "fatal");
    let text = last.map_or_else(|| output.to_owned(), |record| record.msg.trim().to_owned());
    match ended {
        _ if !text.is_empty() => text,
        Ended::Exited(code) => format!("the runtime exited with status {code} and gave no reason"),
        Ended::Signaled(signal) => format!("the runtime was killed by signal {signal}"),
    }
}

/// Reads the number in a pid file of the runtime.
///
/// # Errors
///
/// The file is missing, or contains no number.
pub fn read_pid(path: &Path) -> Result<i32> {
    let text = record::read(path, 32)?;
    let text = String::from_utf8_lossy(&text);
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| Error::system(format!("{}: no pid: {text:?}", path.display())))
}

/// Returns the path of a file in the bundle that belongs to one call.
pub fn file_of_call(bundle: &Path, name: &str, number: u64) -> PathBuf {
    bundle.join(format!("{name}-{number}.json"))
}

/// Returns the text of an errno, for messages that the shim composes.
pub fn errno(errno: nix::errno::Errno) -> String {
    text::errno(errno).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_call() {
        let options = Options {
            binary_name: "/bin/r".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        let command = Command {
            options: &options,
            namespace: "ns",
            bundle: Path::new("/b"),
            log: Some(Path::new("/b/log.json")),
            words: &["start", "c"],
            home: &HostNamespaces::default(),
        };
        let argv = command.argv().unwrap();
        let words: Vec<_> = argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "/bin/r --root /r/ns --log /b/log.json --log-format json --systemd-cgroup start c"
        );
    }

    #[test]
    fn the_reason_is_the_last_error() {
        let path = std::env::temp_dir().join(format!("aril-why-{}", std::process::id()));
        let records = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n\
                       not json\n\
                       {\"level\":\"error\",\"msg\":\" last \"}\n\
                       {\"level\":\"warning\",\"msg\":\"other\"}\n";
        std::fs::write(&path, records).unwrap();
        assert_eq!(why(Some(&path), "printed", Ended::Exited(1)), "last");
        assert_eq!(warnings(&path), ["other"]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(why(Some(&path), "printed", Ended::Exited(1)), "printed");
        assert_eq!(why(None, "", Ended::Signaled(9)), "the runtime was killed by signal 9");
    }

    #[test]
    fn a_scratch_file_is_read_from_its_start() {
        assert_eq!(said(&scratch(b" text\n").unwrap()), "text");
        assert_eq!(said(&scratch(b"").unwrap()), "");
    }
}
