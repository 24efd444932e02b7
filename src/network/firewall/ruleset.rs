//! Fixed part of the table: chains, rules, and empty sets.

use super::expression::{self, Base, ConnectionKey, Expression, KEY, MetaKey, VALUE};
use super::{
    APPEND, CREATE, DELTABLE, LIST_ELEMENT, NEWCHAIN, NEWRULE, NEWSET, NEWTABLE, TABLE, Transaction,
};
use crate::network::definition::VXLAN_PORT;
use crate::network::firewall::guard::MARK;
use Expression::*;

/// Data types of the `nft` tool, which prints elements by them. The kernel only stores them.
const ADDRESS4: u32 = 7;
const ADDRESS6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
const LINK_NAME: u32 = 41;

/// Parts of a key: type and length in bytes of each.
type Parts = [(u32, u32)];

const LINK: &Parts = &[(LINK_NAME, 16)];
const PORT: &Parts = &[(PROTOCOL, 1), (SERVICE, 2)];
const BOUND4: &Parts = &[(ADDRESS4, 4), (PROTOCOL, 1), (SERVICE, 2)];
const BOUND6: &Parts = &[(ADDRESS6, 16), (PROTOCOL, 1), (SERVICE, 2)];
/// Key of a peer. The `nft` tool shows the VNI as an address: 7 is 0.0.7.0.
const PEER4: &Parts = &[(ADDRESS4, 4), (ADDRESS4, 4)];
const PEER6: &Parts = &[(ADDRESS6, 16), (ADDRESS4, 4)];
const TARGET4: &Parts = &[(ADDRESS4, 4), (SERVICE, 2)];
const TARGET6: &Parts = &[(ADDRESS6, 16), (SERVICE, 2)];

const IPV4: [u8; 1] = [2];
const IPV6: [u8; 1] = [10];

/// Register of the second name in a key of two interface names.
const SECOND_NAME: u32 = KEY + 4;

const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const DESTINATION_CHANGED: u32 = 1 << 5;

/// Each chain, with its number of rules plus jumps to it.
pub(super) const USES: [(&str, u32); 8] = [
    ("guard", 3),
    ("prerouting", 2),
    ("output", 1),
    ("published", 8),
    ("forward", 9),
    ("relayed", 1),
    ("tunnel", 3),
    ("postrouting", 5),
];

/// Adds requests that create the table anew. An existing table is removed in the same transaction.
pub fn remake(transaction: &mut Transaction) {
    const NAME: u16 = 1;
    transaction.request(NEWTABLE, CREATE).text(NAME, TABLE);
    transaction.request(DELTABLE, 0).text(NAME, TABLE);
    transaction.request(NEWTABLE, CREATE).text(NAME, TABLE);
    sets(transaction);
    chains(transaction);
    rules(transaction);
}

fn sets(transaction: &mut Transaction) {
    for name in ["bridges", "masqueraded", "closed", "internal", "open"] {
        set(transaction, name, LINK, None, false);
    }
    set(transaction, "pairs", &[LINK[0], LINK[0]], None, false);
    set(transaction, "subnets4", &TARGET4[..1], None, true);
    set(transaction, "subnets6", &TARGET6[..1], None, true);
    set(transaction, "tunnels", &PEER4[1..], None, false);
    set(transaction, "peers4", PEER4, None, false);
    set(transaction, "peers6", PEER6, None, false);
    set(transaction, "ports4", PORT, Some(TARGET4), false);
    set(transaction, "ports6", PORT, Some(TARGET6), false);
    set(transaction, "bound4", BOUND4, Some(TARGET4), false);
    set(transaction, "bound6", BOUND6, Some(TARGET6), false);
    set(transaction, "ranges4", BOUND4, Some(&TARGET4[..1]), true);
    set(transaction, "ranges6", BOUND6, Some(&TARGET6[..1]), true);
}

fn type_of(parts: &Parts) -> u32 {
    parts.iter().fold(0, |all, (kind, _)| all << 6 | kind)
}

/// Length in bytes: each part is padded to words of 4 bytes.
fn length(parts: &Parts) -> u32 {
    parts.iter().map(|(_, length)| length.next_multiple_of(4)).sum()
}

fn set(
    transaction: &mut Transaction,
    name: &str,
    key: &Parts,
    value: Option<&Parts>,
    ranges: bool,
) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const TIMEOUT: u32 = 0x10;
    const CONCATENATION: u32 = 0x80;
    /// Interval, in milliseconds, at which the kernel frees expired elements of a map.
    const GC_INTERVAL: u32 = 60_000;
    let parted = ranges && key.len() > 1;
    let mut flags = if ranges { INTERVAL } else { 0 } | if parted { CONCATENATION } else { 0 };
    if value.is_some() {
        flags |= MAP | TIMEOUT;
    }
    let id = transaction.len() as u32;
    let batch = transaction.request(NEWSET, CREATE);
    batch.text(1, TABLE).text(2, name).be32(3, flags).be32(4, type_of(key)).be32(5, length(key));
    if let Some(value) = value {
        batch.be32(6, type_of(value)).be32(7, length(value)).be32(12, GC_INTERVAL);
    }
    batch.be32(10, id);
    if key == LINK {
        // For the `nft` tool: byte order of the key. Text has no network order.
        let [a, b, c, d] = 1_u32.to_ne_bytes();
        batch.put(13, &[0, 4, a, b, c, d]);
    }
    if parted {
        batch.nest(9, |description| {
            description.nest(2, |fields| {
                for (_, length) in key {
                    fields.nest(LIST_ELEMENT, |field| {
                        field.be32(1, *length);
                    });
                }
            });
        });
    }
}

