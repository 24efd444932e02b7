//! Addresses that containers hold.
//!
//! A lease is a file named by its address below the network's directory, and the record of everything
//! that a container has outside itself: it is written before the link and the filter's elements are
//! made, and removed after they are. The name decides who gets an address, without a lock: two cannot
//! make one file. A free address is guessed, which works at once in a network that is not nearly full;
//! only then is the directory read.
//!
//! Containers that share a network namespace hold its lease together, and the last one takes it along.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::definition::{Network, Pool};
use super::firewall::Mapping;
use super::names::parent as names;
use super::plan::Attachment;
use super::publish::Published;
use super::store::{self, STATE};
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::record;
use crate::sys::Errno;

/// A container of some state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub root: PathBuf,
    pub id: String,
}

impl Holder {
    /// Its directory is there before it holds anything, and goes after.
    fn exists(&self) -> bool {
        self.root.join(&self.id).exists()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub network: String,
    /// The host's end of the link.
    pub link: String,
    /// The first is the lease's name.
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
    pub holders: Vec<Holder>,
}

/// What a container's record says of its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub network: String,
    pub address: IpAddr,
}

const LONGEST: usize = 1 << 20;
const GUESSES: usize = 8;
/// Of a network of billions of addresses, the part that is used.
const MOST: u128 = 1 << 20;

fn directory(network: &str) -> PathBuf {
    Path::new(STATE).join("leases").join(network)
}

impl Reference {
    fn path(&self) -> PathBuf {
        directory(&self.network).join(self.address.to_string())
    }
}

impl Lease {
    pub fn reference(&self) -> Reference {
        Reference { network: self.network.clone(), address: self.addresses[0] }
    }

    /// Every published port with every address that it may lead to.
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

    pub fn is_dead(&self) -> bool {
        !self.holders.iter().any(Holder::exists)
    }

    pub fn holders(&self) -> String {
        self.holders.iter().map(|h| h.id.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn text(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::system(format!("encode the lease: {e}")))
    }

    /// Whether its addresses were all free; then they are its own.
    fn place(&self) -> Result<bool> {
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

    /// Gives the addresses back. Links and elements are gone by now.
    pub fn remove(&self) -> Result<()> {
        names::leave(self, None)?;
        let directory = directory(&self.network);
        // The name last: while it is there, somebody knows of the rest.
        self.addresses.iter().rev().try_for_each(|a| store::unlink(&directory.join(a.to_string())))
    }
}

/// The lease, if it is there.
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

pub fn all() -> Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for network in store::entries(&Path::new(STATE).join("leases"))? {
        leases.extend(of_network(&network)?);
    }
    Ok(leases)
}

/// One more holder: the lease stays until the last is gone.
pub fn share(reference: &Reference, holder: &Holder) -> Result<Lease> {
    let _lock = store::lock_directory(&directory(&reference.network))?;
    let mut lease = load(reference)?
        .ok_or_else(|| Error::state(format!("the lease of {} is gone", reference.address)))?;
    lease.holders.push(holder.clone());
    record::write(&reference.path(), 0o600, &lease.text()?)?;
    Ok(lease)
}

/// The lease whose last holder this was: `last` takes away what it says, then it goes.
pub fn release(
    reference: &Reference,
    holder: &Holder,
    last: impl FnOnce(&Lease) -> Result<()>,
) -> Result<()> {
    let _lock = store::lock_directory(&directory(&reference.network))?;
    let Some(mut lease) = load(reference)? else { return Ok(()) };
    lease.holders.retain(|other| other != holder);
    // Holders that died by the way count no more.
    if lease.is_dead() {
        last(&lease)?;
        return lease.remove();
    }
    names::leave(&lease, Some(&holder.id))?;
    record::write(&reference.path(), 0o600, &lease.text()?)
}

/// Addresses of `network` for `holder`, and the name of a link that nobody has.
pub fn claim(network: &Network, attachment: &Attachment, holder: &Holder) -> Result<Lease> {
    crate::fs::closed::directory(&directory(&network.name))?;
    let claim = Claim { network, attachment, holder };
    claim.check()?;
    claim.make().context(|| format!("take an address of network {}", network.name))
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
            return Err(Error::config(format!(
                "network {name} is internal: it publishes no ports"
            )));
        }
        for address in &self.attachment.addresses {
            if !self.network.pools().any(|pool| is_host(pool, *address)) {
                return Err(Error::config(format!(
                    "address {address} is no container's on network {name}: {}",
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
                "cannot publish {published}: network {name} has no address of that family: {}",
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
        let count = area.span().min(MOST - 1) + 1;
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
                "no address is free: {} of {area} are taken",
                of_network(&self.network.name).map_or(0, |leases| leases.len())
            ))
            .hint("delete containers, or make a network with a larger subnet")
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
        let by =
            other.map_or_else(|| "somebody".to_owned(), |l| format!("container {}", l.holders()));
        let texts: Vec<_> = self.attachment.addresses.iter().map(ToString::to_string).collect();
        Err(Error::new(Kind::Exists, format!("address {} is taken by {by}", texts.join(", "))))
    }

    fn addresses(&self, offset: u128) -> Vec<IpAddr> {
        let of = |pool: &Pool| self.fixed(pool).unwrap_or_else(|| pool.subnet.at(offset));
        self.network.pools().map(of).collect()
    }

    /// The lease of the `offset`th address, if that is one for a container, and free.
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
        Ok(lease.place()?.then_some(lease))
    }
}

/// What was kept of a network that has no leases any more.
pub fn forget(network: &str) -> Result<()> {
    names::forget(network)?;
    // Of claims that were killed before there was a lease.
    for name in store::entries(&directory(network))?.iter().filter(|name| name.starts_with('.')) {
        store::unlink(&directory(network).join(name))?;
    }
    store::remove_directory(&directory(network))
}

/// Whether a container may have it.
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

/// Gives back what nobody holds any more. Elements of the filter that still lead to it are replaced
/// when they are in somebody's way.
fn reclaim(network: &str) -> Result<()> {
    let _lock = store::lock_directory(&directory(network))?;
    of_network(network)?.iter().filter(|lease| lease.is_dead()).try_for_each(Lease::remove)
}

/// Without a call: the standard library has asked the kernel for keys.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
