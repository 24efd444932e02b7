//! Directories of CNI attachments: the engines' containers have no state directory in Aril's state root.
//!
//! `/run/aril/@cni/NETWORK/CONTAINER@INTERFACE` is created before the attachment's lease and removed after it, so the
//! lease always has a holder that exists. A symbolic link in it names the lease's address, which saves a search
//! through all leases. An ADD holds a lock on the directory. An unlocked directory with neither lease nor link was
//! left by an ADD that was killed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, OsContext, Result};
use crate::fs::{closed, may_exist};
use crate::network::address::effect::release;
use crate::network::address::{self, Holder, Lease, Reference};
use crate::network::definition::store;
use crate::network::kernel;
use crate::network::link::attach::detach;

/// Directory of all attachments.
const ATTACHMENTS: &str = "/run/aril/@cni";

/// Name of the symbolic link to the lease.
const LEASE: &str = "lease";

/// Holder of an attachment's lease.
pub fn holder(network: &str, container: &str, interface: &str) -> Holder {
    of(network, format!("{container}@{interface}"))
}

fn of(network: &str, id: String) -> Holder {
    Holder { root: Path::new(ATTACHMENTS).join(network), id }
}

/// Lists all attachments to a network.
///
/// # Errors
///
/// The directory cannot be read.
pub fn all_of(network: &str) -> Result<Vec<Holder>> {
    let names = store::entries(&Path::new(ATTACHMENTS).join(network))?;
    Ok(names.into_iter().map(|id| of(network, id)).collect())
}

/// Lists the attachments of one interface of a container, by network. There is at most one, unless an ADD was killed
/// and the next ADD named another network.
///
/// # Errors
///
/// The directory cannot be read.
pub fn all_with(container: &str, interface: &str) -> Result<Vec<(String, Holder)>> {
    let networks = store::entries(Path::new(ATTACHMENTS))?.into_iter();
    let all = networks.map(|network| {
        let holder = holder(&network, container, interface);
        (network, holder)
    });
    Ok(all.filter(|(_, holder)| may_exist(&directory(holder))).collect())
}

fn directory(holder: &Holder) -> PathBuf {
    holder.root.join(&holder.id)
}

/// Lock on an attachment's directory while an ADD runs.
#[derive(Debug)]
pub struct AttachmentLock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// Creates the directory of an attachment and locks it. Returns `None` if it exists.
///
/// # Errors
///
/// The directory cannot be created or locked.
pub fn make(holder: &Holder) -> Result<Option<AttachmentLock>> {
    let path = directory(holder);
    loop {
        closed::directory(&holder.root)?;
        match closed::create(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(None),
            // The directory of the network was removed with its last attachment.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.os("mkdir", path.display())?,
        }
        // `reconcile` may remove the directory before it is locked.
        if let Some(making) = lock(&path, FlockArg::LockExclusive)? {
            return Ok(Some(making));
        }
    }
}

/// Locks a directory. Returns `None` if another process holds the lock, or the directory is gone.
fn lock(path: &Path, how: FlockArg) -> Result<Option<AttachmentLock>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.os("open", path.display())?,
    };
    match Flock::lock(file, how) {
        Ok(lock) if may_exist(path) => Ok(Some(AttachmentLock(lock))),
        _ => Ok(None),
    }
}

/// Records the lease of an attachment.
///
/// # Errors
///
/// The file cannot be written.
pub fn record_lease(holder: &Holder, lease: &Lease) -> Result<()> {
    let link = directory(holder).join(LEASE);
    symlink(lease.addresses[0].to_string(), &link).os("symlink", link.display())
}

/// Finds the lease of an attachment.
///
/// # Errors
///
/// A file cannot be read.
pub fn lease_of(network: &str, holder: &Holder) -> Result<Option<Lease>> {
    let ours = |lease: &Lease| lease.holders.contains(holder);
    let path = directory(holder);
    if !may_exist(&path) {
        return Ok(None);
    }
    let noted = fs::read_link(path.join(LEASE)).ok();
    let address = noted.and_then(|target| target.to_str()?.parse().ok());
    if let Some(address) = address {
        let reference = Reference { network: network.to_owned(), address };
        return Ok(address::load(&reference)?.filter(ours));
    }
    // The ADD was killed after it created the lease and before it recorded it.
    Ok(address::of_network(network)?.into_iter().find(ours))
}

/// Removes an attachment with everything that it holds, even if its network namespace is gone.
///
/// # Errors
///
/// A part cannot be removed.
pub fn remove(network: &str, holder: &Holder) -> Result<()> {
    if let Some(lease) = lease_of(network, holder)? {
        detach(&lease)?;
        release(&lease.reference(), holder)?;
    }
    let path = directory(holder);
    store::unlink(&path.join(LEASE))?;
    match fs::remove_dir(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::io("rmdir", path.display(), &e));
        }
        _ => {}
    }
    // Other attachments keep the network's directory.
    store::remove_directory(&holder.root)
}

/// Removes directories of networks without attachments, which an ADD or DEL leaves that is killed.
///
/// # Errors
///
/// A directory cannot be listed or removed.
pub fn remove_empty_networks() -> Result<()> {
    let networks = store::entries(Path::new(ATTACHMENTS))?;
    let mut directories = networks.iter().map(|network| Path::new(ATTACHMENTS).join(network));
    directories.try_for_each(|directory| store::remove_directory(&directory))
}

/// Attachment that no DEL is expected for.
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

    /// Removes the attachment if it is still abandoned: another ADD may have reused its name.
    ///
    /// # Errors
    ///
    /// A part cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let Some(_lock) = lock(&directory(&self.holder), FlockArg::LockExclusiveNonblock)? else {
            return Ok(());
        };
        remove(&self.network, &self.holder)
    }
}

/// Finds attachments whose ADD was killed, or whose link is gone with its network namespace. Links are looked for in
/// this network namespace, and only if the network's bridge exists in it.
///
/// # Errors
///
/// The directory or the list of links cannot be read.
pub fn abandoned() -> Result<Vec<Abandoned>> {
    let networks = store::entries(Path::new(ATTACHMENTS))?;
    let links = if networks.is_empty() { Vec::new() } else { kernel::links()? };
    let mut found = Vec::new();
    for network in networks {
        for holder in all_of(&network)? {
            let Some(_lock) = lock(&directory(&holder), FlockArg::LockExclusiveNonblock)? else {
                continue;
            };
            let why = match lease_of(&network, &holder)? {
                None => "its ADD was killed before it had an address",
                Some(lease) if links.contains(&network) && !links.contains(&lease.link) => {
                    "its link is gone with its network namespace, or was never created"
                }
                Some(_) => continue,
            };
            found.push(Abandoned { network: network.clone(), holder, why });
        }
    }
    Ok(found)
}
