//! Frames as an attacker with CAP_NET_RAW makes them: packet(7) sockets and every header by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::host::within;

pub type Mac = [u8; 6];

pub const EVERYBODY: Mac = [0xff; 6];

/// Sends frames by the link of that name in a network namespace.
pub fn send(namespace: &Path, link: &str, frames: &[Vec<u8>]) {
    let name = std::ffi::CString::new(link).expect("a name");
    within(namespace, || {
        // SAFETY: integers, a live C string, and a buffer with its length; the descriptor is closed here.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            assert_ne!(to.sll_ifindex, 0, "{link}");
            for frame in frames {
                let sent = libc::sendto(
                    socket,
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as u32,
                );
                assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
            }
            libc::close(socket);
        }
    });
}

pub fn ethernet(from: Mac, to: Mac, protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &protocol.to_be_bytes(), payload].concat()
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut all: u32 = words.sum();
    while all > 0xffff {
        all = (all & 0xffff) + (all >> 16);
    }
    !(all as u16)
}

/// A packet of either family.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (0x0800, ipv4(from, to, protocol, payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => (0x86dd, ipv6(from, to, protocol, payload)),
        _ => panic!("two families"),
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 255, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let check = sum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&check);
    header.extend(payload);
    header
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([protocol, 255]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(payload);
    header
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let mut all = [octets(from), octets(to)].concat();
    all.extend((length as u32).to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all
}

/// A UDP packet in an IP packet.
pub fn udp(from: IpAddr, to: IpAddr, port: u16, data: &[u8]) -> (u16, Vec<u8>) {
    let mut datagram = 4000_u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    let check = sum(&[&pseudo(from, to, 17, datagram.len()), &datagram]).to_be_bytes();
    datagram[6..8].copy_from_slice(&check);
    ip(from, to, 17, &datagram)
}

pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let check = sum(&[&pseudo(from.into(), to.into(), 58, message.len()), &message]).to_be_bytes();
    message[2..4].copy_from_slice(&check);
    ipv6(from, to, 58, &message)
}

/// A router advertisement: a default router, and a prefix that makes addresses.
pub fn advertisement(from: Ipv6Addr, mac: Mac, prefix: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([1, 1]);
    message.extend(mac);
    message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend(prefix.octets());
    icmp6(from, "ff02::1".parse().expect("an address"), message)
}

/// An unsolicited neighbour advertisement that overrides.
pub fn neighbour6(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(mac);
    icmp6(from, to, message)
}

/// An answer that nobody asked for: `address` is at `mac`.
pub fn arp(mac: Mac, address: Ipv4Addr, to: Mac, asker: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 2];
    message.extend(mac);
    message.extend(address.octets());
    message.extend(to);
    message.extend(asker.octets());
    message
}

/// A frame in a VXLAN packet in a UDP packet.
pub fn vxlan(from: IpAddr, to: IpAddr, number: u32, frame: &[u8]) -> (u16, Vec<u8>) {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend((number << 8).to_be_bytes());
    payload.extend(frame);
    udp(from, to, 4789, &payload)
}
