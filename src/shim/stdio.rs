//! Opens the standard streams of a process, as containerd names them.
//!
//! Data is copied only where that is necessary: the container gets the fifo, the file or the logger's pipe itself. The
//! shim keeps the client's end of a fifo open, so that a client may disconnect and return without an end of file or a
//! broken pipe in the container. Three cases are relayed ([`super::relay`]): a terminal; streams of a container with
//! an SELinux label, which may use pipes of its runtime but not fifos of engines; and the fifos that an exec writes
//! to. A process that an exec leaves behind inherits its outputs: with the fifo itself, the client would see no end of
//! file even after Delete, and containerd waits for it (`drain_exec_sync_io_timeout` works by Delete).
//!
//! ```text
//! client --fifo--> container           (shim holds a second end)
//! client --fifo--> shim --pipe, pty--> container   (relayed)
//! ```

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;

use super::status::Status;
use crate::error::{Error, OsContext, Result};
use crate::sys::process;
use crate::sys::spawn::pipe;

/// Streams of a request; an empty text means none.
#[derive(Debug, Clone, Default)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// Destination of one stream.
#[derive(Debug, PartialEq, Eq)]
enum Stream {
    Null,
    Fifo(PathBuf),
    File(PathBuf),
    Logger(Logger),
}

/// Program that reads both outputs: on descriptors 3 and 4. It reports on 5 that it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logger {
    pub argv: Vec<CString>,
    /// True for `binary-v2`, where closing 5 without a byte is a failure.
    pub must_answer: bool,
}

impl Stream {
    fn parse(uri: &str) -> std::result::Result<Self, Status> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Ok(if uri.is_empty() { Self::Null } else { Self::Fifo(uri.into()) });
        };
        match scheme {
            "fifo" => Ok(Self::Fifo(rest.into())),
            "file" => Ok(Self::File(decoded(rest.split('?').next().unwrap_or_default()).into())),
            "binary" | "binary-v2" => Ok(Self::Logger(logger(rest, scheme == "binary-v2")?)),
            _ => {
                Err(Status::invalid(format!("standard stream {uri:?}: unknown scheme {scheme:?}")))
            }
        }
    }
}

/// Parses `PATH?KEY=VALUE&...`; the pairs are the arguments.
fn logger(rest: &str, must_answer: bool) -> std::result::Result<Logger, Status> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let words = pairs.flat_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        [key.replace('+', " "), value.replace('+', " ")]
    });
    let all = [path.to_owned()].into_iter().chain(words);
    let argv = all.map(|word| CString::new(decoded(&word)));
    let argv = argv.collect::<std::result::Result<_, _>>();
    Ok(Logger { argv: argv.map_err(|_| Status::invalid("logger: NUL in its words"))?, must_answer })
}

