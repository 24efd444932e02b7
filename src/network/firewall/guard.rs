//! Guard of a bridge: two eBPF programs that the kernel runs at the bridge itself, on packets from containers and on
//! packets to them (tc-bpf(8), clsact).
//!
//! # Theory of operation
//!
//! `nft flush ruleset`, which firewalld and administrators use, removes everything that the packet filter blocks. The
//! guard is independent of rulesets:
//!
//! * **Ingress** (from containers to the host) drops packets whose source is not an address of a container on this
//!   network: addresses of other networks, of outside hosts, and the gateway's own. It drops 127.0.0.0/8 as source and
//!   as destination. It also drops router advertisements, redirects, messages of a DHCP server to clients (RFC 2131,
//!   RFC 8415), and ARP messages whose hardware address does not belong to their protocol address
//!   ([`crate::network::definition::mac`]).
//! * **Egress** (to containers) drops packets that the host forwards without [`MARK`], which the table's chain
//!   `forward` sets. Without the table, nothing from another network or from outside reaches a container. Packets that
//!   the host itself sends have no input interface and pass.
//! * A vxlan device accepts frames only with the mark, which the chain `tunnel` sets on packets of peers.

use std::net::IpAddr;

use crate::network::definition::subnet::Subnet;
use crate::network::definition::{Network, link_local};
use crate::network::link::octets;
use crate::sys::bpf::Insn;

/// Bit of a packet's mark that the table sets and the guard clears.
pub const MARK: u32 = 0x20;

const ETHERNET: i32 = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

const UDP: u32 = 17;
/// Offset of the destination port in a UDP header.
const TO_PORT: i32 = 2;
const DHCP_CLIENT: u32 = 68;
const DHCPV6_CLIENT: u32 = 546;

/// `TC_ACT_UNSPEC`: continue with further programs, if there are any.
const PASS: i32 = -1;
const DROP: i32 = 2;

/// Offsets in `struct __sk_buff`.
const SKB_MARK: i16 = 8;
const SKB_PROTOCOL: i16 = 16;
const SKB_INPUT: i16 = 36;

/// Registers: result of a load; context, which loads need; values that a call preserves.
const VALUE: u8 = 0;
const CONTEXT: u8 = 6;
const KEPT: u8 = 7;
const TARGET: u8 = 8;

#[derive(Clone, Copy)]
struct Label(usize);

/// eBPF program in the making. All jumps lead forward.
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

    fn jump(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x05, 0, 0, 0, 0);
    }

    /// Jumps if the lower 32 bits of a register have this value.
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

    /// Loads bytes of the packet in host byte order. A packet that is too short passes: no protocol accepts it.
    fn packet(&mut self, size: Size, offset: i32) {
        self.push(0x20 | size as u8, 0, 0, 0, ETHERNET + offset);
    }

    /// Jumps to `inside` if the packet's address at `offset` is in one of the subnets.
    fn within(&mut self, subnets: &[Subnet], offset: i32, inside: Label) {
        self.packet(Size::Byte, 0);
        for subnet in subnets {
            if subnet.prefix == 0 {
                // The verifier rejects unreachable code: the fall-through must stay reachable.
                self.and(VALUE, 0);
                self.if_equal(VALUE, 0, inside);
                continue;
            }
            let next = self.label();
            self.words(subnet.first(), subnet.prefix, offset, next);
            self.jump(inside);
            self.place(next);
        }
    }

    /// Jumps to `other` unless the first `bits` of the packet's address at `offset` equal those of `address`.
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

/// EtherType in network byte order, as the context has it.
fn protocol(number: u16) -> u32 {
    number.to_be().into()
}

/// Subnets of one family that the network's containers send from: the network's own, and those that routes reach
/// through a container.
fn sources(network: &Network, ipv4: bool) -> Vec<Subnet> {
    let pools: Vec<_> = network.pools().map(|pool| pool.subnet).collect();
    let inside = |via: IpAddr| pools.iter().any(|subnet| subnet.contains(via));
    let routed = network.routes.iter().filter(|route| inside(route.via)).map(|route| route.to);
    let all = pools.iter().copied().chain(routed);
    all.filter(|subnet| subnet.address.is_ipv4() == ipv4).collect()
}

