//! Leases addresses to containers, and releases what belongs to a lease.

use super::{Holder, Lease, Reference};
use crate::error::{Context, Result};
use crate::network::address;
use crate::network::definition::effect::default_network;
use crate::network::definition::{DEFAULT, store};
use crate::network::firewall;
use crate::network::link::settings;
use crate::network::plan::Attachment;
use crate::network::ports::listener;

/// Leases addresses for a container and records the lease. Creates no link yet.
///
/// # Errors
///
/// The network does not exist, no address is free, or a port is in use.
pub fn claim(attachment: &Attachment, holder: &Holder) -> Result<Lease> {
    let network = match store::load(&attachment.network)? {
        Some(network) => network,
        None if attachment.network == DEFAULT => default_network()?,
        None => store::get(&attachment.network)?,
    };
    if !attachment.published.is_empty() && !attachment.over_listeners {
        let families: Vec<_> = network.pools().map(|pool| pool.gateway.is_ipv4()).collect();
        listener::check(&attachment.published, &families)?;
    }
    address::claim(&network, attachment, holder)
}

/// Unpublishes the container's ports and forgets its neighbour entries. The link stays.
pub(in crate::network) fn unpublish(lease: &Lease) -> Result<()> {
    firewall::effect::unpublish(lease)?;
    settings::close_loopback(lease)?;
    settings::forget_neighbours(lease)
}

/// Removes `holder` from a lease. With the last holder, unpublishes the ports and frees the addresses. The link is
/// gone with the network namespace.
///
/// # Errors
///
/// The lease cannot be read, or a rule or file cannot be removed.
pub fn release(reference: &Reference, holder: &Holder) -> Result<()> {
    address::release(reference, holder, unpublish)
        .context(|| format!("leave network {}", reference.network))
}

/// Leases without a living holder: their containers are gone and did not release them.
///
/// # Errors
///
/// A file cannot be read.
pub fn abandoned() -> Result<Vec<Lease>> {
    Ok(address::all()?.into_iter().filter(Lease::has_no_holder).collect())
}

/// Unpublishes an abandoned lease's ports and frees its addresses.
///
/// # Errors
///
/// A rule or file cannot be removed.
pub fn reclaim(lease: &Lease) -> Result<()> {
    if !lease.has_no_holder() {
        return Ok(());
    }
    unpublish(lease)?;
    lease.remove()
}
