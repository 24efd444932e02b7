//! Sends events to containerd, one at a time and in order, also after the daemon was away.
//!
//! While the daemon is away, up to [`ROOM`] events are kept; then the oldest are dropped: a daemon that returns asks
//! for the state anyway. An event that is answered with an error is given up after [`ATTEMPTS`].

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::ttrpc::{Call, Closed, Connection, REQUEST};
use super::wire::{Any, Message, Writer};
use std::os::fd::AsRawFd;

const ROOM: usize = 2048;
const ATTEMPTS: u32 = 5;
/// Time limit of one call.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Queue of events and connection to containerd.
pub struct Publisher {
    namespace: String,
    address: PathBuf,
    queue: VecDeque<Event>,
    connection: Option<Connection>,
    /// Deadline for the answer to the first event of the queue, which was sent.
    sent: Option<Instant>,
    /// Earliest time of the next attempt.
    retry: Option<Instant>,
    stream: u32,
}

struct Event {
    call: Vec<u8>,
    attempts: u32,
}

impl Publisher {
    /// Returns a publisher for the socket `address`.
    pub fn new(namespace: &str, address: impl Into<PathBuf>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            address: address.into(),
            queue: VecDeque::new(),
            connection: None,
            sent: None,
            retry: None,
            stream: 1,
        }
    }

    /// Adds an event to the queue.
    pub fn push(&mut self, topic: &str, kind: &str, event: Writer) {
        let any = Any::new(&format!("containerd.events.{kind}"), event.finish());
        let envelope = Writer::new()
            .time(1, Some(SystemTime::now()))
            .bytes(2, &self.namespace)
            .bytes(3, topic)
            .any(4, &any);
        let call = Call {
            service: "containerd.services.events.ttrpc.v1.Events".into(),
            method: "Forward".into(),
            payload: Writer::new().message(1, envelope).finish(),
        };
        if self.address.as_os_str().is_empty() {
            // No daemon has ever asked for events.
            return;
        }
        if self.queue.len() >= ROOM {
            // The event that was sent stays: its answer is still to come.
            self.queue.remove(usize::from(self.sent.is_some()));
        }
        self.queue.push_back(Event { call: call.encode(PATIENCE), attempts: 0 });
    }

    /// Returns true if no event waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the connection, if there is one.
    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Returns the time at which [`Publisher::advance`] is to be called even without an event.
    pub fn deadline(&self) -> Option<Instant> {
        self.sent.or(self.retry).filter(|_| !self.queue.is_empty())
    }

    /// Sends the next event, unless one is waiting for its answer. Returns true if there is a new connection to watch.
    pub fn advance(&mut self, now: Instant) -> bool {
        if self.sent.is_some_and(|deadline| deadline <= now) {
            self.failed(now);
        }
        if self.sent.is_some() || self.retry.is_some_and(|at| at > now) {
            return false;
        }
        let Some(event) = self.queue.front() else { return false };
        self.retry = None;
        let mut new = false;
        if self.connection.is_none() {
            self.connection = dial(&self.address);
            new = self.connection.is_some();
        }
        // Odd, as a client's numbers are.
        self.stream = self.stream.wrapping_add(2);
        let sent = match &mut self.connection {
            Some(connection) => connection.send(self.stream, REQUEST, &event.call).is_ok(),
            None => false,
        };
        if sent {
            self.sent = Some(now + PATIENCE);
        } else {
            self.connection = None;
            self.retry = Some(now + PAUSE);
            new = false;
        }
        new
    }

    /// Reads and writes, when the connection is ready.
    pub fn ready(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        let read = connection.flush().and_then(|()| connection.fill());
        let mut frames = Vec::new();
        let read = read.and_then(|()| {
            while let Some(frame) = connection.frame()? {
                frames.push(frame);
            }
            Ok(())
        });
        frames.retain(|frame| frame.stream == self.stream);
        for frame in frames {
            self.answered(&frame.payload, now);
        }
        if read == Err(Closed) {
            self.connection = None;
            // The daemon went away: this does not count as a failed attempt.
            self.retry = self.sent.take().map(|_| now + PAUSE).or(self.retry);
        }
    }

    fn answered(&mut self, payload: &[u8], now: Instant) {
        let code = Message::parse(payload).and_then(|m| Ok(m.message(1)?.number(1)));
        if code == Ok(0) {
            self.sent = None;
            self.queue.pop_front();
        } else {
            self.failed(now);
        }
    }

    fn failed(&mut self, now: Instant) {
        self.sent = None;
        let Some(event) = self.queue.front_mut() else { return };
        event.attempts += 1;
        if event.attempts >= ATTEMPTS {
            self.queue.pop_front();
        }
        self.retry = Some(now + PAUSE);
    }
}