/// Decodes `%XX` to a byte.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|h| u8::from_str_radix(str::from_utf8(h).ok()?, 16).ok());
        (rest, _) = match (first, hex) {
            (b'%', Some(byte)) => (&tail[2..], bytes.push(byte)),
            _ => (tail, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Open streams: those of the runtime, and those that the shim keeps.
#[derive(Debug)]
pub struct Open {
    /// Standard input, output and error of the runtime, and so of the container.
    pub child: [OwnedFd; 3],
    pub held: Held,
    /// Source and sink of a stream to relay.
    pub input: Option<(OwnedFd, OwnedFd)>,
    pub outputs: Vec<(OwnedFd, OwnedFd)>,
    pub logger: Option<(Logger, [OwnedFd; 2])>,
    /// Streams to connect to the master of a terminal.
    pub terminal: Option<Terminal>,
}

/// The shim's ends of fifos.
#[derive(Debug, Default)]
pub struct Held {
    /// Writing end of stdin: while it is open, the container's input does not end.
    pub stdin: Option<OwnedFd>,
    readers: Vec<OwnedFd>,
}

impl Held {
    /// Closes the shim's reading end of the fifo that `sink` writes to. Returns false if there is none.
    pub fn close_reader(&mut self, sink: &OwnedFd) -> bool {
        let file = |end: &OwnedFd| fstat(end).map(|status| (status.st_dev, status.st_ino));
        let found = self.readers.iter().position(
            |reader| matches!((file(reader), file(sink)), (Ok(reader), Ok(sink)) if reader == sink),
        );
        found.map(|index| self.readers.swap_remove(index)).is_some()
    }
}

/// Writing end of a fifo whose output has ended before a client opened it. It stays open until a client has opened the
/// fifo: without a writer, the client's open(2) would not return, and without any open end the kernel discards the
/// content. No event reports the open, so the shim polls.
#[derive(Debug)]
pub struct Unopened {
    sink: OwnedFd,
    pub look_at: Instant,
    pause: Duration,
}

impl Unopened {
    /// Returns the end, with the time of the first check.
    pub fn new(sink: OwnedFd) -> Self {
        Self { sink, look_at: Instant::now(), pause: Duration::from_millis(1) }
    }

    /// Returns true if no client reads. The shim has closed its own reading end.
    pub fn is_unread(&mut self, now: Instant) -> bool {
        const LONGEST: Duration = Duration::from_secs(1);
        if now < self.look_at {
            return true;
        }
        let mut sink = [PollFd::new(self.sink.as_fd(), PollFlags::empty())];
        let polled = poll(&mut sink, PollTimeout::ZERO);
        let events = sink[0].revents().unwrap_or(PollFlags::empty());
        self.pause = (self.pause * 2).min(LONGEST);
        self.look_at = now + self.pause;
        // Writing to a fifo without a reader fails.
        polled.is_ok() && events.contains(PollFlags::POLLERR)
    }
}

/// Streams of a terminal.
#[derive(Debug)]
pub struct Terminal {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
}

/// Streams to open.
pub struct StreamRequest<'a> {
    pub stdio: &'a Stdio,
    /// Owner of the container's ends.
    pub owner: (u32, u32),
    pub relayed: Relayed,
}

/// Streams that get a pipe and a relay in place of the engine's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    Nothing,
    OutputFifos,
    All,
}

