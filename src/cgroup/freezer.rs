//! Freezes and thaws cgroups, for `pause`, `resume`, and the status `paused`.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Paths, file, layout};
use crate::error::{Error, OsContext, Result};

const PATIENCE: Duration = Duration::from_secs(10);

enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Freezer {
    /// Directory of the freezer: on a hybrid host that of v1, if it exists.
    fn of(paths: &Paths) -> Option<Self> {
        let v1 = paths.get("freezer").map(|dir| Self::V1(dir.join("freezer.state")));
        v1.or_else(|| paths.get("").map(|dir| Self::V2(dir.clone())))
    }
}

/// Returns true if the cgroup is frozen, by any program, through its own file or that of an ancestor.
///
/// # Errors
///
/// The state of the freezer cannot be read.
pub fn is_frozen(paths: &Paths) -> Result<bool> {
    match Freezer::of(paths) {
        None => Ok(false),
        Some(Freezer::V1(state)) => Ok(state_is(&state, "FROZEN")?),
        Some(Freezer::V2(dir)) => {
            Ok(file::read_key(&dir.join("cgroup.events"), "frozen")? == Some(1))
        }
    }
}

/// Returns the innermost frozen cgroup among the directory and its ancestors.
pub(super) fn frozen_level(is_version2: bool, dir: &Path) -> Result<Option<&Path>> {
    let name = if is_version2 { "cgroup.freeze" } else { "freezer.self_freezing" };
    for level in dir.ancestors().take_while(|level| level.starts_with(layout::MOUNT)) {
        if state_is(&level.join(name), "1")? {
            return Ok(Some(level));
        }
    }
    Ok(None)
}

/// Returns true if the container with init process `init` is frozen. A cgroup that the process has left does not
/// freeze it.
///
/// # Errors
///
/// The state of the freezer, or the process's cgroup, cannot be read.
pub fn has_frozen(paths: &Paths, init: i32) -> Result<bool> {
    Ok(is_frozen(paths)? && left(paths, init)?.is_none())
}

/// Returns the cgroup to freeze, and the cgroup that `init` is in if that is another one.
fn left(paths: &Paths, init: i32) -> Result<Option<(PathBuf, PathBuf)>> {
    let name = if paths.contains_key("freezer") { "freezer" } else { "" };
    let own: Paths =
        paths.get(name).map(|dir| (name.to_owned(), dir.clone())).into_iter().collect();
    layout::left(&own, init)
}

/// Rejects a cgroup that the container's init process has left: the kernel reports a cgroup without processes as
/// frozen while the container runs elsewhere.
///
/// # Errors
///
/// The process has left the cgroup.
pub fn refuse_left(paths: &Paths, init: i32) -> Result<()> {
    match left(paths, init)? {
        None => Ok(()),
        Some((own, there)) => Err(Error::state(format!(
            "failed to freeze: the container has left its cgroup {} and is in {}",
            own.display(),
            there.display()
        ))),
    }
}

/// Freezes the container and returns when every process is frozen. If a process cannot be frozen, the container is
/// thawed.
///
/// # Errors
///
/// A process is not frozen within the time limit, or there is no freezer.
pub fn freeze(paths: &Paths) -> Result<()> {
    freeze_within(paths, PATIENCE)
}

pub(super) fn freeze_within(paths: &Paths, patience: Duration) -> Result<()> {
    let frozen = match Freezer::of(paths) {
        None => {
            return Err(Error::state(
                "cannot pause the container: it has no cgroup, as it was created by a user without \
                 the permission to make one",
            ));
        }
        Some(Freezer::V1(state)) => freeze_v1(&state, patience),
        Some(Freezer::V2(dir)) => freeze_v2(&dir, patience),
    };
    if frozen.is_err() {
        thaw(paths).ok();
    }
    frozen.map_err(|e| e.context("failed to freeze"))
}

/// Returns true if the cgroup is frozen; false if it does not exist.
///
/// # Errors
///
/// The kernel rejects the change, or there is no freezer.
pub fn thaw(paths: &Paths) -> Result<()> {
    match Freezer::of(paths) {
        None => Ok(()),
        Some(Freezer::V1(state)) => file::write_if_there(&state, "THAWED").map(drop),
        Some(Freezer::V2(dir)) => file::write_if_there(&dir.join("cgroup.freeze"), "0").map(drop),
    }
}

fn too_late(patience: Duration) -> Error {
    Error::system(format!("timeout of {patience:?} reached waiting for the cgroup to freeze"))
        .hint("a process in an uninterruptible sleep (state D) cannot be frozen")
}

/// Waits for a change of `cgroup.events`, which the kernel reports by poll(2).
fn freeze_v2(dir: &Path, patience: Duration) -> Result<()> {
    let path = dir.join("cgroup.events");
    let mut events = File::open(&path).os("open", path.display())?;
    file::write(&dir.join("cgroup.freeze"), "1")?;
    let deadline = Instant::now() + patience;
    loop {
        let mut text = String::new();
        events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text))
            .os("read", path.display())?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(patience));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            other => drop(other.os("poll", path.display())?),
        }
    }
}

/// A v1 freezer can stay half frozen if a process forks at the wrong moment. Thawing for an instant lets the fork
/// finish.
fn freeze_v1(state: &Path, patience: Duration) -> Result<()> {
    const TRIES_BEFORE_THAW: u32 = 25;
    let deadline = Instant::now() + patience;
    for round in 1_u32.. {
        if round % TRIES_BEFORE_THAW == 0 {
            file::write(state, "THAWED")?;
            sleep(Duration::from_millis(1));
        }
        file::write(state, "FROZEN")?;
        if state_is(state, "FROZEN")? {
            return Ok(());
        }
        if Instant::now() > deadline {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    Err(too_late(patience))
}

fn state_is(state: &Path, expected: &str) -> Result<bool> {
    Ok(file::read(state)?.is_some_and(|s| s.trim() == expected))
}
