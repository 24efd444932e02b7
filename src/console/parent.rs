//! The host's side: the caller's sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, OsContext, Result};
use crate::sys::socket;

/// Connects to `--console-socket` or `--pidfd-socket`: once, and before anything is made.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    socket::connect(path).os("connect", path.display()).context(|| "dial unix".to_owned())
}

/// Which process a pidfd is of, in the words of `--pidfd-socket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Init,
    Exec,
}

/// Sends a pidfd over a pidfd socket.
pub fn send_pidfd(socket: impl AsFd, whose: Whose, pidfd: BorrowedFd) -> Result<()> {
    let name: &[u8] = match whose {
        Whose::Init => b"standard",
        Whose::Exec => b"setns",
    };
    socket::send(socket.as_fd(), name, &[pidfd])
        .map(drop)
        .os("sendmsg", "pidfd socket")
        .context(|| "failed to send pidfd on socket".to_owned())
}

/// Takes the master that the child has sent with [`super::send_master`].
pub fn receive_master(socket: impl AsFd) -> Result<OwnedFd> {
    let mut name = [0; 64];
    let (_, mut fds) = socket::receive(socket.as_fd(), &mut name).os("recvmsg", "console")?;
    match (fds.pop(), fds.is_empty()) {
        (Some(master), true) => Ok(master),
        _ => Err(Error::system("the container's process sent no terminal")),
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

        send_pidfd(&socket, Whose::Exec, file.as_fd()).unwrap();
        let mut name = [0; 64];
        let (length, fds) = socket::receive(accepted.as_fd(), &mut name).unwrap();
        assert_eq!((&name[..length], fds.len()), (&b"setns"[..], 1));

        drop(socket);
        assert!(receive_master(&accepted).is_err());
    }

    #[test]
    fn nobody_listens() {
        assert_eq!(
            connect(Path::new("/nonexistent/s")).unwrap_err().to_string(),
            "dial unix: connect /nonexistent/s: no such file or directory"
        );
    }
}
