//! Settings of links, forwarding and loopback. They hold regardless of the packet filter's rules.
//!
//! `default` is not changed, because new links of other programs copy it. On `all`, forwarding is turned on, because
//! nothing less makes a host forward; the effect on the host's uplinks is undone on these alone.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, OsContext, Result};
use crate::fs::closed;
use crate::network::address::{self, Lease, Reference};
use crate::network::definition::Network;
use crate::network::definition::store;
use crate::network::firewall::guard;
use crate::network::kernel::{refused, routes};
use crate::network::link::{self, LinkRef, setting};
use crate::sys::Errno;
use crate::sys::bpf;
use crate::sys::netlink::{Batch, Socket};

const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// True if the kernel has IPv6.
pub(in crate::network) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Makes a link of this network namespace ignore its neighbours' router advertisements, redirects and address
/// announcements (CVE-2020-13401, CVE-2020-10749).
pub(in crate::network) fn ignore_neighbours(link: &str) -> Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    for name in ["accept_ra", "accept_redirects", "autoconf"] {
        let path = format!("{IPV6}/{link}/{name}");
        match fs::write(&path, "0") {
            // A link with an MTU below 1280 has no IPv6.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.os("write", &path)?,
        }
    }
    Ok(())
}

/// Sets up the settings and the guard of a bridge. Returns a warning about a protection that this host cannot
/// provide.
pub(in crate::network) fn of_bridge(
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
    link::set_ipv4(&mut batch, LinkRef::Index(index), &settings);
    let refuse = |r| refused(r, &format!("settings of bridge {}", network.name));
    socket.transact(batch).map_err(refuse)?;
    ignore_neighbours(&network.name)?;
    let unguarded = unguarded(&network.name);
    let guards = [(false, guard::ingress(network)), (true, guard::egress(network))];
    let why = match attach_programs(socket, index, &guards) {
        Ok(()) => {
            store::unlink(&unguarded)?;
            return Ok(None);
        }
        Err(why) => why,
    };
    closed::directory(unguarded.parent().unwrap_or(&unguarded))?;
    fs::write(&unguarded, "").os("write", unguarded.display())?;
    Ok(Some(format!(
        "network {} has no guard: it is open when the packet filter's rules are flushed, and ports are not published on \
         127.0.0.1: {why}",
        network.name
    )))
}

/// Attaches eBPF programs to a link. `true`: for packets that leave by it.
pub(in crate::network) fn attach_programs(
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

/// File that exists while a network has no guard.
fn unguarded(network: &str) -> PathBuf {
    Path::new(store::STATE).join("unguarded").join(network)
}

/// Turns on forwarding for the whole host, because replies enter by other links than the bridge. Changes only what is
/// off, and records the change first.
pub(in crate::network) fn forwarding(socket: &mut Socket, network: &Network) -> Result<()> {
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
        e.hint("containers need IP forwarding: turn it on, or create the network with --internal")
    })
}

/// Records a change to the host's settings.
fn note(line: &str) -> Result<()> {
    let record = Path::new(store::STATE).join("forwarding");
    let mut lines = fs::read_to_string(&record).unwrap_or_default();
    lines.push_str(line);
    crate::fs::record::write(&record, 0o600, lines.as_bytes())
}

/// Keeps the host's advertised IPv6 routes. A host that forwards IPv6 drops them and accepts none, except on links
/// with `accept_ra` 2. Sets it on links that have such a route now and are not part of a container network.
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

/// Directory with one file for each lease whose ports the host reaches at 127.0.0.1.
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

/// Lets the host reach the lease's ports from 127.0.0.1 (`route_localnet`). The setting also lets containers send
/// there, which the guard drops: without a guard, the setting stays off.
pub(in crate::network) fn open_loopback(lease: &Lease) -> Result<Option<String>> {
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
        .hint("ports on 127.0.0.1 need a kernel with clsact and cls_bpf, and root on the host")),
        None => Ok(Some("published ports are not reachable at 127.0.0.1".to_owned())),
    }
}

/// Turns the setting off with the last lease that needs it.
pub(in crate::network) fn close_loopback(lease: &Lease) -> Result<()> {
    let users = users_of_loopback(&lease.network);
    if !is_on_loopback(lease) || !users.exists() {
        return Ok(());
    }
    let _lock = store::lock_directory(&users)?;
    store::unlink(&users.join(lease.addresses[0].to_string()))?;
    for name in store::entries(&users)? {
        let address = name.parse().ok();
        let held = |address| address::load(&Reference { network: lease.network.clone(), address });
        if address.map(held).transpose()?.flatten().is_some() {
            return Ok(());
        }
        // The lease was removed without a call of this function.
        store::unlink(&users.join(name))?;
    }
    let path = localnet(&lease.network);
    match fs::write(&path, "0") {
        // The bridge is gone, and the setting with it.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.os("write", &path),
    }
}

/// Turns the setting on for a bridge that is created again while leases need it.
pub(in crate::network) fn reopen_loopback(network: &Network) -> Result<()> {
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

/// Removes the files of a network's settings.
pub(in crate::network) fn forget(network: &str) -> Result<()> {
    let users = users_of_loopback(network);
    for name in store::entries(&users)? {
        store::unlink(&users.join(name))?;
    }
    store::unlink(&unguarded(network))?;
    store::remove_directory(&users)
}

/// Removes the host's neighbour entries for the container's addresses. An IPv6 entry does not expire.
pub(in crate::network) fn forget_neighbours(lease: &Lease) -> Result<()> {
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
