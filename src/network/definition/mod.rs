//! Definition of a network: [`NetworkOptions`] are checked and become a [`Network`]. Reads nothing of the host.

pub mod effect;
pub mod store;
pub mod subnet;

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::definition::subnet::Subnet;
use crate::network::firewall::Bridge;
use crate::network::link::{Mac, octets};

/// Name of the network that containers join when they name none.
pub const DEFAULT: &str = "aril0";

/// UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// Bytes of headers that a tunnel adds to a frame, for IPv4 and IPv6 addresses of the hosts.
const VXLAN_OVERHEAD: u32 = 50;
const VXLAN_OVERHEAD6: u32 = 70;
const ETHERNET_MTU: u32 = 1500;

/// Driver of a network: the way in which its containers reach other networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Containers reach other networks with the host's address (masquerade) and are reached by published ports.
    Bridge,
    /// No masquerade: routers outside know a route to the subnet.
    Routed,
    /// Like `bridge`, and connected by VXLAN to the networks with the same VNI on other hosts.
    Vxlan,
}

impl Driver {
    /// Name in options and definitions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Routed => "routed",
            Self::Vxlan => "vxlan",
        }
    }
}

impl FromStr for Driver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "routed" => Ok(Self::Routed),
            "vxlan" => Ok(Self::Vxlan),
            other => Err(Error::config(format!("unknown network driver {other:?}"))
                .hint("the drivers are bridge, routed and vxlan")),
        }
    }
}

/// Subnet of one address family, with its gateway and the part that leases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: Subnet,
    pub gateway: IpAddr,
    /// Part of the subnet that leases come from; `None`: the whole subnet. Other hosts use the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Subnet>,
}

/// Route to a subnet through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub to: Subnet,
    pub via: IpAddr,
}

/// VXLAN properties of a network: VNI, UDP port and peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    pub id: u32,
    pub port: u16,
    pub peers: Vec<IpAddr>,
}

impl Vxlan {
    /// True if the peers' addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.peers.first().is_some_and(IpAddr::is_ipv6)
    }
}

/// Network of containers. Its name is also the name of its bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    pub driver: Driver,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Pool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Pool>,
    pub mtu: u32,
    /// Containers reach only the host and each other.
    pub internal: bool,
    /// Containers on other networks cannot reach this one.
    pub isolated: bool,
    /// Routes through hosts on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
}

/// Options of `aril network create`, and of a CNI configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    pub name: String,
    pub driver: Option<String>,
    /// At most one of each address family.
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ranges: Vec<String>,
    pub mtu: Option<u32>,
    pub internal: bool,
    pub open: bool,
    /// Each is `SUBNET=ADDRESS`.
    pub routes: Vec<String>,
    pub vni: Option<u32>,
    pub peers: Vec<String>,
}

/// Checks a network's name, which is also the name of an interface and of a file.
///
/// # Errors
///
/// The name is empty, too long, or contains other characters.
pub fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if first && name.len() < libc::IFNAMSIZ && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::config(format!("invalid network name {name:?}")).hint(
        "a network's name is also the name of its bridge: at most 15 letters, digits and _ - .",
    ))
}

impl NetworkOptions {
    /// Checks the options and returns the network, which has no subnet if the options give none.
    ///
    /// # Errors
    ///
    /// An option is invalid, or two contradict each other.
    pub fn network(&self) -> Result<Network> {
        check_name(&self.name)?;
        let driver = self.driver.as_deref().unwrap_or("bridge").parse()?;
        let vxlan = self.vxlan(driver)?;
        let default_mtu = match &vxlan {
            None => ETHERNET_MTU,
            Some(vxlan) if vxlan.is_ipv6() => ETHERNET_MTU - VXLAN_OVERHEAD6,
            Some(_) => ETHERNET_MTU - VXLAN_OVERHEAD,
        };
        let mtu = self.mtu.unwrap_or(default_mtu);
        if !(1280..=65535).contains(&mtu) {
            return Err(wrong("mtu", &mtu.to_string(), "expected 1280 to 65535"));
        }
        let subnets: Vec<Subnet> = parsed("subnet", &self.subnets)?;
        let gateways: Vec<IpAddr> = parsed("gateway", &self.gateways)?;
        let ranges: Vec<Subnet> = parsed("range", &self.ranges)?;
        let network = Network {
            name: self.name.clone(),
            driver,
            ipv4: pool(true, &subnets, &gateways, &ranges)?,
            ipv6: pool(false, &subnets, &gateways, &ranges)?,
            mtu,
            internal: self.internal,
            isolated: !self.open,
            routes: self.routes.iter().map(|text| route(text)).collect::<Result<_>>()?,
            vxlan,
        };
        network.check()?;
        Ok(network)
    }