/// Program for packets from the network's containers to the host.
pub fn ingress(network: &Network) -> Vec<Insn> {
    let mut p = Program::new();
    let (four, six, arp) = (p.label(), p.label(), p.label());
    let (drop, pass) = (p.drop, p.pass);
    let of = |known: bool, label| if known { label } else { drop };
    p.member(KEPT, SKB_PROTOCOL);
    p.if_equal(KEPT, protocol(IPV4), of(network.ipv4.is_some(), four));
    p.if_equal(KEPT, protocol(ARP), of(network.ipv4.is_some(), arp));
    p.unless_equal(KEPT, protocol(IPV6), pass);
    match network.ipv6 {
        Some(_) => p.jump(six),
        None => p.jump(drop),
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
    /// Drops ARP messages whose sender address does not belong to the sender's hardware address. A probe for a free
    /// address has the sender address 0.
    fn arp(&mut self, subnet: Subnet, gateway: IpAddr) {
        const SENDER: i32 = 8;
        const SENDER_ADDRESS: i32 = 14;
        let (inside, other) = (self.label(), self.label());
        let (drop, pass) = (self.drop, self.pass);
        self.packet(Size::Word, SENDER_ADDRESS);
        self.copy(KEPT, VALUE);
        self.if_equal(KEPT, 0, pass);
        self.within(&[subnet], SENDER_ADDRESS, inside);
        self.jump(drop);
        self.place(inside);
        self.unless_is(gateway, SENDER_ADDRESS, other);
        self.jump(drop);
        self.place(other);
        self.packet(Size::Half, SENDER);
        self.unless_equal(VALUE, 0x02a1, drop);
        self.packet(Size::Word, SENDER + 2);
        self.unless_same(VALUE, KEPT, drop);
        self.jump(pass);
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
        // With br_netfilter the table runs first, and a reply to the host's own loopback is already translated to
        // 127.0.0.1: the table sets the mark.
        self.member(KEPT, SKB_MARK);
        self.and(KEPT, MARK);
        self.if_equal(KEPT, 0, drop);
        self.place(elsewhere);
        self.within(&sources(network, true), SOURCE, inside);
        self.jump(drop);
        self.place(inside);
        self.unless_is(gateway, SOURCE, other);
        self.jump(drop);
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
        // The header's length is counted in words of 4 bytes.
        self.packet(Size::Byte, 0);
        self.and(VALUE, 0xf);
        self.push(0x64, VALUE, 0, 0, 2);
        self.if_equal(KEPT, UDP, datagram);
        self.push(0x50, 0, VALUE, 0, ETHERNET);
        self.if_equal(VALUE, REDIRECT, drop);
        self.if_equal(VALUE, ADVERTISEMENT, drop);
        self.jump(known);
        self.place(datagram);
        self.push(0x48, 0, VALUE, 0, ETHERNET + TO_PORT);
        self.if_equal(VALUE, DHCP_CLIENT, drop);
        self.jump(known);
        self.place(known);
        if network.internal {
            self.packet(Size::Word, DESTINATION);
            self.copy(TARGET, VALUE);
            self.if_equal(TARGET, u32::MAX, pass);
            self.and(TARGET, 0xf000_0000);
            self.if_equal(TARGET, 0xe000_0000, pass);
            self.within(&[subnet], DESTINATION, pass);
            self.jump(drop);
        } else {
            self.jump(pass);
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
        let multicast = Subnet { address: IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), prefix: 8 };
        let none = IpAddr::from([0_u16; 8]);
        let (inside, asking, other, known) =
            (self.label(), self.label(), self.label(), self.label());
        let (drop, pass) = (self.drop, self.pass);
        let mut all = sources(network, false);
        all.push(on_link);
        self.within(&all, SOURCE, inside);
        // Duplicate address detection has no source address.
        self.unless_is(none, SOURCE, drop);
        self.packet(Size::Byte, NEXT);
        self.unless_equal(VALUE, ICMP, drop);
        self.jump(asking);
        self.place(inside);
        for own in [gateway, link_local(network.mac()).address] {
            let next = self.label();
            self.unless_is(own, SOURCE, next);
            self.jump(drop);
            self.place(next);
        }
        self.jump(other);
        self.place(other);
        let datagram = self.label();
        self.packet(Size::Byte, NEXT);
        self.if_equal(VALUE, UDP, datagram);
        self.unless_equal(VALUE, ICMP, known);
        self.place(asking);
        self.packet(Size::Byte, HEADER);
        self.if_equal(VALUE, ADVERTISEMENT, drop);
        self.if_equal(VALUE, REDIRECT, drop);
        self.jump(known);
        self.place(datagram);
        self.packet(Size::Half, HEADER + TO_PORT);
        self.if_equal(VALUE, DHCPV6_CLIENT, drop);
        self.jump(known);
        self.place(known);
        if network.internal {
            self.within(&[subnet, on_link, multicast], DESTINATION, pass);
            self.jump(drop);
        } else {
            self.jump(pass);
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

/// Program for packets to the network's containers: from the host itself, or forwarded with the mark.
pub fn egress(network: &Network) -> Vec<Insn> {
    let mut p = Program::new();
    let (drop, pass) = (p.drop, p.pass);
    p.member(VALUE, SKB_INPUT);
    p.if_equal(VALUE, 0, pass);
    if network.internal {
        p.jump(drop);
    } else {
        p.only_marked();
    }
    p.finish()
}

/// Program for a vxlan device: accepts packets with the mark, which come from peers.
pub fn tunnel() -> Vec<Insn> {
    let mut p = Program::new();
    p.only_marked();
    p.finish()
}
