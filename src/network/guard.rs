//! The guard of a bridge: two small programs that the kernel runs on what comes from containers and on
//! what goes to them, at the bridge itself (tc-bpf(8), clsact).
//!
//! # Theory of operation
//!
//! What the packet filter closes is open again after `nft flush ruleset`, which firewalld and administrators
//! do, unless something else holds. The guard is no part of any rule set:
//!
//! * **Inward** (from containers to the host) it drops sources that are no container's of this network: those of
//!   other networks, of the world, the gateway's own. 127.0.0.0/8 is no destination and no source. A router
//!   advertisement, a redirect, what a DHCP server sends to clients (RFC 2131, RFC 8415), and an ARP message whose
//!   hardware address is not the one that belongs to its protocol address ([`super::definition::mac`]) are
//!   dropped too.
//! * **Outward** (to containers) it drops what the host forwards without [`MARK`], which the table's chain
//!   `forward` sets: without the table, nothing reaches a container from another network or from the world.
//!   What the host itself sends has no input interface and passes.
//! * A tunnel's device takes frames only with the mark, which the chain `tunnel` gives to packets of peers.

use std::net::IpAddr;

use super::definition::{Network, link_local};
use super::link::octets;
use super::subnet::Subnet;
use crate::sys::bpf::Insn;

/// A bit of a packet's mark, set by the table and cleared by the guard.
pub const MARK: u32 = 0x20;

const ETHERNET: i32 = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

const UDP: u32 = 17;
/// The destination port within a UDP header.
const TO_PORT: i32 = 2;
const DHCP_CLIENT: u32 = 68;
const DHCPV6_CLIENT: u32 = 546;

/// Go on with other programs, if there are any.
const PASS: i32 = -1;
const DROP: i32 = 2;

/// Members of `struct __sk_buff`.
const SKB_MARK: i16 = 8;
const SKB_PROTOCOL: i16 = 16;
const SKB_INPUT: i16 = 36;

/// Where values are: what a load leaves, the context that loads need, and one that they keep.
const VALUE: u8 = 0;
const CONTEXT: u8 = 6;
const KEPT: u8 = 7;
const TARGET: u8 = 8;

#[derive(Clone, Copy)]
struct Label(usize);

/// All jumps lead forward.
struct Program {
    insns: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<usize>,
    drop: Label,
    pass: Label,
}

#[derive(Clone, Copy)]
enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

impl Program {
    fn new() -> Self {
        let labels = vec![0, 0];
        let mut program =
            Self { insns: Vec::new(), jumps: Vec::new(), labels, drop: Label(0), pass: Label(1) };
        program.push(0xbf, CONTEXT, 1, 0, 0);
        program
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.insns.push(Insn { code, registers: from << 4 | to, offset, immediate });
    }

    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = self.insns.len();
    }

    fn go(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x05, 0, 0, 0, 0);
    }

    /// Of 32 bits.
    fn if_equal(&mut self, register: u8, value: u32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x16, register, 0, 0, value as i32);
    }

    fn unless_equal(&mut self, register: u8, value: u32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x56, register, 0, 0, value as i32);
    }

    fn unless_same(&mut self, register: u8, other: u8, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x5e, register, other, 0, 0);
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.push(0xbc, to, from, 0, 0);
    }

    fn and(&mut self, register: u8, mask: u32) {
        self.push(0x54, register, 0, 0, mask as i32);
    }

    fn member(&mut self, to: u8, offset: i16) {
        self.push(0x61, to, CONTEXT, offset, 0);
    }

    /// Bytes of the packet, in the host's order. A packet that is too short for them passes: no protocol takes it.
    fn packet(&mut self, size: Size, offset: i32) {
        self.push(0x20 | size as u8, 0, 0, 0, ETHERNET + offset);
    }

    /// Goes to `inside` if the packet's address at `offset` is in one of the subnets.
    fn within(&mut self, subnets: &[Subnet], offset: i32, inside: Label) {
        self.packet(Size::Byte, 0);
        for subnet in subnets {
            if subnet.prefix == 0 {
                // The way on stays one that the verifier sees.
                self.and(VALUE, 0);
                self.if_equal(VALUE, 0, inside);
                continue;
            }
            let next = self.label();
            self.words(subnet.first(), subnet.prefix, offset, next);
            self.go(inside);
            self.place(next);
        }
    }

    /// Goes to `other` unless the first `bits` of the packet's address are these.
    fn words(&mut self, address: IpAddr, bits: u8, offset: i32, other: Label) {
        let bytes = octets(address);
        for (n, word) in bytes.chunks_exact(4).enumerate() {
            let left = u32::from(bits).saturating_sub(32 * n as u32).min(32);
            let mask = u32::MAX.checked_shl(32 - left).unwrap_or(0);
            let word = word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
            if mask != 0 {
                self.packet(Size::Word, offset + 4 * n as i32);
                self.and(VALUE, mask);
                self.unless_equal(VALUE, word & mask, other);
            }
        }
    }

    fn unless_is(&mut self, address: IpAddr, offset: i32, other: Label) {
        self.words(address, 128, offset, other);
    }

    fn finish(mut self) -> Vec<Insn> {
        for (label, verdict) in [(self.pass, PASS), (self.drop, DROP)] {
            self.place(label);
            self.push(0xb4, VALUE, 0, 0, verdict);
            self.push(0x95, 0, 0, 0, 0);
        }
        for (at, label) in &self.jumps {
            self.insns[*at].offset = (self.labels[label.0] - at - 1) as i16;
        }
        self.insns
    }
}

