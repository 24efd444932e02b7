//! Leases: the addresses and ports that containers hold on a network.
//!
//! A lease is a file, named by its address, in the network's directory. It records everything that a container has
//! outside itself. It is written before the link and the packet filter's elements are created, and removed after they
//! are gone. The file name decides without a lock which container gets an address: only one process can create a
//! file. A free address is guessed, which succeeds at once unless the network is nearly full; only then is the
//! directory read.
//!
//! Containers that share a network namespace hold its lease together. The last holder removes it.

pub mod effect;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::{may_exist, record};
use crate::network::definition::store::{self, STATE};
use crate::network::definition::{Network, Pool};
use crate::network::firewall::Mapping;
use crate::network::names::effect as names;
use crate::network::plan::Attachment;
use crate::network::ports::Published;
use crate::sys::Errno;

/// Container that holds a lease: its state root and ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub root: PathBuf,
    pub id: String,
}

impl Holder {
    /// True while the state directory exists: it is created before the container holds anything and removed last.
    fn exists(&self) -> bool {
        may_exist(&self.root.join(&self.id))
    }
}

/// Lease of one container, or of several in one network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub network: String,
    /// Name of the host's end of the veth pair.
    pub link: String,
    /// The first address names the lease's file.
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
    pub holders: Vec<Holder>,
}

/// Reference to a lease in a container's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub network: String,
    pub address: IpAddr,
}

const LONGEST: usize = 1 << 20;
const GUESSES: usize = 8;
/// Maximum number of addresses that are leased on a large network, counted from the first.
const MAX_ADDRESSES: u128 = 1 << 20;

fn directory(network: &str) -> PathBuf {
    Path::new(STATE).join("leases").join(network)
}

impl Reference {
    fn path(&self) -> PathBuf {
        directory(&self.network).join(self.address.to_string())
    }
}

impl Lease {
    /// Reference for a container's record.
    pub fn reference(&self) -> Reference {
        Reference { network: self.network.clone(), address: self.addresses[0] }
    }

    /// Pairs of each published port and each address that it may lead to.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> + '_ {
        let to = |published: &Published| {
            let published = *published;
            self.addresses.iter().map(move |to| Mapping { published, to: *to })
        };
        self.published
            .iter()
            .flat_map(to)
            .filter(|mapping| mapping.published.is_of(mapping.to.is_ipv4()))
    }

    /// True if none of the holders exists any more.
    pub fn has_no_holder(&self) -> bool {
        !self.holders.iter().any(Holder::exists)
    }

    /// IDs of the holders, separated by commas.
    pub fn holders(&self) -> String {
        self.holders.iter().map(|h| h.id.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn text(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::system(format!("encode the lease: {e}")))
    }

    /// Creates the lease's files. Returns false, and creates nothing, if an address is in use.
    fn create_files(&self) -> Result<bool> {
        let directory = directory(&self.network);
        let path = self.reference().path();
        if !record::place(&path, 0o600, &self.text()?)? {
            return Ok(false);
        }
        for other in &self.addresses[1..] {
            let link = directory.join(other.to_string());
            match std::os::unix::fs::symlink(self.addresses[0].to_string(), &link) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    store::unlink(&path)?;
                    return Ok(false);
                }
                other => other.os("symlink", link.display())?,
            }
        }
        Ok(true)
    }

    /// Removes the lease's files. Links and elements must already be gone.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        names::remove_lines(self, None)?;
        let directory = directory(&self.network);
        // The name last: while it exists, the rest can be found.
        self.addresses.iter().rev().try_for_each(|a| store::unlink(&directory.join(a.to_string())))
    }
}

/// Reads the lease, if it exists.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn load(reference: &Reference) -> Result<Option<Lease>> {
    let path = reference.path();
    match record::read(&path, LONGEST) {
        Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(None),
        other => {
            let lease = serde_json::from_slice(&other?);
            lease.map(Some).map_err(|e| Error::system(format!("{}: {e}", path.display())))
        }
    }
}

