//! Attachments of engines, whose containers have no state directory of ours: a folder each.
//!
//! `/run/aril/@cni/NETWORK/CONTAINER@INTERFACE` is made before the attachment's lease and removed after
//! it, so that the lease has a holder that lives. A symbolic link in it names the lease's address: nobody
//! has to look through all leases. Who makes an attachment holds its lock meanwhile: what has none, and
//! neither lease nor link, was left by somebody who was killed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::lease::{self, Holder, Lease, Reference};
use super::parent;
use super::store;
use crate::error::{Error, OsContext, Result};
use crate::fs::closed;

/// Of attachments that are there.
const ATTACHMENTS: &str = "/run/aril/@cni";

/// In the folder.
const LEASE: &str = "lease";

pub fn holder(network: &str, container: &str, interface: &str) -> Holder {
    of(network, format!("{container}@{interface}"))
}

fn of(network: &str, id: String) -> Holder {
    Holder { root: Path::new(ATTACHMENTS).join(network), id }
}

/// All attachments to a network.
pub fn all_of(network: &str) -> Result<Vec<Holder>> {
    let names = store::entries(&Path::new(ATTACHMENTS).join(network))?;
    Ok(names.into_iter().map(|id| of(network, id)).collect())
}

/// The attachments that one interface of a container has, by network. There is one at most, unless
/// an ADD was killed and the next one named another network.
pub fn all_with(container: &str, interface: &str) -> Result<Vec<(String, Holder)>> {
    let networks = store::entries(Path::new(ATTACHMENTS))?.into_iter();
    let all = networks.map(|network| {
        let holder = holder(&network, container, interface);
        (network, holder)
    });
    Ok(all.filter(|(_, holder)| folder(holder).exists()).collect())
}

fn folder(holder: &Holder) -> PathBuf {
    holder.root.join(&holder.id)
}

/// Held while an attachment is made.
#[derive(Debug)]
pub struct Making(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// Nothing, if it is there already.
pub fn make(holder: &Holder) -> Result<Option<Making>> {
    let path = folder(holder);
    loop {
        closed::directory(&holder.root)?;
        match closed::create(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(None),
            // The last of the network's attachments has gone just now.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.os("mkdir", path.display())?,
        }
        // `reconcile` may look at it just now, and take it away.
        if let Some(making) = lock(&path, FlockArg::LockExclusive)? {
            return Ok(Some(making));
        }
    }
}

/// Nothing, if somebody else has it, or the folder is gone.
fn lock(path: &Path, how: FlockArg) -> Result<Option<Making>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.os("open", path.display())?,
    };
    match Flock::lock(file, how) {
        Ok(lock) if path.exists() => Ok(Some(Making(lock))),
        _ => Ok(None),
    }
}

/// Writes down which lease it is.
pub fn note(holder: &Holder, lease: &Lease) -> Result<()> {
    let link = folder(holder).join(LEASE);
    symlink(lease.addresses[0].to_string(), &link).os("symlink", link.display())
}

/// What the attachment holds.
pub fn lease_of(network: &str, holder: &Holder) -> Result<Option<Lease>> {
    let ours = |lease: &Lease| lease.holders.contains(holder);
    let path = folder(holder);
    if !path.exists() {
        return Ok(None);
    }
    let noted = fs::read_link(path.join(LEASE)).ok();
    let address = noted.and_then(|target| target.to_str()?.parse().ok());
    if let Some(address) = address {
        let reference = Reference { network: network.to_owned(), address };
        return Ok(lease::load(&reference)?.filter(ours));
    }
    // Killed between its lease and the note.
    Ok(lease::of_network(network)?.into_iter().find(ours))
}

/// What it holds goes, and it does, whether or not its network namespace is there.
pub fn remove(network: &str, holder: &Holder) -> Result<()> {
    if let Some(lease) = lease_of(network, holder)? {
        parent::detach(&lease)?;
        parent::release(&lease.reference(), holder)?;
    }
    let path = folder(holder);
    store::unlink(&path.join(LEASE))?;
    match fs::remove_dir(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::io("rmdir", path.display(), &e));
        }
        _ => {}
    }
    // While others are there it stays.
    let _ = fs::remove_dir(&holder.root);
    Ok(())
}

/// An attachment that nobody will come back for, perhaps.
#[derive(Debug)]
pub struct Abandoned {
    network: String,
    holder: Holder,
    pub why: &'static str,
}

impl Abandoned {
    /// `NETWORK/CONTAINER@INTERFACE`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.network, self.holder.id)
    }

    /// Looks again: it may be somebody else's by now.
    pub fn remove(&self) -> Result<()> {
        let Some(_lock) = lock(&folder(&self.holder), FlockArg::LockExclusiveNonblock)? else {
            return Ok(());
        };
        remove(&self.network, &self.holder)
    }
}

/// Attachments whose ADD was killed, or whose network namespace has gone and taken the link along. Their
/// links are looked for in this network namespace, if their network's bridge is there at all.
pub fn abandoned() -> Result<Vec<Abandoned>> {
    let networks = store::entries(Path::new(ATTACHMENTS))?;
    let links = if networks.is_empty() { Vec::new() } else { parent::links()? };
    let mut found = Vec::new();
    for network in networks {
        for holder in all_of(&network)? {
            let Some(_lock) = lock(&folder(&holder), FlockArg::LockExclusiveNonblock)? else {
                continue;
            };
            let why = match lease_of(&network, &holder)? {
                None => "its ADD was killed before it had an address",
                Some(lease) if links.contains(&network) && !links.contains(&lease.link) => {
                    "its link is gone, with its network namespace or before it was made"
                }
                Some(_) => continue,
            };
            found.push(Abandoned { network: network.clone(), holder, why });
        }
    }
    Ok(found)
}
