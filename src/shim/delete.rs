//! `delete`: removes what a shim that has ended has left. It must succeed if nothing is left.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use super::command::{self, Command};
use super::console;
use super::flags::Flags;
use super::members::{self, Member};
use super::membership::HostNamespaces;
use super::options::Options;
use super::print;
use super::rootfs;
use super::start;
use super::status::Status;
use super::wire::Writer;
use crate::error::{Context, OsContext, Result};
use crate::sys::pidfd::{self, Ended};

/// Number of attempts for a command that is killed itself.
pub const ATTEMPTS: u32 = 5;
/// Exit status of a process that was killed.
const KILLED: u64 = 128 + libc::SIGKILL as u64;

/// Runs the action `delete`.
///
/// # Errors
///
/// A container or mount cannot be removed.
pub fn delete(flags: &Flags) -> std::result::Result<(), Status> {
    let here = std::env::current_dir().os("getcwd", "")?;
    let bundle = if flags.bundle.as_os_str().is_empty() { here } else { flags.bundle.clone() };
    let pid = command::read_pid(&bundle.join("init.pid")).unwrap_or_default();
    let mut removed = remove_container(flags, &flags.id, &bundle, &Options::load(&bundle));
    let socket =
        start::stored_address(&bundle).unwrap_or_else(|| start::address("", flags, &bundle));
    if !start::is_served(&socket)? {
        console::remove_left(&socket)?;
        // With containerd 2.x no other call names these containers.
        for (id, Member { bundle, options }) in members::all(&bundle) {
            // A container that cannot be removed does not stop the removal of the others.
            removed = removed.and(remove_container(flags, &id, &bundle, &options));
        }
    }
    start::sweep(socket.parent().unwrap_or(Path::new("/")))?;
    removed?;
    let response = Writer::new()
        .number(1, pid as u64)
        .number(2, KILLED)
        .time(3, Some(SystemTime::now()))
        .finish();
    print(&response)
}

/// Removes the container, then the mounts of its rootfs, even if the container cannot be removed.
fn remove_container(
    flags: &Flags,
    id: &str,
    bundle: &Path,
    options: &Options,
) -> std::result::Result<(), Status> {
    let deleted = delete_by_force(flags, id, options);
    let unmounted = rootfs::unmount(bundle);
    deleted?;
    Ok(unmounted?)
}

fn delete_by_force(flags: &Flags, id: &str, options: &Options) -> std::result::Result<(), Status> {
    let words = ["delete", "--force", id];
    let call = Command {
        options,
        namespace: &flags.namespace,
        // containerd may remove the container's bundle at the same time.
        bundle: Path::new("/"),
        log: None,
        words: &words,
        home: &HostNamespaces::default(),
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (ended, reason) = run(&call)?;
        match ended {
            Ended::Exited(0) => return Ok(()),
            _ if reason.contains("does not exist") => return Ok(()),
            // The command may have been killed together with the shim: containerd does not ask a second time.
            Ended::Signaled(_) if attempts < ATTEMPTS => {}
            _ => return Err(Status::unknown(format!("OCI runtime delete failed: {reason}"))),
        }
    }
}

/// Runs the command to its end, and returns its output.
fn run(call: &Command) -> Result<(Ended, String)> {
    let output = command::scratch(b"")?;
    let input = command::scratch(b"")?;
    let pid = call.spawn([input.as_fd(), output.as_fd(), output.as_fd()])?;
    let ended = wait(pid).context(|| "wait for the runtime".to_owned())?;
    Ok((ended, command::why(None, &command::said(&output), ended)))
}

fn wait(pid: i32) -> Result<Ended> {
    let child = pidfd::open(pid).os("pidfd_open", pid)?;
    let ended = pidfd::wait(child.as_fd(), true).os("waitid", pid)?;
    Ok(ended.unwrap_or(Ended::Exited(0)))
}
