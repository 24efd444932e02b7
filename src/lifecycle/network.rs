//! Networks of containers: joins or creates the network namespace of a config, and releases leases.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::reconcile::Leftover;
use crate::error::{Context, Error, OsContext, Result};
use crate::id::ContainerId;
use crate::namespace::Kind;
use crate::network::address::effect as leases;
use crate::network::address::{self, Holder, Lease, Reference};
use crate::network::firewall::effect::{is_flushed, repair};
use crate::network::marker;
use crate::network::plan::{self, Mode};
use crate::spec::{Config, OperatorGrant};
use crate::state::{Record, Slot, Store, observe};
use crate::sys;
use crate::sys::open::open;
use nix::fcntl::OFlag;

/// Network namespace of another container.
#[derive(Debug)]
pub struct Shared {
    /// Path of the namespace, and the descriptor by which it is joined; `None` if the other container has the host's.
    namespace: Option<(PathBuf, OwnedFd)>,
    lease: Option<Reference>,
}

impl Shared {
    /// Path of the open namespace. The pid in the config's path may belong to another process when it is joined; the child
    /// inherits this descriptor.
    pub(super) fn opened(&self) -> Option<PathBuf> {
        let (_, opened) = self.namespace.as_ref()?;
        Some(PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())))
    }

    /// Lease of the namespace, which stays until the last container in it is deleted.
    pub(super) fn hold(&self, holder: &Holder) -> Result<Option<Lease>> {
        self.lease.as_ref().map(|reference| address::share(reference, holder)).transpose()
    }
}

/// Sets the config's network namespace to what the operator granted. The result must live until the container's process
/// exists.
///
/// # Errors
///
/// The mode is invalid, contradicts the config, or names a container that does not run.
pub fn edit(store: &Store, config: &mut Config, grant: &OperatorGrant) -> Result<Option<Shared>> {
    let Some(mode) = plan::mode(grant)? else { return Ok(None) };
    let (shared, path) = match &mode {
        Mode::Container(id) => {
            let shared = share(store, id).context(|| format!("share the network of {id}"))?;
            let path = shared.namespace.as_ref().map(|(path, _)| path.clone());
            (Some(shared), path)
        }
        Mode::Path(path) => (None, Some(path.clone())),
        Mode::None | Mode::Host | Mode::Bridge(_) => (None, None),
    };
    plan::edit(config.change(), &mode, path)?;
    Ok(shared)
}

fn share(store: &Store, id: &ContainerId) -> Result<Shared> {
    let slot = store.open(id)?;
    let record = super::inspect::record(&slot, id)?;
    let observed = observe(&slot, &record)?;
    let not_running = || Error::state(format!("container {id} is not running"));
    let init = observed.init().ok_or_else(not_running)?;
    let Some(path) = record.namespace_paths.get(Kind::Net.record_key()) else {
        // The container uses the host's network.
        return Ok(Shared { namespace: None, lease: None });
    };
    let namespace = open(path.as_path(), OFlag::O_RDONLY | OFlag::O_CLOEXEC);
    let namespace = namespace.os("open", path.display())?;
    // The path has a pid, which still belonged to this process.
    if sys::pidfd::wait_end(init, 0).os("poll", "pidfd")? {
        return Err(not_running());
    }
    Ok(Shared { namespace: Some((path.clone(), namespace)), lease: record.network })
}

pub(super) fn holder(slot: &Slot, record: &Record) -> Holder {
    of(slot, &record.id)
}

fn of(slot: &Slot, id: &str) -> Holder {
    let root = slot.path().parent().unwrap_or(slot.path());
    Holder { root: root.to_owned(), id: id.to_owned() }
}

/// Removes the container from this lease.
pub(super) fn release(slot: &Slot, record: &Record, lease: &Reference) -> Result<()> {
    leases::release(lease, &holder(slot, record))
}

/// Finds the lease of a create that was killed before it wrote its record.
pub(super) fn release_without_record(slot: &Slot, id: &ContainerId) -> Result<()> {
    let holder = of(slot, id.as_str());
    let held = |lease: &Lease| lease.holders.contains(&holder);
    address::all()?
        .iter()
        .filter(|lease| held(lease))
        .try_for_each(|lease| leases::release(&lease.reference(), &holder))
}

/// Leases of deleted containers, attachments of deleted network namespaces, and an nftables table without users.
pub(super) fn leftovers(_: &Store) -> Result<Vec<Leftover<'_>>> {
    let lease = |lease: Lease| Leftover {
        kind: "lease",
        name: format!("{}/{}", lease.network, lease.addresses[0]),
        why: format!("its container {} is gone", lease.holders()),
        remove: Some(Box::new(move |_| leases::reclaim(&lease))),
    };
    let mut found: Vec<_> = leases::abandoned()?.into_iter().map(lease).collect();
    found.extend(marker::abandoned()?.into_iter().map(|attachment| Leftover {
        kind: "attachment",
        name: attachment.name(),
        why: attachment.why.to_owned(),
        remove: Some(Box::new(move |_| attachment.remove())),
    }));
    if is_flushed()? {
        found.push(Leftover {
            kind: "filter",
            name: "inet aril".to_owned(),
            why: "flushed while containers need it: it is made anew".to_owned(),
            remove: Some(Box::new(|_| repair().map(drop))),
        });
    }
    Ok(found)
}
