//! Requests of rtnetlink(7): links, addresses, routes, neighbours, queueing disciplines.
//!
//! Each function adds one request to a batch. Numbers are the kernel's (`linux/if_link.h`,
//! `linux/rtnetlink.h`, `linux/pkt_sched.h`).

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::subnet::Subnet;
use crate::sys::Errno;
use crate::sys::netlink::{Attributes, Batch, Refusal, Reply, Socket, integer, text};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const NEWQDISC: u16 = 36;
const NEWTFILTER: u16 = 44;

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;

const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const NET_NS_PID: u16 = 19;
const AF_SPEC: u16 = 26;
const NET_NS_FD: u16 = 28;
const EXT_MASK: u16 = 29;
const NUM_TX_QUEUES: u16 = 31;
const NUM_RX_QUEUES: u16 = 32;
const SKIP_STATISTICS: u32 = 8;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

/// Index of `lo` in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Network namespace that a link is created in or moved to.
#[derive(Debug, Clone, Copy)]
pub enum LinkNamespace<'a> {
    /// Namespace of a process.
    Process(i32),
    /// Namespace of an open file.
    File(BorrowedFd<'a>),
}

/// Reference to a link in the socket's namespace.
#[derive(Debug, Clone, Copy)]
pub enum LinkRef<'a> {
    Index(u32),
    Name(&'a str),
}

/// A veth pair: end `here` is in the socket's namespace, end `there` in the container's.
#[derive(Debug)]
pub struct Veth<'a> {
    pub here: &'a str,
    /// Index of the bridge that the host's end is a port of.
    pub bridge: Option<u32>,
    pub there: &'a str,
    pub namespace: LinkNamespace<'a>,
    pub mac: Mac,
    pub mtu: u32,
}

fn ifinfomsg(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let flag = (libc::IFF_UP as u32).to_ne_bytes();
    if up {
        header[8..12].copy_from_slice(&flag);
        header[12..16].copy_from_slice(&flag);
    }
    header
}

/// Creates both ends in one request, down, with their final names and namespaces. Moving a link later costs an RCU
/// grace period. So does a link that is up before its peer, if the kernel processes the event. Without queue counts
/// the kernel makes one queue for each processor, uses one of them, and waits for two grace periods.
pub fn new_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let end = |end: &mut Batch, name| {
        end.text(IFNAME, name).u32(MTU, veth.mtu).u32(NUM_TX_QUEUES, 1).u32(NUM_RX_QUEUES, 1);
    };
    end(batch.request(NEWLINK, CREATE, &ifinfomsg(0, false)), veth.here);
    if let Some(bridge) = veth.bridge {
        batch.u32(MASTER, bridge);
    }
    let peer = |peer: &mut Batch| {
        end(peer.raw(&ifinfomsg(0, false)), veth.there);
        peer.put(ADDRESS, &veth.mac);
        match veth.namespace {
            LinkNamespace::Process(pid) => peer.u32(NET_NS_PID, pid as u32),
            LinkNamespace::File(fd) => peer.u32(NET_NS_FD, fd.as_raw_fd() as u32),
        };
    };
    batch.nest(LINKINFO, |info| {
        info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
            data.nest(VETH_PEER, peer);
        });
    });
}

/// Creates a bridge that is down. A bridge without a fixed hardware address takes that of a port and changes with its
/// ports.
pub fn new_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    batch.request(NEWLINK, CREATE, &ifinfomsg(0, false)).text(IFNAME, name).u32(MTU, mtu);
    batch.put(ADDRESS, &mac).nest(LINKINFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
}

/// Options of a vxlan device, which carries frames to other hosts by UDP.
#[derive(Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub mtu: u32,
    pub id: u32,
    pub port: u16,
    /// Address family of all peers: a vxlan device has a socket of one family.
    pub ipv6: bool,
}

