//! IP addresses with a prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with its prefix length: a subnet, or an interface address in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Subnet {
    fn bits(self) -> u32 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Mask of the host part.
    fn host_mask(self) -> u128 {
        let host = self.bits() - u32::from(self.prefix);
        1_u128.checked_shl(host).map_or(u128::MAX, |n| n - 1)
    }

    /// Distance from the first to the last address.
    pub fn span(self) -> u128 {
        self.host_mask()
    }

    /// First address: the network address.
    pub fn first(self) -> IpAddr {
        from_number(self.address, number(self.address) & !self.host_mask())
    }

    /// Last address: for IPv4, the broadcast address.
    pub fn last(self) -> IpAddr {
        from_number(self.address, number(self.address) | self.host_mask())
    }

    /// Address at `offset` from the first.
    pub fn at(self, offset: u128) -> IpAddr {
        from_number(self.address, number(self.first()) + offset)
    }

    /// Offset of an address from the first, if it is in the subnet.
    pub fn offset(self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.first()))
    }

    /// True if the address is in the subnet.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && number(address) & !self.host_mask() == number(self.first())
    }

    /// True if the subnets have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// Same prefix length with another address.
    pub fn with(self, address: IpAddr) -> Self {
        Self { address, prefix: self.prefix }
    }
}

/// Address as a number.
pub(in crate::network) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ADDRESS/LENGTH, such as 10.1.0.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        let subnet = Self { address, prefix };
        if u32::from(prefix) > subnet.bits() { Err(wrong()) } else { Ok(subnet) }
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn first_last_and_offset_of_addresses() {
        let four = net("10.1.2.3/22");
        assert_eq!((four.first().to_string(), four.last().to_string()), {
            ("10.1.0.0".to_owned(), "10.1.3.255".to_owned())
        });
        assert_eq!(four.at(257).to_string(), "10.1.1.1");
        assert_eq!(four.offset("10.1.2.3".parse().unwrap()), Some(515));
        assert!(!four.contains("10.1.4.0".parse().unwrap()));
        assert!(!four.contains("::1".parse().unwrap()));
        let six = net("fd00::/64");
        assert_eq!(six.at(0x1_0002).to_string(), "fd00::1:2");
        assert_eq!(net("::/0").span(), u128::MAX);
        assert_eq!(net("10.0.0.1/32").span(), 0);
    }

    #[test]
    fn subnets_that_share_addresses_overlap() {
        assert!(net("10.0.0.0/8").overlaps(net("10.5.0.0/16")));
        assert!(net("10.5.0.0/16").overlaps(net("10.0.0.0/8")));
        assert!(!net("10.5.0.0/16").overlaps(net("10.6.0.0/16")));
        assert!(!net("10.5.0.0/16").overlaps(net("fd00::/8")));
    }

    #[test]
    fn invalid_subnets_are_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "x/8", "fd00::/129"]
        {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