/// All leases of a network, oldest first.
///
/// # Errors
///
/// A file cannot be read.
pub fn of_network(network: &str) -> Result<Vec<Lease>> {
    let directory = directory(network);
    let mut leases = Vec::new();
    for name in store::entries(&directory)? {
        let Ok(address) = name.parse() else { continue };
        let Ok(meta) = std::fs::symlink_metadata(directory.join(&name)) else { continue };
        if meta.is_file()
            && let Some(lease) = load(&Reference { network: network.to_owned(), address })?
        {
            leases.push((meta.modified().ok(), lease));
        }
    }
    leases.sort_by_key(|(since, _)| *since);
    Ok(leases.into_iter().map(|(_, lease)| lease).collect())
}

/// All leases of all networks.
///
/// # Errors
///
/// A file cannot be read.
pub fn all() -> Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for network in store::entries(&Path::new(STATE).join("leases"))? {
        leases.extend(of_network(&network)?);
    }
    Ok(leases)
}

/// Adds a holder. The lease exists until its last holder is gone.
///
/// # Errors
///
/// The lease does not exist.
pub fn share(reference: &Reference, holder: &Holder) -> Result<Lease> {
    let _lock = store::lock_directory(&directory(&reference.network))?;
    let mut lease = load(reference)?
        .ok_or_else(|| Error::state(format!("the lease of {} is gone", reference.address)))?;
    lease.holders.push(holder.clone());
    record::write(&reference.path(), 0o600, &lease.text()?)?;
    Ok(lease)
}

/// Removes a holder. If it was the last, calls `last`, which removes what the lease records, and then removes the
/// lease.
///
/// # Errors
///
/// The lease cannot be read or removed, or `last` fails.
pub fn release(
    reference: &Reference,
    holder: &Holder,
    last: impl FnOnce(&Lease) -> Result<()>,
) -> Result<()> {
    let _lock = store::lock_directory(&directory(&reference.network))?;
    let Some(mut lease) = load(reference)? else { return Ok(()) };
    lease.holders.retain(|other| other != holder);
    // Holders that are gone without a release do not count.
    if lease.has_no_holder() {
        last(&lease)?;
        return lease.remove();
    }
    names::remove_lines(&lease, Some(&holder.id))?;
    record::write(&reference.path(), 0o600, &lease.text()?)
}

/// Leases addresses of `network` to `holder`, with an unused name for the link.
///
/// # Errors
///
/// No address or port is free, or a requested one is in use.
pub fn claim(network: &Network, attachment: &Attachment, holder: &Holder) -> Result<Lease> {
    crate::fs::closed::directory(&directory(&network.name))?;
    let claim = Claim { network, attachment, holder };
    claim.check()?;
    claim.make().context(|| format!("lease an address on network {}", network.name))
}

struct Claim<'a> {
    network: &'a Network,
    attachment: &'a Attachment,
    holder: &'a Holder,
}

