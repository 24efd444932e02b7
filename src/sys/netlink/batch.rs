//! Requests, built in place. Everything is padded to four bytes; lengths are filled in at the end of
//! what they measure.

const ALIGNMENT: usize = 4;
const HEADER: usize = 16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;

/// One or more requests for one send.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each request starts.
    starts: Vec<usize>,
    /// Which of them asks for the acknowledgement, if not the last.
    acknowledged: Option<usize>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Begins a request; what is put next belongs to it. `header` is the family's own, such as
    /// `ifinfomsg`.
    pub fn request(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // Sequence and port: the first is filled in when it is sent, the kernel knows the other.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// The last request so far is the last that the kernel acknowledges: what follows it only ends a
    /// transaction.
    pub fn acknowledge_here(&mut self) {
        self.acknowledged = self.starts.len().checked_sub(1);
    }

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

    /// In the network's order, as all of nftables is.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// With its end.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// An attribute that holds others, which `fill` puts. It must stay below 64 KB.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes inside a nest that are no attribute, such as the header of a peer's link.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The index of the request after whose answer nothing is to be waited for.
    pub(super) fn last_answered(&self) -> usize {
        self.acknowledged.unwrap_or(self.starts.len().saturating_sub(1))
    }

    /// The bytes, with requests numbered from `first`.
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
        // Header, own header, an attribute of 4 + 5 padded to 12, a nest of 4 + 4 + 1 padded.
        assert_eq!((word(0), word(8)), (16 + 4 + 12 + 12, 9));
        assert_eq!((word(44), word(52)), (16, 10));
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes());
        assert_eq!(bytes[32..34], 12_u16.to_ne_bytes());
        assert_eq!(bytes[34..36], (18 | NESTED).to_ne_bytes());
        let flags = |at: usize| u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]);
        assert_eq!((flags(0), flags(44)), (REQUEST, REQUEST | ACK));
    }
}
