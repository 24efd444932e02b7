//! Reads which seccomp flags the kernel supports, and sends the listener to the agent.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{ContainerProcessState, SECCOMP_FD_NAME, State};

use super::plan::Facts;
use super::{Arch, Listener};
use crate::error::{Error, OsContext, Result};
use crate::sys;

/// Reads the facts that a profile depends on.
pub fn facts() -> Facts {
    Facts { native: Arch::native(), flag_supported: sys::seccomp::flag_supported }
}

/// Sends the listener `fd` of the filter to the agent, with the state that the specification requires. `pid` is the
/// process that loaded the filter. The agent does not answer.
///
/// # Errors
///
/// An error of connect(2), sendmsg(2) or write(2) to the socket of the agent.
pub fn send_listener(
    listener: &Listener,
    pid: i32,
    state: State,
    fd: BorrowedFd<'_>,
) -> Result<()> {
    let path = listener.path.display();
    let message = message(listener, pid, state)?;
    let agent = sys::socket::connect(&listener.path).os("connect", &path).map_err(|e| {
        e.context("failed to connect with seccomp agent specified in the seccomp profile")
    })?;
    let sent = sys::socket::send(agent.as_fd(), &message, &[fd]).os("sendmsg", &path)?;
    File::from(agent).write_all(&message[sent..]).os("write", path)
}

fn message(listener: &Listener, pid: i32, state: State) -> Result<Vec<u8>> {
    let mut process = ContainerProcessState::default();
    process
        .set_version(state.version().clone())
        .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
        .set_pid(pid)
        .set_metadata(listener.metadata.clone())
        .set_state(state);
    serde_json::to_vec(&process)
        .map_err(|e| Error::system(format!("encode the container process state: {e}")))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use oci_spec::runtime::{ContainerState, StateBuilder};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_agent_gets_the_state_and_the_listener() {
        let path = std::env::temp_dir().join(format!("aril-agent-{}", std::process::id()));
        let agent = UnixListener::bind(&path).unwrap();
        let listener = Listener { path: path.clone(), metadata: Some("m".into()) };
        let state = StateBuilder::default()
            .version("1.2.0")
            .id("c")
            .status(ContainerState::Creating)
            .build()
            .unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        send_listener(&listener, 42, state, writer.as_fd()).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop((reader, writer));

        let (connection, _) = agent.accept().unwrap();
        let mut buffer = [0; 4096];
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([i32; 2]);
        let flags = MsgFlags::empty();
        let got = recvmsg::<()>(connection.as_raw_fd(), &mut iov, Some(&mut space), flags).unwrap();
        let fds = got.cmsgs().unwrap().map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => fds.len(),
            _ => 0,
        });
        assert_eq!(fds.sum::<usize>(), 1);
        let length = got.bytes;
        let message: Value = serde_json::from_slice(&buffer[..length]).unwrap();
        assert_eq!(message["ociVersion"], "1.2.0");
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["pid"], 42);
        assert_eq!(message["metadata"], "m");
        assert_eq!(message["state"]["status"], "creating");
    }

    #[test]
    fn an_absent_agent_is_named() {
        let listener = Listener { path: "/nowhere/agent".into(), metadata: None };
        let error =
            send_listener(&listener, 1, State::default(), std::io::stderr().as_fd()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to connect with seccomp agent specified in the seccomp profile: \
             connect /nowhere/agent: no such file or directory"
        );
    }
}
