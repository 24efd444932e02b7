//! Links, addresses, routes, neighbours and queueing disciplines, by rtnetlink(7).
//!
//! `requests` adds requests to a batch, `queries` asks the kernel; [`bridge`] and [`attach`] create what a network and a
//! container need, [`settings`] the sysctls of links. Numbers are the kernel's (`linux/if_link.h`,
//! `linux/rtnetlink.h`, `linux/pkt_sched.h`).

pub mod attach;
pub mod bridge;
mod queries;
pub mod rate;
mod requests;
pub mod settings;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

pub use queries::{all, announced, destinations, find, has_address, names, shown};
pub use requests::{
    add_address, add_route, classify, delete, down, enslave, flood_to, forget_neighbour, get,
    limit, move_to, neighbour, new_bridge, new_classifiers, new_veth, new_vxlan, no_link_local,
    port, set_ipv4, up,
};

use crate::sys::netlink::{Reply, integer, text};

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

/// Numbers of IPv4 settings of a link, which are also the files of `/proc/sys/net/ipv4/conf/LINK`.
pub mod setting {
    pub const PROXY_ARP: u16 = 3;
    pub const ACCEPT_REDIRECTS: u16 = 4;
    pub const SEND_REDIRECTS: u16 = 6;
    pub const ACCEPT_SOURCE_ROUTE: u16 = 9;
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

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Bytes of an address, in network byte order.
pub(in crate::network) fn octets(address: IpAddr) -> Vec<u8> {
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
