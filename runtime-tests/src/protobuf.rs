//! The part of protobuf that a client needs, written independently of the shim's code.

fn varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// Message to send, built field by field.
#[derive(Default, Clone)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn number(mut self, field: u64, number: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, number);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn any(self, field: u64, kind: &str, value: &[u8]) -> Self {
        self.bytes(field, Out::default().bytes(1, kind).bytes(2, value).0)
    }
}

pub fn out() -> Out {
    Out::default()
}

/// Received message.
#[derive(Debug, Default, Clone)]
pub struct In(Vec<(u64, u64, Vec<u8>)>);

impl In {
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        let next = |bytes: &mut &[u8]| {
            let mut number = 0;
            for shift in 0.. {
                let (first, rest) = bytes.split_first().expect("a whole number");
                *bytes = rest;
                number |= u64::from(first & 0x7f) << (7 * shift);
                if first & 0x80 == 0 {
                    break;
                }
            }
            number
        };
        while !bytes.is_empty() {
            let key = next(&mut bytes);
            match key & 7 {
                0 => fields.push((key >> 3, next(&mut bytes), Vec::new())),
                2 => {
                    let length = next(&mut bytes) as usize;
                    fields.push((key >> 3, 0, bytes[..length].to_vec()));
                    bytes = &bytes[length..];
                }
                other => panic!("wire type {other}"),
            }
        }
        Self(fields)
    }

    pub fn number(&self, field: u64) -> u64 {
        self.0.iter().find(|f| f.0 == field).map_or(0, |f| f.1)
    }

    pub fn bytes(&self, field: u64) -> &[u8] {
        self.0.iter().find(|f| f.0 == field).map_or(&[], |f| &f.2)
    }

    pub fn text(&self, field: u64) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    pub fn message(&self, field: u64) -> Self {
        Self::parse(self.bytes(field))
    }

    pub fn all(&self, field: u64) -> Vec<Self> {
        self.0.iter().filter(|f| f.0 == field).map(|f| Self::parse(&f.2)).collect()
    }
}