    fn vxlan(&self, driver: Driver) -> Result<Option<Vxlan>> {
        if driver != Driver::Vxlan {
            return match (self.vni, self.peers.first()) {
                (None, None) => Ok(None),
                _ => Err(Error::config("only a network of the driver vxlan has a vni and peers")),
            };
        }
        let id = self.vni.filter(|id| (1..1 << 24).contains(id)).ok_or_else(|| {
            Error::config("a vxlan network needs a VNI")
                .hint("give --vni, 1 to 16777215, the same on every host")
        })?;
        let peers: Vec<IpAddr> = parsed("peer", &self.peers)?;
        if let Some(other) = peers.iter().find(|peer| peer.is_ipv4() != peers[0].is_ipv4()) {
            return Err(wrong(
                "peer",
                &other.to_string(),
                "all peers have addresses of one family",
            ));
        }
        if let Some(peer) = peers.iter().find(|p| p.is_unspecified() || p.is_multicast()) {
            return Err(wrong("peer", &peer.to_string(), "not the address of a host"));
        }
        Ok(Some(Vxlan { id, port: VXLAN_PORT, peers }))
    }
}

impl Network {
    /// IPv4 and IPv6 pool, as far as there is one. In both, an address has the same offset, so one offset is a lease
    /// in both.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    fn check(&self) -> Result<()> {
        if let (Some(four), Some(six)) = (self.ipv4, self.ipv6)
            && six.subnet.span() < four.subnet.span()
        {
            return Err(Error::config(format!(
                "the subnet {} has fewer addresses than {}",
                six.subnet, four.subnet
            )));
        }
        if self.internal && !self.routes.is_empty() {
            return Err(Error::config("an internal network cannot have routes"));
        }
        Ok(())
    }

    /// Bridge of the network, as the packet filter sees it.
    pub fn bridge(&self) -> Bridge<'_> {
        Bridge {
            name: &self.name,
            masqueraded: !self.internal && self.driver != Driver::Routed,
            closed: self.internal || self.driver != Driver::Routed,
            internal: self.internal,
            open: !self.isolated && !self.internal,
            subnets: [self.ipv4, self.ipv6].map(|pool| pool.map(|pool| pool.subnet)),
            tunnel: self.vxlan.as_ref().map(|vxlan| (vxlan.id, &vxlan.peers[..])),
        }
    }

    /// Name of the vxlan device, for a vxlan network.
    pub fn tunnel(&self) -> Option<String> {
        self.vxlan.as_ref().map(|vxlan| format!("vx{}", vxlan.id))
    }

    /// Hardware address of the bridge.
    pub fn mac(&self) -> Mac {
        self.pools().next().map_or([2, 0, 0, 0, 0, 1], |pool| mac(pool.gateway))
    }
}

/// Hardware address that belongs to an address. It depends on the address alone, so no neighbour table goes stale.
pub fn mac(address: IpAddr) -> Mac {
    let bytes = octets(address);
    let [.., a, b, c, d] = bytes[..] else { return [0; 6] };
    // Locally administered.
    [0x02, 0xa1, a, b, c, d]
}

/// Link-local address made from a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Subnet {
    let [a, b, c, d, e, f] = mac;
    let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Subnet { address: IpAddr::from(bytes), prefix: 64 }
}

fn wrong(what: &str, text: &str, why: &str) -> Error {
    Error::config(format!("invalid {what} {text:?}: {why}"))
}

fn parsed<T: FromStr>(what: &str, texts: &[String]) -> Result<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    let parse = |text: &String| text.parse().map_err(|e: T::Err| wrong(what, text, &e.to_string()));
    texts.iter().map(parse).collect()
}

fn route(text: &str) -> Result<Route> {
    let (to, via) = text.split_once('=').ok_or_else(|| {
        wrong("route", text, "expected SUBNET=ADDRESS, such as 10.2.0.0/24=192.0.2.2")
    })?;
    let to: Subnet = to.parse().map_err(|e: String| wrong("route", text, &e))?;
    let via: IpAddr = via.parse().map_err(|_| wrong("route", text, "no address after ="))?;
    if to.address.is_ipv4() != via.is_ipv4() {
        return Err(wrong("route", text, "IPv4 and IPv6 mixed"));
    }
    Ok(Route { to, via })
}

