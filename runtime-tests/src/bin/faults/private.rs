//! The driver's own mount, network and pid namespaces: nothing that a run leaves reaches the host, except for cgroups and a
//! directory in /tmp, which [`run`] removes at the end.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use runtime_tests::host;

/// Process ID of the driver, after the init process of its pid namespace.
const DRIVER: i32 = 2;

/// Runs `driver` in namespaces of its own.
pub fn run(driver: impl FnOnce() -> Result<ExitCode>) -> Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "this needs root");
    unshare(CloneFlags::CLONE_NEWPID).context("unshare pid")?;
    let init = match split()? {
        None => leave(in_namespaces(driver)),
        Some(init) => init,
    };
    let namespace = std::fs::metadata(format!("/proc/{init}/ns/pid")).context("the namespace")?;
    let mark = format!("aril-test-{DRIVER}-{:x}", namespace.ino() & 0xffff);
    let status = waitpid(init, None).context("wait for the driver")?;
    host::scrub(&mark);
    let temporary = std::env::temp_dir();
    for entry in std::fs::read_dir(&temporary).context("the temporary directory")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&mark) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(ExitCode::from(code(status)))
}

/// Forks. Returns the child to the parent, and `None` to the child, which dies with its parent.
fn split() -> Result<Option<Pid>> {
    // SAFETY: the process has one thread.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl")?;
            Ok(None)
        }
    }
}

fn leave(result: Result<u8>) -> ! {
    let code = result.unwrap_or_else(|error| {
        eprintln!("faults: {error:#}");
        125
    });
    std::process::exit(code.into())
}

fn code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(125),
        _ => 125,
    }
}

/// The init process of the pid namespace: forks the driver, and reaps orphans until the driver has ended.
fn in_namespaces(driver: impl FnOnce() -> Result<ExitCode>) -> Result<u8> {
    let Some(child) = split()? else {
        let code =
            prepare().and_then(|()| driver()).map(|code| u8::from(code != ExitCode::SUCCESS));
        leave(code)
    };
    ensure!(child.as_raw() == DRIVER, "the driver has pid {child}");
    loop {
        match wait().context("wait")? {
            status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))
                if pid == child =>
            {
                return Ok(code(status));
            }
            _ => {}
        }
    }
}

/// Makes a host with its own process list, network, `/run` and `/var/lib`.
fn prepare() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("unshare")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make / private")?;
    for (kind, place) in [("proc", "/proc"), ("tmpfs", "/run"), ("tmpfs", "/var/lib")] {
        let flags = MsFlags::empty();
        mount(Some(kind), place, Some(kind), flags, None::<&str>).context(place)?;
    }
    sh(
        "ip link set lo up && for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/addr_gen_mode; done && \
        ip link add outside type veth peer name wire && \
        ip addr add 192.0.2.1/24 dev outside && ip link set outside up && ip link set wire up && \
        ip route add default via 192.0.2.254 && ip netns add box",
    )
}

/// Runs a script of the driver.
fn sh(script: &str) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-ec", script]).status().context("/bin/sh")?;
    ensure!(status.success(), "{script}: {status}");
    Ok(())
}

/// Network namespace for aril-cni.
pub fn network_namespace() -> &'static Path {
    Path::new("/run/netns/box")
}
