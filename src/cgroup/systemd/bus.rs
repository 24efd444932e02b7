//! Connects to systemd's D-Bus interface, for one exchange.
//!
//! A caller that may connect to systemd's private socket does so, as systemctl does for root. Otherwise it connects to
//! the bus, whose daemon forwards messages, and sends a greeting before the first call.
//!
//! The authentication is one write and one read. It needs no user id, because the peer has it from the kernel (also in
//! a user namespace, where Aril sees another id). The call waits for the end of the authentication: systemd does not
//! process a message that it has read together with it until another message arrives.
//!
//! ```text
//! aril --connect, AUTH, Hello, AddMatch--> D-Bus daemon --> systemd      (bus)
//! aril --connect, AUTH-------------------> systemd                       (private socket)
//! ```

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Value;
use super::message::{self, ERROR, FIXED, Incoming, METHOD_RETURN, Method};
use crate::error::{Error, OsContext, Result};

/// Time limit from the connection to the end of a job.
const PATIENCE: Duration = Duration::from_secs(30);

const AUTHENTICATION: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

const DAEMON: Method = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};
const MANAGER: Method = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};
/// True on a bus, which sends signals only to clients that have asked for them.
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Result of a call that reached systemd.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// First string of the answer.
    Done(String),
    Refused {
        /// Name of the error: `org.freedesktop.systemd1.UnitExists`.
        name: String,
        text: String,
    },
}

/// Connection to systemd.
pub struct Bus {
    stream: UnixStream,
    /// Socket, for errors.
    address: PathBuf,
    deadline: Instant,
    serial: u32,
    /// Bytes to write before the next call.
    unsent: Vec<u8>,
    /// Bytes that were read and not processed.
    unread: Vec<u8>,
    /// Job and result of jobs that ended before they were waited for.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects to the systemd of the host, or of the caller with `user`.
    ///
    /// # Errors
    ///
    /// No socket accepts the connection and authentication within the time limit.
    pub fn connect(user: bool) -> Result<Self> {
        let addresses = if user { user_addresses()? } else { system_addresses() };
        let mut refused = None;
        for (address, direct) in addresses {
            match UnixStream::connect(&address).os("connect", address.display()) {
                Ok(stream) => return Self::begin(stream, address, direct),
                Err(e) => refused = Some(e),
            }
        }
        let refused = refused.unwrap_or_else(|| Error::system("no address"));
        Err(refused.context("cannot reach systemd").hint(if user {
            "is there a systemd of this user? loginctl enable-linger makes one that stays"
        } else {
            "is systemd the host's init? Without it, leave --systemd-cgroup out"
        }))
    }

    fn begin(stream: UnixStream, address: PathBuf, direct: bool) -> Result<Self> {
        let mut bus = Self {
            stream,
            address,
            deadline: Instant::now() + PATIENCE,
            serial: 0,
            unsent: Vec::new(),
            unread: Vec::new(),
            ended: Vec::new(),
        };
        bus.authenticate()?;
        if !direct {
            bus.queue(&Method { member: "Hello", ..DAEMON }, &[]);
            bus.queue(&Method { member: "AddMatch", ..DAEMON }, &[JOBS.into()]);
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<()> {
        self.write(AUTHENTICATION)?;
        loop {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("OK") => return Ok(()),
                Some("DATA") => {}
                _ => return Err(self.confused(&format!("{line} to the authentication"))),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // A time limit as for reading: a stopped systemd reads nothing, and the socket is full at some time.
        self.stream.set_write_timeout(self.left()).os("setsockopt", self.address.display())?;
        self.stream.write_all(bytes).map_err(|e| self.failed("write", &e))
    }

    /// Calls a method of systemd's manager.
    ///
    /// # Errors
    ///
    /// The connection fails or the time limit is reached. An error that systemd returns is part of the result.
    pub fn call(&mut self, member: &'static str, arguments: &[Value]) -> Result<Answer> {
        let serial = self.queue(&Method { member, ..MANAGER }, arguments);
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.answers == serial => {
                    return Ok(Answer::Done(message.text().unwrap_or_default().to_owned()));
                }
                // A rejected greeting ends the connection, too.
                ERROR if message.answers <= serial => {
                    let text = message.text().unwrap_or(&message.error).to_owned();
                    return Ok(Answer::Refused { name: message.error, text });
                }
                _ => self.note(&message),
            }
        }
    }

    /// Waits for the result of a job that a call has started.
    ///
    /// # Errors
    ///
    /// The connection fails or the time limit is reached.
    pub fn wait_for(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            let message = self.receive()?;
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Incoming) {
        if let Some((job, result)) = message.removed_job() {
            self.ended.push((job.to_owned(), result.to_owned()));
        }
    }

    fn queue(&mut self, method: &Method, arguments: &[Value]) -> u32 {
        self.serial += 1;
        self.unsent.extend(message::call(method, self.serial, arguments));
        self.serial
    }

    fn receive(&mut self) -> Result<Incoming> {
        self.fill(FIXED)?;
        let length = Incoming::length(&self.unread[..FIXED]);
        let length = length.ok_or_else(|| self.confused("a malformed message"))?;
        self.fill(length)?;
        let message = Incoming::parse(&self.unread[..length]);
        self.unread.drain(..length);
        message.ok_or_else(|| self.confused("a malformed message"))
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            self.fill(self.unread.len() + 1)?;
        }
    }