/// Creates a vxlan device that is down and not yet a port of a bridge. Learning is off: a forged frame would teach it
/// a wrong peer.
pub fn new_vxlan(batch: &mut Batch, vxlan: &Vxlan<'_>) {
    const ID: u16 = 1;
    const LEARNING: u16 = 7;
    const PORT: u16 = 15;
    const LOCAL6: u16 = 17;
    batch.request(NEWLINK, CREATE, &ifinfomsg(0, false)).text(IFNAME, vxlan.name);
    batch.u32(MTU, vxlan.mtu).nest(LINKINFO, |info| {
        info.text(INFO_KIND, "vxlan").nest(INFO_DATA, |data| {
            data.u32(ID, vxlan.id).u8(LEARNING, 0).put(PORT, &vxlan.port.to_be_bytes());
            if vxlan.ipv6 {
                // The unspecified address; it selects the family.
                data.put(LOCAL6, &[0; 16]);
            }
        });
    });
}

/// Makes a link a port of a bridge.
pub fn enslave(batch: &mut Batch, index: u32, bridge: u32) {
    change(batch, LinkRef::Index(index), true).u32(MASTER, bridge);
}

/// Sends broadcast frames, and frames for unknown hardware addresses, to `peer` too.
pub fn flood_to(batch: &mut Batch, vxlan: u32, peer: IpAddr) {
    const DESTINATION: u16 = 1;
    const LINK_LAYER: u16 = 2;
    const PERMANENT: u16 = 0x80;
    const SELF: u8 = 2;
    let header = ndmsg(libc::AF_BRIDGE as u8, vxlan, PERMANENT, SELF);
    batch.request(NEWNEIGH, APPEND, &header).put(LINK_LAYER, &[0; 6]);
    batch.put(DESTINATION, &octets(peer));
}

/// Brings a link up.
pub fn up(batch: &mut Batch, link: LinkRef<'_>) {
    change(batch, link, true);
}

/// Begins a request that changes a link and, with `up`, brings it up.
fn change<'b>(batch: &'b mut Batch, link: LinkRef<'_>, up: bool) -> &'b mut Batch {
    match link {
        LinkRef::Index(index) => batch.request(NEWLINK, 0, &ifinfomsg(index, up)),
        LinkRef::Name(name) => batch.request(NEWLINK, 0, &ifinfomsg(0, up)).text(IFNAME, name),
    }
}

/// Takes a link down.
pub fn down(batch: &mut Batch, index: u32) {
    let mut header = ifinfomsg(index, false);
    header[12..16].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    batch.request(NEWLINK, 0, &header);
}

/// Moves a link into the network namespace of an open file, under a name that may be a template.
pub fn move_to(batch: &mut Batch, index: u32, name: &str, namespace: BorrowedFd<'_>) {
    let asked = batch.request(NEWLINK, 0, &ifinfomsg(index, false));
    asked.text(IFNAME, name).u32(NET_NS_FD, namespace.as_raw_fd() as u32);
}

/// Turns off automatic link-local IPv6 addresses, and with them their announcements and the wait for duplicates.
pub fn no_link_local(batch: &mut Batch, link: LinkRef<'_>) {
    const ADDRESS_GENERATION: u16 = 8;
    const NONE: u8 = 1;
    change(batch, link, false).nest(AF_SPEC, |families| {
        families.nest(libc::AF_INET6 as u16, |ipv6| {
            ipv6.u8(ADDRESS_GENERATION, NONE);
        });
    });
}

/// Binds a bridge port to one hardware address. Frames with another source are dropped (`locked`, since Linux 5.16),
/// and no other port, and no frame that enters by another port, can take the address over. Frames for unknown
/// addresses are not sent to the port. With `hairpin`, frames may leave by the port that they entered by: where
/// br_netfilter is on, the bridge itself carries what returns to a container through its own published port.
pub fn port(batch: &mut Batch, index: u32, mac: Mac, hairpin: bool) {
    const SLAVE_KIND: u16 = 4;
    const SLAVE_DATA: u16 = 5;
    const MODE: u16 = 4;
    const LEARNING: u16 = 8;
    const UNICAST_FLOOD: u16 = 9;
    const LOCKED: u16 = 39;
    const LINK_LAYER: u16 = 2;
    const STATIC: u16 = 0x40;
    const MASTER_STICKY: u8 = 0x04 | 0x40;
    let asked = batch.request(
        NEWNEIGH,
        REPLACE,
        &ndmsg(libc::AF_BRIDGE as u8, index, STATIC, MASTER_STICKY),
    );
    asked.put(LINK_LAYER, &mac);
    change(batch, LinkRef::Index(index), false).nest(LINKINFO, |info| {
        info.text(SLAVE_KIND, "bridge").nest(SLAVE_DATA, |data| {
            data.u8(LEARNING, 0).u8(UNICAST_FLOOD, 0).u8(LOCKED, 1);
            if hairpin {
                data.u8(MODE, 1);
            }
        });
    });
}

