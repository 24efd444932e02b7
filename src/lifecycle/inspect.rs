//! `state`, `list` and `ps`: verbs that change nothing and take no lock.

use std::fs;
use std::os::unix::fs::MetadataExt;

use oci_spec::runtime::{ContainerState, State};

use crate::cgroup;
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::process;
use crate::id::{ContainerId, HostPid};
use crate::spec;
use crate::state::{Ending, Observed, Record, Slot, Status, Store, ending, observe};

/// Present state of a container.
#[derive(Debug)]
pub struct View {
    pub record: Record,
    pub status: Status,
    /// Process ID of init; 0 if the container has stopped.
    pub pid: HostPid,
    /// Owner of the state directory.
    pub uid: u32,
    /// End of a stopped container.
    pub ending: Ending,
}

/// Returns the present state of a container.
///
/// # Errors
///
/// The container does not exist, or its record cannot be read.
pub fn state(store: &Store, id: &ContainerId) -> Result<View> {
    let slot = store.open(id)?;
    let (record, observed) = look(&slot, id)?;
    let status = observed.status();
    let pid = if observed.init().is_some() { record.init_process_pid } else { HostPid(0) };
    let ending = match observed {
        Observed::Stopped => ending(&slot)?,
        _ => Ending::Unattended,
    };
    Ok(View { status, pid, uid: 0, ending, record })
}

/// Returns the record and the present status, for verbs without the lock. If a create ends between both reads, the record
/// is read again.
pub(super) fn look(slot: &Slot, id: &ContainerId) -> Result<(Record, Observed)> {
    let first = record(slot, id)?;
    let observed = observe(slot, &first)?;
    if first.init_process_pid.0 != 0 || !matches!(observed, Observed::Stopped) {
        return Ok((first, observed));
    }
    let record = record(slot, id)?;
    let observed = observe(slot, &record)?;
    Ok((record, observed))
}

/// Lists the containers of the root, and the errors of those that cannot be read.
///
/// # Errors
///
/// The state root cannot be read.
pub fn list(store: &Store) -> Result<(Vec<View>, Vec<Error>)> {
    let (mut views, mut broken) = (Vec::new(), Vec::new());
    for id in store.ids()? {
        let directory = store.root().join(&id);
        let owner = fs::metadata(&directory).map(|m| m.uid()).os("stat", directory.display());
        match state(store, &id).and_then(|view| Ok(View { uid: owner?, ..view })) {
            Ok(view) => views.push(view),
            Err(e) => broken.push(e),
        }
    }
    Ok((views, broken))
}

/// Lists the processes in the container's cgroups, by host pid. Without a cgroup, or if init has left it, lists those of
/// its private pid namespace.
///
/// # Errors
///
/// The container does not exist, or its cgroup cannot be read.
pub fn pids(store: &Store, id: &ContainerId) -> Result<Vec<HostPid>> {
    let slot = store.open(id)?;
    let record = record(&slot, id)?;
    let mut pids = cgroup::stored::pids(&record.cgroup_paths)?;
    let init = record.init_process_pid;
    if !pids.contains(&init.0) && observe(&slot, &record)?.init().is_some() {
        if record.private_pid_namespace {
            return Ok(process::in_pid_namespace_of(init));
        }
        pids.push(init.0);
        pids.sort_unstable();
    }
    Ok(pids.into_iter().map(HostPid).collect())
}

/// Reads the record of a slot. A directory without one is left by a killed create.
pub(super) fn record(slot: &Slot, id: &ContainerId) -> Result<Record> {
    let read = slot.read().map_err(|e| {
        let advice = format!("`aril delete --force {id}` removes what its create intended");
        e.context(format!("container {id}")).hint(advice)
    });
    read?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("container does not exist: {id}"))
            .hint("a create was interrupted: `aril delete --force` removes what it left")
    })
}

/// Reads the config that create stored.
pub(super) fn stored_config(slot: &Slot) -> Result<spec::Config> {
    spec::parse(slot.read_config()?)
        .context(|| format!("read the stored config in {}", slot.path().display()))
}

/// Returns the state for hooks and seccomp agents. `pid` is `None` without a process.
pub(super) fn oci_state(record: &Record, status: Status, pid: Option<HostPid>) -> State {
    let mut state = State::default();
    state
        .set_version(spec::OCI_VERSION.to_owned())
        .set_id(record.id.clone())
        .set_status(match status {
            Status::Creating => ContainerState::Creating,
            Status::Created => ContainerState::Created,
            Status::Running | Status::Paused => ContainerState::Running,
            Status::Stopped => ContainerState::Stopped,
        })
        .set_pid(pid.map(|p| p.0))
        .set_bundle(record.bundle.clone());
    if !record.annotations.is_empty() {
        state.set_annotations(Some(record.annotations.clone().into_iter().collect()));
    }
    state
}

/// Returns the state as JSON, for a hook's stdin.
pub(super) fn state_document(
    record: &Record,
    status: Status,
    pid: Option<HostPid>,
) -> Result<Vec<u8>> {
    serde_json::to_vec(&oci_state(record, status, pid))
        .map_err(|e| Error::system(format!("encode the container's state: {e}")))
}
