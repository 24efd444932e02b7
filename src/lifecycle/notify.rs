//! `NOTIFY_SOCKET` (sd_notify(3)): forwards the readiness notification of a container to the service manager.
//!
//! The container gets the directory of a socket of Aril at `/run/notify`. While init lives, the first `READY=1` on it is
//! forwarded to the host's socket, with the pid and a barrier.

use std::env;
use std::fs;
use std::io::{IoSlice, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::error::{OsContext, Result};
use crate::id::HostPid;
use crate::state::NOTIFY;

/// Time that the host has to handle a notification.
pub(super) const BARRIER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Socket {
    ours: UnixDatagram,
    host: PathBuf,
    pid: HostPid,
    told: bool,
    /// Pipe of the barrier, which the host closes after it has handled the notification.
    barrier: Option<PipeReader>,
}

/// Returns true if the caller has a notify socket.
#[expect(
    clippy::disallowed_methods,
    reason = "the socket of the caller's service manager: sd_notify(3)"
)]
pub(super) fn wanted() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|v| !v.is_empty())
}

impl Socket {
    /// Binds the container's socket, if the caller has one and create made its directory.
    #[expect(
        clippy::disallowed_methods,
        reason = "the socket of the caller's service manager: sd_notify(3)"
    )]
    pub(super) fn bind(state_directory: &Path, pid: HostPid) -> Result<Option<Self>> {
        let directory = state_directory.join(NOTIFY);
        let Some(host) = env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        if !directory.is_dir() {
            return Ok(None);
        }
        let path = directory.join(SOCKET);
        let ours = bind(&directory).os("bind", path.display())?;
        ours.set_nonblocking(true).os("fcntl", path.display())?;
        // Every user of the container may send a notification.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))
            .os("chmod", path.display())?;
        Ok(Some(Self { ours, host: host.into(), pid, told: false, barrier: None }))
    }

    /// Descriptor that is readable when [`Socket::advance`] has work. `None` when all is handled.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.barrier {
            Some(barrier) => Some(barrier.as_fd()),
            None => (!self.told).then(|| self.ours.as_fd()),
        }
    }

    /// Returns true while the host has not handled the notification.
    pub(super) fn awaits_host(&self) -> bool {
        self.barrier.is_some()
    }

    /// Forwards notifications without waiting. A host that does not listen is one warning, not an error.
    pub(super) fn advance(&mut self, warn: &dyn Fn(&str)) {
        if self.told {
            self.barrier = None;
            return;
        }
        let mut message = [0; 4096];
        while let Ok(length) = self.ours.recv(&mut message) {
            let ready = message[..length].split(|b| *b == b'\n').find(|l| l.starts_with(b"READY="));
            let Some(ready) = ready else { continue };
            self.told = true;
            match self.tell_host(ready) {
                Ok(barrier) => self.barrier = Some(barrier),
                Err(error) => warn(&format!("NOTIFY_SOCKET: the container is ready, but: {error}")),
            }
            return;
        }
    }

    fn tell_host(&self, ready: &[u8]) -> Result<PipeReader> {
        let name = self.host.display();
        let address = address(&self.host).os("connect", name.to_string())?;
        let send = |payload: &[u8], fds: &[i32]| {
            let rights = [ControlMessage::ScmRights(fds)];
            let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
            let parts = [IoSlice::new(payload)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            sendmsg(self.ours.as_raw_fd(), &parts, rights, flags, Some(&address))
                .map(drop)
                .os("send", self.host.display())
        };
        // The queue of a slow host may be full: wait for it.
        self.ours.set_nonblocking(false).os("fcntl", "notify socket")?;
        self.ours.set_write_timeout(Some(BARRIER)).os("setsockopt", "notify socket")?;
        send(ready, &[])?;
        send(format!("MAINPID={}", self.pid).as_bytes(), &[])?;
        // systemd closes the pipe after it has handled all earlier notifications.
        let (reader, writer) = std::io::pipe().os("pipe", "")?;
        send(b"BARRIER=1", &[writer.as_raw_fd()])?;
        Ok(reader)
    }
}

const SOCKET: &str = "notify.sock";

/// Opens the directory: a socket address has at most 107 bytes, and the path may be longer.
fn bind(directory: &Path) -> std::io::Result<UnixDatagram> {
    let path = directory.join(SOCKET);
    if path.as_os_str().len() < 100 {
        return UnixDatagram::bind(path);
    }
    let directory = fs::File::open(directory)?;
    UnixDatagram::bind(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

fn address(path: &Path) -> nix::Result<UnixAddr> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    }
}
