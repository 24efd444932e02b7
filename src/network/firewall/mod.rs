//! The packet filter's part: one nftables table of ours, changed by netlink transactions.
//!
//! # Theory of operation
//!
//! The table `inet aril` holds a fixed set of chains and rules, made with the first network and never
//! touched again. What varies are the elements of its sets and maps: a network adds the name of its
//! bridge to the sets that say what may pass, a container adds one element for each port that it
//! publishes. To add or remove an element costs the same whether there are ten others or ten
//! thousand, which no list of rules can say. Nothing is ever listed: who owns which element is in the
//! leases. Elements of maps expire rather than being removed, where the kernel can: see [`Removal`].
//!
//! | set | an element | means |
//! |---|---|---|
//! | `bridges` | bridge | a network of ours |
//! | `pairs` | bridge . bridge | what stays on one network passes (with br_netfilter it comes here) |
//! | `masqueraded` | bridge | what leaves for the world gets the host's address |
//! | `closed` | bridge | connections from the world come in through published ports only |
//! | `internal` | bridge | neither in nor out |
//! | `open` | bridge | networks that reach each other |
//! | `tunnels` | number | a vxlan network, its number written as an address |
//! | `peers4`, `peers6` | address . number | a host that may send frames of that network |
//! | `subnets4`, `subnets6` | addresses | containers: what they send through a published port comes back the same way |
//! | `ports4`, `ports6` | protocol . port : address . port | published on every address of the host |
//! | `bound4`, `bound6` | address . protocol . port : address . port | on one address |
//! | `ranges4`, `ranges6` | addresses . protocol . ports : address | a range whose ports stay the same |
//!
//! The order of the lookups decides: a port of one address goes before the port of every address, and
//! both before a range.
//!
//! | chain | hook, priority | next to |
//! |---|---|---|
//! | `guard` | prerouting, -160 | `conntrack` is -200, all translation -100 and later: 127.0.0.0/8 is no destination and no source of what comes in by another link than `lo` |
//! | `prerouting`, `output` | -105 | `dstnat` is -100: Docker's and kube-proxy's rules are asked after ours, for what we do not publish |
//! | `relayed` | output, -5 | what IPVS forwards is marked for the guard of the bridge, as in `forward` |
//! | `tunnel` | input, -5 | frames of vxlan networks come from their peers only |
//! | `forward` | forward, -5 | `filter` is 0: what we drop is dropped; what we accept others may still drop (Docker's and firewalld's policy) |
//! | `postrouting` | 95 | `srcnat` is 100 |

mod elements;
mod expression;
mod ruleset;

pub use elements::{
    Bridge, Mapping, Removal, add_bridge, add_mapping, remove_bridge, remove_mapping,
};
pub use ruleset::remake;

use crate::sys::Errno;
use crate::sys::netlink::{Batch, NETFILTER, Refusal, Socket, integer};

pub const TABLE: &str = "aril";

const NETFILTER_INET: u8 = 1;
const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const LIST_ELEMENT: u16 = 1;

/// What is changed at once, or not at all.
#[derive(Debug)]
pub struct Transaction(Batch);

impl Transaction {
    pub fn new() -> Self {
        let mut batch = Batch::new();
        mark(&mut batch, libc::NLMSG_MIN_TYPE as u16);
        Self(batch)
    }

    fn request(&mut self, kind: u16, flags: u16) -> &mut Batch {
        self.0.request(NFTABLES << 8 | kind, flags, &[NETFILTER_INET, 0, 0, 0])
    }

    /// How many requests there are; the next one has this number in a [`Refusal`].
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Refusal> {
        self.0.acknowledge_here();
        mark(&mut self.0, libc::NLMSG_MIN_TYPE as u16 + 1);
        socket.transact(self.0)
    }
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

/// Begin or end.
fn mark(batch: &mut Batch, kind: u16) {
    let [high, low] = NFTABLES.to_be_bytes();
    batch.request(kind, 0, &[0, 0, high, low]);
}

pub fn open() -> crate::sys::Result<Socket> {
    Socket::open(NETFILTER)
}

/// Whether our table is there with all of its rules: somebody may have flushed it, or everything.
pub fn is_whole(socket: &mut Socket) -> Result<bool, Refusal> {
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    /// Rules in the chain, and jumps to it.
    const CHAIN_USE: u16 = 6;
    let mut batch = Batch::new();
    for (name, _) in ruleset::USES {
        let asked = batch.request(NFTABLES << 8 | GETCHAIN, 0, &[NETFILTER_INET, 0, 0, 0]);
        asked.text(CHAIN_TABLE, TABLE).text(CHAIN_NAME, name);
    }
    let mut uses = Vec::new();
    let asked = socket.ask(batch, |reply| {
        let count = reply.attributes(4).find(|(kind, _)| *kind == CHAIN_USE);
        uses.extend(count.map(|(_, bytes)| u32::from_be(integer(bytes))));
    });
    match asked {
        Ok(()) => Ok(ruleset::USES.iter().map(|(_, count)| *count).eq(uses)),
        Err(refusal) if refusal.errno == Errno::ENOENT => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests;
