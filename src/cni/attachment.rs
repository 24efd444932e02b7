//! Commands of the plugin: ADD, DEL, CHECK, GC and STATUS of an attachment.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use serde_json::Value;

use super::config::{Call, Environment, network_of};
use super::delegate::{self, Assigned};
use super::output::{Added, Failure, INVALID, MISSING, NAMESPACE, TAKEN, UNAVAILABLE};
use crate::error::{Context, Error, OsContext};
use crate::network::address::effect::claim;
use crate::network::address::{Holder, Lease};
use crate::network::definition::Network;
use crate::network::definition::effect::{agrees, ensure};
use crate::network::definition::store;
use crate::network::link::attach::{self, attach_at};
use crate::network::ports::Published;
use crate::network::{kernel, marker};

type Result<T> = std::result::Result<T, Failure>;

fn holder(call: &Call) -> Holder {
    let environment = &call.environment;
    marker::holder(&call.wanted.name, &environment.container, &environment.interface)
}

/// Finds the lease of the attachment.
fn lease_of(call: &Call, holder: &Holder) -> Result<Option<Lease>> {
    Ok(marker::lease_of(&call.wanted.name, holder)?)
}

/// Carries out ADD and returns its result. On an error everything is removed again.
///
/// # Errors
///
/// A part of the attachment cannot be created, or another interface has its name.
pub fn add(call: &Call) -> Result<String> {
    let holder = holder(call);
    let file = namespace_of(call)?;
    let Some(_lock) = marker::make(&holder)? else {
        let text = format!("{} is already attached to network {}", holder.id, call.wanted.name);
        return Err(Failure {
            details: "call DEL before another ADD".to_owned(),
            ..Failure::new(TAKEN, text)
        });
    };
    attach(call, &holder, &file).inspect_err(|_| {
        // Report the error of ADD, not one of its undo.
        let _ = undo(call, &holder);
    })
}

/// Opens the container's network namespace. Fails if it is this process's own: a link in it would be the host's, with
/// a default route through itself.
fn namespace_of(call: &Call) -> Result<File> {
    let path = &call.environment.namespace;
    // Opening a FIFO must not block.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = open.os("open", path)?;
    let (own, its) = (fs::metadata("/proc/self/ns/net"), file.metadata());
    if let (Ok(own), Ok(its)) = (own, its)
        && (own.dev(), own.ino()) == (its.dev(), its.ino())
    {
        let text = format!("CNI_NETNS: {path} is the network namespace that this plugin runs in");
        return Err(Failure::new(NAMESPACE, text));
    }
    Ok(file)
}

fn attach(call: &Call, holder: &Holder, file: &File) -> Result<String> {
    let mut attachment = call.attachment.clone();
    let given = call.ipam.as_ref().map(|kind| delegate::add(kind, call)).transpose()?;
    let wanted = match &given {
        Some(Assigned { ips, .. }) => {
            attachment.addresses = ips.iter().map(|(ip, _)| ip.address).collect();
            network_of(call.wanted.clone(), ips)
        }
        None => call.wanted.clone(),
    };
    let network = ensure(&wanted)?;
    // The unspecified address stands for a family that the network does not have.
    let reachable = |p: &Published| {
        p.bound().is_some() || network.pools().any(|pool| p.is_of(pool.subnet.address.is_ipv4()))
    };
    attachment.published.retain(reachable);
    let lease = claim(&attachment, holder)?;
    marker::record_lease(holder, &lease)?;
    let Call { environment, version, .. } = call;
    let interface = &environment.interface;
    for warning in attach_at(&lease, attachment.rate, file.as_fd(), interface)? {
        let _ = writeln!(std::io::stderr(), "aril-cni: {warning}");
    }
    let dns = given.as_ref().and_then(|given| given.dns.as_ref()).or(call.dns.as_ref());
    let (interface, namespace) = (&environment.interface, &environment.namespace);
    Ok(Added { version, network: &network, lease: &lease, interface, namespace, dns }.text())
}

