//! Name resolution of a container: its /etc/hosts, /etc/resolv.conf and /etc/hostname.
//!
//! # Theory of operation
//!
//! Aril writes the files and mounts them read-only over those of the image, which is never written. Containers on one
//! network share a hosts file: a container that starts writes one line, a container that ends blanks it, regardless
//! of how many others there are. The file is bind-mounted, so it is changed in place. A line keeps its position as
//! long as it exists, so a reader sees whole lines. A container with private names (its own hosts, or a hostname that
//! another container has too) gets a copy, which is kept up to date.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use crate::error::{Error, Result};
use crate::network::plan::{Mode, list, mode};
use crate::spec::Extensions;
use crate::spec::annotation::{NETWORK_DNS, NETWORK_DNS_SEARCH, NETWORK_HOSTS};

pub mod effect;

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTNAME: &str = "/etc/hostname";

/// Paths of the files in the container.
pub const PLACES: [&str; 3] = [HOSTS, RESOLVER, HOSTNAME];

const LOOPBACK: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// A name with its address, as in /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    pub name: String,
}

/// Content of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub hostname: Option<String>,
    /// DNS servers that replace the host's, if there are any.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub hosts: Vec<Host>,
    /// The container has the host's loopback, and reaches resolvers that listen on it.
    pub on_the_host: bool,
    /// Those of [`PLACES`] that are mounted.
    pub places: Vec<&'static str>,
}

/// Options and config that decide about the names.
#[derive(Debug)]
pub struct NamesRequest<'a> {
    pub extensions: &'a Extensions,
    pub hostname: Option<&'a str>,
    /// Mounts of the config: a mount at one of [`PLACES`] has precedence.
    pub mounts: &'a [Mount],
    pub mount_namespace: bool,
    /// Those of [`PLACES`] that cannot be created: the rootfs is read-only, or owned by another user.
    pub impossible: &'a [&'static str],
}

/// Plans the names of a container on a network of Aril, the host's, or pasta's.
///
/// # Errors
///
/// A name or address is invalid.
pub fn plan(input: &NamesRequest<'_>) -> Result<Option<Names>> {
    let extensions = input.extensions;
    let named = match mode(extensions)? {
        Some(Mode::Bridge(_) | Mode::Container(_) | Mode::Host) => true,
        Some(Mode::None) => extensions.network.as_deref() != Some("none"),
        Some(Mode::Path(_)) | None => false,
    };
    if !named || !input.mount_namespace {
        return no_names(extensions);
    }
    let covered = |place: &&str| input.mounts.iter().any(|m| covers(m.destination(), place));
    let hosts: Vec<String> = list(&extensions.hosts, "host")?;
    let search: Vec<String> = list(&extensions.dns_search, "search domain")?;
    search.iter().try_for_each(|domain| check("search domain", domain))?;
    let hostname = input.hostname.filter(|name| !name.is_empty());
    hostname.map_or(Ok(()), |name| check("hostname", name))?;
    Ok(Some(Names {
        hostname: hostname.map(str::to_owned),
        servers: list(&extensions.dns, "address of a DNS server")?,
        search,
        hosts: hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
        on_the_host: mode(extensions)? == Some(Mode::Host),
        places: PLACES
            .into_iter()
            .filter(|place| !covered(place) && !input.impossible.contains(place))
            .filter(|place| *place != HOSTNAME || hostname.is_some())
            .collect(),
    }))
}

fn no_names(extensions: &Extensions) -> Result<Option<Names>> {
    let Extensions { dns, dns_search, hosts, .. } = extensions;
    let all = [(NETWORK_DNS, dns), (NETWORK_DNS_SEARCH, dns_search), (NETWORK_HOSTS, hosts)];
    let given = |(_, value): &(&str, &Option<String>)| value.iter().any(|v| !v.is_empty());
    match all.into_iter().find(given).map(|(key, _)| key) {
        None => Ok(None),
        Some(key) => Err(Error::config(format!("{key} needs a network with name resolution"))
            .hint("use --network bridge")),
    }
}

/// True if a mount covers the file or its directory; Aril then creates no file there.
fn covers(destination: &Path, place: &str) -> bool {
    destination == Path::new(place) || destination == Path::new("/etc")
}

/// True for a character of a DNS name or of a container ID.
fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+')
}

/// Checks text that becomes part of a file that is read line by line, also by other containers.
fn check(what: &str, name: &str) -> Result<()> {
    if !name.is_empty() && name.len() <= 253 && name.chars().all(is_of_a_name) {
        return Ok(());
    }
    Err(Error::config(format!("invalid {what} {name:?}"))
        .hint("a name has letters, digits and . - _ +, at most 253 of them"))
}

