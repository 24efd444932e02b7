//! Parses the kernel's netlink messages, and checks every length.

use crate::sys::Errno;

const HEADER: usize = 16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// Flag of an error message that has attributes.
const ACK_TLVS: u16 = 0x200;
/// Flag of an error message without the rejected request (`NETLINK_CAP_ACK`).
const CAPPED: u16 = 0x100;
const ERROR_TEXT: u16 = 1;

/// Message of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    /// Bytes after the header.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Returns the attributes after the header of the protocol family, which has `skip` bytes.
    pub fn attributes(&self, skip: usize) -> Attributes<'a> {
        Attributes(self.payload.get(skip..).unwrap_or_default())
    }

    /// Returns the result of the request if this message ends its answer. `None` if more messages follow.
    pub(super) fn ended(&self) -> Option<Result<(), (Errno, String)>> {
        if self.kind != ERROR && self.kind != DONE {
            return None;
        }
        let code = self.payload.get(..4).map_or(0, integer) as i32;
        if code == 0 {
            return Some(Ok(()));
        }
        Some(Err((Errno::from_raw(code.wrapping_neg()), self.text())))
    }

    fn text(&self) -> String {
        if self.kind != ERROR || self.flags & ACK_TLVS == 0 {
            return String::new();
        }
        let echoed = self.payload.get(4..8).map_or(0, integer) as usize;
        let skip = 4 + if self.flags & CAPPED != 0 { HEADER } else { echoed };
        let mut found = self.attributes(skip.next_multiple_of(4));
        found
            .find(|(kind, _)| *kind == ERROR_TEXT)
            .map(|(_, bytes)| text(bytes))
            .unwrap_or_default()
    }
}

/// Iterates over the complete messages of one datagram.
pub(super) fn all(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = integer(&header[..4]) as usize;
        let payload = bytes.get(HEADER..length)?;
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (kind, flags) = (short(4), short(6));
        let reply = Reply { kind, flags, sequence: integer(&header[8..12]), payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// Iterator over kind and payload of attributes. It ends at an invalid length.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..4)?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        // The kind has flags for nested attributes and byte order, which are removed.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & libc::NLA_TYPE_MASK as u16;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// Parses an integer in host byte order. Returns 0 if `bytes` does not have four bytes.
pub fn integer(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_ne_bytes).unwrap_or(0)
}

/// Parses text up to its NUL byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_ends_it() {
        assert_eq!(Attributes(&[8, 0, 1, 0, 1, 2, 3, 4]).count(), 1);
        for bad in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 1, 2, 3, 4], &[0, 0, 0, 0], &[8, 0]] {
            assert_eq!(Attributes(bad).count(), 0, "{bad:?}");
        }
        let mut message = vec![17, 0, 0, 0];
        message.extend([0; 12]);
        assert_eq!(all(&message).count(), 0);
    }

    #[test]
    fn a_refusal_with_the_kernels_words() {
        let mut message = vec![0; 4];
        message.extend(ERROR.to_ne_bytes());
        message.extend((ACK_TLVS | CAPPED).to_ne_bytes());
        message.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        message.extend((-libc::EBUSY).to_ne_bytes());
        message.extend([0; HEADER]);
        message.extend([8, 0, 1, 0]);
        message.extend(b"why\0");
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        let reply = all(&message).next().unwrap();
        assert_eq!(reply.sequence, 5);
        assert_eq!(reply.ended(), Some(Err((Errno::EBUSY, "why".to_owned()))));
    }
}
