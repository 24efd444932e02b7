//! What the kernel is told about links, forwarding and loopback: settings that hold whatever becomes of the packet
//! filter's rules.
//!
//! Nothing is changed on `default`, which links of others begin with. On `all`, forwarding is turned on, as nothing
//! less lets a host forward; and what that would take from the host's own uplinks is kept on these alone.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{refused, routes};
use crate::error::{Context, Error, OsContext, Result};
use crate::fs::closed;
use crate::network::definition::Network;
use crate::network::lease::{self, Lease, Reference};
use crate::network::link::{self, Which, setting};
use crate::network::{guard, store};
use crate::sys::Errno;
use crate::sys::bpf;
use crate::sys::netlink::{Batch, Socket};

const IPV6: &str = "/proc/sys/net/ipv6/conf";

pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Makes a link of this network namespace one that takes nothing from its neighbours: no router advertisements, no
/// redirects, no address that they announce (CVE-2020-13401, CVE-2020-10749).
pub(super) fn deaf(link: &str) -> Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    for name in ["accept_ra", "accept_redirects", "autoconf"] {
        let path = format!("{IPV6}/{link}/{name}");
        match fs::write(&path, "0") {
            // A link with a small MTU has no IPv6.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.os("write", &path)?,
        }
    }
    Ok(())
}

/// The settings and the guard of a bridge. What comes back is a protection that this host cannot give.
pub(super) fn of_bridge(
    socket: &mut Socket,
    network: &Network,
    index: u32,
) -> Result<Option<String>> {
    let mut batch = Batch::new();
    let settings = [
        (setting::ACCEPT_REDIRECTS, 0),
        (setting::SEND_REDIRECTS, 0),
        (setting::ACCEPT_SOURCE_ROUTE, 0),
        (setting::PROXY_ARP, 0),
    ];
    link::set_ipv4(&mut batch, Which::Index(index), &settings);
    let refuse = |r| refused(r, &format!("settings of bridge {}", network.name));
    socket.transact(batch).map_err(refuse)?;
    deaf(&network.name)?;
    let unguarded = unguarded(&network.name);
    let guards = [(false, guard::inward(network)), (true, guard::outward(network))];
    let why = match attach(socket, index, &guards) {
        Ok(()) => {
            store::unlink(&unguarded)?;
            return Ok(None);
        }
        Err(why) => why,
    };
    closed::directory(unguarded.parent().unwrap_or(&unguarded))?;
    fs::write(&unguarded, "").os("write", unguarded.display())?;
    Ok(Some(format!(
        "network {} has no guard, so that it is open where the packet filter's rules are flushed, and ports are not \
         published on 127.0.0.1: {why}",
        network.name
    )))
}

/// Puts programs at a link: with `true`, for what leaves by it.
pub(super) fn attach(
    socket: &mut Socket,
    index: u32,
    programs: &[(bool, Vec<bpf::Insn>)],
) -> Result<()> {
    let mut batch = Batch::new();
    link::new_classifiers(&mut batch, index);
    match socket.transact(batch) {
        Err(refusal) if refusal.errno == Errno::EEXIST => {}
        other => other.map_err(|r| refused(r, "clsact"))?,
    }
    for (leaving, program) in programs {
        let program = bpf::load_classifier(program).os("bpf", "the guard's program")?;
        let mut batch = Batch::new();
        link::classify(&mut batch, index, *leaving, program.as_fd());
        socket.transact(batch).map_err(|r| refused(r, "the guard's program"))?;
    }
    Ok(())
}

/// A file that is there while a network has no guard.
fn unguarded(network: &str) -> PathBuf {
    Path::new(store::STATE).join("unguarded").join(network)
}

/// Forwarding is the host's, not a bridge's: answers come in by other links. Only what is off is turned on,
/// and written down first.
pub(super) fn forwarding(socket: &mut Socket, network: &Network) -> Result<()> {
    if network.internal {
        return Ok(());
    }
    if network.ipv4.is_some() {
        turn_on("/proc/sys/net/ipv4/ip_forward")?;
    }
    if network.ipv6.is_some() {
        let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
        if is_off(forwarding)? {
            keep_announced_routes(socket)?;
            turn_on(forwarding)?;
        }
    }
    Ok(())
}

fn is_off(path: &str) -> Result<bool> {
    Ok(fs::read_to_string(path).os("read", path)?.trim() == "0")
}

fn turn_on(path: &str) -> Result<()> {
    if !is_off(path)? {
        return Ok(());
    }
    note(&format!("{path} was 0\n"))?;
    fs::write(path, "1").os("write", path).map_err(|e| {
        e.hint("containers need the host to forward; turn it on yourself, or make the network --internal")
    })
}

/// Writes down what of the host is changed.
fn note(line: &str) -> Result<()> {
    let record = Path::new(store::STATE).join("forwarding");
    let mut lines = fs::read_to_string(&record).unwrap_or_default();
    lines.push_str(line);
    crate::fs::record::write(&record, 0o600, lines.as_bytes())
}

