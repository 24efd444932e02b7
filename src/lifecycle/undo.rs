//! Taking apart what a record says was intended. Every step is tried; errors are collected.

use std::os::fd::{AsFd, BorrowedFd};

use super::{inside, inspect, network};
use crate::error::{Error, OsContext, Result};
use crate::network::pasta;
use crate::rootfs::overlay;
use crate::rootfs::parent::inherited;
use crate::state::{Observed, Phase, Record, Slot, Status, boot_id};
use crate::sys;
use crate::time::step;
use crate::{cgroup, limits};

/// How long a killed process may take to die: it may have a core to write, or memory to give back.
const DEATH_MS: i32 = 10_000;

/// Kills init, whose hook failed, and waits for its death.
pub(super) fn kill(init: BorrowedFd<'_>) {
    let _ = sys::pidfd::send_signal(init, libc::SIGKILL);
    let _ = sys::pidfd::wait_end(init, DEATH_MS);
}

/// Kills init and everything else in the container's cgroup, and waits for init's death.
pub(super) fn end_all(observed: &Observed, record: &Record) -> Result<()> {
    if let Some(init) = observed.init() {
        match sys::pidfd::send_signal(init, libc::SIGKILL) {
            Ok(()) | Err(sys::Errno::ESRCH) => {}
            Err(errno) => return Err(Error::os("kill", record.init_process_pid, errno)),
        }
    }
    // A pid namespace of its own dies with its init, except where that is frozen (v1) or was never
    // made.
    if observed.init().is_none()
        || !record.private_pid_namespace
        || observed.status == Status::Paused
    {
        cgroup::stored::kill_all(&record.cgroup_paths)?;
    }
    if let Some(init) = observed.init()
        && !sys::pidfd::wait_end(init.as_fd(), DEATH_MS).os("poll", "pidfd")?
    {
        return Err(Error::state("container init still running"));
    }
    Ok(())
}

/// Kills what a container left in its cgroup when its init ended, and says whether there was anything.
pub(super) fn kill_rest(record: &Record) -> Result<bool> {
    // After the machine has been started anew the cgroup is nobody's, or another container's.
    let earlier_boot = !record.boot.is_empty() && boot_id()? != record.boot;
    if earlier_boot || cgroup::stored::pids(&record.cgroup_paths)?.is_empty() {
        return Ok(false);
    }
    cgroup::stored::kill_all(&record.cgroup_paths).map(|()| true)
}

/// Init has ended; the rest goes.
pub(super) fn after_end(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) -> Result<()> {
    if may_have_left(record) {
        cgroup::stored::kill_all(&record.cgroup_paths)?;
    }
    destroy(slot, record, warn)
}

/// A container that has stopped: what shares its cgroup and outlived init ends too, as with runc and crun.
pub(super) fn end_rest(record: &Record) -> Result<()> {
    if !record.private_pid_namespace {
        kill_rest(record)?;
    }
    Ok(())
}

/// Whether processes can outlive init: a pid namespace of its own dies with it. A create that was
/// killed may not have got so far.
fn may_have_left(record: &Record) -> bool {
    !record.private_pid_namespace || record.phase == Phase::Creating
}

/// Removes what is left of a container whose processes have ended, then runs its poststop hooks; `warn`
/// hears of those that fail.
/// Where the cgroup cannot be removed, the state stays, by which it is found again.
pub(super) fn destroy(slot: &Slot, record: &Record, warn: &dyn Fn(&str)) -> Result<()> {
    let hooks = inspect::stored_hooks(slot, record).unwrap_or_else(|e| {
        warn(&format!("poststop hooks: {e}"));
        Default::default()
    });
    let mut errors = Vec::new();
    if record.systemd_cgroup {
        cgroup::systemd::parent::stop(&record.cgroup_paths);
    }
    cgroup::stored::remove(&record.cgroup_paths)
        .map_err(|e| e.context("unable to remove container's cgroup"))?;
    step("remove the cgroup");
    if let Some(group) = &record.intel_rdt {
        errors.extend(limits::rdt::parent::remove(group).err());
    }
    if inspect::uses_pasta(record) {
        errors.extend(pasta::end(slot.path()).err());
    }
    if let Some(layers) = &record.overlay {
        // The config, which says whose they are, goes with the state.
        inside::remove_upper(slot, layers)
            .map_err(|e| e.context("unable to remove what the container wrote"))?;
        errors.extend(overlay::parent::undo(layers, slot.path()).err());
    }
    errors.extend(unmount_root(record).err());
    errors.extend(network::release(slot, record).err());
    step("release network, layers and limits");
    errors.extend(slot.remove().err());
    step("remove the state directory");
    inspect::run_poststop(&hooks, record, warn);
    step("run the poststop hooks");
    first(errors)
}

/// What was mounted in the caller's mount namespace.
pub(super) fn unmount_root(record: &Record) -> Result<()> {
    let Some(id) = record.root_mount else { return Ok(()) };
    inherited::remove(&record.config.rootfs, id)
}

/// One error for many: the first, followed by the texts of the others.
fn first(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    let others: Vec<_> = errors.map(|e| e.to_string()).collect();
    if others.is_empty() {
        return Err(first);
    }
    Err(Error::system(format!("{first}; and: {}", others.join("; and: "))))
}
