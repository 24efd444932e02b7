//! Parses published ports: `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]`.

pub mod listener;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp = libc::IPPROTO_TCP as isize,
    Udp = libc::IPPROTO_UDP as isize,
    Sctp = libc::IPPROTO_SCTP as isize,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// `count` ports of the host from `host` on, which lead to as many ports of the container from `container` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Published {
    /// `None`: every address of the host. Unspecified (`0.0.0.0`, `::`): every address of that family.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub host: u16,
    pub container: u16,
    /// At least one.
    pub count: u16,
}

impl Published {
    /// Last port of the host.
    pub fn last(self) -> u16 {
        self.host + (self.count - 1)
    }

    /// Host address that the port is published on, if it is a single one.
    pub fn bound(self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }

    /// True if the port is published on addresses of that family.
    pub fn is_of(self, ipv4: bool) -> bool {
        self.address.is_none_or(|address| address.is_ipv4() == ipv4)
    }

    /// True if the host reaches the port at 127.0.0.0/8.
    pub fn is_on_loopback(self) -> bool {
        self.is_of(true) && self.bound().is_none_or(|address| address.is_loopback())
    }

    /// True if both publish the same port of the host on the same addresses.
    pub fn conflicts(self, other: Self) -> bool {
        let both = |ipv4| self.is_of(ipv4) && other.is_of(ipv4);
        self.protocol == other.protocol
            && self.bound() == other.bound()
            && (both(true) || both(false))
            && self.host <= other.last()
            && other.host <= self.last()
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        let rest = self.count - 1;
        match rest {
            0 => write!(f, "{}:{}", self.host, self.container)?,
            _ => write!(
                f,
                "{}-{}:{}-{}",
                self.host,
                self.host + rest,
                self.container,
                self.container + rest
            )?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}");
        let (places, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol);
        let protocol = protocol.ok_or_else(|| wrong("the protocols are tcp, udp and sctp"))?;
        let (address, ports) = address(places).map_err(|why| wrong(&why))?;
        let (host, container) = ports
            .split_once(':')
            .ok_or_else(|| wrong("expected [ADDRESS:]HOST_PORT:CONTAINER_PORT[/PROTOCOL]"))?;
        let (host, count) = range(host).map_err(|why| wrong(&why))?;
        let (container, inside) = range(container).map_err(|why| wrong(&why))?;
        if count != inside {
            return Err(wrong(&format!("{count} ports of the host for {inside} of the container")));
        }
        Ok(Self { address, protocol, host, container, count })
    }
}

/// Splits off the address, if there is one. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) becomes the IPv4
/// address, which is what packets have.
fn address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    let parsed = |address: IpAddr| Some(address.to_canonical());
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once("]:").ok_or("expected [ADDRESS]:PORT:PORT")?;
        let address: Ipv6Addr =
            address.parse().map_err(|_| format!("{address:?} is not an IPv6 address"))?;
        return Ok((parsed(address.into()), rest));
    }
    match text.split_once(':') {
        Some((first, rest)) if rest.contains(':') => {
            let address: IpAddr = first.parse().map_err(|_| {
                format!("{first:?} is not an IP address (IPv6 addresses need brackets)")
            })?;
            Ok((parsed(address), rest))
        }
        _ => Ok((None, text)),
    }
}

/// Parses a range: its first port and the number of ports.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        Err(format!("{text} ends before it begins"))
    } else {
        Ok((first, last - first + 1))
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| format!("{text:?} is not a port: expected 1 to 65535"))
}

impl TryFrom<String> for Published {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Published> for String {
    fn from(published: Published) -> Self {
        published.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Published {
        text.parse().unwrap()
    }

    #[test]
    fn ports_are_printed_in_canonical_form() {
        for (text, canonical) in [
            ("8080:80", "8080:80/tcp"),
            ("53:53/udp", "53:53/udp"),
            ("127.0.0.1:1:2/sctp", "127.0.0.1:1:2/sctp"),
            ("0.0.0.0:1:2", "0.0.0.0:1:2/tcp"),
            ("[::]:1:2", "[::]:1:2/tcp"),
            ("[0:0::0]:1:2", "[::]:1:2/tcp"),
            ("[::ffff:0.0.0.0]:1:2", "0.0.0.0:1:2/tcp"),
            ("[::ffff:127.0.0.1]:1:2", "127.0.0.1:1:2/tcp"),
            ("[::ffff:c000:201]:1:2", "192.0.2.1:1:2/tcp"),
            ("[::1]:1-3:5-7", "[::1]:1-3:5-7/tcp"),
            ("1-65535:1-65535", "1-65535:1-65535/tcp"),
        ] {
            assert_eq!(parse(text).to_string(), canonical);
            assert_eq!(parse(canonical), parse(text));
        }
        assert_eq!(parse("8000-8009:80-89").count, 10);
    }

    #[test]
    fn invalid_ports_are_refused() {
        for bad in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:65536",
            "+1:2",
            "1:2/icmp",
            "1-2:3",
            "2-1:2-1",
            "x:1:2",
            "::1:1:2",
            "[::1:1:2",
            "[10.0.0.1]:1:2",
        ] {
            assert!(bad.parse::<Published>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_on_loopback_are_recognised() {
        for yes in
            ["9:9", "0.0.0.0:9:9", "127.0.0.1:9:9", "127.9.9.9:9:9", "[::ffff:127.0.0.1]:9:9"]
        {
            assert!(parse(yes).is_on_loopback(), "{yes}");
        }
        for no in ["[::]:9:9", "[::1]:9:9", "192.0.2.1:9:9"] {
            assert!(!parse(no).is_on_loopback(), "{no}");
        }
    }

    #[test]
    fn overlapping_ports_conflict() {
        assert!(parse("1-9:1-9").conflicts(parse("9:80")));
        assert!(!parse("1-9:1-9").conflicts(parse("10:80")));
        assert!(!parse("9:9").conflicts(parse("9:9/udp")));
        assert!(!parse("9:9").conflicts(parse("127.0.0.1:9:9")));
        assert!(!parse("0.0.0.0:9:9").conflicts(parse("[::]:9:9")));
        assert!(!parse("0.0.0.0:9:9").conflicts(parse("127.0.0.1:9:9")));
        assert!(!parse("[::]:9:9").conflicts(parse("[fd00::1]:9:9")));
        for every in ["0.0.0.0:9:9", "[::]:9:9", "9:9"] {
            assert!(parse("9:9").conflicts(parse(every)) && parse(every).conflicts(parse("9:9")));
            assert!(parse(every).conflicts(parse(every)));
        }
        assert!(parse("[::ffff:127.0.0.1]:9:9").conflicts(parse("127.0.0.1:9:9")));
    }
}