/// A host that forwards IPv6 drops routes that routers announced, and takes none, but by links that are told to
/// (`accept_ra` 2). These are the links that have such a route now, and no link of a network of containers.
fn keep_announced_routes(socket: &mut Socket) -> Result<()> {
    let announced = link::announced(socket).map_err(|r| refused(r, "routes"))?;
    if announced.is_empty() {
        return Ok(());
    }
    let networks = store::all()?;
    let of_containers =
        |name: &str| name.starts_with("aril-") || networks.iter().any(|n| n.name == name);
    for uplink in link::all(socket).map_err(|r| refused(r, "links"))? {
        if !announced.contains(&uplink.index) || of_containers(&uplink.name) {
            continue;
        }
        let path = format!("{IPV6}/{}/accept_ra", uplink.name);
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            note(&format!("{path} was 1\n"))?;
            fs::write(&path, "2").os("write", &path)?;
        }
    }
    Ok(())
}

/// A directory with a file for each lease whose ports the host reaches at 127.0.0.1.
fn users_of_loopback(network: &str) -> PathBuf {
    Path::new(store::STATE).join("loopback").join(network)
}

fn localnet(network: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{network}/route_localnet")
}

fn is_on_loopback(lease: &Lease) -> bool {
    let ipv4 = lease.addresses.iter().any(std::net::IpAddr::is_ipv4);
    ipv4 && lease.published.iter().any(|published| published.is_on_loopback())
}

/// Lets the host send to the lease's ports from 127.0.0.1 (`route_localnet`), which the kernel refuses otherwise. It
/// also lets containers send there, which the guard refuses: without one, it stays off.
pub(super) fn open_loopback(lease: &Lease) -> Result<Option<String>> {
    let network = &lease.network;
    if !is_on_loopback(lease) {
        return Ok(None);
    }
    if unguarded(network).exists() {
        return no_loopback(lease);
    }
    let users = users_of_loopback(network);
    let _lock = store::lock_directory(&users)?;
    let user = users.join(lease.addresses[0].to_string());
    fs::File::create(&user).os("open", user.display())?;
    let path = localnet(network);
    if is_off(&path)? {
        fs::write(&path, "1").os("write", &path)?;
    }
    Ok(None)
}

fn no_loopback(lease: &Lease) -> Result<Option<String>> {
    let bound = lease.published.iter().find(|p| p.bound().is_some() && p.is_on_loopback());
    match bound {
        Some(port) => Err(Error::system(format!(
            "cannot publish port {port}: network {} has no guard",
            lease.network
        ))
        .hint("ports on 127.0.0.1 need a kernel with clsact and cls_bpf, and root of the host")),
        None => Ok(Some("published ports are not reached at 127.0.0.1".to_owned())),
    }
}

/// The opposite: with the last lease it is off again.
pub(super) fn close_loopback(lease: &Lease) -> Result<()> {
    let users = users_of_loopback(&lease.network);
    if !is_on_loopback(lease) || !users.exists() {
        return Ok(());
    }
    let _lock = store::lock_directory(&users)?;
    store::unlink(&users.join(lease.addresses[0].to_string()))?;
    for name in store::entries(&users)? {
        let address = name.parse().ok();
        let held = |address| lease::load(&Reference { network: lease.network.clone(), address });
        if address.map(held).transpose()?.flatten().is_some() {
            return Ok(());
        }
        // Its lease was given back without it.
        store::unlink(&users.join(name))?;
    }
    let path = localnet(&lease.network);
    match fs::write(&path, "0") {
        // The bridge has gone with it.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.os("write", &path),
    }
}

/// A bridge that is made again while leases need it.
pub(super) fn reopen_loopback(network: &Network) -> Result<()> {
    let users = users_of_loopback(&network.name);
    if network.ipv4.is_none()
        || unguarded(&network.name).exists()
        || store::entries(&users)?.is_empty()
    {
        return Ok(());
    }
    let path = localnet(&network.name);
    fs::write(&path, "1").os("write", &path)
}

pub(super) fn forget(network: &str) -> Result<()> {
    let users = users_of_loopback(network);
    for name in store::entries(&users)? {
        store::unlink(&users.join(name))?;
    }
    store::unlink(&unguarded(network))?;
    store::remove_directory(&users)
}

/// What the host holds of the container's addresses: with IPv6 a neighbour that does not expire.
pub(super) fn forget_neighbours(lease: &Lease) -> Result<()> {
    let six: Vec<_> = lease.addresses.iter().filter(|address| address.is_ipv6()).collect();
    if six.is_empty() {
        return Ok(());
    }
    let mut socket = routes()?;
    let refuse = |r| refused(r, &lease.network);
    let Some(bridge) = link::find(&mut socket, &lease.network).map_err(refuse)? else {
        return Ok(());
    };
    for address in six {
        let mut batch = Batch::new();
        link::forget_neighbour(&mut batch, bridge.index, *address);
        match socket.transact(batch) {
            Err(refusal) if refusal.errno != Errno::ENOENT => {
                return Err(refuse(refusal)).context(|| format!("forget neighbour {address}"));
            }
            _ => {}
        }
    }
    Ok(())
}
