//! Sockets to the kernel, and errors of its answers.

use crate::error::{Error, OsContext, Result};
use crate::network::{firewall, link};
use crate::sys::Errno;
use crate::sys::netlink::{ROUTE, Refusal, Socket};

/// Makes an error of the kernel's answer to a request for `object`.
pub(super) fn refused(refusal: Refusal, object: &str) -> Error {
    let object = match refusal.text.as_str() {
        "" => object.to_owned(),
        why => format!("{object} ({})", why.trim_end_matches('.')),
    };
    Error::os("netlink", object, refusal.errno)
}

pub(super) fn routes() -> Result<Socket> {
    Socket::open(ROUTE).os("socket", "NETLINK_ROUTE")
}

pub(super) fn filter_socket() -> Result<Socket> {
    firewall::open().os("socket", "NETLINK_NETFILTER")
}

/// Lists the names of all links in this network namespace.
pub(super) fn links() -> Result<Vec<String>> {
    link::names(&mut routes()?).map_err(|r| refused(r, "links"))
}

/// Checks that the kernel and the caller's privileges allow networks.
///
/// # Errors
///
/// The kernel lacks rtnetlink or nftables, or the process lacks privileges.
pub fn is_usable() -> Result<()> {
    links()?;
    let table = firewall::is_whole(&mut filter_socket()?);
    table.map(drop).map_err(|r| permission(refused(r, "the packet filter")))
}

pub(super) fn permission(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EPERM) => error.hint(
            "only root can create networks; other users can use --network pasta, host or none",
        ),
        _ => error,
    }
}
