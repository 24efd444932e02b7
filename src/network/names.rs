//! Names: what a container finds at /etc/hosts, /etc/resolv.conf and /etc/hostname.
//!
//! # Theory of operation
//!
//! The files are the runtime's own and mounted read-only over what the image has, which is never
//! written. Containers of one network share one hosts file: who comes writes one line, who leaves blanks
//! it, whatever the number of the others. It is bind mounted, so it is changed where it is; a line has
//! its place for as long as it stands, so who reads sees whole lines. A container that has names to
//! itself (hosts of its own, or a hostname that another has too) gets a copy that is kept up to date
//! with the others.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::plan::{Mode, list, mode};
use crate::error::{Error, Result};
use crate::spec::Extensions;
use crate::spec::annotation::{NETWORK_DNS, NETWORK_DNS_SEARCH, NETWORK_HOSTS};

pub mod parent;

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTNAME: &str = "/etc/hostname";

/// Where the files appear.
pub const PLACES: [&str; 3] = [HOSTS, RESOLVER, HOSTNAME];

const LOOPBACK: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// A name with its address, as in /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    pub name: String,
}

/// What the files will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub hostname: Option<String>,
    /// Instead of the host's, if there are any.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub hosts: Vec<Host>,
    /// The host's loopback is the container's: so are resolvers that listen there.
    pub on_the_host: bool,
    /// Those of [`PLACES`] that are mounted.
    pub places: Vec<&'static str>,
}

#[derive(Debug)]
pub struct Input<'a> {
    pub extensions: &'a Extensions,
    pub hostname: Option<&'a str>,
    /// Of the config: who mounts something there wants that.
    pub mounts: &'a [Mount],
    pub mount_namespace: bool,
    /// Places that are not there and cannot be made: the rootfs is read-only, or somebody else's.
    pub impossible: &'a [&'static str],
}

/// The names of a container on a network of ours, the host's, or that of a pasta.
pub fn plan(input: &Input<'_>) -> Result<Option<Names>> {
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
        Some(key) => Err(Error::config(format!("{key} without a network that has names"))
            .hint("ask for one: --network bridge")),
    }
}

/// A mount at the place, or at its folder, in which no file of ours is made.
fn covers(destination: &Path, place: &str) -> bool {
    destination == Path::new(place) || destination == Path::new("/etc")
}

/// A character of a DNS name, or of a container's id.
fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+')
}

/// Checks what becomes a part of a file that is read line by line, and that other containers read too.
fn check(what: &str, name: &str) -> Result<()> {
    if !name.is_empty() && name.len() <= 253 && name.chars().all(is_of_a_name) {
        return Ok(());
    }
    Err(Error::config(format!("invalid {what} {name:?}"))
        .hint("a name has letters, digits and . - _ +, at most 253 of them"))
}

/// `NAME:ADDRESS`, or with `=`.
fn host(text: &str) -> Result<Host> {
    let wrong = || Error::config(format!("invalid host {text:?}: want NAME:ADDRESS"));
    let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    check("host name", name)?;
    Ok(Host { address: bare.parse().map_err(|_| wrong())?, name: name.to_owned() })
}

impl Names {
    pub fn has(&self, place: &str) -> bool {
        self.places.contains(&place)
    }

    /// Of the files in the container's state directory.
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

    /// The lines of /etc/hosts that are this container's alone. `own`: addresses of its hostname, where
    /// no line of its network says it.
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

    /// `host` is the host's resolv.conf, `upstream` the one that systemd-resolved writes for those who
    /// cannot ask at the host's loopback. Without any server left the text has none.
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

/// What stands behind a keyword, of all its lines.
fn words<'t>(text: &'t str, keyword: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().flat_map(move |line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(keyword);
        words.take(if is_it { usize::MAX } else { 0 })
    })
}

/// How long lines are a multiple of, so that another's place is likely to be long enough.
const GRAIN: usize = 64;

/// What is written where, so that `text`, a hosts file, has this line too. The file belongs to all
/// containers of a network: whatever a name is, it stays one word of one line.
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

/// The lines of an address, of one holder's or of all: where they are and how long.
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

/// Whether a line says that name of an address that is none of these.
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
