//! Process that keeps a pod's namespaces where the shim cannot: if the containers share a pid namespace, which needs a
//! living init process, or if the pod has a user namespace, which a process cannot leave.
//!
//! It executes this program from a binary that no container can write (containers that share its pid namespace may
//! find `/proc/1/exe`), in an empty root. It reaps orphans and does nothing else, and ends with the shim.

use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::command;
use super::membership;
use super::pod::Pod;
use super::status::Status;
use crate::error::{Context, Error, OsContext, Result};
use crate::init::seal::seal;
use crate::path::c_path;
use crate::sys::clone::{SingleThread, clone3, exit_now};
use crate::sys::process::{self, Vector};
use crate::sys::spawn::{Image, SpawnOptions, pipe, spawn_with};
use crate::sys::{namespace, open, pidfd, signal};

/// Anchor process that is starting.
pub struct Started {
    /// Pipe on which the process writes its pid, then `ready`; end of file if it ends.
    pub ready: OwnedFd,
    /// Pipe with the reason of a failure.
    pub errors: OwnedFd,
}

/// Starts the anchor of a pod.
///
/// # Errors
///
/// The process cannot be cloned or executed.
pub fn start(pod: &Pod) -> Result<Started> {
    let own = std::env::current_exe().os("readlink", "/proc/self/exe")?;
    let own = c_path("own path", &own)?;
    let argv = [own.clone(), c"anchor".into()];
    let env: Vec<CString> = Vec::new();
    let image = Image { path: &own, argv: Vector::new(&argv), env: Vector::new(&env), cwd: None };
    let text = serde_json::to_vec(pod).map_err(|e| Error::system(e.to_string()))?;
    let (input, errors) = (command::scratch(&text)?, command::scratch(b"")?);
    let (ready, writer) = pipe().os("pipe2", "anchor")?;
    process::set_nonblocking(&ready).os("fcntl", "anchor")?;
    let extras = SpawnOptions { dies_with_parent: true, ..SpawnOptions::default() };
    spawn_with(&image, [input.as_fd(), writer.as_fd(), errors.as_fd()], extras)
        .map_err(|refusal| Error::system(format!("start the pod's own process: {refusal:?}")))?;
    Ok(Started { ready, errors })
}

impl Started {
    /// Reads the answer. `None` before it is complete. The first line is the pid; the second shows that the process is
    /// ready.
    ///
    /// # Errors
    ///
    /// The process has ended, with the reason that it wrote.
    pub fn answer(&self, said: &mut String) -> Option<Result<i32>> {
        let mut buffer = [0; 64];
        match nix::unistd::read(&self.ready, &mut buffer) {
            Ok(length) if length > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return None,
            _ => {
                let reason = command::said(&self.errors);
                return Some(Err(Error::system(reason).context("the pod's own process")));
            }
        }
        let pid = said.strip_suffix("ready\n")?.trim().parse();
        Some(pid.map_err(|_| Error::system(format!("the pod's own process: {said:?}"))))
    }
}

/// Runs the anchor's action, in the process that [`start`] has started.
///
/// # Errors
///
/// The namespaces or the empty root cannot be created.
pub fn anchor(command_line: &[OsString]) -> std::result::Result<(), Status> {
    const LIMIT: u64 = 1 << 20;
    seal(command_line)?;
    let mut text = Vec::new();
    std::io::stdin().take(LIMIT).read_to_end(&mut text).os("read", "stdin")?;
    let pod: Pod = serde_json::from_slice(&text).map_err(|e| Error::system(e.to_string()))?;
    let user = pod.user_namespace_by().map(owner_of).transpose()?;
    let path = user.as_ref().map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
    membership::enter(&pod.plan(path.as_deref())?)?;
    if !pod.shares_pids() {
        say(&std::process::id().to_string())?;
        return Ok(hold_namespaces()?);
    }
    // A sibling: the shim is its parent, and adopts it when this process ends.
    let init = clone3(SingleThread::proof(), libc::CLONE_PARENT as u64, None, || {
        // The exit status reports the failure, stderr the reason.
        let failed = hold_namespaces().err();
        if let Some(error) = failed {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
        exit_now(1)
    })
    .os("clone3", "")?;
    Ok(say(&init.pid.to_string())?)
}

fn owner_of(netns: &Path) -> Result<OwnedFd> {
    let what = || format!("find the user namespace of {}", netns.display());
    let fd = open::open(netns, OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .os("open", netns.display())
        .context(what)?;
    namespace::owner(fd.as_fd()).os("ioctl NS_GET_USERNS", netns.display()).context(what)
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).os("write", "stdout")
}

/// Keeps the namespaces until the process is killed.
fn hold_namespaces() -> Result<()> {
    signal::block_all().os("sigprocmask", "")?;
    let children = signal::descriptor().os("signalfd", "")?;
    empty_root().context(|| "make an empty root".to_owned())?;
    process::set_dumpable(false).os("prctl", "PR_SET_DUMPABLE")?;
    process::set_parent_death_signal(libc::SIGKILL).os("prctl", "PR_SET_PDEATHSIG")?;
    // If the parent ended before the signal was set, the write fails.
    say("ready")?;
    let last = children.as_raw_fd() as u32;
    process::close_range(0, last - 1).os("close_range", "")?;
    process::close_range(last + 1, u32::MAX).os("close_range", "")?;
    process::capset(&process::CapabilitySets::default()).os("capset", "")?;
    loop {
        let mut events = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut events, PollTimeout::NONE);
        while let Ok(Some(_)) = signal::next(children.as_fd()) {}
        while let Ok(Some(_)) = pidfd::wait_any() {}
    }
}

/// Enters an empty root, so that `/proc/1/root` shows nothing.
fn empty_root() -> Result<()> {
    const NONE: Option<&str> = None;
    namespace::unshare(libc::CLONE_NEWNS).os("unshare", "mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).os("mount", "/")?;
    let options = Some("size=0,nr_inodes=1,mode=555");
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Any directory that exists on every host will do.
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), flags, options).os("mount", "/proc")?;
    nix::unistd::chdir("/proc").os("chdir", "/proc")?;
    nix::unistd::pivot_root(".", ".").os("pivot_root", "/proc")?;
    umount2(".", MntFlags::MNT_DETACH).os("umount", "/")
}