    /// Reads until that many bytes are available.
    fn fill(&mut self, length: usize) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.unread.len() < length {
            self.stream.set_read_timeout(self.left()).os("setsockopt", self.address.display())?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.confused("the end of the connection")),
                Ok(n) => self.unread.extend(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read", &e)),
            }
        }
        Ok(())
    }

    /// Returns the remaining time; never zero, which would mean no limit.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Some(left.max(Duration::from_millis(1)))
    }

    fn failed(&self, call: &'static str, e: &std::io::Error) -> Error {
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Error::system(format!("timeout of {PATIENCE:?} reached waiting for systemd"))
                    .hint("systemctl list-jobs shows what it is busy with")
            }
            _ => Error::io(call, self.address.display(), e),
        }
    }

    fn confused(&self, got: &str) -> Error {
        Error::system(format!("D-Bus at {}: got {got}", self.address.display()))
    }
}

/// Lists the paths. True if systemd itself listens there.
fn system_addresses() -> Vec<(PathBuf, bool)> {
    let bus = bus_address("DBUS_SYSTEM_BUS_ADDRESS")
        .unwrap_or_else(|| "/run/dbus/system_bus_socket".into());
    vec![("/run/systemd/private".into(), true), (bus, false)]
}

#[expect(clippy::disallowed_methods, reason = "the caller's session names its bus")]
fn user_addresses() -> Result<Vec<(PathBuf, bool)>> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bus = bus_address("DBUS_SESSION_BUS_ADDRESS");
    let mut addresses = Vec::new();
    addresses.extend(directory.iter().map(|dir| (dir.join("systemd/private"), true)));
    addresses.extend(bus.or_else(|| directory.map(|dir| dir.join("bus"))).map(|bus| (bus, false)));
    if addresses.is_empty() {
        return Err(Error::system(
            "cannot reach the user's systemd: neither XDG_RUNTIME_DIR nor \
             DBUS_SESSION_BUS_ADDRESS is set",
        )
        .hint("log in as the user rather than su: /run/user/UID is made by logind"));
    }
    Ok(addresses)
}

/// Returns the first address of a list that is a socket in the file system.
#[expect(clippy::disallowed_methods, reason = "the caller's session names its bus")]
fn bus_address(variable: &str) -> Option<PathBuf> {
    socket_path(&std::env::var(variable).ok()?)
}

fn socket_path(addresses: &str) -> Option<PathBuf> {
    addresses.split(';').find_map(|address| {
        let mut options = address.strip_prefix("unix:")?.split(',');
        options.find_map(|option| option.strip_prefix("path=")).map(|p| Path::new(p).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, path) in [
            ("unix:path=/run/user/1000/bus", Some("/run/user/1000/bus")),
            ("unix:path=/a,guid=17", Some("/a")),
            ("tcp:host=x;unix:abstract=/b;unix:guid=1,path=/c", Some("/c")),
            ("unix:abstract=/b", None),
            ("", None),
        ] {
            assert_eq!(socket_path(address).as_deref(), path.map(Path::new), "{address}");
        }
    }
}
