//! Builds netlink requests.
//!
//! All parts are padded to four bytes. A length is written when its message or attribute is complete.

const ALIGNMENT: usize = 4;
const HEADER: usize = 16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;

/// Requests that one send(2) passes to the kernel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Offset at which each request starts.
    starts: Vec<usize>,
    /// Index of the request that asks for an acknowledgement. `None` for the last one.
    acknowledged: Option<usize>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of requests.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Begins a request, to which the following attributes belong. `header` is that of the protocol family, such as
    /// `ifinfomsg`.
    pub fn request(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // Sequence number and port: the former is set when the batch is sent, the kernel knows the latter.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// Requests the acknowledgement for the last request so far. The kernel does not acknowledge the request that ends
    /// an nftables transaction.
    pub fn acknowledge_here(&mut self) {
        self.acknowledged = self.starts.len().checked_sub(1);
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = (4 + payload.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds an integer in network byte order, which nftables uses for all integers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a string with its NUL byte.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds an attribute that contains the attributes that `fill` adds. It must be shorter than 64 KiB.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds bytes in a nested attribute that are not an attribute, such as the header of the peer of a veth pair.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Returns the index of the request whose answer is the last one.
    pub(super) fn last_answered(&self) -> usize {
        self.acknowledged.unwrap_or(self.starts.len().saturating_sub(1))
    }

    /// Returns the message, with requests numbered from `first`.
    pub(super) fn finish(mut self, first: u32) -> Vec<u8> {
        let last = self.last_answered();
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        for (index, (start, end)) in self.starts.iter().copied().zip(ends).enumerate() {
            let header = &mut self.bytes[start..start + HEADER];
            header[..4].copy_from_slice(&((end - start) as u32).to_ne_bytes());
            if index == last {
                let flags = u16::from_ne_bytes([header[6], header[7]]) | ACK;
                header[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
            header[8..12].copy_from_slice(&(first + index as u32).to_ne_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding() {
        let mut batch = Batch::new();
        batch.request(16, 0, &[0; 4]).text(3, "abcd").nest(18, |nest| {
            nest.u8(1, 7);
        });
        batch.request(20, 0, &[]);
        assert_eq!(batch.len(), 2);
        let bytes = batch.finish(9);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        // Header, header of the family, an attribute of 4 + 5 bytes padded to 12, a nested one of 4 + 4 + 1 bytes
        // padded.
        assert_eq!((word(0), word(8)), (16 + 4 + 12 + 12, 9));
        assert_eq!((word(44), word(52)), (16, 10));
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes());
        assert_eq!(bytes[32..34], 12_u16.to_ne_bytes());
        assert_eq!(bytes[34..36], (18 | NESTED).to_ne_bytes());
        let flags = |at: usize| u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]);
        assert_eq!((flags(0), flags(44)), (REQUEST, REQUEST | ACK));
    }
}
