//! Questions to rtnetlink(7) about links, addresses and routes.

use std::net::IpAddr;

use super::requests::{get, ifinfomsg};
use super::*;
use crate::network::definition::subnet::Subnet;
use crate::sys::Errno;
use crate::sys::netlink::{Attributes, Batch, Refusal, Socket, integer};

/// Finds a link by name.
///
/// # Errors
///
/// The kernel rejects the request. A missing link is no error.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Found>, Refusal> {
    let mut batch = Batch::new();
    get(&mut batch, name);
    match shown(socket, batch) {
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        other => other,
    }
}

/// Commits a batch that ends with a [`get`].
///
/// # Errors
///
/// The kernel rejects a request.
pub fn shown(socket: &mut Socket, batch: Batch) -> Result<Option<Found>, Refusal> {
    let mut found = None;
    socket.ask(batch, |reply| found = found.take().or_else(|| Found::read(reply)))?;
    Ok(found)
}

/// Lists all links.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn all(socket: &mut Socket) -> Result<Vec<Found>, Refusal> {
    let mut batch = Batch::new();
    batch.request(GETLINK, DUMP, &ifinfomsg(0, false)).u32(EXT_MASK, SKIP_STATISTICS);
    let mut all = Vec::new();
    socket.ask(batch, |reply| all.extend(Found::read(reply)))?;
    Ok(all)
}

/// Lists the names of all links.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn names(socket: &mut Socket) -> Result<Vec<String>, Refusal> {
    Ok(all(socket)?.into_iter().map(|found| found.name).collect())
}

/// Indexes of links that have an IPv6 route from a router advertisement.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn announced(socket: &mut Socket) -> Result<Vec<u32>, Refusal> {
    const BY_ROUTER: u8 = 9;
    const OUTPUT: u16 = 4;
    const CACHE: u16 = 12;
    let mut header = [0; 12];
    header[0] = libc::AF_INET6 as u8;
    let mut batch = Batch::new();
    batch.request(GETROUTE, DUMP, &header);
    let mut found = Vec::new();
    socket.ask(batch, |reply| {
        let mut expires = false;
        let mut output = None;
        for (kind, bytes) in reply.attributes(12) {
            match kind {
                OUTPUT => output = Some(integer(bytes)),
                // struct rta_cacheinfo: expiry time, which only an advertised route has.
                CACHE => expires = bytes.get(8..12).is_some_and(|at| integer(at) != 0),
                _ => {}
            }
        }
        if expires || reply.payload.get(5) == Some(&BY_ROUTER) {
            found.extend(output);
        }
    })?;
    Ok(found)
}

/// True if the link with that index has the address.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn has_address(socket: &mut Socket, index: u32, address: IpAddr) -> Result<bool, Refusal> {
    const BYTES: u16 = 1;
    const LOCAL: u16 = 2;
    let mut batch = Batch::new();
    batch.request(GETADDR, DUMP, &[family(address), 0, 0, 0, 0, 0, 0, 0]);
    let mut found = false;
    socket.ask(batch, |reply| {
        let mut attributes: Attributes<'_> = reply.attributes(8);
        let is_it = |kind: u16| kind == BYTES || kind == LOCAL;
        let here = reply.payload.get(4..8).map(integer) == Some(index);
        found |= here && attributes.any(|(kind, bytes)| is_it(kind) && ip(bytes) == Some(address));
    })?;
    Ok(found)
}

/// Destinations of the kernel's routes, without the default route.
///
/// # Errors
///
/// The kernel rejects the request.
pub fn destinations(socket: &mut Socket, ipv4: bool) -> Result<Vec<Subnet>, Refusal> {
    const DESTINATION: u16 = 1;
    let mut header = [0; 12];
    header[0] = if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut batch = Batch::new();
    batch.request(GETROUTE, DUMP, &header);
    let mut found = Vec::new();
    socket.ask(batch, |reply| {
        let Some(prefix) = reply.payload.get(1).copied() else { return };
        let mut attributes: Attributes<'_> = reply.attributes(12);
        let address = attributes.find(|(kind, _)| *kind == DESTINATION).and_then(|a| ip(a.1));
        found.extend(address.map(|address| Subnet { address, prefix }));
    })?;
    Ok(found)
}