fn dial(address: &std::path::Path) -> Option<Connection> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let end = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    // The error is the same every time, and the daemon reports it.
    connect(end.as_fd().as_raw_fd(), &UnixAddr::new(address).ok()?).ok()?;
    Some(Connection::new(end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::shim::status::Status;
    use crate::shim::ttrpc::{RESPONSE, response};

    struct Daemon(UnixListener, PathBuf);

    impl Daemon {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("aril-events-{name}-{}", std::process::id()));
            Self(UnixListener::bind(&path).unwrap(), path)
        }

        fn accept(&self) -> Connection {
            Connection::new(self.0.accept().unwrap().0.into())
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.1);
        }
    }

    /// Accepts one call and answers it; returns the topic of the event.
    fn serve(connection: &mut Connection, answer: Result<Vec<u8>, Status>) -> String {
        connection.fill().unwrap();
        let frame = connection.frame().unwrap().unwrap();
        connection.send(frame.stream, RESPONSE, &response(&answer)).unwrap();
        let call = Call::parse(&frame.payload).unwrap();
        let request = Message::parse(&call.payload).unwrap();
        request.message(1).unwrap().text(3).unwrap().to_owned()
    }

    #[test]
    fn in_order_over_a_restart_of_the_daemon() {
        let now = Instant::now();
        let daemon = Daemon::new("restart");
        let mut publisher = Publisher::new("ns", &daemon.1);
        for topic in ["/a", "/b", "/c"] {
            publisher.push(topic, "X", Writer::new());
        }
        assert!(publisher.advance(now));
        let mut first = daemon.accept();
        assert_eq!(serve(&mut first, Ok(vec![])), "/a");
        publisher.ready(now);
        assert!(!publisher.advance(now), "the connection is the same");
        drop(first);
        publisher.ready(now);
        assert!(!publisher.advance(now), "not at once");
        assert!(publisher.advance(now + PAUSE));
        let mut second = daemon.accept();
        for topic in ["/b", "/c"] {
            assert_eq!(serve(&mut second, Ok(vec![])), topic);
            publisher.ready(now);
            publisher.advance(now + PAUSE);
        }
        assert!(publisher.is_empty() && publisher.deadline().is_none());
    }

    #[test]
    fn what_is_refused_again_and_again_is_given_up() {
        let mut now = Instant::now();
        let daemon = Daemon::new("refused");
        let mut publisher = Publisher::new("ns", &daemon.1);
        publisher.push("/bad", "X", Writer::new());
        publisher.push("/good", "X", Writer::new());
        publisher.advance(now);
        let mut connection = daemon.accept();
        for _ in 0..ATTEMPTS {
            assert_eq!(serve(&mut connection, Err(Status::unknown("no"))), "/bad");
            publisher.ready(now);
            now += PAUSE;
            publisher.advance(now);
        }
        assert_eq!(serve(&mut connection, Ok(vec![])), "/good");
    }

    #[test]
    fn room_is_bounded() {
        let mut publisher = Publisher::new("ns", "/nonexistent");
        for _ in 0..ROOM + 5 {
            publisher.push("/x", "X", Writer::new());
        }
        assert!(!publisher.advance(Instant::now()));
        assert_eq!(publisher.queue.len(), ROOM);
        assert!(publisher.deadline().is_some());
    }
}
