//! Connects to the caller's sockets, and receives the master from the child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, OsContext, Result};
use crate::sys::socket;

/// Connects to `--console-socket` or `--pidfd-socket`, before anything is created.
///
/// # Errors
///
/// The socket does not exist or does not accept the connection.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    socket::connect(path).os("connect", path.display()).context(|| "dial unix".to_owned())
}

/// Process of a pidfd: the field that the message of `--pidfd-socket` names it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidfdOwner {
    Init,
    Exec,
}

/// Sends a pidfd over a pidfd socket.
///
/// # Errors
///
/// The socket is closed.
pub fn send_pidfd(socket: impl AsFd, owner: PidfdOwner, pidfd: BorrowedFd) -> Result<()> {
    let name: &[u8] = match owner {
        PidfdOwner::Init => b"standard",
        PidfdOwner::Exec => b"setns",
    };
    socket::send(socket.as_fd(), name, &[pidfd])
        .map(drop)
        .os("sendmsg", "pidfd socket")
        .context(|| "failed to send pidfd on socket".to_owned())
}

/// Receives the master that the child sent with [`super::send_master`].
///
/// # Errors
///
/// The child has ended, or sent no terminal.
pub fn receive_master(socket: impl AsFd) -> Result<OwnedFd> {
    let mut name = [0; 64];
    let (_, mut fds) = socket::receive(socket.as_fd(), &mut name).os("recvmsg", "console")?;
    match (fds.pop(), fds.is_empty()) {
        (Some(master), true) => Ok(master),
        _ => Err(Error::system("the container's process sent no pseudoterminal master")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::console::send_master;

    #[test]
    fn a_master_arrives_alone_and_named() {
        let path = std::env::temp_dir().join(format!("aril-console-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let socket = connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        std::fs::remove_file(&path).unwrap();

        let (file, _other) = socket::pair().unwrap();
        send_master(&socket, file.as_fd()).unwrap();
        receive_master(&accepted).unwrap();

        send_pidfd(&socket, PidfdOwner::Exec, file.as_fd()).unwrap();
        let mut name = [0; 64];
        let (length, fds) = socket::receive(accepted.as_fd(), &mut name).unwrap();
        assert_eq!((&name[..length], fds.len()), (&b"setns"[..], 1));

        drop(socket);
        assert!(receive_master(&accepted).is_err());
    }

    #[test]
    fn a_missing_socket_is_an_error() {
        assert_eq!(
            connect(Path::new("/nonexistent/s")).unwrap_err().to_string(),
            "dial unix: connect /nonexistent/s: no such file or directory"
        );
    }
}
