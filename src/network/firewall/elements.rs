//! Elements that networks and containers add to the table's sets, and their removal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expression::data;
use super::{CREATE, DELSETELEM, EXCLUSIVE, LIST_ELEMENT, NEWSETELEM, TABLE, Transaction};
use crate::network::definition::subnet::Subnet;
use crate::network::link::octets;
use crate::network::ports::Published;
use crate::sys::netlink::Batch;

/// Bridge of a network, and the traffic that may pass it.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    pub name: &'a str,
    pub masqueraded: bool,
    pub closed: bool,
    pub internal: bool,
    pub open: bool,
    pub subnets: [Option<Subnet>; 2],
    /// VNI of a vxlan network, and its peers.
    pub tunnel: Option<(u32, &'a [IpAddr])>,
}

/// A published port, or range of ports, and the container's address that it leads to.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    pub published: Published,
    pub to: IpAddr,
}

impl Bridge<'_> {
    fn sets(&self) -> impl Iterator<Item = &'static str> {
        let of = |yes, set| if yes { Some(set) } else { None };
        [
            Some("bridges"),
            of(self.masqueraded, "masqueraded"),
            of(self.closed, "closed"),
            of(self.internal, "internal"),
            of(self.open, "open"),
        ]
        .into_iter()
        .flatten()
    }
}

/// Adds the elements of a network.
pub fn add_bridge(transaction: &mut Transaction, bridge: &Bridge<'_>) {
    bridge_elements(transaction, bridge, NEWSETELEM, CREATE);
}

/// Removes the elements of a network.
pub fn remove_bridge(transaction: &mut Transaction, bridge: &Bridge<'_>) {
    bridge_elements(transaction, bridge, DELSETELEM, 0);
}

fn bridge_elements(transaction: &mut Transaction, bridge: &Bridge<'_>, kind: u16, flags: u16) {
    let mut name = [0; 32];
    name[..bridge.name.len()].copy_from_slice(bridge.name.as_bytes());
    for set in bridge.sets() {
        elements(transaction, kind, flags, set, |list| key(list, &name[..16]));
    }
    for subnet in bridge.subnets.into_iter().flatten() {
        let set = if subnet.address.is_ipv4() { "subnets4" } else { "subnets6" };
        elements(transaction, kind, flags, set, |list| {
            key(list, &octets(subnet.first()));
            end(list, &octets(subnet.at(subnet.span() + 1)));
        });
    }
    if let Some((number, peers)) = bridge.tunnel {
        let number = (number << 8).to_be_bytes();
        elements(transaction, kind, flags, "tunnels", |list| key(list, &number));
        for peer in peers {
            let set = if peer.is_ipv4() { "peers4" } else { "peers6" };
            let bytes = [octets(*peer), number.to_vec()].concat();
            elements(transaction, kind, flags, set, |list| key(list, &bytes));
        }
    }
    name.copy_within(..16, 16);
    elements(transaction, kind, flags, "pairs", |list| key(list, &name));
}

/// Adds the elements of a mapping. Fails with `EEXIST` if the port is already published.
pub fn add_mapping(transaction: &mut Transaction, mapping: &Mapping) {
    mapping_elements(transaction, mapping, Change::Add);
}

/// Ways to remove elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Set their timeout to its minimum: they expire with the next tick of the kernel's clock, after 10 ms at most.
    /// The kernel frees them later.
    Expire,
    /// Delete them at once. Closing an nftables socket then waits until they are freed, which takes an RCU grace
    /// period: 10 to 25 ms for this process, and for every other process that commits a transaction in that time.
    Delete,
}

impl Removal {
    /// Returns `Expire` since Linux 6.12, which can change the timeout of an element. Older kernels ignore the change
    /// without an error.
    pub fn of_this_kernel() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::of_release(&release)
    }

    fn of_release(release: &str) -> Self {
        let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= (6, 12) { Self::Expire } else { Self::Delete }
    }
}

