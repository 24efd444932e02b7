//! Writes the files before the container's process starts. Lines are added and removed with leases.

use std::fs::{self, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{
    HOSTNAME, HOSTS, LOOPBACK, Names, RESOLVER, blank, file, insertion, is_taken, lines_of,
};
use crate::error::{OsContext, Result};
use crate::fs::record;
use crate::network::address::{Holder, Lease};
use crate::network::definition::store::{self, STATE};

/// resolv.conf of systemd-resolved with the servers that it forwards to.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// Hosts file of all containers without private names. No container ID begins with `@`.
const SHARED: &str = "@all";
const LONGEST: usize = 1 << 24;

fn directory(network: &str) -> PathBuf {
    Path::new(STATE).join("hosts").join(network)
}

/// Writes the files of a container. Returns a warning for the operator.
///
/// # Errors
///
/// A file cannot be written.
pub fn write(
    names: &Names,
    state_directory: &Path,
    lease: Option<&Lease>,
    holder: &Holder,
) -> Result<Option<String>> {
    let at = |place| file(state_directory, place);
    if let Some(name) = names.hostname.as_ref().filter(|_| names.has(HOSTNAME)) {
        record::write(&at(HOSTNAME), 0o644, format!("{name}\n").as_bytes())?;
    }
    match lease {
        Some(lease) => {
            let path = add_lines(names, lease, holder)?;
            if names.has(HOSTS) {
                let link = at(HOSTS);
                std::os::unix::fs::symlink(path, &link).os("symlink", link.display())?;
            }
        }
        None if names.has(HOSTS) => {
            // Debian's convention for a machine without an address.
            let own = [IpAddr::from([127, 0, 1, 1])];
            record::write(&at(HOSTS), 0o644, names.hosts_text(&own).as_bytes())?;
        }
        None => {}
    }
    if !names.has(RESOLVER) {
        return Ok(None);
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (text, has_server) = names.resolver_text(&read(RESOLVER), &read(UPSTREAM));
    record::write(&at(RESOLVER), 0o644, text.as_bytes())?;
    Ok((!has_server).then(|| {
        "the container can reach none of the host's DNS servers: set one with --dns".to_owned()
    }))
}

/// Adds the container's line to every hosts file of its network. Returns the path of the file that the container
/// reads.
fn add_lines(names: &Names, lease: &Lease, holder: &Holder) -> Result<PathBuf> {
    let directory = directory(&lease.network);
    let _lock = store::lock_directory(&directory)?;
    let shared = directory.join(SHARED);
    if !shared.exists() {
        record::write(&shared, 0o644, LOOPBACK.as_bytes())?;
    }
    let text = read(&shared)?;
    let other = names.hostname.as_deref().filter(|name| *name != holder.id);
    let free = other.filter(|name| !is_taken(&text, name, &lease.addresses));
    let line: Vec<&str> = [holder.id.as_str()].into_iter().chain(free).collect();
    let mut own = shared;
    if !names.hosts.is_empty() || free != other {
        own = directory.join(private(lease, &holder.id));
        let addresses = if free == other { &[] } else { &lease.addresses[..] };
        let rest = text.strip_prefix(LOOPBACK).unwrap_or(&text);
        record::write(&own, 0o644, (names.hosts_text(addresses) + rest).as_bytes())?;
    }
    for name in store::entries(&directory)? {
        let path = directory.join(name);
        let mut text = read(&path)?;
        for address in &lease.addresses {
            let (at, line) = insertion(&text, *address, &line);
            write_at(&path, at, &line)?;
            text.replace_range(at..(at + line.len()).min(text.len()), &line);
        }
    }
    Ok(own)
}

fn private(lease: &Lease, id: &str) -> String {
    format!("{}@{id}", lease.addresses[0])
}

fn read(path: &Path) -> Result<String> {
    record::read(path, LONGEST).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes in one call, so that the file is never shorter.
fn write_at(path: &Path, at: usize, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let written = file.and_then(|file| file.write_all_at(text.as_bytes(), at as u64));
    written.os("write", path.display())
}

/// Removes the lines of a lease: those of one holder, or all with the lease.
///
/// # Errors
///
/// The file exists and cannot be written.
pub fn remove_lines(lease: &Lease, id: Option<&str>) -> Result<()> {
    let directory = directory(&lease.network);
    if !directory.exists() {
        return Ok(());
    }
    let _lock = store::lock_directory(&directory)?;
    for name in store::entries(&directory)? {
        let path = directory.join(&name);
        let is_own = match id {
            Some(id) => name == private(lease, id),
            None => name.starts_with(&private(lease, "")),
        };
        if is_own {
            store::unlink(&path)?;
            continue;
        }
        let text = read(&path)?;
        let lines = lease.addresses.iter().flat_map(|address| lines_of(&text, *address, id));
        let gone = lines.map(|(at, length)| {
            write_at(&path, at, &blank(length))?;
            Ok(length)
        });
        let gone = gone.sum::<Result<usize>>()?;
        let stood = text.split_inclusive('\n').filter(|line| line.contains('\t'));
        if name == SHARED && gone == stood.map(str::len).sum::<usize>() {
            // No container reads the file any more.
            store::unlink(&path)?;
        }
    }
    Ok(())
}

/// Removes the hosts files of a network.
///
/// # Errors
///
/// A file cannot be removed.
pub fn forget(network: &str) -> Result<()> {
    let directory = directory(network);
    for name in store::entries(&directory)? {
        store::unlink(&directory.join(name))?;
    }
    store::remove_directory(&directory)
}
