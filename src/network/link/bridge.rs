//! Creates the bridge of a network, and its tunnel.
//!
//! A bridge is created when the first container of its network starts, also after a reboot. It is brought up last, so a
//! bridge that is up belongs to a complete network; a start that finds an incomplete one creates the rest. A start that
//! finds the packet filter's table gone creates it again from the definitions and leases.

use super::LinkRef;
use super::settings::{self, has_ipv6};
use crate::error::{Context, Error, Result};
use crate::network::definition::{Network, Vxlan, link_local, store};
use crate::network::firewall::effect::repair_locked;
use crate::network::firewall::guard;
use crate::network::kernel::{permission, refused, routes};
use crate::network::link;
use crate::sys::Errno;
use crate::sys::netlink::{Batch, Socket};

/// Returns the index of the network's bridge. Creates the bridge if it is missing or incomplete.
pub(super) fn bridge_of(
    socket: &mut Socket,
    network: &Network,
    warnings: &mut Vec<String>,
) -> Result<u32> {
    let find = |socket: &mut Socket| {
        link::find(socket, &network.name).map_err(|r| refused(r, &network.name))
    };
    if let Some(found) = find(socket)?.filter(|found| found.up) {
        return Ok(found.index);
    }
    warnings.extend(make(network)?);
    find(socket)?.map(|found| found.index).ok_or_else(|| {
        Error::system(format!("bridge {} was removed in the meantime", network.name))
    })
}

/// Creates what is missing of a network. Returns a warning about a protection that this host cannot provide.
///
/// # Errors
///
/// The kernel rejects the bridge, its addresses or the table.
pub fn make(network: &Network) -> Result<Option<String>> {
    let _lock = store::lock()?;
    make_locked(network).context(|| format!("create network {}", network.name))
}

fn make_locked(network: &Network) -> Result<Option<String>> {
    let mut socket = routes()?;
    let refuse = |r| permission(refused(r, &format!("bridge {}", network.name)));
    let index = match link::find(&mut socket, &network.name).map_err(refuse)? {
        Some(found) => found.index,
        None => {
            no_overlap(&mut socket, network)?;
            let mut batch = Batch::new();
            link::new_bridge(&mut batch, &network.name, network.mac(), network.mtu);
            link::get(&mut batch, &network.name);
            let found = link::shown(&mut socket, batch).map_err(refuse)?;
            found.ok_or_else(|| Error::system("the kernel does not list the new bridge"))?.index
        }
    };
    let warning = settings::of_bridge(&mut socket, network, index)?;
    settings::forwarding(&mut socket, network)?;
    settings::reopen_loopback(network)?;
    let mut batch = Batch::new();
    for pool in network.pools() {
        link::add_address(&mut batch, index, pool.subnet.with(pool.gateway));
    }
    if has_ipv6() {
        link::no_link_local(&mut batch, LinkRef::Index(index));
    }
    if network.ipv6.is_some() {
        // The kernel uses the address in neighbour requests, so it must not wait for duplicate address detection.
        link::add_address(&mut batch, index, link_local(network.mac()));
    }
    if !batch.is_empty() {
        socket.transact(batch).map_err(|r| permission(refused(r, "addresses of the bridge")))?;
    }
    tunnel(&mut socket, network, index)?;
    repair_locked(Some(network))?;
    let mut batch = Batch::new();
    link::up(&mut batch, LinkRef::Index(index));
    for route in &network.routes {
        link::add_route(&mut batch, route.to, route.via);
    }
    socket.transact(batch).map_err(|r| refused(r, "the bridge's routes"))?;
    Ok(warning)
}

fn tunnel(socket: &mut Socket, network: &Network, bridge: u32) -> Result<()> {
    let (Some(vxlan), Some(name)) = (&network.vxlan, network.tunnel()) else { return Ok(()) };
    let refuse = |r| refused(r, &format!("vxlan device {name}"));
    if link::find(socket, &name).map_err(refuse)?.is_none() {
        let mut batch = Batch::new();
        let Vxlan { id, port, .. } = *vxlan;
        let device = link::Vxlan { name: &name, mtu: network.mtu, id, port, ipv6: vxlan.is_ipv6() };
        link::new_vxlan(&mut batch, &device);
        socket.transact(batch).map_err(refuse)?;
    }
    let found = link::find(socket, &name).map_err(refuse)?;
    let index = found
        .ok_or_else(|| Error::system(format!("vxlan device {name} was removed in the meantime")))?
        .index;
    settings::ignore_neighbours(&name)?;
    settings::attach_programs(socket, index, &[(false, guard::tunnel())])
        .context(|| format!("guard vxlan device {name}"))?;
    let mut batch = Batch::new();
    link::enslave(&mut batch, index, bridge);
    socket.transact(batch).map_err(refuse)?;
    let mut batch = Batch::new();
    vxlan.peers.iter().for_each(|peer| link::flood_to(&mut batch, index, *peer));
    if batch.is_empty() {
        return Ok(());
    }
    match socket.transact(batch) {
        // The peer was added by an earlier attempt.
        Err(refusal) if refusal.errno == Errno::EEXIST => Ok(()),
        other => other.map_err(refuse),
    }
}

/// Returns an error if the host routes the subnet elsewhere.
pub(in crate::network) fn no_overlap(socket: &mut Socket, network: &Network) -> Result<()> {
    for pool in network.pools() {
        let ipv4 = pool.subnet.address.is_ipv4();
        let known = link::destinations(socket, ipv4).map_err(|r| refused(r, "routes"))?;
        if let Some(other) = known.iter().find(|other| other.overlaps(pool.subnet)) {
            return Err(Error::system(format!(
                "subnet {} overlaps the host's route to {other}",
                pool.subnet
            ))
            .hint("choose another --subnet; for the default network, `aril network rm aril0`"));
        }
    }
    Ok(())
}
