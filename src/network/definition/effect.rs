//! Defines networks and removes them.

use std::net::IpAddr;

use super::subnet::Subnet;
use super::{DEFAULT, Network, NetworkOptions, store};
use crate::error::{Error, Kind, Result};
use crate::network::address::{self, Lease, effect::unpublish};
use crate::network::firewall::{self, Transaction, effect::commit_removal};
use crate::network::kernel::{filter_socket, refused, routes};
use crate::network::link::{self, bridge::no_overlap, settings};
use crate::sys::Errno;
use crate::sys::netlink::Batch;

/// Returns the network with that name and defines it if it does not exist.
///
/// # Errors
///
/// The network cannot be defined, or exists with other options.
pub fn ensure(wanted: &NetworkOptions) -> Result<Network> {
    let network = match store::load(&wanted.name)? {
        Some(network) => network,
        None => match create(wanted) {
            // Another process has created the network in the meantime; otherwise the same error comes again.
            Err(e) if e.kind() == Kind::Exists => store::load(&wanted.name)?.ok_or(e)?,
            other => other?,
        },
    };
    agrees(&network, wanted)?;
    Ok(network)
}

/// Checks that an existing network agrees with the options.
///
/// # Errors
///
/// The network has other options.
pub fn agrees(network: &Network, wanted: &NetworkOptions) -> Result<()> {
    if wanted.subnets.is_empty() {
        return Ok(());
    }
    let asked = wanted.network()?;
    let other_mtu = wanted.mtu.is_some_and(|mtu| mtu != network.mtu);
    let same = asked.ipv4 == network.ipv4 && asked.ipv6 == network.ipv6 && !other_mtu;
    if same && asked.internal == network.internal && asked.isolated == network.isolated {
        return Ok(());
    }
    Err(Error::config(format!("network {} already exists with other options", network.name)).hint(
        format!(
            "`aril network inspect {0}` shows it, `aril network rm {0}` removes it",
            network.name
        ),
    ))
}

/// Creates the default network with the first of a few subnets that this host does not use. A bridge has at most 1023
/// ports.
pub(in crate::network) fn default_network() -> Result<Network> {
    let _lock = store::lock()?;
    if let Some(network) = store::load(DEFAULT)? {
        return Ok(network);
    }
    let network = with_free_subnet(
        DEFAULT,
        &NetworkOptions { name: DEFAULT.to_owned(), ..NetworkOptions::default() },
    )?;
    store::save(&network)?;
    Ok(network)
}

fn with_free_subnet(name: &str, wanted: &NetworkOptions) -> Result<Network> {
    let used = link::destinations(&mut routes()?, true).map_err(|r| refused(r, "routes"))?;
    let defined = store::all()?;
    let taken = |subnet: Subnet| {
        used.iter()
            .chain(defined.iter().flat_map(|n| n.ipv4.iter().map(|pool| &pool.subnet)))
            .any(|other| other.overlaps(subnet))
    };
    let blocks = (0..=255_u8).flat_map(|third| (213..=214_u8).map(move |second| (second, third)));
    let free = blocks
        .filter(|(_, third)| third % 4 == 0)
        .map(|(second, third)| Subnet { address: IpAddr::from([10, second, third, 0]), prefix: 22 })
        .find(|subnet| !taken(*subnet))
        .ok_or_else(|| {
            Error::system(format!(
                "no free subnet for network {name} in 10.213.0.0/16 and 10.214.0.0/16"
            ))
            .hint("choose one: aril network create --subnet")
        })?;
    NetworkOptions { subnets: vec![free.to_string()], ..wanted.clone() }.network()
}

/// Defines a network. Its bridge is created with its first container.
///
/// # Errors
///
/// The name or a subnet is in use, or the kernel rejects a part.
pub fn create(wanted: &NetworkOptions) -> Result<Network> {
    let network = wanted.network()?;
    let _lock = store::lock()?;
    if store::load(&network.name)?.is_some() {
        return Err(Error::new(Kind::Exists, format!("network already exists: {}", network.name)));
    }
    let mut socket = routes()?;
    if link::find(&mut socket, &network.name).map_err(|r| refused(r, &network.name))?.is_some() {
        return Err(Error::new(
            Kind::Exists,
            format!("a network interface named {} already exists", network.name),
        )
        .hint("the bridge has the network's name: choose another name"));
    }
    let network = if network.pools().next().is_none() {
        with_free_subnet(&network.name, wanted)?
    } else {
        no_overlap(&mut socket, &network)?;
        apart_from_others(&network)?;
        network
    };
    store::save(&network)?;
    Ok(network)
}

fn apart_from_others(network: &Network) -> Result<()> {
    for other in store::all()? {
        for (pool, theirs) in network.pools().flat_map(|a| other.pools().map(move |b| (a, b))) {
            if pool.subnet.overlaps(theirs.subnet) {
                return Err(Error::config(format!(
                    "subnet {} overlaps {} of network {}",
                    pool.subnet, theirs.subnet, other.name
                )));
            }
        }
        if network.tunnel().is_some() && network.tunnel() == other.tunnel() {
            return Err(Error::config(format!("network {} has the same VNI", other.name)));
        }
    }
    Ok(())
}

/// Removes a network without containers.
///
/// # Errors
///
/// The network does not exist, or has containers.
pub fn remove(name: &str) -> Result<()> {
    let network = store::get(name)?;
    let _lock = store::lock()?;
    let live: Vec<_> =
        address::of_network(name)?.into_iter().filter(|l| !l.has_no_holder()).collect();
    if !live.is_empty() {
        let users: Vec<_> = live.iter().map(Lease::holders).collect();
        return Err(Error::state(format!("network {name} is in use by {}", users.join(", ")))
            .hint("delete the containers first"));
    }
    for dead in address::of_network(name)? {
        unpublish(&dead)?;
        dead.remove()?;
    }
    let mut transaction = Transaction::new();
    firewall::remove_bridge(&mut transaction, &network.bridge());
    commit_removal(transaction, &mut filter_socket()?, &format!("elements of network {name}"))?;
    let mut socket = routes()?;
    for link in network.tunnel().into_iter().chain([name.to_owned()]) {
        let mut batch = Batch::new();
        link::delete(&mut batch, &link);
        match socket.transact(batch) {
            Err(refusal) if refusal.errno != Errno::ENODEV => return Err(refused(refusal, &link)),
            _ => {}
        }
    }
    store::remove(name)?;
    settings::forget(name)?;
    address::forget(name)
}
