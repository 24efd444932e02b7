//! Requests of rtnetlink(7) that change links, addresses, routes and neighbours.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::*;
use crate::network::definition::subnet::Subnet;
use crate::sys::netlink::Batch;

pub(super) fn ifinfomsg(index: u32, up: bool) -> [u8; 16] {
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

/// Adds a request for a link. Since Linux 6.8 the kernel first processes a pending change of the link's carrier.
pub fn get(batch: &mut Batch, name: &str) {
    let asked = batch.request(GETLINK, 0, &ifinfomsg(0, false));
    asked.u32(EXT_MASK, SKIP_STATISTICS).text(IFNAME, name);
}
