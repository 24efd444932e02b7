//! Attaches containers to networks: veth pairs with addresses, routes and rate limits.

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;

use super::bridge::bridge_of;
use super::rate::Rate;
use super::settings::{self, has_ipv6};
use super::{LinkNamespace, LinkRef, Veth, setting};
use crate::error::{Context, Error, OsContext, Result};
use crate::network::address::Lease;
use crate::network::definition::subnet::Subnet;
use crate::network::definition::{Network, mac, store};
use crate::network::firewall::{self, effect::publish};
use crate::network::kernel::{filter_socket, refused, routes};
use crate::network::link;
use crate::sys::netlink::{Batch, ROUTE, Socket};
use crate::sys::open::open;
use crate::sys::{self, Errno};

/// Name of the container's end of the link.
const CONTAINER_LINK: &str = "eth0";

/// Gives the process behind `pidfd` its link with addresses and routes, and publishes its ports. Returns warnings for
/// the operator: protections that this host cannot provide.
///
/// # Errors
///
/// The link, its addresses or the published ports cannot be created.
pub fn attach(
    lease: &Lease,
    rate: Option<Rate>,
    pid: i32,
    pidfd: BorrowedFd<'_>,
) -> Result<Vec<String>> {
    let network = store::get(&lease.network)?;
    let end = End { place: LinkNamespace::Process(pid), namespace: pidfd, name: CONTAINER_LINK };
    connect(&network, lease, rate, end)
}

/// Does the same for an open network namespace, with a given name for the container's end of the link.
///
/// # Errors
///
/// As for [`attach`].
pub fn attach_at(
    lease: &Lease,
    rate: Option<Rate>,
    namespace: BorrowedFd<'_>,
    name: &str,
) -> Result<Vec<String>> {
    let network = store::get(&lease.network)?;
    connect(&network, lease, rate, End { place: LinkNamespace::File(namespace), namespace, name })
}

fn connect(
    network: &Network,
    lease: &Lease,
    rate: Option<Rate>,
    end: End<'_>,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let connected = make_link(network, lease, rate, end, &mut warnings).and_then(|()| {
        warnings.extend(settings::open_loopback(lease)?);
        publish(network, lease, &mut warnings)
    });
    connected.context(|| format!("attach to network {}", network.name))?;
    Ok(warnings)
}

/// Removes the link and unpublishes the ports, even if the network namespace still exists.
///
/// # Errors
///
/// The link exists and cannot be removed.
pub fn detach(lease: &Lease) -> Result<()> {
    let mut batch = Batch::new();
    link::delete(&mut batch, &lease.link);
    match routes()?.transact(batch) {
        Err(refusal) if refusal.errno != Errno::ENODEV => Err(refused(refusal, &lease.link)),
        _ => Ok(()),
    }
}

/// Returns the first part of an attachment that is missing.
///
/// # Errors
///
/// A part cannot be examined.
pub fn missing(lease: &Lease, namespace: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    let mut host = routes()?;
    let mut peer = 0;
    for link in [&lease.network, &lease.link] {
        let found = link::find(&mut host, link).map_err(|r| refused(r, link))?;
        match found.filter(|found| found.up) {
            Some(found) => peer = found.peer,
            None => return Ok(Some(format!("link {link} on the host is gone or down"))),
        }
    }
    let mut inside = socket_in(namespace, || Ok(()))?;
    let found = link::find(&mut inside, name).map_err(|r| refused(r, name))?;
    let Some(found) = found.filter(|found| found.up) else {
        return Ok(Some(format!("link {name} in the container is gone or down")));
    };
    if found.index != peer {
        return Ok(Some(format!("link {name} in the container is not the peer of {}", lease.link)));
    }
    for address in &lease.addresses {
        let known = link::has_address(&mut inside, peer, *address);
        if !known.map_err(|r| refused(r, name))? {
            return Ok(Some(format!("address {address} of the container's {name} is gone")));
        }
    }
    let table = firewall::is_whole(&mut filter_socket()?).map_err(|r| refused(r, "table aril"))?;
    Ok((!table).then(|| "the packet filter's table inet aril is gone or was flushed".to_owned()))
}

/// Container's end of a link to be created.
#[derive(Clone, Copy)]
struct End<'a> {
    place: LinkNamespace<'a>,
    /// File of the same namespace, to enter it.
    namespace: BorrowedFd<'a>,
    name: &'a str,
}

