//! What networks and containers add and take away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expression::data;
use super::{CREATE, DELSETELEM, EXCLUSIVE, LIST_ELEMENT, NEWSETELEM, TABLE, Transaction};
use crate::network::link::octets;
use crate::network::publish::Published;
use crate::network::subnet::Subnet;
use crate::sys::netlink::Batch;

/// A network's bridge, and what may pass it.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    pub name: &'a str,
    pub masqueraded: bool,
    pub closed: bool,
    pub internal: bool,
    pub open: bool,
    pub subnets: [Option<Subnet>; 2],
}

/// A published port, or range, and the container's address that it leads to.
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

pub fn add_bridge(transaction: &mut Transaction, bridge: &Bridge<'_>) {
    bridge_elements(transaction, bridge, NEWSETELEM, CREATE);
}

pub fn remove_bridge(transaction: &mut Transaction, bridge: &Bridge<'_>) {
    bridge_elements(transaction, bridge, DELSETELEM, 0);
}

fn bridge_elements(transaction: &mut Transaction, bridge: &Bridge<'_>, kind: u16, flags: u16) {
    let mut name = [0; 32];
    name[..bridge.name.len()].copy_from_slice(bridge.name.as_bytes());
    for set in bridge.sets() {
        elements(transaction, kind, flags, set, |list| key(list, &name[..16], None, None));
    }
    for subnet in bridge.subnets.into_iter().flatten() {
        let set = if subnet.address.is_ipv4() { "subnets4" } else { "subnets6" };
        elements(transaction, kind, flags, set, |list| {
            key(list, &octets(subnet.first()), None, None);
            end(list, &octets(subnet.at(subnet.span() + 1)));
        });
    }
    name.copy_within(..16, 16);
    elements(transaction, kind, flags, "pairs", |list| key(list, &name, None, None));
}

/// Refused with `EEXIST` where somebody publishes the same.
pub fn add_mapping(transaction: &mut Transaction, mapping: &Mapping) {
    mapping_elements(transaction, mapping, NEWSETELEM, CREATE | EXCLUSIVE);
}

/// Refused with `ENOENT` where it is gone.
pub fn remove_mapping(transaction: &mut Transaction, mapping: &Mapping) {
    mapping_elements(transaction, mapping, DELSETELEM, 0);
}

/// A nest is at most 64 KB long, and an element below 100 bytes.
const AT_ONCE: u16 = 500;

fn mapping_elements(transaction: &mut Transaction, mapping: &Mapping, kind: u16, flags: u16) {
    let Mapping { published, to } = *mapping;
    let ipv4 = to.is_ipv4();
    if published.address.is_some_and(|address| address.is_ipv4() != ipv4) {
        return;
    }
    let of = |four, six| if ipv4 { four } else { six };
    if published.count > 1 && published.host == published.container {
        let set = of("ranges4", "ranges6");
        return elements(transaction, kind, flags, set, |list| range(list, published, to));
    }
    let set = match published.address {
        Some(_) => of("bound4", "bound6"),
        None => of("ports4", "ports6"),
    };
    let mut from = 0;
    while from < published.count {
        let end = published.count.min(from.saturating_add(AT_ONCE));
        elements(transaction, kind, flags, set, |list| {
            for n in from..end {
                single(list, published, to, n);
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

/// The `n`th port.
fn single(list: &mut Batch, published: Published, to: IpAddr, n: u16) {
    let address = published.address.map(octets).unwrap_or_default();
    let bytes = place(&address, published.protocol as u8, published.host + n);
    let mut target = octets(to);
    target.extend(word(published.container + n));
    key(list, &bytes, None, Some(&target));
}

fn range(list: &mut Batch, published: Published, to: IpAddr) {
    let (low, high): (IpAddr, IpAddr) = match (published.address, to) {
        (Some(address), _) => (address, address),
        (None, IpAddr::V4(_)) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        (None, IpAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into()),
    };
    let protocol = published.protocol as u8;
    let first = place(&octets(low), protocol, published.host);
    let last = place(&octets(high), protocol, published.last());
    key(list, &first, Some(&last), Some(&octets(to)));
}

/// A key, its parts in whole words.
fn place(address: &[u8], protocol: u8, port: u16) -> Vec<u8> {
    let mut bytes = address.to_vec();
    bytes.extend([protocol, 0, 0, 0]);
    bytes.extend(word(port));
    bytes
}

fn word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The first key behind an interval.
fn end(list: &mut Batch, key: &[u8]) {
    list.nest(LIST_ELEMENT, |element| {
        element.be32(3, 1);
        data(element, 1, key);
    });
}

fn key(list: &mut Batch, key: &[u8], end: Option<&[u8]>, value: Option<&[u8]>) {
    list.nest(LIST_ELEMENT, |element| {
        data(element, 1, key);
        if let Some(end) = end {
            data(element, 10, end);
        }
        if let Some(value) = value {
            data(element, 2, value);
        }
    });
}