/// Protocols are in the network's order in the context.
fn protocol(number: u16) -> u32 {
    number.to_be().into()
}

/// Subnets of one family from which the network's containers send: its own, and those behind a container
/// that a route leads to.
fn sources(network: &Network, ipv4: bool) -> Vec<Subnet> {
    let pools: Vec<_> = network.pools().map(|pool| pool.subnet).collect();
    let inside = |via: IpAddr| pools.iter().any(|subnet| subnet.contains(via));
    let routed = network.routes.iter().filter(|route| inside(route.via)).map(|route| route.to);
    let all = pools.iter().copied().chain(routed);
    all.filter(|subnet| subnet.address.is_ipv4() == ipv4).collect()
}

/// What comes from the network's containers to the host.
pub fn inward(network: &Network) -> Vec<Insn> {
    let mut p = Program::new();
    let (four, six, arp) = (p.label(), p.label(), p.label());
    let (drop, pass) = (p.drop, p.pass);
    let of = |known: bool, label| if known { label } else { drop };
    p.member(KEPT, SKB_PROTOCOL);
    p.if_equal(KEPT, protocol(IPV4), of(network.ipv4.is_some(), four));
    p.if_equal(KEPT, protocol(ARP), of(network.ipv4.is_some(), arp));
    p.unless_equal(KEPT, protocol(IPV6), pass);
    match network.ipv6 {
        Some(_) => p.go(six),
        None => p.go(drop),
    }
    if let Some(pool) = network.ipv4 {
        p.place(arp);
        p.arp(pool.subnet, pool.gateway);
        p.place(four);
        p.ipv4(network, pool.subnet, pool.gateway);
    }
    if let Some(pool) = network.ipv6 {
        p.place(six);
        p.ipv6(network, pool.subnet, pool.gateway);
    }
    p.finish()
}

impl Program {
    /// A sender's address goes with its hardware address; one that asks whether an address is free has none.
    fn arp(&mut self, subnet: Subnet, gateway: IpAddr) {
        const SENDER: i32 = 8;
        const SENDER_ADDRESS: i32 = 14;
        let (inside, other) = (self.label(), self.label());
        let (drop, pass) = (self.drop, self.pass);
        self.packet(Size::Word, SENDER_ADDRESS);
        self.copy(KEPT, VALUE);
        self.if_equal(KEPT, 0, pass);
        self.within(&[subnet], SENDER_ADDRESS, inside);
        self.go(drop);
        self.place(inside);
        self.unless_is(gateway, SENDER_ADDRESS, other);
        self.go(drop);
        self.place(other);
        self.packet(Size::Half, SENDER);
        self.unless_equal(VALUE, 0x02a1, drop);
        self.packet(Size::Word, SENDER + 2);
        self.unless_same(VALUE, KEPT, drop);
        self.go(pass);
    }