fn make_link(
    network: &Network,
    lease: &Lease,
    rate: Option<Rate>,
    end: End<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut host = routes()?;
    let bridge = bridge_of(&mut host, network, warnings)?;
    let mut batch = Batch::new();
    let own = mac(lease.addresses[0]);
    let veth = Veth {
        here: &lease.link,
        bridge: Some(bridge),
        there: end.name,
        namespace: end.place,
        mac: own,
        mtu: network.mtu,
    };
    link::new_veth(&mut batch, &veth);
    if has_ipv6() {
        link::no_link_local(&mut batch, LinkRef::Name(&lease.link));
    }
    link::get(&mut batch, &lease.link);
    link::up(&mut batch, LinkRef::Name(&lease.link));
    let what = || format!("link {} of bridge {}", lease.link, network.name);
    let found = link::shown(&mut host, batch).map_err(|r| full_bridge(refused(r, &what())))?;
    let found =
        found.ok_or_else(|| Error::system(format!("the kernel does not show {}", what())))?;
    settings::ignore_neighbours(&lease.link)?;
    let mut inside = socket_in(end.namespace, || settings::ignore_neighbours(end.name))?;
    let batch = container_requests(network, lease, rate, found.peer);
    inside.transact(batch).map_err(|r| refused(r, "addresses and routes of the container"))?;
    let mut batch = Batch::new();
    if let Some(rate) = rate.and_then(|rate| rate.inward) {
        link::limit(&mut batch, found.index, rate, Rate::burst(rate));
    }
    link::port(&mut batch, found.index, own, !lease.published.is_empty());
    for address in lease.addresses.iter().filter(|address| address.is_ipv6()) {
        link::neighbour(&mut batch, bridge, *address, own);
    }
    // The host's end has a carrier only now, and drops frames until the kernel has processed the event.
    link::get(&mut batch, &lease.link);
    host.transact(batch).map_err(|r| no_tbf(refused(r, &lease.link)))
}

fn container_requests(network: &Network, lease: &Lease, rate: Option<Rate>, index: u32) -> Batch {
    let mut batch = Batch::new();
    if has_ipv6() {
        link::no_link_local(&mut batch, LinkRef::Index(index));
    }
    for (pool, address) in network.pools().zip(&lease.addresses) {
        link::add_address(&mut batch, index, pool.subnet.with(*address));
    }
    // Settings that take nothing from neighbours: they must not change the gateway's hardware address, nor redirect
    // traffic.
    link::set_ipv4(&mut batch, LinkRef::Index(index), &[(setting::ACCEPT_REDIRECTS, 0)]);
    link::up(&mut batch, LinkRef::Index(index));
    for pool in network.pools() {
        link::neighbour(&mut batch, index, pool.gateway, network.mac());
    }
    if !network.internal {
        for pool in network.pools() {
            let everywhere = Subnet { address: pool.gateway, prefix: 0 };
            link::add_route(&mut batch, everywhere, pool.gateway);
        }
    }
    if let Some(rate) = rate.and_then(|rate| rate.outward) {
        link::limit(&mut batch, index, rate, Rate::burst(rate));
    }
    batch
}

fn full_bridge(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EXFULL) => {
            error.hint("a bridge has at most 1023 ports: create another network")
        }
        _ => error,
    }
}

fn no_tbf(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ENOENT) => error.hint("rate limits need the kernel module sch_tbf"),
        _ => error,
    }
}

/// Opens a socket in the network namespace of `namespace`, a pidfd (Linux 5.8) or a namespace file, after calling
/// `inside` in it. The process is single-threaded and returns to its own namespace before it does anything else.
fn socket_in(namespace: BorrowedFd<'_>, inside: impl FnOnce() -> Result<()>) -> Result<Socket> {
    let own = "/proc/self/ns/net";
    let home = open(own, OFlag::O_RDONLY | OFlag::O_CLOEXEC).os("open", own)?;
    sys::namespace::setns(namespace, libc::CLONE_NEWNET)
        .os("setns", "the container's network namespace")?;
    let done = inside();
    let socket = Socket::open(ROUTE);
    sys::namespace::setns(home.as_fd(), libc::CLONE_NEWNET).os("setns", own)?;
    done?;
    socket.os("socket", "NETLINK_ROUTE in the container")
}