/// Pool of one address family, from the options of that family.
fn pool(
    ipv4: bool,
    subnets: &[Subnet],
    gateways: &[IpAddr],
    ranges: &[Subnet],
) -> Result<Option<Pool>> {
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    let one = |what: &str, count: usize| match count {
        0 | 1 => Ok(()),
        _ => Err(Error::config(format!("a network has at most one {family} {what}"))),
    };
    let own: Vec<_> = subnets.iter().filter(|s| s.address.is_ipv4() == ipv4).collect();
    let gateway: Vec<_> = gateways.iter().filter(|g| g.is_ipv4() == ipv4).collect();
    let range: Vec<_> = ranges.iter().filter(|r| r.address.is_ipv4() == ipv4).collect();
    one("subnet", own.len())?;
    one("gateway", gateway.len())?;
    one("range", range.len())?;
    let Some(subnet) = own.first() else {
        if gateway.is_empty() && range.is_empty() {
            return Ok(None);
        }
        return Err(Error::config(format!("a gateway or range needs an {family} subnet")));
    };
    let subnet = subnet.with(subnet.first());
    // A gateway and two containers need four addresses with the network's own and the broadcast address.
    if subnet.span() < 3 {
        return Err(wrong("subnet", &subnet.to_string(), "too small for a network"));
    }
    let gateway = gateway.first().map_or_else(|| subnet.at(1), |gateway| **gateway);
    let inside =
        |a: IpAddr| subnet.contains(a) && a != subnet.first() && (!ipv4 || a != subnet.last());
    if !inside(gateway) {
        return Err(wrong("gateway", &gateway.to_string(), &format!("not a host of {subnet}")));
    }
    let range = range.first().map(|range| **range);
    if let Some(range) = range
        && !(subnet.contains(range.first()) && range.prefix >= subnet.prefix)
    {
        return Err(wrong("range", &range.to_string(), &format!("not inside {subnet}")));
    }
    Ok(Some(Pool { subnet, gateway, range }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(subnets: &[&str]) -> NetworkOptions {
        let subnets = subnets.iter().map(|s| (*s).to_owned()).collect();
        NetworkOptions { name: "n".to_owned(), subnets, ..NetworkOptions::default() }
    }

    #[test]
    fn a_network_has_defaults() {
        let network = wanted(&["10.1.0.7/24", "fd00:1::/64"]).network().unwrap();
        assert_eq!(network.ipv4.unwrap().gateway.to_string(), "10.1.0.1");
        assert_eq!(network.ipv4.unwrap().subnet.to_string(), "10.1.0.0/24");
        assert_eq!(network.ipv6.unwrap().gateway.to_string(), "fd00:1::1");
        assert_eq!((network.mtu, network.driver, network.isolated), (1500, Driver::Bridge, true));
        let bridge = network.bridge();
        assert!(bridge.masqueraded && bridge.closed && !bridge.open && !bridge.internal);
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
    }

    #[test]
    fn a_vxlan_network_needs_a_vni_and_peers_of_one_family() {
        let mut asked = wanted(&["10.1.0.0/24"]);
        asked.driver = Some("vxlan".to_owned());
        assert!(asked.network().unwrap_err().to_string().contains("needs a VNI"));
        asked.vni = Some(42);
        asked.peers = vec!["192.0.2.2".to_owned()];
        let network = asked.network().unwrap();
        assert_eq!((network.mtu, network.tunnel().as_deref()), (1450, Some("vx42")));
        asked.peers = vec!["2001:db8::2".to_owned()];
        assert_eq!(asked.network().unwrap().mtu, 1430);
        for other in ["192.0.2.2", "::", "ff02::1"] {
            asked.peers = vec!["2001:db8::2".to_owned(), other.to_owned()];
            assert!(asked.network().is_err(), "{other}");
        }
    }

    #[test]
    fn invalid_options_are_refused() {
        let refused = |asked: &NetworkOptions| asked.network().unwrap_err().to_string();
        for name in ["", "a/b", "-a", "sixteen-letters.", "a b"] {
            let asked = NetworkOptions { name: name.to_owned(), ..NetworkOptions::default() };
            assert!(refused(&asked).contains("invalid network name"), "{name}");
        }
        assert!(refused(&wanted(&["10.0.0.0/24", "10.1.0.0/24"])).contains("at most one"));
        assert!(refused(&wanted(&["10.0.0.0/31"])).contains("too small"));
        assert!(refused(&wanted(&["10.0.0.0/16", "fd00::/120"])).contains("fewer addresses"));
        let with = |field: fn(&mut NetworkOptions), text: &str| {
            let mut asked = wanted(&["10.0.0.0/24"]);
            field(&mut asked);
            assert!(refused(&asked).contains(text), "{}", refused(&asked));
        };
        with(|w| w.gateways = vec!["10.1.0.1".to_owned()], "not a host of 10.0.0.0/24");
        with(|w| w.gateways = vec!["10.0.0.255".to_owned()], "not a host of");
        with(|w| w.ranges = vec!["10.0.0.0/16".to_owned()], "not inside");
        with(|w| w.mtu = Some(100), "expected 1280");
        with(|w| w.routes = vec!["10.2.0.0/24".to_owned()], "SUBNET=ADDRESS");
        with(|w| w.driver = Some("macvlan".to_owned()), "unknown network driver");
        with(|w| w.vni = Some(1), "only a network of the driver vxlan");
    }
}