fn ndmsg(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

/// Adds a permanent neighbour entry: no message of a neighbour changes its hardware address.
pub fn neighbour(batch: &mut Batch, index: u32, address: IpAddr, mac: Mac) {
    const DESTINATION: u16 = 1;
    const LINK_LAYER: u16 = 2;
    const PERMANENT: u16 = 0x80;
    let asked = batch.request(NEWNEIGH, REPLACE, &ndmsg(family(address), index, PERMANENT, 0));
    asked.put(DESTINATION, &octets(address)).put(LINK_LAYER, &mac);
}

/// Removes a neighbour entry.
pub fn forget_neighbour(batch: &mut Batch, index: u32, address: IpAddr) {
    const DESTINATION: u16 = 1;
    let asked = batch.request(DELNEIGH, 0, &ndmsg(family(address), index, 0, 0));
    asked.put(DESTINATION, &octets(address));
}

/// Numbers of IPv4 settings of a link, which are also the files of `/proc/sys/net/ipv4/conf/LINK`.
pub mod setting {
    pub const PROXY_ARP: u16 = 3;
    pub const ACCEPT_REDIRECTS: u16 = 4;
    pub const SEND_REDIRECTS: u16 = 6;
    pub const ACCEPT_SOURCE_ROUTE: u16 = 9;
}

/// Changes IPv4 settings of a link.
pub fn set_ipv4(batch: &mut Batch, link: LinkRef<'_>, settings: &[(u16, u32)]) {
    const CONF: u16 = 1;
    change(batch, link, false).nest(AF_SPEC, |families| {
        families.nest(libc::AF_INET as u16, |ipv4| {
            ipv4.nest(CONF, |conf| {
                for (setting, value) in settings {
                    conf.u32(*setting, *value);
                }
            });
        });
    });
}

const CLSACT: u32 = 0xffff_fff1;

fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..20].copy_from_slice(&info.to_ne_bytes());
    header
}

/// Adds the queueing discipline that [`classify`] attaches programs to. Fails with `EEXIST` if it exists.
pub fn new_classifiers(batch: &mut Batch, index: u32) {
    const KIND: u16 = 1;
    batch.request(NEWQDISC, CREATE, &tcmsg(index, 0xffff_0000, CLSACT, 0)).text(KIND, "clsact");
}

/// Attaches `program` to a link for every packet that enters, or with `leaving`, that leaves. Replaces the program
/// that was attached before.
pub fn classify(batch: &mut Batch, index: u32, leaving: bool, program: BorrowedFd<'_>) {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const INWARD: u32 = 0xffff_fff2;
    const OUTWARD: u32 = 0xffff_fff3;
    const FIRST: u32 = 1;
    const ALL: u16 = 3;
    const PROGRAM: u16 = 6;
    const NAME: u16 = 7;
    const FLAGS: u16 = 8;
    const DIRECT: u32 = 1;
    let parent = if leaving { OUTWARD } else { INWARD };
    let info = FIRST << 16 | u32::from(ALL.to_be());
    let asked = batch.request(NEWTFILTER, REPLACE, &tcmsg(index, 1, parent, info));
    asked.text(KIND, "bpf").nest(OPTIONS, |options| {
        options.u32(PROGRAM, program.as_raw_fd() as u32).text(NAME, "aril-guard");
        options.u32(FLAGS, DIRECT);
    });
}

