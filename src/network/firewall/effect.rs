//! Adds and removes elements of the packet filter's table, and creates the table again if it is gone.

use std::time::Duration;

use crate::error::{Context, Error, Kind, Result};
use crate::network::address::{self, Lease};
use crate::network::definition::Network;
use crate::network::definition::store;
use crate::network::firewall::{self, Mapping, Removal, Transaction};
use crate::network::kernel::{filter_socket, refused, routes};
use crate::network::link;
use crate::network::link::settings;
use crate::network::ports::Published;
use crate::sys::Errno;
use crate::sys::netlink::{Refusal, Socket};

/// Publishes the container's ports. Repairs the table first if another program flushed it.
pub(in crate::network) fn publish(
    network: &Network,
    lease: &Lease,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut socket = filter_socket()?;
    if !firewall::is_whole(&mut socket).map_err(|r| refused(r, "table aril"))? {
        warnings.extend(repair()?);
        return Ok(());
    }
    if lease.published.is_empty() {
        return Ok(());
    }
    let ports = || format!("published ports on {}", network.name);
    // An element removed just before expires with the next tick of the kernel's clock.
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

/// Longest tick (`CONFIG_HZ=100`).
const TICK_IN_MILLISECONDS: u32 = 10;

/// Adds the elements of a lease. Returns the port that was refused, with the error.
fn add_ports(socket: &mut Socket, lease: &Lease) -> (String, std::result::Result<(), Refusal>) {
    let mut transaction = Transaction::new();
    // A mapping may take several requests: these numbers tell which mapping a request belongs to.
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

/// Handles an element that is in the way. If another container owns it, that is an error; if no lease owns it, the
/// table is created again without it.
fn conflict(lease: &Lease, port: &str) -> Result<()> {
    for other in address::all()?.iter().filter(|other| *other != lease && !other.has_no_holder()) {
        let taken = |p: &&Published| other.published.iter().any(|o| o.conflicts(**p));
        if let Some(published) = lease.published.iter().find(taken) {
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "cannot publish port {published}: already published by container {}",
                    other.holders()
                ),
            )
            .hint("publish another port, or delete the other container"));
        }
    }
    repair().map(drop).context(|| format!("publish {port}"))
}

/// Creates the table again from definitions and leases, and sets the settings of existing bridges, which an older
/// version may have created. Returns warnings for the operator.
///
/// # Errors
///
/// The kernel rejects the table, or a definition or lease cannot be read.
pub fn repair() -> Result<Vec<String>> {
    let _lock = store::lock()?;
    repair_locked(None).context(|| "restore the packet filter's table".to_owned())?;
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

/// Adds `new` to a complete table. Creates the whole table if it is incomplete, or without `new`.
pub(in crate::network) fn repair_locked(new: Option<&Network>) -> Result<()> {
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
    for lease in address::all()? {
        for mapping in lease.mappings() {
            let conflicts = |other: &Mapping| {
                other.published.conflicts(mapping.published)
                    && other.to.is_ipv4() == mapping.to.is_ipv4()
            };
            // The older lease owns the port; the younger one is about to be refused.
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

/// Removes the elements of a lease's published ports.
pub(in crate::network) fn unpublish(lease: &Lease) -> Result<()> {
    if lease.published.is_empty() {
        return Ok(());
    }
    let mut socket = filter_socket()?;
    let removal = Removal::of_this_kernel();
    let mut all = Transaction::new();
    lease.mappings().for_each(|mapping| firewall::remove_mapping(&mut all, &mapping, removal));
    match all.commit(&mut socket) {
        Err(refusal) if is_absent_or_foreign(refusal.errno) => {}
        other => return other.map_err(|r| refused(r, "published ports")),
    }
    // Some elements were never added, or the table is gone: remove one at a time.
    for mapping in lease.mappings() {
        let mut one = Transaction::new();
        firewall::remove_mapping(&mut one, &mapping, removal);
        commit_removal(one, &mut socket, "published ports")?;
    }
    Ok(())
}

/// True if the element to be removed is gone or belongs to another container.
fn is_absent_or_foreign(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::EEXIST)
}

/// Commits a transaction. An element that is already gone is no error.
pub(in crate::network) fn commit_removal(
    transaction: Transaction,
    socket: &mut Socket,
    object: &str,
) -> Result<()> {
    match transaction.commit(socket) {
        Err(refusal) if !is_absent_or_foreign(refusal.errno) => Err(refused(refusal, object)),
        _ => Ok(()),
    }
}

/// True if containers are on networks while the table is incomplete, because another program flushed it.
///
/// # Errors
///
/// The table, or a lease, cannot be read.
pub fn is_flushed() -> Result<bool> {
    if !address::all()?.iter().any(|lease| !lease.has_no_holder()) {
        return Ok(false);
    }
    Ok(!firewall::is_whole(&mut filter_socket()?).map_err(|r| refused(r, "table aril"))?)
}
