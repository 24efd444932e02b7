//! Pseudoterminals, and the sockets over which runtimes send them.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use crate::container::PATIENCE;

/// Listening socket like that of conmon and the shims. Accepts one message.
pub struct Receiver(UnixListener);

/// Received message: its text and its file descriptors.
pub struct Received {
    pub text: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// Bytes that the sender sent after the message; engines expect none.
    pub more: usize,
}

impl Receiver {
    pub fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bind");
        listener.set_nonblocking(true).expect("non-blocking");
        Self(listener)
    }

    /// Returns what was sent so far: engines look after the runtime has returned.
    #[track_caller]
    pub fn take(&self) -> Received {
        let (stream, _) = self.0.accept().expect("the runtime did not connect");
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let (text, fds) = receive(&stream);
        let (rest, _) = receive(&stream);
        assert!(self.0.accept().is_err(), "the runtime connected twice");
        Received { text, fds, more: rest.len() }
    }
}

fn receive(stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut buffer = vec![0; 4096];
    let mut control = nix::cmsg_space!([i32; 8]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags)
        .expect("recvmsg");
    let mut fds = Vec::new();
    for part in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just installed these descriptors; nothing else owns them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    (buffer, fds)
}

/// Creates a pseudoterminal on the host: master and slave.
pub fn open(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = nix::pty::openpty(Some(&size), None).expect("openpty");
    for fd in [&pair.master, &pair.slave] {
        let cloexec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(fd, cloexec).expect("cloexec");
    }
    (pair.master, pair.slave)
}

/// Size: rows and columns.
pub fn size(fd: &OwnedFd) -> (u16, u16) {
    let mut size = nix::pty::Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    assert_eq!(done, 0, "TIOCGWINSZ");
    (size.ws_row, size.ws_col)
}

pub fn resize(fd: &OwnedFd, rows: u16, columns: u16) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    assert_eq!(done, 0, "TIOCSWINSZ");
}

/// Reads the terminal's output until it contains `text`.
#[track_caller]
pub fn read_until(master: &OwnedFd, text: &str) -> String {
    let start = Instant::now();
    let mut shown = Vec::new();
    while start.elapsed() < PATIENCE {
        let mut ready = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(master),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut ready, 100_u8).expect("poll");
        if ready[0].any().unwrap_or(false) {
            let mut buffer = [0; 1024];
            match nix::unistd::read(master, &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => shown.extend_from_slice(&buffer[..n]),
            }
        }
        if String::from_utf8_lossy(&shown).contains(text) {
            return String::from_utf8_lossy(&shown).into_owned();
        }
    }
    panic!("the terminal never showed {text:?}, but {:?}", String::from_utf8_lossy(&shown));
}

pub fn type_in(master: &OwnedFd, text: &str) {
    assert_eq!(nix::unistd::write(master, text.as_bytes()), Ok(text.len()), "typing");
}

/// Reads until the last slave is closed.
pub fn read_to_end(master: &OwnedFd) -> String {
    let start = Instant::now();
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut ready = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(master),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut ready, 100_u8).expect("poll");
        if ready[0].any().unwrap_or(false) {
            match nix::unistd::read(master, &mut buffer) {
                // EIO: no process holds the slave any more.
                Ok(0) | Err(_) => return String::from_utf8_lossy(&shown).into_owned(),
                Ok(n) => shown.extend_from_slice(&buffer[..n]),
            }
        }
        assert!(start.elapsed() < PATIENCE, "the terminal stays open");
    }
}