/// Deletes a link.
pub fn delete(batch: &mut Batch, name: &str) {
    batch.request(DELLINK, 0, &ifinfomsg(0, false)).text(IFNAME, name);
}

/// Adds an address without duplicate address detection: leases already exclude duplicates.
pub fn add_address(batch: &mut Batch, index: u32, subnet: Subnet) {
    const BYTES: u16 = 1;
    const LOCAL: u16 = 2;
    const BROADCAST: u16 = 4;
    const NO_DETECTION: u8 = 0x02;
    let mut header = [family(subnet.address), subnet.prefix, NO_DETECTION, 0, 0, 0, 0, 0];
    if subnet.address.is_ipv4() {
        header[2] = 0;
    }
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(subnet.address);
    batch.request(NEWADDR, REPLACE, &header).put(LOCAL, &bytes).put(BYTES, &bytes);
    if subnet.address.is_ipv4() && subnet.prefix < 31 {
        batch.put(BROADCAST, &octets(subnet.last()));
    }
}

/// Adds a route to `to` through `gateway`. A `to` with prefix length 0 is the default route.
pub fn add_route(batch: &mut Batch, to: Subnet, gateway: IpAddr) {
    const DESTINATION: u16 = 1;
    const GATEWAY: u16 = 5;
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    let header = [family(to.address), to.prefix, 0, 0, MAIN, STATIC, 0, UNICAST, 0, 0, 0, 0];
    batch.request(NEWROUTE, REPLACE, &header).put(GATEWAY, &octets(gateway));
    if to.prefix > 0 {
        batch.put(DESTINATION, &octets(to.first()));
    }
}

/// Limits what leaves the link to `rate` bytes per second after a burst of `burst` bytes (tc-tbf(8)).
pub fn limit(batch: &mut Batch, index: u32, rate: u64, burst: u32) {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ROOT: u32 = 0xffff_ffff;
    const ETHERNET: u8 = 1;
    /// Queue limit: 50 ms of the rate in addition to the burst, as tc-tbf(8) advises.
    const WAIT_DIVISOR: u64 = 20;
    let header = tcmsg(index, 0, ROOT, 0);
    let waiting = (rate / WAIT_DIVISOR).saturating_add(burst.into()).min(u32::MAX.into()) as u32;
    // struct tc_tbf_qopt: two tc_ratespec of 12 bytes, then limit, buffer and mtu.
    let mut parameters = [0; 36];
    parameters[1] = ETHERNET;
    let rate32 = u32::try_from(rate).unwrap_or(u32::MAX);
    parameters[8..12].copy_from_slice(&rate32.to_ne_bytes());
    parameters[24..28].copy_from_slice(&waiting.to_ne_bytes());
    batch.request(NEWQDISC, REPLACE, &header).text(KIND, "tbf").nest(OPTIONS, |options| {
        options.put(PARAMETERS, &parameters).u32(BURST, burst);
        options.put(RATE64, &rate.to_ne_bytes());
    });
}

/// Properties of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub index: u32,
    pub name: String,
    /// Index of the other end of a veth pair, in the peer's namespace.
    pub peer: u32,
    pub mtu: u32,
    pub up: bool,
}

impl Found {
    /// Reads an answer to [`get`]. Returns `None` for other messages.
    pub fn read(reply: &Reply<'_>) -> Option<Self> {
        if reply.kind != NEWLINK {
            return None;
        }
        let index = integer(reply.payload.get(4..8)?);
        let up = integer(reply.payload.get(8..12)?) & libc::IFF_UP as u32 != 0;
        let mut found = Self { index, up, ..Self::default() };
        for (kind, bytes) in reply.attributes(16) {
            match kind {
                IFNAME => found.name = text(bytes),
                LINK => found.peer = integer(bytes),
                MTU => found.mtu = integer(bytes),
                _ => {}
            }
        }
        Some(found)
    }
}

/// Adds a request for a link. Since Linux 6.8 the kernel first processes a pending change of the link's carrier.
pub fn get(batch: &mut Batch, name: &str) {
    let asked = batch.request(GETLINK, 0, &ifinfomsg(0, false));
    asked.u32(EXT_MASK, SKIP_STATISTICS).text(IFNAME, name);
}

