//! Parses rate limits: `RATE`, or `in=RATE`, `out=RATE` separated by a comma.

use std::str::FromStr;

/// Rate limits in bytes per second, from the container's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Traffic to the container.
    pub inward: Option<u64>,
    /// Traffic from the container.
    pub outward: Option<u64>,
}

impl Rate {
    /// Bytes that may pass at once: 20 ms of the rate, but at least one large segment.
    pub fn burst(rate: u64) -> u32 {
        (rate / 50).clamp(128 * 1024, 64 * 1024 * 1024) as u32
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            let both = Some(bytes(text)?);
            return Ok(Self { inward: both, outward: both });
        }
        let mut rate = Self { inward: None, outward: None };
        for part in text.split(',') {
            let place = match part.split_once('=') {
                Some(("in", _)) => &mut rate.inward,
                Some(("out", _)) => &mut rate.outward,
                _ => return Err(format!("{part:?}: expected in=RATE or out=RATE")),
            };
            if place.replace(bytes(&part[part.find('=').map_or(0, |at| at + 1)..])?).is_some() {
                return Err(format!("{text:?}: a direction is given twice"));
            }
        }
        Ok(rate)
    }
}

/// Parses bits per second with a decimal suffix (`10mbit`, `1g`, `64k`) and returns bytes per second.
fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let amount = lower.strip_suffix("bit").unwrap_or(&lower);
    let (digits, factor) = match amount.as_bytes().last() {
        Some(b'k') => (&amount[..amount.len() - 1], 1_000),
        Some(b'm') => (&amount[..amount.len() - 1], 1_000_000),
        Some(b'g') => (&amount[..amount.len() - 1], 1_000_000_000),
        _ => (amount, 1),
    };
    let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
    let bits = number.and_then(|n| n.checked_mul(factor));
    match bits.map(|bits| bits / 8) {
        // At a lower rate a full frame would wait for seconds.
        Some(bytes) if bytes >= 1_000 => Ok(bytes),
        _ => Err(format!("{text:?}: expected a number with kbit, mbit or gbit, at least 8kbit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed() {
        let both = |n| Rate { inward: Some(n), outward: Some(n) };
        assert_eq!("8mbit".parse(), Ok(both(1_000_000)));
        assert_eq!("1Gbit".parse(), Ok(both(125_000_000)));
        assert_eq!("8000".parse(), Ok(both(1_000)));
        assert_eq!("out=80k".parse(), Ok(Rate { inward: None, outward: Some(10_000) }));
        let apart = Rate { inward: Some(1_000_000), outward: Some(2_000_000) };
        assert_eq!("in=8m,out=16m".parse(), Ok(apart));
        for bad in ["", "x", "1", "-8m", "+8m", "in=", "up=8m", "in=8m,in=9m", "8mb", "in=8m,"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