    fn ipv4(&mut self, network: &Network, subnet: Subnet, gateway: IpAddr) {
        const FRAGMENT: i32 = 6;
        const NEXT: i32 = 9;
        const SOURCE: i32 = 12;
        const DESTINATION: i32 = 16;
        const ICMP: u32 = 1;
        const REDIRECT: u32 = 5;
        const ADVERTISEMENT: u32 = 9;
        let (inside, other, known) = (self.label(), self.label(), self.label());
        let (drop, pass, elsewhere) = (self.drop, self.pass, self.label());
        self.packet(Size::Byte, DESTINATION);
        self.unless_equal(VALUE, 127, elsewhere);
        // With br_netfilter the table is asked first, and an answer to the host's own loopback has its address
        // already: the table knows.
        self.member(KEPT, SKB_MARK);
        self.and(KEPT, MARK);
        self.if_equal(KEPT, 0, drop);
        self.place(elsewhere);
        self.within(&sources(network, true), SOURCE, inside);
        self.go(drop);
        self.place(inside);
        self.unless_is(gateway, SOURCE, other);
        self.go(drop);
        self.place(other);
        let (inspected, datagram) = (self.label(), self.label());
        self.packet(Size::Byte, NEXT);
        self.copy(KEPT, VALUE);
        self.if_equal(KEPT, ICMP, inspected);
        self.unless_equal(KEPT, UDP, known);
        self.place(inspected);
        self.packet(Size::Half, FRAGMENT);
        self.and(VALUE, 0x1fff);
        self.unless_equal(VALUE, 0, known);
        // The header's length is in words.
        self.packet(Size::Byte, 0);
        self.and(VALUE, 0xf);
        self.push(0x64, VALUE, 0, 0, 2);
        self.if_equal(KEPT, UDP, datagram);
        self.push(0x50, 0, VALUE, 0, ETHERNET);
        self.if_equal(VALUE, REDIRECT, drop);
        self.if_equal(VALUE, ADVERTISEMENT, drop);
        self.go(known);
        self.place(datagram);
        self.push(0x48, 0, VALUE, 0, ETHERNET + TO_PORT);
        self.if_equal(VALUE, DHCP_CLIENT, drop);
        self.go(known);
        self.place(known);
        if network.internal {
            self.packet(Size::Word, DESTINATION);
            self.copy(TARGET, VALUE);
            self.if_equal(TARGET, u32::MAX, pass);
            self.and(TARGET, 0xf000_0000);
            self.if_equal(TARGET, 0xe000_0000, pass);
            self.within(&[subnet], DESTINATION, pass);
            self.go(drop);
        } else {
            self.go(pass);
        }
    }

    fn ipv6(&mut self, network: &Network, subnet: Subnet, gateway: IpAddr) {
        const NEXT: i32 = 6;
        const SOURCE: i32 = 8;
        const DESTINATION: i32 = 24;
        const HEADER: i32 = 40;
        const ICMP: u32 = 58;
        const ADVERTISEMENT: u32 = 134;
        const REDIRECT: u32 = 137;
        let on_link = Subnet { address: IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), prefix: 10 };
        let everybody = Subnet { address: IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), prefix: 8 };
        let none = IpAddr::from([0_u16; 8]);
        let (inside, asking, other, known) =
            (self.label(), self.label(), self.label(), self.label());
        let (drop, pass) = (self.drop, self.pass);
        let mut all = sources(network, false);
        all.push(on_link);
        self.within(&all, SOURCE, inside);
        // Who asks whether an address is free has none yet.
        self.unless_is(none, SOURCE, drop);
        self.packet(Size::Byte, NEXT);
        self.unless_equal(VALUE, ICMP, drop);
        self.go(asking);
        self.place(inside);
        for own in [gateway, link_local(network.mac()).address] {
            let next = self.label();
            self.unless_is(own, SOURCE, next);
            self.go(drop);
            self.place(next);
        }
        self.go(other);
        self.place(other);
        let datagram = self.label();
        self.packet(Size::Byte, NEXT);
        self.if_equal(VALUE, UDP, datagram);
        self.unless_equal(VALUE, ICMP, known);
        self.place(asking);
        self.packet(Size::Byte, HEADER);
        self.if_equal(VALUE, ADVERTISEMENT, drop);
        self.if_equal(VALUE, REDIRECT, drop);
        self.go(known);
        self.place(datagram);
        self.packet(Size::Half, HEADER + TO_PORT);
        self.if_equal(VALUE, DHCPV6_CLIENT, drop);
        self.go(known);
        self.place(known);
        if network.internal {
            self.within(&[subnet, on_link, everybody], DESTINATION, pass);
            self.go(drop);
        } else {
            self.go(pass);
        }
    }

    fn only_marked(&mut self) {
        let drop = self.drop;
        self.member(KEPT, SKB_MARK);
        self.copy(VALUE, KEPT);
        self.and(VALUE, MARK);
        self.if_equal(VALUE, 0, drop);
        self.and(KEPT, !MARK);
        self.push(0x63, CONTEXT, KEPT, SKB_MARK, 0);
    }
}

/// What goes to the network's containers: from the host itself, or forwarded by the table.
pub fn outward(network: &Network) -> Vec<Insn> {
    let mut p = Program::new();
    let (drop, pass) = (p.drop, p.pass);
    p.member(VALUE, SKB_INPUT);
    p.if_equal(VALUE, 0, pass);
    if network.internal {
        p.go(drop);
    } else {
        p.only_marked();
    }
    p.finish()
}

/// What comes out of a tunnel: packets that the table knows to be a peer's.
pub fn tunnel() -> Vec<Insn> {
    let mut p = Program::new();
    p.only_marked();
    p.finish()
}
