//! Expressions of nftables rules. Each loads registers or reads them; a comparison that fails ends its rule. Numbers
//! are the kernel's (`linux/netfilter/nf_tables.h`).

use super::LIST_ELEMENT;
use crate::sys::netlink::Batch;

/// First register of 4 bytes. Registers 1 to 4 have 16 bytes and are the same memory.
const WORDS: u32 = 8;
/// Keys are loaded from the first register on; the value of a map goes behind the longest key.
pub(super) const KEY: u32 = WORDS;
pub(super) const VALUE: u32 = WORDS + 8;

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// Expression of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expression<'a> {
    /// Loads metadata of the packet into a register.
    Meta {
        key: MetaKey,
        to: u32,
    },
    /// Sets metadata of the packet from a register.
    SetMeta {
        key: MetaKey,
        from: u32,
    },
    /// Loads bytes of the network or transport header.
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: u32,
    },
    /// Loads a field of the connection's entry (conntrack).
    Connection {
        key: ConnectionKey,
        to: u32,
    },
    /// Loads the type of the destination address, such as local.
    DestinationType {
        to: u32,
    },
    And {
        register: u32,
        mask: u32,
    },
    Or {
        register: u32,
        bits: u32,
    },
    Equal {
        register: u32,
        to: &'a [u8],
    },
    NotEqual {
        register: u32,
        to: &'a [u8],
    },
    /// Looks up the key at register `key` in a set and continues if it is there, or, with `absent`, if it is not. The
    /// value of a map goes to register `value`.
    Lookup {
        set: &'a str,
        key: u32,
        value: Option<u32>,
        absent: bool,
    },
    DestinationNat {
        ipv4: bool,
        address: u32,
        port: Option<u32>,
    },
    Masquerade,
    Accept,
    Drop,
    Jump(&'a str),
}

/// Metadata of a packet (`NFT_META_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum MetaKey {
    Mark = 3,
    Input = 4,
    InputName = 6,
    OutputName = 7,
    Family = 15,
    Protocol = 16,
}

/// Header that an offset counts from (`NFT_PAYLOAD_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

/// Field of a connection's entry (`NFT_CT_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum ConnectionKey {
    State = 0,
    Status = 2,
}

use Expression::*;

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Meta { .. } | SetMeta { .. } => "meta",
            Payload { .. } => "payload",
            Connection { .. } => "ct",
            DestinationType { .. } => "fib",
            And { .. } | Or { .. } => "bitwise",
            Equal { .. } | NotEqual { .. } => "cmp",
            Lookup { .. } => "lookup",
            DestinationNat { .. } => "nat",
            Masquerade => "masq",
            Accept | Drop | Jump(_) => "immediate",
        }
    }

    fn put(&self, batch: &mut Batch) {
        match *self {
            Meta { key, to } => {
                batch.be32(1, to).be32(2, key as u32);
            }
            SetMeta { key, from } => {
                batch.be32(2, key as u32).be32(3, from);
            }
            Payload { base, offset, length, to } => {
                batch.be32(1, to).be32(2, base as u32).be32(3, offset).be32(4, length);
            }
            Connection { key, to } => {
                batch.be32(1, to).be32(2, key as u32);
            }
            DestinationType { to } => {
                const ADDRESS_TYPE: u32 = 3;
                const DESTINATION: u32 = 2;
                batch.be32(1, to).be32(2, ADDRESS_TYPE).be32(3, DESTINATION);
            }
            And { register, mask } => {
                batch.be32(1, register).be32(2, register).be32(3, 4);
                data(batch, 4, &mask.to_ne_bytes());
                data(batch, 5, &[0; 4]);
            }
            Or { register, bits } => {
                batch.be32(1, register).be32(2, register).be32(3, 4);
                data(batch, 4, &(!bits).to_ne_bytes());
                data(batch, 5, &bits.to_ne_bytes());
            }
            Equal { register, to } => compare(batch, register, 0, to),
            NotEqual { register, to } => compare(batch, register, 1, to),
            Lookup { set, key, value, absent } => {
                batch.text(1, set).be32(2, key);
                if let Some(value) = value {
                    batch.be32(3, value);
                }
                if absent {
                    batch.be32(5, 1);
                }
            }
            DestinationNat { ipv4, address, port } => {
                const DESTINATION: u32 = 1;
                let family = if ipv4 { 2 } else { 10 };
                batch.be32(1, DESTINATION).be32(2, family).be32(3, address);
                if let Some(port) = port {
                    batch.be32(5, port);
                }
            }
            Masquerade => {}
            Accept => verdict(batch, 1, None),
            Drop => verdict(batch, 0, None),
            Jump(chain) => verdict(batch, -3, Some(chain)),
        }
    }
}

fn compare(batch: &mut Batch, register: u32, operator: u32, to: &[u8]) {
    batch.be32(1, register).be32(2, operator);
    data(batch, 3, to);
}

/// Adds a value or verdict as nested data.
pub(super) fn data(batch: &mut Batch, kind: u16, value: &[u8]) {
    batch.nest(kind, |data| {
        data.put(DATA_VALUE, value);
    });
}

fn verdict(batch: &mut Batch, code: i32, chain: Option<&str>) {
    const VERDICT_REGISTER: u32 = 0;
    batch.be32(1, VERDICT_REGISTER).nest(2, |data| {
        data.nest(DATA_VERDICT, |verdict| {
            verdict.be32(1, code as u32);
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}

/// Adds the expressions as the list of a rule.
pub(super) fn list(batch: &mut Batch, expressions: &[Expression<'_>]) {
    for expression in expressions {
        batch.nest(LIST_ELEMENT, |element| {
            element.text(1, expression.name()).nest(2, |data| expression.put(data));
        });
    }
}
