//! Messages between parent and child: one enum per direction, over a SEQPACKET socket pair. A frame arrives
//! whole or not at all.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::Fault;
use crate::sys::{Errno, Result, socket};

/// Message from the child, or from its relay, to the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The relay has cloned the child: its pid in the parent's namespace.
    Cloned(i32),
    /// Run prestart and createRuntime hooks, then send [`Order::Served`].
    Hooks,
    /// Set the child's rlimits, then send [`Order::Served`].
    Limits,
    /// Connect the network, then send [`Order::Served`].
    Network,
    /// Fetch the seccomp listener, which has this descriptor number in the child, before the next report.
    Listener(i32),
    /// The child becomes accessible to other processes: no request but [`Report::Listener`] follows.
    Prepared,
    /// Open the mount source of this step and send its descriptor. Descriptors of the child's mount namespace and
    /// root directory come with the report.
    Source(u32),
    /// Setup is done: the child waits for [`Order::Run`] or [`Order::Park`].
    Ready,
    /// A step failed. No report follows.
    Failed { step: u32, fault: Fault },
}

/// Message from the parent to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The id maps are written, the child is in its cgroup.
    Proceed = 1,
    /// The request is done.
    Served,
    /// Execute the program.
    Run,
    /// Wait at the exec fifo for `start`.
    Park,
}

/// Socket of the parent, and the descriptors that came with the last report.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd, RefCell<Vec<OwnedFd>>);

/// Socket of the child.
#[derive(Debug)]
pub struct ChildEnd {
    socket: OwnedFd,
    /// Socket of the relay. The child keeps it open, because both share one descriptor table.
    relay: Option<RawFd>,
}

/// Size of a frame in bytes. The text of a longer fault is cut.
const FRAME: usize = 512;

/// Creates the socket pair.
///
/// # Errors
///
/// No descriptor is free.
pub fn pair() -> Result<(ParentEnd, ChildEnd)> {
    let (a, b) = socket::pair()?;
    Ok((ParentEnd(a, RefCell::default()), ChildEnd { socket: b, relay: None }))
}

impl ParentEnd {
    /// Receives the next report. Returns `None` once the child has executed its program, or has ended.
    ///
    /// # Errors
    ///
    /// The socket fails, or the report cannot be decoded.
    pub fn receive(&self) -> Result<Option<Report>> {
        let mut frame = [0; FRAME];
        let (length, fds) = receive_frame(&self.0, &mut frame)?;
        if length == 0 {
            return Ok(None);
        }
        if !fds.is_empty() {
            *self.1.borrow_mut() = fds;
        }
        decode(&frame[..length]).map(Some).ok_or(Errno::EPROTO)
    }

    /// Takes the descriptors of the last report that had any.
    pub fn take_descriptors(&self) -> Vec<OwnedFd> {
        self.1.take()
    }

    /// Answers [`Report::Source`] with the opened mount source.
    ///
    /// # Errors
    ///
    /// The child has ended.
    pub fn send_source(&self, source: BorrowedFd<'_>) -> Result<()> {
        socket::send(self.0.as_fd(), &[Order::Served as u8], &[source]).map(drop)
    }

    /// Sends a message to the other process.
    ///
    /// # Errors
    ///
    /// The other process has ended.
    pub fn send(&self, order: Order) -> Result<()> {
        write_frame(&self.0, &[order as u8])
    }

    pub fn as_raw(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ChildEnd {
    /// Adds the relay's socket to the descriptors that stay open.
    pub fn shared_with_relay(self, relay: RawFd) -> Self {
        Self { relay: Some(relay), ..self }
    }

    /// Lists the descriptors that must stay open.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        std::iter::once(self.socket.as_raw_fd()).chain(self.relay)
    }

    /// Sends a message to the other process.
    ///
    /// # Errors
    ///
    /// The other process has ended.
    pub fn send(&self, report: &Report) -> Result<()> {
        let mut frame = [0; FRAME];
        let length = encode(report, &mut frame);
        write_frame(&self.socket, &frame[..length])
    }

    /// Asks the parent for the mount source of step `number`, and receives its descriptor.
    ///
    /// # Errors
    ///
    /// The parent cannot open the source, or has ended.
    pub fn request_source(&self, number: u32, descriptors: [BorrowedFd<'_>; 2]) -> Result<OwnedFd> {
        let mut frame = [0; FRAME];
        let length = encode(&Report::Source(number), &mut frame);
        socket::send(self.socket.as_fd(), &frame[..length], &descriptors)?;
        let (length, fds) = receive_frame(&self.socket, &mut frame)?;
        match fds.into_iter().next() {
            Some(source) if frame[..length] == [Order::Served as u8] => Ok(source),
            _ => Err(Errno::EPIPE),
        }
    }

    /// Receives the next order. Returns `None` if the parent has ended.
    ///
    /// # Errors
    ///
    /// The socket fails, or the report cannot be decoded.
    pub fn receive(&self) -> Result<Option<Order>> {
        let mut frame = [0; 1];
        let length = read_frame(&self.socket, &mut frame)?;
        if length == 0 {
            return Ok(None);
        }
        let known = [Order::Proceed, Order::Served, Order::Run, Order::Park];
        known.into_iter().find(|o| *o as u8 == frame[0]).map(Some).ok_or(Errno::EPROTO)
    }

    /// Waits for `order`. Fails with EPIPE if the parent has ended, and with EPROTO at another order.
    ///
    /// # Errors
    ///
    /// EPIPE if the parent has ended, EPROTO for another order.
    pub fn expect(&self, order: Order) -> Result<()> {
        match self.receive()? {
            Some(received) if received == order => Ok(()),
            Some(_) => Err(Errno::EPROTO),
            None => Err(Errno::EPIPE),
        }
    }
}

fn read_frame(fd: &OwnedFd, frame: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd, frame) {
            Err(Errno::EINTR) => continue,
            // The peer died with frames unread.
            Err(Errno::ECONNRESET) => return Ok(0),
            other => return other,
        }
    }
}