/// Removes the elements of a mapping. `Delete` fails with `ENOENT` if an element is gone, `Expire` with `EEXIST` if
/// another container's element has its key.
pub fn remove_mapping(transaction: &mut Transaction, mapping: &Mapping, removal: Removal) {
    match removal {
        Removal::Expire => mapping_elements(transaction, mapping, Change::Expire),
        Removal::Delete => mapping_elements(transaction, mapping, Change::Remove),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Expire,
}

impl Change {
    /// Type and flags of the netlink request.
    fn kind(self) -> (u16, u16) {
        match self {
            Self::Add => (NEWSETELEM, CREATE | EXCLUSIVE),
            Self::Remove => (DELSETELEM, 0),
            Self::Expire => (NEWSETELEM, CREATE),
        }
    }
}

/// Elements in one attribute: it holds 64 KB, and an element has less than 100 bytes.
const ELEMENTS_PER_ATTRIBUTE: u16 = 500;

fn mapping_elements(transaction: &mut Transaction, mapping: &Mapping, change: Change) {
    let (kind, flags) = change.kind();
    let Mapping { published, to } = *mapping;
    let ipv4 = to.is_ipv4();
    if !published.is_of(ipv4) {
        return;
    }
    let of = |four, six| if ipv4 { four } else { six };
    if published.count > 1 && published.host == published.container {
        let set = of("ranges4", "ranges6");
        return elements(transaction, kind, flags, set, |list| range(list, published, to, change));
    }
    let set = match published.bound() {
        Some(_) => of("bound4", "bound6"),
        None => of("ports4", "ports6"),
    };
    let mut from = 0;
    while from < published.count {
        let end = published.count.min(from.saturating_add(ELEMENTS_PER_ATTRIBUTE));
        elements(transaction, kind, flags, set, |list| {
            for n in from..end {
                single(list, published, to, n, change);
            }
        });
        from = end;
    }
}

fn elements(
    transaction: &mut Transaction,
    kind: u16,
    flags: u16,
    set: &str,
    fill: impl FnOnce(&mut Batch),
) {
    transaction.request(kind, flags).text(1, TABLE).text(2, set).nest(3, fill);
}

/// Adds the element of the `n`th port.
fn single(list: &mut Batch, published: Published, to: IpAddr, n: u16, change: Change) {
    let address = published.bound().map(octets).unwrap_or_default();
    let bytes = endpoint_key(&address, published.protocol as u8, published.host + n);
    let mut target = octets(to);
    target.extend(word(published.container + n));
    mapped(list, &bytes, None, &target, change);
}

fn range(list: &mut Batch, published: Published, to: IpAddr, change: Change) {
    let (low, high): (IpAddr, IpAddr) = match (published.bound(), to) {
        (Some(address), _) => (address, address),
        (None, IpAddr::V4(_)) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        (None, IpAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into()),
    };
    let protocol = published.protocol as u8;
    let first = endpoint_key(&octets(low), protocol, published.host);
    let last = endpoint_key(&octets(high), protocol, published.last());
    mapped(list, &first, Some(&last), &octets(to), change);
}

/// Key of a map: address, protocol and port, each padded to words of 4 bytes.
fn endpoint_key(address: &[u8], protocol: u8, port: u16) -> Vec<u8> {
    let mut bytes = address.to_vec();
    bytes.extend([protocol, 0, 0, 0]);
    bytes.extend(word(port));
    bytes
}

fn word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Adds the end of an interval, which is the first key after it.
fn end(list: &mut Batch, key: &[u8]) {
    list.nest(LIST_ELEMENT, |element| {
        element.be32(3, 1);
        data(element, 1, key);
    });
}

fn key(list: &mut Batch, key: &[u8]) {
    list.nest(LIST_ELEMENT, |element| data(element, 1, key));
}

/// Adds an element of a map.
fn mapped(list: &mut Batch, key: &[u8], end: Option<&[u8]>, value: &[u8], change: Change) {
    const TIMEOUT: u16 = 4;
    /// Shortest timeout, in milliseconds; the kernel rounds it up to one tick.
    const SHORTEST: [u8; 8] = 1_u64.to_be_bytes();
    list.nest(LIST_ELEMENT, |element| {
        data(element, 1, key);
        if let Some(end) = end {
            data(element, 10, end);
        }
        data(element, 2, value);
        if change == Change::Expire {
            element.put(TIMEOUT, &SHORTEST);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_expire_since_linux_6_12() {
        let all = ["6.12.0", "6.18.44-fc", "7.0-rc1", "6.11.9", "5.10.0-28-amd64", ""];
        let expire = all.map(|release| Removal::of_release(release) == Removal::Expire);
        assert_eq!(expire, [true, true, true, false, false, false]);
    }
}
