//! Creates and removes networks on the host, and attaches containers to them.
//!
//! A network's bridge is created when its first container starts, also after a reboot. The bridge is brought up last,
//! so a bridge that is up belongs to a complete network; a start that finds an incomplete one creates the rest. A
//! start that finds the packet filter's table gone creates it again from the definitions and leases.

mod filter;
mod settings;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;

use super::definition::{DEFAULT, Network, NetworkOptions, Vxlan, link_local, mac};
use super::firewall::{self, Transaction};
use super::guard;
use super::lease::{self, Holder, Lease, Reference};
use super::link::{self, LinkNamespace, LinkRef, Veth, setting};
use super::listener;
use super::plan::Attachment;
use super::rate::Rate;
use super::store;
use super::subnet::Subnet;
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::sys::netlink::{Batch, ROUTE, Refusal, Socket};
use crate::sys::open::open;
use crate::sys::{self, Errno};

use filter::{commit_removal, publish, repair_locked};
pub use filter::{is_flushed, repair};
use settings::has_ipv6;

/// Name of the container's end of the link.
const CONTAINER_LINK: &str = "eth0";

/// Makes an error of the kernel's answer to a request for `object`.
fn refused(refusal: Refusal, object: &str) -> Error {
    let object = match refusal.text.as_str() {
        "" => object.to_owned(),
        why => format!("{object} ({})", why.trim_end_matches('.')),
    };
    Error::os("netlink", object, refusal.errno)
}

fn routes() -> Result<Socket> {
    Socket::open(ROUTE).os("socket", "NETLINK_ROUTE")
}

fn filter_socket() -> Result<Socket> {
    firewall::open().os("socket", "NETLINK_NETFILTER")
}

/// Leases addresses for a container and records the lease. Creates no link yet.
///
/// # Errors
///
/// The network does not exist, no address is free, or a port is in use.
pub fn claim(attachment: &Attachment, holder: &Holder) -> Result<Lease> {
    let network = match store::load(&attachment.network)? {
        Some(network) => network,
        None if attachment.network == DEFAULT => default_network()?,
        None => store::get(&attachment.network)?,
    };
    if !attachment.published.is_empty() && !attachment.over_listeners {
        let families: Vec<_> = network.pools().map(|pool| pool.gateway.is_ipv4()).collect();
        listener::check(&attachment.published, &families)?;
    }
    lease::claim(&network, attachment, holder)
}

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

/// Unpublishes the container's ports and forgets its neighbour entries. The link stays.
fn unpublish(lease: &Lease) -> Result<()> {
    filter::unpublish(lease)?;
    settings::close_loopback(lease)?;
    settings::forget_neighbours(lease)
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

/// Lists the names of all links in this network namespace.
pub(super) fn links() -> Result<Vec<String>> {
    link::names(&mut routes()?).map_err(|r| refused(r, "links"))
}

/// Checks that the kernel and the caller's privileges allow networks.
///
/// # Errors
///
/// The kernel lacks rtnetlink or nftables, or the process lacks privileges.
pub fn is_usable() -> Result<()> {
    links()?;
    let table = firewall::is_whole(&mut filter_socket()?);
    table.map(drop).map_err(|r| permission(refused(r, "the packet filter")))
}

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

/// Returns the index of the network's bridge. Creates the bridge if it is missing or incomplete.
fn bridge_of(socket: &mut Socket, network: &Network, warnings: &mut Vec<String>) -> Result<u32> {
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

fn permission(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EPERM) => error.hint(
            "only root can create networks; other users can use --network pasta, host or none",
        ),
        _ => error,
    }
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
fn no_overlap(socket: &mut Socket, network: &Network) -> Result<()> {
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

/// Creates the default network with the first of a few subnets that this host does not use. A bridge has at most 1023
/// ports.
fn default_network() -> Result<Network> {
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
        lease::of_network(name)?.into_iter().filter(|l| !l.has_no_holder()).collect();
    if !live.is_empty() {
        let users: Vec<_> = live.iter().map(Lease::holders).collect();
        return Err(Error::state(format!("network {name} is in use by {}", users.join(", ")))
            .hint("delete the containers first"));
    }
    for dead in lease::of_network(name)? {
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
    lease::forget(name)
}

/// Removes `holder` from a lease. With the last holder, unpublishes the ports and frees the addresses. The link is
/// gone with the network namespace.
///
/// # Errors
///
/// The lease cannot be read, or a rule or file cannot be removed.
pub fn release(reference: &Reference, holder: &Holder) -> Result<()> {
    lease::release(reference, holder, unpublish)
        .context(|| format!("leave network {}", reference.network))
}

/// Leases without a living holder: their containers are gone and did not release them.
///
/// # Errors
///
/// A file cannot be read.
pub fn abandoned() -> Result<Vec<Lease>> {
    Ok(lease::all()?.into_iter().filter(Lease::has_no_holder).collect())
}

/// Unpublishes an abandoned lease's ports and frees its addresses.
///
/// # Errors
///
/// A rule or file cannot be removed.
pub fn reclaim(lease: &Lease) -> Result<()> {
    if !lease.has_no_holder() {
        return Ok(());
    }
    unpublish(lease)?;
    lease.remove()
}
