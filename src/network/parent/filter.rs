//! Elements of the filter's table: ports come and go, and the table is made again where it is gone.

use std::time::Duration;

use super::{filter_socket, refused, routes, settings};
use crate::error::{Context, Error, Kind, Result};
use crate::network::definition::Network;
use crate::network::firewall::{self, Mapping, Removal, Transaction};
use crate::network::lease::{self, Lease};
use crate::network::link;
use crate::network::publish::Published;
use crate::network::store;
use crate::sys::Errno;
use crate::sys::netlink::{Refusal, Socket};

/// The container's ports, into a table that is as it was made: somebody may have flushed it.
pub(super) fn publish(network: &Network, lease: &Lease, warnings: &mut Vec<String>) -> Result<()> {
    let mut socket = filter_socket()?;
    if !firewall::is_whole(&mut socket).map_err(|r| refused(r, "table aril"))? {
        warnings.extend(repair()?);
        return Ok(());
    }
    if lease.published.is_empty() {
        return Ok(());
    }
    let ports = || format!("published ports on {}", network.name);
    // What was published until just now goes with the next tick of the kernel's clock.
    for _ in 0..TICK_IN_MILLISECONDS {
        match add_ports(&mut socket, lease).1 {
            Err(refusal) if refusal.errno == Errno::EEXIST => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other.map_err(|r| refused(r, &ports())),
        }
    }
    match add_ports(&mut socket, lease) {
        (taken, Err(refusal)) if refusal.errno == Errno::EEXIST => conflict(lease, &taken),
        (_, other) => other.map_err(|r| refused(r, &ports())),
    }
}

/// The longest that there is (`CONFIG_HZ=100`).
const TICK_IN_MILLISECONDS: u32 = 10;

/// With the port that was refused.
fn add_ports(socket: &mut Socket, lease: &Lease) -> (String, std::result::Result<(), Refusal>) {
    let mut transaction = Transaction::new();
    // Which request is whose: one mapping may take several.
    let mut last = Vec::new();
    for mapping in lease.mappings() {
        firewall::add_mapping(&mut transaction, &mapping);
        last.push((transaction.len(), mapping.published));
    }
    let done = transaction.commit(socket);
    let index = done.as_ref().err().map_or(0, |refusal| refusal.index);
    let taken = last.iter().find(|(end, _)| index < *end).map(|(_, published)| published);
    (taken.map_or_else(String::new, ToString::to_string), done)
}

/// Some element is in the way: another container's, which is an error, or one that nobody owns any
/// more, which the table made anew does not have.
fn conflict(lease: &Lease, port: &str) -> Result<()> {
    for other in lease::all()?.iter().filter(|other| *other != lease && !other.is_dead()) {
        let taken = |p: &&Published| other.published.iter().any(|o| o.conflicts(**p));
        if let Some(published) = lease.published.iter().find(taken) {
            return Err(Error::new(
                Kind::Exists,
                format!("port {published} is published already, by container {}", other.holders()),
            )
            .hint("publish another port, or delete that container"));
        }
    }
    repair().map(drop).context(|| format!("publish {port}"))
}

/// Makes the table anew from definitions and leases, and with it the settings of the bridges that are there, which an
/// older version may have made. What comes back is for the operator.
pub fn repair() -> Result<Vec<String>> {
    let _lock = store::lock()?;
    repair_locked(None).context(|| "make the packet filter's table again".to_owned())?;
    let mut socket = routes()?;
    let mut warnings = Vec::new();
    for network in store::all()? {
        let found =
            link::find(&mut socket, &network.name).map_err(|r| refused(r, &network.name))?;
        if let Some(bridge) = found {
            warnings.extend(settings::of_bridge(&mut socket, &network, bridge.index)?);
        }
    }
    Ok(warnings)
}

/// The whole table if it is not there or nobody says what is new; else that.
pub(super) fn repair_locked(new: Option<&Network>) -> Result<()> {
    let mut socket = filter_socket()?;
    let mut transaction = Transaction::new();
    if let Some(network) = new
        && firewall::is_whole(&mut socket).map_err(|r| refused(r, "table aril"))?
    {
        firewall::add_bridge(&mut transaction, &network.bridge());
        return transaction.commit(&mut socket).map_err(|r| refused(r, "table aril"));
    }
    firewall::remake(&mut transaction);
    for network in store::all()? {
        firewall::add_bridge(&mut transaction, &network.bridge());
    }
    let mut known: Vec<Mapping> = Vec::new();
    for lease in lease::all()? {
        for mapping in lease.mappings() {
            let conflicts = |other: &Mapping| {
                other.published.conflicts(mapping.published)
                    && other.to.is_ipv4() == mapping.to.is_ipv4()
            };
            // The older lease has it; the younger one is about to be refused.
            if !known.iter().any(conflicts) {
                firewall::add_mapping(&mut transaction, &mapping);
                known.push(mapping);
            }
        }
    }
    transaction.commit(&mut socket).map_err(|r| {
        refused(r, "table aril")
            .hint("networks with ports or masquerading need the kernel's nf_tables")
    })
}

pub(super) fn unpublish(lease: &Lease) -> Result<()> {
    if lease.published.is_empty() {
        return Ok(());
    }
    let mut socket = filter_socket()?;
    let removal = Removal::of_this_kernel();
    let mut all = Transaction::new();
    lease.mappings().for_each(|mapping| firewall::remove_mapping(&mut all, &mapping, removal));
    match all.commit(&mut socket) {
        Err(refusal) if is_not_ours(refusal.errno) => {}
        other => return other.map_err(|r| refused(r, "published ports")),
    }
    // Some never came to be, or the table is gone: one at a time.
    for mapping in lease.mappings() {
        let mut one = Transaction::new();
        firewall::remove_mapping(&mut one, &mapping, removal);
        tolerant(one, &mut socket, "published ports")?;
    }
    Ok(())
}

/// What was to be removed is not there, or somebody else's.
fn is_not_ours(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::EEXIST)
}

/// What is not there is removed.
pub(super) fn tolerant(transaction: Transaction, socket: &mut Socket, object: &str) -> Result<()> {
    match transaction.commit(socket) {
        Err(refusal) if !is_not_ours(refusal.errno) => Err(refused(refusal, object)),
        _ => Ok(()),
    }
}

/// Whether containers are on networks without the filter's table: somebody has flushed it.
pub fn is_flushed() -> Result<bool> {
    if !lease::all()?.iter().any(|lease| !lease.is_dead()) {
        return Ok(false);
    }
    Ok(!firewall::is_whole(&mut filter_socket()?).map_err(|r| refused(r, "table aril"))?)
}
