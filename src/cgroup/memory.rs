//! Sets the memory limits of a container that is being created.
//!
//! They are set last, when the container's process has finished its setup and waits. Pages that it copied during setup
//! do not count against the limit then, and are released when the program replaces them. The memory that it still uses
//! at that moment must fit.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::parent::{Created, number, set};
use super::{Driver, Paths, Plan, Version, file, stored, systemd};
use crate::error::{Error, Result};

/// Sets the limits. The container's program must not run before this returns.
///
/// # Errors
///
/// The kernel rejects a limit, or systemd does.
pub fn limit(plan: &Plan, created: &Created) -> Result<()> {
    if let (Version::V2, Some(limit), Some(dir)) =
        (plan.version, plan.memory_limit(), created.paths.get(""))
    {
        reclaim(dir, limit)?;
    }
    match &plan.driver {
        Driver::Cgroupfs => set_all(plan, created),
        Driver::Systemd(unit) => {
            wait_for_controller(plan, created);
            set_all(plan, created)?;
            systemd::parent::set_late_limits(unit)
        }
    }
}

fn set_all(plan: &Plan, created: &Created) -> Result<()> {
    set(&created.paths, plan.writes.iter().filter(|w| w.is_memory()))
}

/// Waits until the memory controller is available. Before systemd processes a unit that it has accepted, it may
/// disable the controller because another unit beside it has ended.
fn wait_for_controller(plan: &Plan, created: &Created) {
    const TRIES: u32 = 200;
    let Some(dir) = created.paths.get("") else { return };
    let wanted = plan.version == Version::V2 && plan.writes.iter().any(|w| w.is_memory());
    for _ in 0..TRIES {
        if !wanted || dir.join("memory.max").exists() {
            return;
        }
        sleep(Duration::from_millis(5));
    }
}

/// Releases memory that each CPU has charged to the cgroup in advance, 64 pages at a time. When a limit is set, cgroup
/// v2 releases it but does not wait before it kills; `memory.high` releases it, too, and kills no process.
fn reclaim(dir: &Path, limit: u64) -> Result<()> {
    const TRIES: u32 = 50;
    let used = || number(dir, "memory.current");
    if used() <= limit {
        return Ok(());
    }
    let high = dir.join("memory.high");
    for _ in 0..TRIES {
        file::write(&high, &limit.to_string())?;
        file::write(&high, "max")?;
        if used() <= limit {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
    Err(Error::system(format!(
        "memory limit too low: {limit} bytes, of which the container's process needs {} before its \
         program starts",
        used()
    ))
    .hint("raise linux.resources.memory.limit"))
}

/// Returns an error if the kernel's OOM killer killed a process of the cgroup. A counter is its only trace.
pub fn oom_error(plan: &Plan, paths: &Paths) -> Option<Error> {
    if stored::oom_kills(paths).ok()? == 0 {
        return None;
    }
    let text = "container init was OOM-killed (memory limit too low?)";
    Some(match plan.memory_limit() {
        Some(limit) => Error::system(format!("{text}: the limit is {limit} bytes"))
            .hint("raise linux.resources.memory.limit"),
        None => {
            Error::system(text).hint("an ancestor of its cgroup, or the host, is out of memory")
        }
    })
}

/// Returns a hint that the OOM killer may have ended a process, for a container that an earlier call created.
pub fn describe_oom_kills(paths: &Paths) -> Option<String> {
    let kills = stored::oom_kills(paths).ok().filter(|kills| *kills > 0)?;
    let (dir, name) = match (paths.get("memory"), paths.get("")) {
        (Some(dir), _) => (dir, "memory.limit_in_bytes"),
        (None, dir) => (dir?, "memory.max"),
    };
    let limit = file::read(&dir.join(name)).ok().flatten().unwrap_or_default();
    Some(format!(
        "the kernel has ended {kills} of the container's processes for want of memory: the limit is {} \
         bytes (`aril update --memory` changes it)",
        limit.trim()
    ))
}