/// Opens the streams of a process.
///
/// # Errors
///
/// A stream has an unknown scheme, or cannot be opened.
pub fn open(wanted: &StreamRequest) -> std::result::Result<Open, Status> {
    let StreamRequest { stdio, owner, relayed } = wanted;
    let [stdin, stdout, stderr] =
        [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|uri| Stream::parse(uri));
    let (stdin, stdout, mut stderr) = (stdin?, stdout?, stderr?);
    if stdio.terminal {
        // A terminal has one output.
        stderr = Stream::Null;
    }
    let fifos = [&stdout, &stderr].map(|stream| matches!(stream, Stream::Fifo(_)));
    let mut held = Held::default();
    let mut logger = None;
    let mut input = match stdin {
        Stream::Fifo(path) => {
            let reader = open_fifo(&path, libc::O_RDONLY | libc::O_NONBLOCK)?;
            held.stdin = Some(open_fifo(&path, libc::O_WRONLY | libc::O_NONBLOCK)?);
            Some(reader)
        }
        Stream::Null => None,
        _ => return Err(Status::invalid(format!("stdin {:?}: only fifos are read", stdio.stdin))),
    };
    let mut sink = |stream: Stream, held: &mut Held| -> std::result::Result<_, Status> {
        Ok(match stream {
            Stream::Null => None,
            Stream::Fifo(path) => Some(output(&path, held)?),
            Stream::File(path) => Some(append(&path)?),
            Stream::Logger(program) => {
                let (reader, writer) = pipe().os("pipe2", "logger")?;
                let (_, readers) = logger.get_or_insert_with(|| (program, Vec::new()));
                readers.push(reader);
                Some(writer)
            }
        })
    };
    let mut outputs = [sink(stdout, &mut held)?, sink(stderr, &mut held)?];
    let logger = logger.map(|(program, readers)| with_both(program, readers)).transpose()?;
    let null = || null_device();
    if stdio.terminal {
        let [stdout, _] = outputs;
        if let Some(stdout) = &stdout {
            process::set_nonblocking(stdout).os("fcntl", "stdout")?;
        }
        let terminal = Terminal { stdin: input, stdout };
        let child = [null()?, null()?, null()?];
        let (input, outputs) = (None, Vec::new());
        return Ok(Open { child, held, input, outputs, logger, terminal: Some(terminal) });
    }
    let mut relays = Vec::new();
    let mut relayed_input = None;
    for (output, is_fifo) in outputs.iter_mut().zip(fifos) {
        let wanted = *relayed == Relayed::All || (*relayed == Relayed::OutputFifos && is_fifo);
        if let Some(output) = output.as_mut().filter(|_| wanted) {
            let (reader, writer) = pipe().os("pipe2", "output")?;
            process::set_nonblocking(&reader).os("fcntl", "output")?;
            process::set_nonblocking(&*output).os("fcntl", "output")?;
            relays.push((reader, std::mem::replace(output, writer)));
        }
    }
    if *relayed == Relayed::All {
        if let Some(fifo) = input.as_mut() {
            let (reader, writer) = pipe().os("pipe2", "stdin")?;
            process::set_nonblocking(&writer).os("fcntl", "stdin")?;
            relayed_input = Some((std::mem::replace(fifo, reader), writer));
        }
    } else if let Some(fifo) = &input {
        set_blocking(fifo).os("fcntl", "stdin")?;
    }
    let [stdout, stderr] = outputs;
    for end in [&input, &stdout, &stderr].into_iter().flatten() {
        change_owner(end, *owner)?;
    }
    let child = [
        input.map_or_else(null, Ok)?,
        stdout.map_or_else(null, Ok)?,
        stderr.map_or_else(null, Ok)?,
    ];
    Ok(Open { child, held, input: relayed_input, outputs: relays, logger, terminal: None })
}

fn with_both(program: Logger, readers: Vec<OwnedFd>) -> Result<(Logger, [OwnedFd; 2])> {
    let mut readers = readers.into_iter();
    let mut next = || match readers.next() {
        Some(reader) => Ok(reader),
        // A terminal, or another destination for stderr: this logger reads one output only.
        None => null_device(),
    };
    Ok((program, [next()?, next()?]))
}

/// Opens /dev/null.
///
/// # Errors
///
/// The device is missing.
pub fn null_device() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).os("open", "/dev/null")
}

/// Opens a fifo without waiting for the other side. A link in the last part of the path is not followed.
fn open_fifo(path: &Path, flags: i32) -> Result<OwnedFd> {
    let read = flags & libc::O_ACCMODE != libc::O_WRONLY;
    let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let flags = flags & !libc::O_ACCMODE;
    let mut options = OpenOptions::new();
    let file = options.read(read).write(write).custom_flags(flags).open(path);
    file.map(OwnedFd::from).os("open", path.display())
}

/// Opens the writing end for the container. The shim keeps the reading end open: without it, the open would fail, and
/// later a client that disconnects would break the pipe.
fn output(path: &Path, held: &mut Held) -> Result<OwnedFd> {
    let kind = std::fs::metadata(path).os("stat", path.display())?.file_type();
    if !kind.is_fifo() {
        let file = OpenOptions::new().append(true).open(path);
        return file.map(OwnedFd::from).os("open", path.display());
    }
    held.readers.push(open_fifo(path, libc::O_RDONLY | libc::O_NONBLOCK)?);
    open_fifo(path, libc::O_WRONLY)
}

fn append(path: &Path) -> Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(Error::config(format!("log file {}: not an absolute path", path.display())));
    }
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).os("mkdir", dir.display())?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    file.map(OwnedFd::from).os("open", path.display())
}

fn set_blocking(fd: &OwnedFd) -> crate::sys::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK)).map(drop)
}

