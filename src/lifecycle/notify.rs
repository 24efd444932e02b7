//! `NOTIFY_SOCKET` (sd_notify(3)): a unit whose main process is a container learns when that is
//! ready.
//!
//! The container gets the directory of a socket of ours at `/run/notify`. While init lives, the
//! first `READY=1` that arrives there is passed to the host's socket, with the pid and a barrier.

use std::env;
use std::fs;
use std::io::{IoSlice, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::error::{OsContext, Result};
use crate::id::HostPid;
use crate::state::NOTIFY;
use crate::sys::Errno;

const BARRIER_MS: u16 = 30_000;

#[derive(Debug)]
pub(super) struct Socket {
    ours: UnixDatagram,
    host: PathBuf,
}

/// The caller has a socket to be told on.
pub(super) fn wanted() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|v| !v.is_empty())
}

impl Socket {
    /// Binds the container's socket, if the caller wants to be told and create made its directory.
    pub(super) fn bind(state_directory: &Path) -> Result<Option<Self>> {
        let directory = state_directory.join(NOTIFY);
        let Some(host) = env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        if !directory.is_dir() {
            return Ok(None);
        }
        let path = directory.join("notify.sock");
        let ours = UnixDatagram::bind(&path).os("bind", path.display())?;
        // Any user in the container may notify.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))
            .os("chmod", path.display())?;
        Ok(Some(Self { ours, host: host.into() }))
    }

    /// Waits for readiness, or for init's end.
    pub(super) fn forward(&self, init: BorrowedFd<'_>, pid: HostPid) -> Result<()> {
        let mut message = [0; 4096];
        loop {
            let mut polled = [
                PollFd::new(self.ours.as_fd(), PollFlags::POLLIN),
                PollFd::new(init, PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.os("poll", "notify socket")?,
            };
            let readable = polled[0].revents().is_some_and(|r| r.contains(PollFlags::POLLIN));
            if !readable {
                return Ok(());
            }
            let length = self.ours.recv(&mut message).os("receive", "notify socket")?;
            let ready = message[..length].split(|b| *b == b'\n').find(|l| l.starts_with(b"READY="));
            if let Some(ready) = ready {
                return self.tell_host(ready, pid);
            }
        }
    }

    fn tell_host(&self, ready: &[u8], pid: HostPid) -> Result<()> {
        let name = self.host.display();
        let address = address(&self.host).os("connect", name.to_string())?;
        let send = |payload: &[u8], fds: &[i32]| {
            let rights = [ControlMessage::ScmRights(fds)];
            let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
            let parts = [IoSlice::new(payload)];
            sendmsg(self.ours.as_raw_fd(), &parts, rights, MsgFlags::empty(), Some(&address))
                .map(drop)
                .os("send", self.host.display())
        };
        send(ready, &[])?;
        send(format!("MAINPID={pid}").as_bytes(), &[])?;
        // systemd closes its copy of the pipe once it has handled all that came before.
        let (reader, writer) = std::io::pipe().os("pipe", "")?;
        send(b"BARRIER=1", &[writer.as_raw_fd()])?;
        drop(writer);
        wait_closed(&reader)
    }
}

fn address(path: &Path) -> nix::Result<UnixAddr> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    }
}

fn wait_closed(reader: &PipeReader) -> Result<()> {
    let mut polled = [PollFd::new(reader.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::from(BARRIER_MS)).map(drop).os("poll", "notify barrier")
}