/// Parses `NAME:ADDRESS` or `NAME=ADDRESS`.
fn host(text: &str) -> Result<Host> {
    let wrong = || Error::config(format!("invalid host {text:?}: expected NAME:ADDRESS"));
    let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    check("host name", name)?;
    Ok(Host { address: bare.parse().map_err(|_| wrong())?, name: name.to_owned() })
}

impl Names {
    /// True if the file at this path is mounted.
    pub fn has(&self, place: &str) -> bool {
        self.places.contains(&place)
    }

    /// Bind mounts of the files from the container's state directory.
    pub fn mounts(&self, state_directory: &Path) -> Vec<Mount> {
        let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        let mount = |place: &&'static str| {
            let mut mount = Mount::default();
            mount
                .set_destination(place.into())
                .set_typ(Some("bind".to_owned()))
                .set_source(Some(file(state_directory, place)))
                .set_options(Some(options.clone()));
            mount
        };
        self.places.iter().map(mount).collect()
    }

    /// Lines of /etc/hosts that only this container has. `own`: addresses for its hostname, if no line of the shared
    /// file has it.
    fn hosts_text(&self, own: &[IpAddr]) -> String {
        let mut text = LOOPBACK.to_owned();
        let own = own.iter().zip(self.hostname.iter().cycle());
        for (address, name) in own {
            let _ = writeln!(text, "{address} {name}");
        }
        for Host { address, name } in &self.hosts {
            let _ = writeln!(text, "{address} {name}");
        }
        text
    }

    /// Text of resolv.conf, and whether it names a server. `host` is the host's resolv.conf. `upstream` is the one
    /// that systemd-resolved writes for clients that cannot reach the host's loopback.
    fn resolver_text(&self, host: &str, upstream: &str) -> (String, bool) {
        let usable = |a: &IpAddr| self.on_the_host || !a.is_loopback();
        let mut servers = self.servers.clone();
        for text in [host, upstream] {
            if servers.is_empty() {
                let all = words(text, "nameserver").filter_map(|w| w.parse().ok());
                servers = all.filter(usable).collect();
            }
        }
        let mut text = String::new();
        for server in &servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        let inherited = || ["search", "domain"].iter().flat_map(|key| words(host, key));
        let search: Vec<&str> = match self.search.is_empty() {
            true => inherited().collect(),
            false => self.search.iter().map(String::as_str).collect(),
        };
        for (key, values) in [("search", search), ("options", words(host, "options").collect())] {
            if !values.is_empty() && values != ["."] {
                let _ = writeln!(text, "{key} {}", values.join(" "));
            }
        }
        (text, !servers.is_empty())
    }
}

fn file(state_directory: &Path, place: &str) -> PathBuf {
    state_directory.join(place.trim_start_matches("/etc/"))
}

/// Values after a keyword, from all lines.
fn words<'t>(text: &'t str, keyword: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().flat_map(move |line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(keyword);
        words.take(if is_it { usize::MAX } else { 0 })
    })
}

/// Multiple that a line's length is padded to, so that a blanked line is likely to fit the next name.
const GRAIN: usize = 64;

/// Position and text of a line that gives `address` these names in a hosts file. All containers of a network read the
/// file: whatever a name contains, it is one word of one line.
fn insertion(text: &str, address: IpAddr, names: &[&str]) -> (usize, String) {
    let mut line = format!("{address}\t");
    for (n, name) in names.iter().enumerate() {
        line.extend((n > 0).then_some(' '));
        line.extend(name.chars().map(|c| if is_of_a_name(c) { c } else { '?' }));
    }
    let wanted = (line.len() + 1).next_multiple_of(GRAIN);
    let mut at = 0;
    let (place, length) = loop {
        let Some(end) = text[at..].find('\n') else { break (at, wanted) };
        if text[at..].starts_with("# ") && end + 1 >= wanted {
            break (at, end + 1);
        }
        at += end + 1;
    };
    line.push_str(&" ".repeat(length - 1 - line.len()));
    line.push('\n');
    (place, line)
}

/// Position and length of the lines for an address, of one holder or of all.
fn lines_of(text: &str, address: IpAddr, id: Option<&str>) -> Vec<(usize, usize)> {
    let start = format!("{address}\t");
    let mut at = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(names) = line.strip_prefix(&start)
            && id.is_none_or(|id| names.split_whitespace().next() == Some(id))
        {
            found.push((at, line.len()));
        }
        at += line.len();
    }
    found
}

fn blank(length: usize) -> String {
    format!("#{}\n", " ".repeat(length - 2))
}

/// True if a line gives the name to an address other than `own`.
fn is_taken(text: &str, name: &str, own: &[IpAddr]) -> bool {
    let other =
        |word: Option<&str>| word.and_then(|w| w.parse().ok()).is_none_or(|a| !own.contains(&a));
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        other(words.next()) && words.any(|word| word == name)
    })
}

#[cfg(test)]
mod tests;