impl Claim<'_> {
    fn check(&self) -> Result<()> {
        let Network { name, internal, .. } = self.network;
        if *internal && !self.attachment.published.is_empty() {
            return Err(Error::config(format!("cannot publish ports: network {name} is internal")));
        }
        for address in &self.attachment.addresses {
            if !self.network.pools().any(|pool| is_host(pool, *address)) {
                return Err(Error::config(format!(
                    "address {address} cannot be assigned to a container on network {name}: {}",
                    subnets(self.network)
                )));
            }
        }
        let families: Vec<bool> =
            self.network.pools().map(|pool| pool.subnet.address.is_ipv4()).collect();
        let unreachable = |p: &&Published| !families.iter().any(|ipv4| p.is_of(*ipv4));
        match self.attachment.published.iter().find(unreachable) {
            None => Ok(()),
            Some(published) => Err(Error::config(format!(
                "cannot publish {published}: network {name} has no subnet of that address family: {}",
                subnets(self.network)
            ))),
        }
    }

    fn fixed(&self, pool: &Pool) -> Option<IpAddr> {
        let same = |a: &&IpAddr| a.is_ipv4() == pool.subnet.address.is_ipv4();
        self.attachment.addresses.iter().find(same).copied()
    }

    fn make(&self) -> Result<Lease> {
        let primary =
            self.network.pools().next().ok_or_else(|| {
                Error::system(format!("network {} has no subnet", self.network.name))
            })?;
        if let Some(address) = self.fixed(primary) {
            return self.make_fixed(primary.subnet.offset(address).unwrap_or_default());
        }
        let area = primary.range.unwrap_or(primary.subnet);
        let first = primary.subnet.offset(area.first()).unwrap_or_default();
        let count = area.span().min(MAX_ADDRESSES - 1) + 1;
        for _ in 0..GUESSES {
            if let Some(lease) = self.try_at(first + u128::from(random()) % count)? {
                return Ok(lease);
            }
        }
        if let Some(lease) = self.search(primary, first, count)? {
            return Ok(lease);
        }
        reclaim(&self.network.name)?;
        self.search(primary, first, count)?.ok_or_else(|| {
            Error::system(format!(
                "no free address: {} of {area} are in use",
                of_network(&self.network.name).map_or(0, |leases| leases.len())
            ))
            .hint("delete containers, or create a network with a larger subnet")
        })
    }

    fn search(&self, primary: &Pool, first: u128, count: u128) -> Result<Option<Lease>> {
        let taken: HashSet<String> =
            store::entries(&directory(&self.network.name))?.into_iter().collect();
        for offset in first..first + count {
            if !taken.contains(&primary.subnet.at(offset).to_string())
                && let Some(lease) = self.try_at(offset)?
            {
                return Ok(Some(lease));
            }
        }
        Ok(None)
    }

    fn make_fixed(&self, offset: u128) -> Result<Lease> {
        if let Some(lease) = self.try_at(offset)? {
            return Ok(lease);
        }
        reclaim(&self.network.name)?;
        if let Some(lease) = self.try_at(offset)? {
            return Ok(lease);
        }
        let wanted = self.addresses(offset);
        let leases = of_network(&self.network.name)?;
        let other = leases.iter().find(|l| l.addresses.iter().any(|a| wanted.contains(a)));
        let by = other
            .map_or_else(|| "another process".to_owned(), |l| format!("container {}", l.holders()));
        let texts: Vec<_> = self.attachment.addresses.iter().map(ToString::to_string).collect();
        Err(Error::new(Kind::Exists, format!("address {} is in use by {by}", texts.join(", "))))
    }

    fn addresses(&self, offset: u128) -> Vec<IpAddr> {
        let of = |pool: &Pool| self.fixed(pool).unwrap_or_else(|| pool.subnet.at(offset));
        self.network.pools().map(of).collect()
    }

    /// Leases the address at `offset`, if it is free and can be a container's.
    fn try_at(&self, offset: u128) -> Result<Option<Lease>> {
        let addresses = self.addresses(offset);
        if !self.network.pools().zip(&addresses).all(|(pool, address)| is_host(pool, *address)) {
            return Ok(None);
        }
        let lease = Lease {
            network: self.network.name.clone(),
            link: format!("aril-{:08x}", random() as u32),
            addresses,
            published: self.attachment.published.clone(),
            holders: vec![self.holder.clone()],
        };
        Ok(lease.create_files()?.then_some(lease))
    }
}

/// Removes the files that remain of a network without leases.
///
/// # Errors
///
/// A file cannot be removed.
pub fn forget(network: &str) -> Result<()> {
    names::forget(network)?;
    // Temporary files of processes that were killed before the lease was complete.
    for name in store::entries(&directory(network))?.iter().filter(|name| name.starts_with('.')) {
        store::unlink(&directory(network).join(name))?;
    }
    store::remove_directory(&directory(network))
}

/// True if the address can be assigned to a container.
fn is_host(pool: &Pool, address: IpAddr) -> bool {
    let Pool { subnet, gateway, .. } = pool;
    subnet.contains(address)
        && address != *gateway
        && address != subnet.first()
        && (address.is_ipv6() || address != subnet.last())
}

fn subnets(network: &Network) -> String {
    network.pools().map(|pool| pool.subnet.to_string()).collect::<Vec<_>>().join(", ")
}

/// Removes leases without a living holder. An element of the packet filter that such a lease leaves is replaced when
/// another container publishes the same port.
fn reclaim(network: &str) -> Result<()> {
    let _lock = store::lock_directory(&directory(network))?;
    of_network(network)?.iter().filter(|lease| lease.has_no_holder()).try_for_each(Lease::remove)
}

/// Random number from the standard library's hash keys, which needs no further system call.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