/// Changes the owner of a stream. Files of a log keep their owner.
fn change_owner(end: &OwnedFd, (uid, gid): (u32, u32)) -> Result<()> {
    let copy = end.try_clone().os("dup", "standard stream")?;
    let is_file = File::from(copy).metadata().os("fstat", "standard stream")?.is_file();
    if (uid, gid) == (0, 0) || is_file {
        return Ok(());
    }
    nix::unistd::fchown(end, Some(uid.into()), Some(gid.into())).os("fchown", "standard stream")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_containerd_writes() {
        let parse = |uri: &str| Stream::parse(uri).unwrap();
        assert_eq!(parse(""), Stream::Null);
        assert_eq!(parse("/run/f"), Stream::Fifo("/run/f".into()));
        assert_eq!(parse("fifo:///run/f"), Stream::Fifo("/run/f".into()));
        assert_eq!(parse("file:///var/log/a%20b?x=y"), Stream::File("/var/log/a b".into()));
        let argv: Vec<CString> = [c"/bin/l", c"k", c"a b", c"n", c""].map(Into::into).to_vec();
        let logger = Logger { argv, must_answer: false };
        assert_eq!(parse("binary:///bin/l?k=a+b&n"), Stream::Logger(logger));
        assert!(Stream::parse("stream://x").unwrap_err().message.contains("unknown scheme"));
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("aril-stdio-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn fifo(&self, name: &str) -> String {
            let path = self.0.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_client_may_come_late_and_go() {
        let dir = Dir::new("late");
        let stdio = Stdio { stdout: dir.fifo("out"), stdin: dir.fifo("in"), ..Stdio::default() };
        let open = open(&StreamRequest { stdio: &stdio, owner: (0, 0), relayed: Relayed::Nothing })
            .unwrap();
        let [stdin, stdout, _] = open.child;
        let (mut stdin, mut stdout) = (File::from(stdin), File::from(stdout));
        stdout.write_all(b"early").unwrap();
        let mut client = File::open(&stdio.stdout).unwrap();
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        drop(client);
        stdout.write_all(b"alone").unwrap();
        // Stdin ends when both the client and the shim have closed it.
        std::fs::write(&stdio.stdin, "hello").unwrap();
        drop(open.held);
        let mut text = String::new();
        stdin.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn output_fifos_alone_are_relayed_for_an_exec() {
        let dir = Dir::new("exec");
        let stderr = format!("file://{}/log", dir.0.display());
        let stdio =
            Stdio { stdin: dir.fifo("in"), stdout: dir.fifo("out"), stderr, terminal: false };
        let relayed = Relayed::OutputFifos;
        let open = open(&StreamRequest { stdio: &stdio, owner: (0, 0), relayed }).unwrap();
        assert!(open.input.is_none());
        let [(_, sink)] = &open.outputs[..] else { panic!("one relay: {:?}", open.outputs) };
        let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
        let fifo = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&stdio.stdout).unwrap());
        assert_eq!(inode(sink), fifo);
        assert_ne!(inode(&open.child[1]), fifo, "the process gets a pipe");
    }

    #[test]
    fn missing_ends_are_named() {
        let stdio = Stdio { stdout: "/nonexistent/out".into(), ..Stdio::default() };
        let failed =
            open(&StreamRequest { stdio: &stdio, owner: (0, 0), relayed: Relayed::Nothing })
                .unwrap_err();
        assert_eq!(failed.message, "stat /nonexistent/out: no such file or directory");
    }

    #[test]
    fn both_outputs_may_be_one_file() {
        let dir = Dir::new("file");
        let log = format!("file://{}/new/log", dir.0.display());
        let stdio = Stdio { stdout: log.clone(), stderr: log, ..Stdio::default() };
        let open = open(&StreamRequest { stdio: &stdio, owner: (0, 0), relayed: Relayed::Nothing })
            .unwrap();
        let [_, stdout, stderr] = open.child;
        File::from(stdout).write_all(b"one ").unwrap();
        File::from(stderr).write_all(b"two").unwrap();
        assert_eq!(std::fs::read_to_string(dir.0.join("new/log")).unwrap(), "one two");
    }
}
