//! `mounts`: adds mounts to a running container, or removes them.
//!
//! A child opens the sources of binds in the host's mount namespace, with the rights of the container's user.
//! For a container with a user namespace it does so in a copy of that mount namespace which belongs to the
//! container's user namespace, so that the kernel locks what the host's mounts forbid. Then it enters the
//! container and mounts there, by descriptor, what it has opened. No path of the host is looked up in the
//! container, nor the other way round.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{exec, inspect, kill};
use crate::error::{Context, Error, OsContext, Result};
use crate::fs::{Proc, process};
use crate::id::ContainerId;
use crate::init::child::{self, Child, Entry, HookSettings};
use crate::init::parent;
use crate::namespace::{self, Kind};
use crate::plan::Script;
use crate::plan::compile::{self, Running};
use crate::spec;
use crate::state::{Store, observe};
use crate::sys;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Add,
    Remove,
}

/// Adds or removes the mounts in `file`. If the kernel rejects a mount, those added before are removed.
///
/// # Errors
///
/// The container does not run or has no mount namespace, the file is invalid, or the kernel rejects a mount.
pub fn change(
    store: &Store,
    id: &ContainerId,
    action: Action,
    file: &Path,
    warn: &dyn Fn(&str),
) -> Result<()> {
    let mounts = spec::load_mounts(file)?;
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    let live = observe(&slot, &record)?.into_created().ok_or_else(kill::not_running)?;
    let kinds = exec::kinds(&record);
    if kinds & Kind::Mount.flag() == 0 {
        let text = format!("container {id} has no mount namespace of its own");
        return Err(Error::state(text).hint("its mounts are those of its caller: use mount(8)"));
    }
    let script = match action {
        Action::Remove => compile::removed_mounts(&record.config.rootfs, &mounts),
        Action::Add => {
            let config = inspect::stored_config(&slot)?;
            let pid = record.init_process_pid.0;
            let (script, warnings) = compile::added_mounts(&Running {
                spec: &config.spec,
                bundle: &record.bundle,
                rootfs: &record.config.rootfs,
                mounts: &mounts,
                maps: &namespace::parent::maps_of(pid)?,
                kinds,
                rootless: !nix::unistd::geteuid().is_root(),
                in_user_namespace: process::in_user_namespace(),
            })
            .context(|| format!("load {}", file.display()))?;
            warnings.iter().for_each(|text| warn(text));
            Ok(script)
        }
    };
    enter(&script?, live.init(), kinds)
}

/// Runs the script in a process that enters the container.
fn enter(script: &Script, container: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    let proc = Proc::of_the_host()?;
    let (pid, user) = (Kind::Pid.flag(), Kind::User.flag());
    // As for an exec.
    let by_relay = kinds & user != 0 && !nix::unistd::geteuid().is_root();
    if !by_relay {
        parent::hide()?;
        if kinds & pid != 0 {
            sys::namespace::setns(container, pid).os("setns", "the container's pid namespace")?;
        }
    }
    let entry = Entry {
        rest: if by_relay { 0 } else { kinds & user },
        later: kinds & !(pid | user),
        user: kinds & user != 0,
    };
    let hooks = HookSettings { state: &|_, _| Vec::new(), rootfs: Default::default() };
    let main = |link| {
        child::main(Child {
            link,
            script,
            held: false,
            hidden: true,
            joins: Some((container, entry)),
            cgroup: &[],
            tasks: &[],
            proc: &proc,
            trees: Vec::new(),
            complete_volumes: &[],
            gate: None,
            opens: false,
            released: None,
            console: None,
            hooks: &hooks,
            clock: None,
        })
    };
    let init = if by_relay {
        parent::spawn_inside(container, None, false, main)
    } else {
        parent::spawn(&namespace::plan::Plan::default(), None, false, main)
    };
    init?.until_done(script)
}
