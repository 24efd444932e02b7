//! Detects processes of the host that listen on ports to be published: sock_diag(7).
//!
//! A published port is translated before a packet reaches a socket. The listening process would receive no more
//! connections, and no error. The kernel is asked once for each protocol and address family that is published.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Kind, Result};
use crate::network::ports::{Protocol, Published};
use crate::sys::netlink::{Batch, Reply, SOCK_DIAG, Socket, integer};

/// Socket that accepts connections, or datagrams from any sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    /// The address is an IPv6 one, and the socket accepts IPv4 packets too.
    both: bool,
    inode: u32,
}

impl Listener {
    /// True if the socket would lose packets to the published port, on a network with these address families.
    fn loses_to(&self, published: Published, families: &[bool]) -> bool {
        let ports = published.host..=published.last();
        let takes = |ipv4: bool| self.address.is_ipv4() == ipv4 || (ipv4 && self.both);
        let any = self.address.is_unspecified();
        let same = published.bound().is_none_or(|bound| any || bound == self.address);
        let reached = |ipv4: &bool| published.is_of(*ipv4) && takes(*ipv4);
        published.protocol == self.protocol
            && ports.contains(&self.port)
            && same
            && families.iter().any(reached)
    }

    fn read(protocol: Protocol, reply: &Reply<'_>) -> Option<Self> {
        const ONLY_IPV6: u16 = 11;
        let message = reply.payload.get(..72)?;
        let port = u16::from_be_bytes([message[4], message[5]]);
        let inode = integer(&message[68..72]);
        let source: [u8; 16] = message[8..24].try_into().ok()?;
        if i32::from(message[0]) == libc::AF_INET {
            let [a, b, c, d, ..] = source;
            let address = Ipv4Addr::new(a, b, c, d).into();
            return Some(Self { protocol, address, port, both: false, inode });
        }
        let six = Ipv6Addr::from(source);
        let only = reply.attributes(72).any(|(kind, value)| kind == ONLY_IPV6 && value == [1]);
        let both = six.is_unspecified() && !only;
        Some(Self { protocol, address: IpAddr::from(six).to_canonical(), port, both, inode })
    }

    /// Name and pid of the process that owns the socket, as far as /proc shows it.
    fn process(&self) -> String {
        let wanted = format!("socket:[{}]", self.inode);
        let has = |pid: &str| {
            let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            all.into_iter()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|at| at.as_os_str() == &*wanted))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        match pids.find(|pid| has(pid)) {
            Some(pid) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("process {} (pid {pid})", name.trim())
            }
            None => "a process".to_owned(),
        }
    }
}

/// Returns an error if a process of the host listens on a port. `families`: those of the network, `true` for IPv4.
///
/// # Errors
///
/// A process listens on a port, or the lists of sockets cannot be read.
pub fn check(published: &[Published], families: &[bool]) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if !published.iter().any(|port| port.protocol == protocol) {
            continue;
        }
        for listener in listeners(protocol) {
            if let Some(port) = published.iter().find(|p| listener.loses_to(**p, families)) {
                let Listener { address, port: at, .. } = listener;
                let at = std::net::SocketAddr::new(address, at);
                let text = format!(
                    "cannot publish port {port}: {} of the host is listening on {at}",
                    listener.process()
                );
                return Err(Error::new(Kind::Exists, text).hint(
                    "stop it, publish another port, or take its connections with --publish-over-listener",
                ));
            }
        }
    }
    Ok(())
}

/// Lists listening sockets. The list is empty where the kernel has no inet_diag.
fn listeners(protocol: Protocol) -> Vec<Listener> {
    const BY_FAMILY: u16 = 20;
    const LISTEN: u32 = 1 << 10;
    /// State of a UDP socket that is not connected.
    const CLOSE: u32 = 1 << 7;
    let mut found = Vec::new();
    let Ok(mut socket) = Socket::open(SOCK_DIAG) else { return found };
    for family in [libc::AF_INET, libc::AF_INET6] {
        let states = if protocol == Protocol::Tcp { LISTEN } else { CLOSE };
        let mut header = [0; 56];
        (header[0], header[1]) = (family as u8, protocol as u8);
        header[4..8].copy_from_slice(&states.to_ne_bytes());
        let mut batch = Batch::new();
        batch.request(BY_FAMILY, libc::NLM_F_DUMP as u16, &header);
        let each = |reply: &Reply<'_>| found.extend(Listener::read(protocol, reply));
        if socket.ask(batch, each).is_err() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener(at: &str) -> Listener {
        let at: std::net::SocketAddr = at.parse().unwrap();
        let both = at.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
        Listener { protocol: Protocol::Tcp, address: at.ip(), port: at.port(), both, inode: 1 }
    }

    #[test]
    fn a_listener_loses_packets_on_its_own_address_and_port() {
        for (at, port, four, six) in [
            ("0.0.0.0:80", "80:1", true, false),
            ("0.0.0.0:80", "79-81:1-3", true, false),
            ("0.0.0.0:80", "81:80", false, false),
            ("0.0.0.0:80", "80:1/udp", false, false),
            ("0.0.0.0:80", "[::]:80:1", false, false),
            ("127.0.0.1:80", "80:1", true, false),
            ("127.0.0.1:80", "0.0.0.0:80:1", true, false),
            ("127.0.0.1:80", "127.0.0.1:80:1", true, false),
            ("127.0.0.1:80", "192.0.2.1:80:1", false, false),
            ("[::]:80", "80:1", true, true),
            ("[::]:80", "127.0.0.1:80:1", true, false),
            ("[::]:80", "[::1]:80:1", false, true),
            ("[::1]:80", "80:1", false, true),
        ] {
            let published: Published = port.parse().unwrap();
            let loses = [true, false].map(|ipv4| listener(at).loses_to(published, &[ipv4]));
            assert_eq!(loses, [four, six], "{at} {port}");
        }
    }

    #[test]
    fn listening_sockets_are_reported_with_their_process() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let ports = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
        let text = |port: u16, kind: &str| format!("{port}:1/{kind}").parse::<Published>().unwrap();
        for (port, kind) in [(ports[0], "tcp"), (ports[1], "udp")] {
            let refused = check(&[text(port, kind)], &[true]).unwrap_err().to_string();
            let own = format!("(pid {}) of the host is listening on ", std::process::id());
            assert!(refused.contains(&own), "{refused}");
        }
        let free = check(&[text(ports[0], "udp"), text(ports[1], "tcp")], &[true]);
        drop((tcp, udp));
        assert!(free.is_ok() || free.unwrap_err().to_string().contains("is listening on"));
    }
}