/// Finds a link by name.
///
/// # Errors
///
/// The kernel rejects the request. A missing link is no error.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Found>, Refusal> {
    let mut batch = Batch::new();
    get(&mut batch, name);
    match shown(socket, batch) {
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        other => other,
    }
}

/// Commits a batch that ends with a [`get`].
///
/// # Errors
///
/// The kernel rejects a request.
pub fn shown(socket: &mut Socket, batch: Batch) -> Result<Option<Found>, Refusal> {
    let mut found = None;
    socket.ask(batch, |reply| found = found.take().or_else(|| Found::read(reply)))?;
    Ok(found)
}

/// Lists all links.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn all(socket: &mut Socket) -> Result<Vec<Found>, Refusal> {
    let mut batch = Batch::new();
    batch.request(GETLINK, DUMP, &ifinfomsg(0, false)).u32(EXT_MASK, SKIP_STATISTICS);
    let mut all = Vec::new();
    socket.ask(batch, |reply| all.extend(Found::read(reply)))?;
    Ok(all)
}

/// Lists the names of all links.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn names(socket: &mut Socket) -> Result<Vec<String>, Refusal> {
    Ok(all(socket)?.into_iter().map(|found| found.name).collect())
}

/// Indexes of links that have an IPv6 route from a router advertisement.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn announced(socket: &mut Socket) -> Result<Vec<u32>, Refusal> {
    const BY_ROUTER: u8 = 9;
    const OUTPUT: u16 = 4;
    const CACHE: u16 = 12;
    let mut header = [0; 12];
    header[0] = libc::AF_INET6 as u8;
    let mut batch = Batch::new();
    batch.request(GETROUTE, DUMP, &header);
    let mut found = Vec::new();
    socket.ask(batch, |reply| {
        let mut expires = false;
        let mut output = None;
        for (kind, bytes) in reply.attributes(12) {
            match kind {
                OUTPUT => output = Some(integer(bytes)),
                // struct rta_cacheinfo: expiry time, which only an advertised route has.
                CACHE => expires = bytes.get(8..12).is_some_and(|at| integer(at) != 0),
                _ => {}
            }
        }
        if expires || reply.payload.get(5) == Some(&BY_ROUTER) {
            found.extend(output);
        }
    })?;
    Ok(found)
}

/// True if the link with that index has the address.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn has_address(socket: &mut Socket, index: u32, address: IpAddr) -> Result<bool, Refusal> {
    const BYTES: u16 = 1;
    const LOCAL: u16 = 2;
    let mut batch = Batch::new();
    batch.request(GETADDR, DUMP, &[family(address), 0, 0, 0, 0, 0, 0, 0]);
    let mut found = false;
    socket.ask(batch, |reply| {
        let mut attributes: Attributes<'_> = reply.attributes(8);
        let is_it = |kind: u16| kind == BYTES || kind == LOCAL;
        let here = reply.payload.get(4..8).map(integer) == Some(index);
        found |= here && attributes.any(|(kind, bytes)| is_it(kind) && ip(bytes) == Some(address));
    })?;
    Ok(found)
}

/// Destinations of the kernel's routes, without the default route.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn destinations(socket: &mut Socket, ipv4: bool) -> Result<Vec<Subnet>, Refusal> {
    const DESTINATION: u16 = 1;
    let mut header = [0; 12];
    header[0] = if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut batch = Batch::new();
    batch.request(GETROUTE, DUMP, &header);
    let mut found = Vec::new();
    socket.ask(batch, |reply| {
        let Some(prefix) = reply.payload.get(1).copied() else { return };
        let mut attributes: Attributes<'_> = reply.attributes(12);
        let address = attributes.find(|(kind, _)| *kind == DESTINATION).and_then(|a| ip(a.1));
        found.extend(address.map(|address| Subnet { address, prefix }));
    })?;
    Ok(found)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Bytes of an address, in network byte order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests;
