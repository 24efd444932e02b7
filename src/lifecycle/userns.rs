//! `--userns auto`: chooses a range of ids for a container, before its plan is made.

use std::fs::File;

use nix::fcntl::Flock;
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Spec,
};

use crate::error::{Error, Result};
use crate::namespace::auto::{self, Claim};
use crate::namespace::{Mapping, parent};
use crate::spec::{Config, OperatorGrant, has_namespace};
use crate::state::Store;

/// Chosen ids. The lock is held until drop; the record must have them by that time.
#[derive(Debug)]
pub struct Choice {
    pub claim: Claim,
    _lock: Option<Flock<File>>,
}

/// Chooses ids if the operator asks for it, and writes them to the config. With `exclusive`, no other create chooses the
/// same ids until the result is dropped; `plan` and `explain` change nothing, and take no lock.
///
/// # Errors
///
/// The value is invalid, the config has mappings, or no range of ids is free.
pub fn choose(
    store: &Store,
    config: &mut Config,
    grant: &OperatorGrant,
    exclusive: bool,
) -> Result<Option<Choice>> {
    let Some(value) = grant.userns.as_deref() else {
        default_maps(config);
        return Ok(None);
    };
    let lock = exclusive.then(|| store.lock_all()).transpose()?;
    let size = auto::size(value)?;
    require_free(&config.spec)?;
    let grants = parent::grants()?;
    let claim = auto::choose(&grants, &taken(store)?, size)?;
    let maps = auto::maps(&grants, &claim);
    set(config.change(), &maps.uid, &maps.gid);
    Ok(Some(Choice { claim, _lock: lock }))
}

/// Sets mappings for a new user namespace without mappings in the config, as crun does: the caller's id becomes the
/// container's user, and the caller's subordinate ids the others.
fn default_maps(config: &mut Config) {
    let spec = &config.spec;
    let Some(linux) = spec.linux().as_ref() else { return };
    let new = linux.namespaces().iter().flatten().any(|n| {
        let path = n.path().as_deref().filter(|path| !path.as_os_str().is_empty());
        n.typ() == LinuxNamespaceType::User && path.is_none()
    });
    let given = |map: &Option<Vec<LinuxIdMapping>>| map.as_ref().is_some_and(|map| !map.is_empty());
    if !new || given(linux.uid_mappings()) || given(linux.gid_mappings()) {
        return;
    }
    let user = spec.process().as_ref().map(|process| (process.user().uid(), process.user().gid()));
    let (uid, gid) = user.unwrap_or_default();
    // Without subordinate ids only the caller's id is mapped.
    let grants = parent::grants().unwrap_or_default();
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let uids = auto::default_map(uid, own.0, grants.uids.first().copied());
    let gids = auto::default_map(gid, own.1, grants.gids.first().copied());
    set(config.change(), &uids, &gids);
}

/// Checks that the config has no mappings and joins no user namespace.
fn require_free(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let given = linux.is_some_and(|l| {
        let some = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
        some(l.uid_mappings()) || some(l.gid_mappings())
    });
    let joined = linux.and_then(|l| l.namespaces().as_ref()).into_iter().flatten().any(|n| {
        let path = n.path().as_deref().filter(|path| !path.as_os_str().is_empty());
        n.typ() == LinuxNamespaceType::User && path.is_some()
    });
    if given || joined {
        return Err(Error::config(
            "userns auto: the config has mappings, or joins a user namespace, already",
        )
        .hint("take linux.uidMappings and linux.gidMappings out of config.json"));
    }
    Ok(())
}

/// Lists the ids in the records of all containers, also stopped ones: their files may be in use.
fn taken(store: &Store) -> Result<Vec<Claim>> {
    let mut taken = Vec::new();
    for id in store.ids()? {
        // Deleted in the meantime, or a create that was killed before it wrote a record.
        let Ok(slot) = store.open(&id) else { continue };
        // The intent and the record have the same ids.
        let record = slot.read().or_else(|e| slot.read_intent().map_err(|_| e));
        let record = record.map_err(|e| e.context(format!("find the ids of container {id}")))?;
        taken.extend(record.and_then(|record| record.ids));
    }
    Ok(taken)
}

fn set(spec: &mut Spec, uid: &[Mapping], gid: &[Mapping]) {
    let has_user = has_namespace(spec, LinuxNamespaceType::User);
    let Some(linux) = spec.linux_mut() else { return };
    if !has_user {
        let mut all = linux.namespaces_mut().take().unwrap_or_default();
        let mut user = LinuxNamespace::default();
        user.set_typ(LinuxNamespaceType::User);
        all.push(user);
        linux.set_namespaces(Some(all));
    }
    linux.set_uid_mappings(Some(in_config(uid))).set_gid_mappings(Some(in_config(gid)));
}

fn in_config(map: &[Mapping]) -> Vec<LinuxIdMapping> {
    let entry = |m: &Mapping| {
        let entry = LinuxIdMappingBuilder::default();
        let entry = entry.container_id(m.container).host_id(m.host).size(m.size);
        entry.build().expect("all three are given")
    };
    map.iter().map(entry).collect()
}