fn receive_frame(fd: &OwnedFd, frame: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    loop {
        match socket::receive(fd.as_fd(), frame) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ECONNRESET) => return Ok((0, Vec::new())),
            other => return other,
        }
    }
}

/// Sends a frame by write(2), which every usable seccomp profile allows.
fn write_frame(fd: &OwnedFd, frame: &[u8]) -> Result<()> {
    loop {
        match nix::unistd::write(fd, frame) {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

fn encode(report: &Report, frame: &mut [u8; FRAME]) -> usize {
    let mut put = |tag: u8, a: u32, b: i32, text: &str| {
        let text = &text.as_bytes()[..text.len().min(FRAME - 9)];
        frame[0] = tag;
        frame[1..5].copy_from_slice(&a.to_le_bytes());
        frame[5..9].copy_from_slice(&b.to_le_bytes());
        frame[9..9 + text.len()].copy_from_slice(text);
        9 + text.len()
    };
    match report {
        Report::Cloned(pid) => put(1, 0, *pid, ""),
        Report::Hooks => put(2, 0, 0, ""),
        Report::Limits => put(3, 0, 0, ""),
        Report::Listener(fd) => put(4, 0, *fd, ""),
        Report::Ready => put(5, 0, 0, ""),
        Report::Network => put(7, 0, 0, ""),
        Report::Source(step) => put(8, *step, 0, ""),
        Report::Prepared => put(9, 0, 0, ""),
        Report::Failed { step, fault } => put(6, *step, fault.errno as i32, &fault.call),
    }
}

fn decode(frame: &[u8]) -> Option<Report> {
    let a = u32::from_le_bytes(frame.get(1..5)?.try_into().ok()?);
    let b = i32::from_le_bytes(frame.get(5..9)?.try_into().ok()?);
    Some(match frame[0] {
        1 => Report::Cloned(b),
        2 => Report::Hooks,
        3 => Report::Limits,
        4 => Report::Listener(b),
        5 => Report::Ready,
        7 => Report::Network,
        8 => Report::Source(a),
        9 => Report::Prepared,
        6 => {
            let call = String::from_utf8_lossy(&frame[9..]).into_owned().into();
            Report::Failed { step: a, fault: Fault { call, errno: Errno::from_raw(b) } }
        }
        _ => return None,
    })
}

/// Checks for `runtime-tests/fuzz/` that any frame is decoded or rejected, and that encoding restores it.
#[cfg(fuzzing)]
pub fn check_frame(frame: &[u8]) {
    let Some(report) = decode(frame) else { return };
    let mut again = [0; FRAME];
    let length = encode(&report, &mut again);
    if length < FRAME {
        assert_eq!(decode(&again[..length]), Some(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_received_as_sent() {
        let (parent, child) = pair().unwrap();
        let long = Fault { call: "x".repeat(2000).into(), errno: Errno::EPERM };
        for report in [
            Report::Cloned(77),
            Report::Hooks,
            Report::Limits,
            Report::Network,
            Report::Listener(5),
            Report::Source(3),
            Report::Prepared,
            Report::Ready,
            Report::Failed { step: 9, fault: Fault { call: "mount".into(), errno: Errno::EBUSY } },
        ] {
            child.send(&report).unwrap();
            assert_eq!(parent.receive().unwrap(), Some(report));
        }
        child.send(&Report::Failed { step: 1, fault: long }).unwrap();
        assert!(matches!(parent.receive().unwrap(), Some(Report::Failed { step: 1, .. })));
        parent.send(Order::Park).unwrap();
        assert_eq!(child.receive().unwrap(), Some(Order::Park));
        drop(child);
        assert_eq!(parent.receive().unwrap(), None);
    }

    #[test]
    fn expect_fails_if_the_parent_has_ended() {
        let (parent, child) = pair().unwrap();
        drop(parent);
        assert_eq!(child.expect(Order::Run), Err(Errno::EPIPE));
    }
}
