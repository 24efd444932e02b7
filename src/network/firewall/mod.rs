//! Packet filter: the nftables table `inet aril`, changed by netlink transactions.
//!
//! # Theory of operation
//!
//! The table holds a fixed set of chains and rules, which is made with the first network and does not change. The
//! elements of its sets and maps change: a network adds the name of its bridge to the sets that say what may pass,
//! and a container adds one element for each port that it publishes. Adding or removing an element costs the same
//! with ten others or ten thousand; the cost of a list of rules grows with its length. The sets are never listed: the
//! leases record which container owns which element. Elements of maps are removed by expiry where the kernel supports
//! it: see [`Removal`].
//!
//! | set | element | meaning |
//! |---|---|---|
//! | `bridges` | bridge | a network managed by Aril |
//! | `pairs` | bridge . bridge | traffic within one network passes (with br_netfilter it reaches this table) |
//! | `masqueraded` | bridge | traffic to other networks gets the host's address |
//! | `closed` | bridge | connections from outside enter through published ports only |
//! | `internal` | bridge | no traffic in or out |
//! | `open` | bridge | networks that can reach each other |
//! | `tunnels` | VNI | a vxlan network; its VNI is written as an address |
//! | `peers4`, `peers6` | address . VNI | a host that may send frames of that network |
//! | `subnets4`, `subnets6` | addresses | containers: replies to connections through a published port return the same way |
//! | `ports4`, `ports6` | protocol . port : address . port | published on every address of the host |
//! | `bound4`, `bound6` | address . protocol . port : address . port | published on one address |
//! | `ranges4`, `ranges6` | addresses . protocol . ports : address | a range of ports that keep their numbers |
//!
//! Lookups are ordered: a port on one address comes before the port on every address, and both before a range.
//!
//! | chain | hook, priority | reason for the priority |
//! |---|---|---|
//! | `guard` | prerouting, -160 | after `conntrack` (-200) and before all translation (-100 and later): drops 127.0.0.0/8 as source or destination of packets that enter by another link than `lo` |
//! | `prerouting`, `output` | -105 | before `dstnat` (-100): Docker's and kube-proxy's rules see what Aril does not publish |
//! | `relayed` | output, -5 | marks what IPVS forwards for the bridge's guard, as `forward` does |
//! | `tunnel` | input, -5 | accepts frames of vxlan networks from their peers only |
//! | `forward` | forward, -5 | before `filter` (0): a drop here is final; after an accept here, Docker's and firewalld's policy can still drop |
//! | `postrouting` | 95 | before `srcnat` (100) |

pub mod effect;
mod elements;
mod expression;
pub mod guard;
mod ruleset;

pub use elements::{
    Bridge, Mapping, Removal, add_bridge, add_mapping, remove_bridge, remove_mapping,
};
pub use ruleset::remake;

use crate::sys::Errno;
use crate::sys::netlink::{Batch, NETFILTER, Refusal, Socket, integer};

/// Name of the table, of family `inet`.
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

/// Changes that the kernel applies all at once, or not at all.
#[derive(Debug)]
pub struct Transaction(Batch);

impl Transaction {
    /// Begins a transaction.
    pub fn new() -> Self {
        let mut batch = Batch::new();
        mark(&mut batch, libc::NLMSG_MIN_TYPE as u16);
        Self(batch)
    }

    fn request(&mut self, kind: u16, flags: u16) -> &mut Batch {
        self.0.request(NFTABLES << 8 | kind, flags, &[NETFILTER_INET, 0, 0, 0])
    }

    /// Number of requests so far. The next request has this number in a [`Refusal`].
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Sends the transaction and waits for the kernel's answer.
    ///
    /// # Errors
    ///
    /// The kernel rejects the transaction; nothing of it is applied.
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

/// Adds the message that begins or ends a transaction.
fn mark(batch: &mut Batch, kind: u16) {
    let [high, low] = NFTABLES.to_be_bytes();
    batch.request(kind, 0, &[0, 0, high, low]);
}

/// Opens a netlink socket to nftables.
///
/// # Errors
///
/// The kernel has no nftables, or the process lacks CAP_NET_ADMIN.
pub fn open() -> crate::sys::Result<Socket> {
    Socket::open(NETFILTER)
}

/// Reports if the table exists with all of its rules. Another program may have flushed it, or the whole ruleset.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn is_whole(socket: &mut Socket) -> Result<bool, Refusal> {
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    /// Number of rules in the chain and of jumps to it.
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