/// Removes what this interface of this container holds, on whichever network: the configuration may have changed
/// since the ADD.
///
/// # Errors
///
/// A part cannot be removed. A missing attachment is no error.
pub fn del(call: &Call) -> Result<()> {
    let Environment { container, interface, .. } = &call.environment;
    let addresses = call.ipam.as_ref().map(|kind| delegate::run(kind, "DEL", call));
    for (network, holder) in marker::all_with(container, interface)? {
        marker::remove(&network, &holder)?;
    }
    marker::remove_empty_networks()?;
    addresses.transpose().map(drop)
}

/// Removes the attachment. The namespace may still exist, so the host's end of the link is removed.
fn undo(call: &Call, holder: &Holder) -> Result<()> {
    let addresses = call.ipam.as_ref().map(|kind| delegate::run(kind, "DEL", call));
    // Aril's part is removed even if the other plugin fails.
    marker::remove(&call.wanted.name, holder)?;
    addresses.transpose().map(drop)
}

/// Carries out CHECK: fails if a part of the attachment is missing.
///
/// # Errors
///
/// A part is missing or differs.
pub fn check(call: &Call) -> Result<()> {
    if let Some(kind) = &call.ipam {
        delegate::run(kind, "CHECK", call)?;
    }
    let holder = holder(call);
    let missing = |what: &str| Failure::new(MISSING, format!("{}: {what}", holder.id));
    let lease = lease_of(call, &holder)?.ok_or_else(|| missing("no address is leased"))?;
    for address in previous_addresses(call)? {
        if !lease.addresses.iter().any(|own| own.to_string() == address) {
            return Err(missing(&format!("address {address} is not leased")));
        }
    }
    let environment = &call.environment;
    let file = namespace_of(call)?;
    match attach::missing(&lease, file.as_fd(), &environment.interface)? {
        None => Ok(()),
        Some(what) => Err(missing(&what)),
    }
}

/// Addresses that the result of ADD lists for this interface, without prefix lengths.
fn previous_addresses(call: &Call) -> Result<Vec<String>> {
    let previous = call.previous.as_ref().unwrap_or(&Value::Null);
    let decode = || Failure::new(INVALID, "prevResult is not a result of this plugin");
    let interfaces = previous["interfaces"].as_array().ok_or_else(decode)?;
    let own = interfaces.iter().position(|i| {
        i["name"] == call.environment.interface.as_str() && i["sandbox"].as_str().is_some()
    });
    let own = own.ok_or_else(decode)?;
    let ips = previous["ips"].as_array().ok_or_else(decode)?;
    let ours = ips.iter().filter(|ip| ip["interface"].as_u64() == Some(own as u64));
    let bare = |ip: &Value| Some(ip["address"].as_str()?.split('/').next()?.to_owned());
    Ok(ours.filter_map(bare).collect())
}

/// Removes all attachments to the network that the engine does not list as valid.
///
/// # Errors
///
/// An attachment cannot be removed; the others are.
pub fn collect(call: &Call) -> Result<()> {
    if let Some(kind) = &call.ipam {
        delegate::run(kind, "GC", call)?;
    }
    let valid: Vec<_> =
        call.valid.iter().map(|valid| format!("{}@{}", valid.container, valid.ifname)).collect();
    for holder in marker::all_of(&call.wanted.name)? {
        if !valid.contains(&holder.id) {
            marker::remove(&call.wanted.name, &holder)?;
        }
    }
    Ok(())
}

/// Checks that an ADD can succeed.
///
/// # Errors
///
/// The kernel or the caller's privileges allow no network.
pub fn status(call: &Call) -> Result<()> {
    if let Some(kind) = call.ipam.as_ref().filter(|_| call.version == "1.1.0") {
        delegate::run(kind, "STATUS", call)?;
    }
    let unavailable = |e: Error| Failure { code: UNAVAILABLE, ..Failure::from(e) };
    kernel::is_usable().context(|| "networks".to_owned()).map_err(unavailable)?;
    let known: Option<Network> = store::load(&call.wanted.name)?;
    known.map_or(Ok(()), |network| agrees(&network, &call.wanted).map_err(Failure::from))
}