fn chains(transaction: &mut Transaction) {
    const PREROUTING: u32 = 0;
    const INPUT: u32 = 1;
    const FORWARD: u32 = 2;
    const OUTPUT: u32 = 3;
    const POSTROUTING: u32 = 4;
    for (name, kind, hook, priority) in [
        ("guard", "filter", PREROUTING, -160),
        ("prerouting", "nat", PREROUTING, -105),
        ("output", "nat", OUTPUT, -105),
        ("forward", "filter", FORWARD, -5),
        ("relayed", "filter", OUTPUT, -5),
        ("tunnel", "filter", INPUT, -5),
        ("postrouting", "nat", POSTROUTING, 95),
    ] {
        let batch = transaction.request(NEWCHAIN, CREATE);
        batch.text(1, TABLE).text(3, name).text(7, kind).nest(4, |place| {
            place.be32(1, hook).be32(2, priority as u32);
        });
    }
    transaction.request(NEWCHAIN, CREATE).text(1, TABLE).text(3, "published");
}

fn rule(transaction: &mut Transaction, chain: &str, parts: &[&[Expression<'_>]]) {
    let batch = transaction.request(NEWRULE, CREATE | APPEND).text(1, TABLE).text(2, chain);
    batch.nest(4, |list| {
        for part in parts {
            expression::list(list, part);
        }
    });
}

const fn named(set: &str, absent: bool) -> Expression<'_> {
    Lookup { set, key: KEY, value: None, absent }
}

fn rules(transaction: &mut Transaction) {
    let from = |set| [Meta { key: MetaKey::InputName, to: KEY }, named(set, false)];
    let towards = |set| [Meta { key: MetaKey::OutputName, to: KEY }, named(set, false)];
    let not_towards = |set| [Meta { key: MetaKey::OutputName, to: KEY }, named(set, true)];
    let ipv4 = [Meta { key: MetaKey::Family, to: KEY }, Equal { register: KEY, to: &IPV4 }];
    let ipv6 = [Meta { key: MetaKey::Family, to: KEY }, Equal { register: KEY, to: &IPV6 }];
    let connection = |key, mask| {
        let differs = NotEqual { register: KEY, to: &[0; 4] };
        [Connection { key, to: KEY }, And { register: KEY, mask }, differs]
    };
    let loopback = |offset| {
        let byte = Payload { base: Base::Network, offset, length: 1, to: KEY };
        [byte, Equal { register: KEY, to: &[127] }]
    };
    let published = connection(ConnectionKey::Status, DESTINATION_CHANGED);

    const LOOPBACK: [u8; 4] = crate::network::link::LOOPBACK.to_ne_bytes();
    let from_outside =
        [Meta { key: MetaKey::Input, to: KEY }, NotEqual { register: KEY, to: &LOOPBACK }];
    for address in [16, 12] {
        rule(transaction, "guard", &[&from_outside, &ipv4, &loopback(address), &[Drop]]);
    }
    let mark = [
        Meta { key: MetaKey::Mark, to: KEY },
        Or { register: KEY, bits: MARK },
        SetMeta { key: MetaKey::Mark, from: KEY },
    ];
    // With br_netfilter the bridge calls this table before its own guard. A translated packet may lead to loopback,
    // or to a container whose hardware address the bridge then has to find.
    rule(transaction, "guard", &[&from("bridges"), &published, &mark]);

    const LOCAL: [u8; 4] = 2_u32.to_ne_bytes();
    let local = [DestinationType { to: KEY }, Equal { register: KEY, to: &LOCAL }];
    rule(transaction, "prerouting", &[&from("bridges"), &local, &mark]);
    rule(transaction, "prerouting", &[&local, &[Jump("published")]]);
    rule(transaction, "output", &[&local, &[Jump("published")]]);
    for family in [&FAMILY4, &FAMILY6] {
        let guard = if family.ipv4 { &ipv4 } else { &ipv6 };
        destinations(transaction, family, guard);
    }

    // The bridge's guard drops forwarded packets without the mark.
    rule(transaction, "forward", &[&towards("bridges"), &mark]);
    // IPVS, the kernel's load balancer, which kube-proxy can use, forwards through the output hook.
    rule(transaction, "relayed", &[&towards("bridges"), &mark]);
    tunnel(transaction, &mark);

    let passing = connection(ConnectionKey::State, ESTABLISHED_OR_RELATED);
    rule(transaction, "forward", &[&passing, &[Accept]]);
    let both = [
        Meta { key: MetaKey::InputName, to: KEY },
        Meta { key: MetaKey::OutputName, to: SECOND_NAME },
        named("pairs", false),
    ];
    rule(transaction, "forward", &[&both, &[Accept]]);
    rule(transaction, "forward", &[&from("internal"), &[Drop]]);
    rule(transaction, "forward", &[&towards("internal"), &[Drop]]);
    rule(transaction, "forward", &[&towards("bridges"), &published, &[Accept]]);
    rule(transaction, "forward", &[&from("open"), &towards("open"), &[Accept]]);
    rule(transaction, "forward", &[&from("bridges"), &towards("bridges"), &[Drop]]);
    rule(transaction, "forward", &[&towards("closed"), &[Drop]]);

    let leaving = [&from("masqueraded")[..], &not_towards("bridges"), &[Masquerade]];
    rule(transaction, "postrouting", &leaving);
    // A container that reaches itself or another through a published port: the reply must return through the host.
    // The rule matches the source address, because a packet that the bridge carries (br_netfilter) has no input
    // interface here.
    for family in [&FAMILY4, &FAMILY6] {
        let guard = if family.ipv4 { &ipv4 } else { &ipv6 };
        let source = Payload {
            base: Base::Network,
            offset: family.offset - family.length,
            length: family.length,
            to: KEY,
        };
        let ours = [source, named(family.subnets, false)];
        let parts = [&towards("bridges")[..], guard, &published, &ours, &[Masquerade]];
        rule(transaction, "postrouting", &parts);
    }
    // From the host's loopback address, which has another meaning in the container.
    rule(transaction, "postrouting", &[&towards("bridges"), &ipv4, &loopback(12), &[Masquerade]]);
    const ONE: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();
    let loopback6 = [
        Payload { base: Base::Network, offset: 8, length: 16, to: KEY },
        Equal { register: KEY, to: &ONE },
    ];
    rule(transaction, "postrouting", &[&towards("bridges"), &ipv6, &loopback6, &[Masquerade]]);
}

/// Adds rules that accept tunnel packets from their peers and drop all others.
fn tunnel(transaction: &mut Transaction, mark: &[Expression<'_>]) {
    const UDP: [u8; 1] = [libc::IPPROTO_UDP as u8];
    const PORT: [u8; 2] = VXLAN_PORT.to_be_bytes();
    const NUMBER: u32 = u32::from_ne_bytes([255, 255, 255, 0]);
    let vxlan = [
        Meta { key: MetaKey::Protocol, to: KEY },
        Equal { register: KEY, to: &UDP },
        Payload { base: Base::Transport, offset: 2, length: 2, to: KEY },
        Equal { register: KEY, to: &PORT },
    ];
    // The VNI follows the UDP header and four bytes of VXLAN flags.
    let number = |to| {
        [
            Payload { base: Base::Transport, offset: 12, length: 4, to },
            And { register: to, mask: NUMBER },
        ]
    };
    for (family, set, source, words) in [(&IPV4, "peers4", 12, 1), (&IPV6, "peers6", 8, 4)] {
        let of_family =
            [Meta { key: MetaKey::Family, to: KEY }, Equal { register: KEY, to: family }];
        let peer = [Payload { base: Base::Network, offset: source, length: words * 4, to: KEY }];
        let known = [named(set, false)];
        let parts = [&vxlan[..], &of_family, &peer, &number(KEY + words), &known, mark, &[Accept]];
        rule(transaction, "tunnel", &parts);
    }
    rule(transaction, "tunnel", &[&vxlan, &number(KEY), &[named("tunnels", false), Drop]]);
}

struct Family {
    ipv4: bool,
    /// Offset of the destination address in the header, and its length.
    offset: u32,
    length: u32,
    sets: [&'static str; 3],
    subnets: &'static str,
}

const FAMILY4: Family = Family {
    ipv4: true,
    offset: 16,
    length: 4,
    sets: ["bound4", "ports4", "ranges4"],
    subnets: "subnets4",
};
const FAMILY6: Family = Family {
    ipv4: false,
    offset: 24,
    length: 16,
    sets: ["bound6", "ports6", "ranges6"],
    subnets: "subnets6",
};

/// Adds the three lookups of a family, the most specific first.
fn destinations(transaction: &mut Transaction, family: &Family, guard: &[Expression<'_>]) {
    let Family { ipv4, offset, length, sets: [bound, ports, ranges], .. } = *family;
    let words = length / 4;
    let address = Payload { base: Base::Network, offset, length, to: KEY };
    let port = |to| {
        [
            Meta { key: MetaKey::Protocol, to },
            Payload { base: Base::Transport, offset: 2, length: 2, to: to + 1 },
        ]
    };
    let find = |set| Lookup { set, key: KEY, value: Some(VALUE), absent: false };
    let to_port = DestinationNat { ipv4, address: VALUE, port: Some(VALUE + words) };
    let to_address = DestinationNat { ipv4, address: VALUE, port: None };
    let behind = port(KEY + words);
    rule(transaction, "published", &[guard, &[address], &behind, &[find(bound), to_port]]);
    rule(transaction, "published", &[guard, &port(KEY), &[find(ports), to_port]]);
    rule(transaction, "published", &[guard, &[address], &behind, &[find(ranges), to_address]]);
}
