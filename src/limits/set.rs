//! Sets of CPUs or NUMA nodes: text such as `0-3,5`, and bit masks for system calls.

use std::fmt;

use libc::c_ulong;

use crate::error::{Error, Result};

/// One more than the maximum id. No kernel has larger ids, and the limit bounds the size of a mask.
const END: usize = 65536;
const BITS: usize = c_ulong::BITS as usize;

/// Set of CPU or NUMA node ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdSet(Vec<c_ulong>);

impl IdSet {
    /// Parses a list. `what` names it in errors.
    ///
    /// # Errors
    ///
    /// A part of the list is not a decimal id or an ascending range, or an id is 65536 or more.
    pub fn parse(what: &str, list: &str) -> Result<Self> {
        let mut set = Self::default();
        for range in list.split(',') {
            let bounds = bounds(range)
                .ok_or_else(|| Error::config(format!("invalid {what} {list:?}: {range:?}")))?;
            set.add(bounds);
        }
        Ok(set)
    }

    /// Set of all ids that a kernel can have: 8192 is the largest `NR_CPUS`.
    pub fn all() -> Self {
        Self(vec![c_ulong::MAX; 8192 / BITS])
    }

    pub fn mask(&self) -> &[c_ulong] {
        &self.0
    }

    /// Number of ids.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn add(&mut self, (first, last): (usize, usize)) {
        if self.0.len() <= last / BITS {
            self.0.resize(last / BITS + 1, 0);
        }
        for id in first..=last {
            self.0[id / BITS] |= 1 << (id % BITS);
        }
    }

    fn has(&self, id: usize) -> bool {
        self.0.get(id / BITS).is_some_and(|word| word >> (id % BITS) & 1 == 1)
    }
}

fn bounds(range: &str) -> Option<(usize, usize)> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (id(first)?, id(last)?);
    (first <= last).then_some((first, last))
}

/// Parses decimal digits. `str::parse` would accept a sign.
fn id(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id < END)
}

/// Returns the mask as one number.
impl fmt::LowerHex for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.iter().rev().skip_while(|word| **word == 0);
        fmt::LowerHex::fmt(words.next().unwrap_or(&0), f)?;
        words.try_for_each(|word| write!(f, "{word:0width$x}", width = BITS / 4))
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut id = 0;
        while id < self.0.len() * BITS {
            let length = (id..).take_while(|id| self.has(*id)).count();
            match length {
                0 => {}
                1 => write!(f, "{separator}{id}")?,
                _ => write!(f, "{separator}{id}-{}", id + length - 1)?,
            }
            if length > 0 {
                separator = ",";
            }
            id += length + 1;
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_they_print() {
        for (list, printed) in
            [("0", "0"), ("0-3,5", "0-3,5"), ("5,1-2,2-3", "1-3,5"), ("63-64", "63-64")]
        {
            assert_eq!(IdSet::parse("cpus", list).unwrap().to_string(), printed);
        }
        assert_eq!(IdSet::parse("cpus", "1,64").unwrap().mask(), [2, 1]);
        assert_eq!(IdSet::default().to_string(), "none");
        let hexadecimal = |list| format!("{:#x}", IdSet::parse("cpus", list).unwrap());
        assert_eq!([hexadecimal("0-1"), hexadecimal("1,64")], ["0x3", "0x10000000000000002"]);
        assert_eq!(IdSet::parse("cpus", "0-7,63-64").unwrap().count(), 10);
    }

    #[test]
    fn what_is_no_list() {
        for list in ["", "a", "1-", "-1", "3-1", "1,,2", "+1", " 1", "1-2-3", "65536"] {
            assert!(IdSet::parse("cpus", list).is_err(), "{list}");
        }
        let message = IdSet::parse("memory nodes", "0,x").unwrap_err().to_string();
        assert_eq!(message, "invalid memory nodes \"0,x\": \"x\"");
    }
}
