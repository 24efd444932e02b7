//! What is on the host, listed without code of Aril: processes, cgroups, mounts, links, addresses, routes, nftables rules,
//! sockets, and files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::host;

/// Requests to ip(8), in one call: a process for each would take most of the time of a run.
const LINKS: &str = "link show\naddr show\nroute show table all\nrule show\nnetns list\n";
const SOCKETS: [&str; 6] = ["unix", "tcp", "tcp6", "udp", "udp6", "ipv6_route"];
const SETTINGS: [&str; 3] = ["ipv4/conf", "ipv6/conf", "ipv4/neigh"];

/// Where to look.
#[derive(Debug)]
pub struct Places {
    /// Part of the name of every cgroup.
    pub mark: String,
    pub directories: Vec<PathBuf>,
    /// Below these, names count and contents do not: they have a time or a process ID.
    pub names_only: Vec<PathBuf>,
    /// Outputs of the driver.
    pub ignored: Vec<PathBuf>,
}

/// Lines, with the number of times that each occurs.
type Lines = BTreeMap<String, usize>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Processes, cgroups, mounts and files.
    local: Lines,
    network: Lines,
}

impl Listing {
    pub fn take(places: &Places) -> Self {
        let mut listing = Self::local(places);
        listing.network();
        listing
    }

    /// True if the host is now like one of these listings. The network is looked at only if the rest is equal.
    pub fn is_one_of(wanted: &[&Self], places: &Places) -> bool {
        let mut now = Self::local(places);
        if wanted.iter().all(|listing| listing.local != now.local) {
            return false;
        }
        now.network();
        wanted.contains(&&now)
    }

    fn local(places: &Places) -> Self {
        let mut listing = Self::default();
        listing.processes();
        listing.cgroups(&places.mark);
        listing.mounts(&places.mark);
        for directory in &places.directories {
            listing.files(directory, places);
        }
        listing
    }

    fn add(&mut self, line: String) {
        *self.local.entry(line).or_default() += 1;
    }

    fn add_network(&mut self, text: &str) {
        for line in text.lines().filter_map(network_line) {
            let line = without_link_names(&line);
            *self.network.entry(format!("network {line}")).or_default() += 1;
        }
    }

    fn processes(&mut self) {
        let own = std::process::id().cast_signed();
        for pid in host::pids().filter(|pid| *pid != 1 && *pid != own) {
            if host::is_gone(pid) {
                continue;
            }
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            self.add(format!("process {line}"));
        }
    }

    fn cgroups(&mut self, mark: &str) {
        for directory in host::cgroups(mark) {
            self.add(format!("cgroup {}", directory.display()));
            for (file, usual) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let state = fs::read_to_string(directory.join(file)).unwrap_or_default();
                if !state.is_empty() && state.trim() != usual {
                    self.add(format!("frozen {}", directory.display()));
                }
            }
        }
    }

    /// Mounts, but not those of other programs in /tmp, which go when they remove the directory there.
    fn mounts(&mut self, mark: &str) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines() {
            // After the IDs of the mount, of its parent, and of the device.
            let words: Vec<&str> = line.split(' ').skip(3).collect();
            if words.get(1).is_some_and(|place| place.starts_with("/tmp/") && !place.contains(mark))
            {
                continue;
            }
            self.add(format!("mount {}", words.join(" ")));
        }
    }

    fn network(&mut self) {
        self.add_network(&output(Command::new("ip").args(["-o", "-batch", "-"]), LINKS));
        self.add_network(&output(Command::new("nft").args(["-s", "list", "ruleset"]), ""));
        for name in SOCKETS {
            let text = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            self.add_network(&text);
        }
        for place in SETTINGS {
            let place = Path::new("/proc/sys/net").join(place);
            for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
                for name in ["forwarding", "route_localnet", "accept_ra", "proxy_arp"] {
                    let path = entry.path().join(name);
                    let value = fs::read_to_string(&path).unwrap_or_default();
                    self.add_network(&format!("{} {}", path.display(), value.trim()));
                }
            }
        }
    }

    fn files(&mut self, directory: &Path, places: &Places) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if places.ignored.contains(&path) {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let kind = metadata.file_type();
            let shown = path.display();
            let mode = metadata.mode();
            if kind.is_dir() {
                self.add(format!("directory {shown} {mode:o}"));
                self.files(&path, places);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                self.add(format!("symlink {shown} {}", target.display()));
            } else if kind.is_fifo() {
                self.add(format!("fifo {shown}"));
            } else if kind.is_socket() {
                self.add(format!("socket {shown}"));
            } else if places.names_only.iter().any(|place| path.starts_with(place)) {
                self.add(format!("file {shown}"));
            } else {
                self.add(format!("file {shown} {mode:o} {}", content(&path, metadata.len())));
            }
        }
    }
}

/// What a tool prints for this input.
fn output(command: &mut Command, input: &str) -> String {
    let mut file = tempfile();
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("an input");
    let out = command.stdin(file).output().expect("ip and nft");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A file without a name.
fn tempfile() -> File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    options.open("/run").expect("a file in /run")
}

/// Content of a small file, as a number.
fn content(path: &Path, length: u64) -> String {
    const SMALL: u64 = 1 << 16;
    if length > SMALL {
        return format!("{length} bytes");
    }
    let mut hasher = DefaultHasher::new();
    let bytes = fs::read(path).unwrap_or_default();
    without_link_names(&String::from_utf8_lossy(&bytes)).hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// A line without what changes by itself: indices, inodes, timers, states of links, and the time left of a published port.
/// Elements of nftables sets are sorted. `None` for a line that says nothing.
fn network_line(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with("sl ") || line.starts_with("Num ") || line.starts_with("default dev") {
        return None;
    }
    // /proc/net/ipv6_route: destination, source, next hop, and the link.
    if line.len() > 140 && line.as_bytes()[32] == b' ' && line.as_bytes()[35] == b' ' {
        let words: Vec<&str> = line.split_whitespace().collect();
        return Some(format!("route {} via {} dev {}", words[0], words[4], words[9]));
    }
    // /proc/net/unix: address of the socket, counts, and its path.
    if line.contains(": 00000002 ") || line.contains(": 00000003 ") {
        let path = line.split_whitespace().nth(7)?;
        return Some(format!("unix socket {path}"));
    }
    if let Some((_, socket)) = line.split_once(": ").filter(|(n, _)| n.parse::<u32>().is_ok()) {
        let words: Vec<&str> = socket.split_whitespace().collect();
        // /proc/net/tcp: a listener has state 0A. Others are connections that end by themselves.
        if socket.as_bytes().get(8) == Some(&b':') || socket.as_bytes().get(32) == Some(&b':') {
            return (words.get(2) == Some(&"0A")).then(|| format!("listener {}", words[0]));
        }
        return Some(link_line(socket));
    }
    if line.contains("expires") || line.starts_with("elements") {
        return Some(elements(line));
    }
    Some(link_line(line))
}

/// A line of `ip -o` without its index, flags, hardware address and timers.
fn link_line(line: &str) -> String {
    let line = line.replace('\\', " ");
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "state" | "link/ether" | "valid_lft" | "preferred_lft" | "link-netnsid" | "brd" => {
                words.next();
            }
            word if word.starts_with("aril-") => kept.push(word.split('@').next().unwrap_or(word)),
            "tentative" | "dadfailed" | "linkdown" => {}
            word if word.starts_with('<') => {}
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Random names of links of containers become `aril-*`.
fn without_link_names(text: &str) -> String {
    const PREFIX: &str = "aril-";
    const DIGITS: usize = 8;
    let mut parts = text.split(PREFIX);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(PREFIX);
        match part.get(..DIGITS).filter(|name| name.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(_) => {
                out.push('*');
                out.push_str(&part[DIGITS..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

fn elements(line: &str) -> String {
    let line = line.replace(['{', '}'], " ");
    let mut elements: Vec<String> = line.split(',').map(without_expiry).collect();
    elements.sort();
    elements.join(", ")
}

fn without_expiry(element: &str) -> String {
    let mut words = element.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word == "expires" {
            words.next();
        } else if word != "elements" && word != "=" {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Lines that the second listing has and the first has not, and the other way round.
pub struct Difference(Vec<String>);

impl Difference {
    pub fn between(before: &Listing, after: &Listing) -> Self {
        let mut lines = Vec::new();
        let sides = [(&before.local, &after.local), (&before.network, &after.network)];
        for (before, after) in sides {
            let more = |has: &Lines, had: &Lines, sign| {
                let new =
                    has.iter().filter(|(line, count)| had.get(*line).is_none_or(|n| n < *count));
                new.map(|(line, _)| format!("{sign} {line}")).collect::<Vec<_>>()
            };
            lines.extend(more(after, before, '+'));
            lines.extend(more(before, after, '-'));
        }
        Self(lines)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 12;
        for line in self.0.iter().take(MOST) {
            write!(f, "\n      {line}")?;
        }
        match self.0.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, "\n      and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_change_by_themselves_do_not() {
        let link = "7: br0: <BROADCAST,UP> mtu 1500 qdisc noqueue state UP mode DEFAULT\\    \
            link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff";
        assert_eq!(network_line(link).as_deref(), Some("br0: mtu 1500 qdisc noqueue mode DEFAULT"));
        assert_eq!(without_link_names("aril-0a1b2c3d: x aril-test"), "aril-*: x aril-test");
        let set = "elements = { tcp . 80 timeout 1m expires 59s : 10.0.0.2, tcp . 70 expires 5s }";
        assert_eq!(network_line(set).as_deref(), Some("tcp . 70, tcp . 80 timeout 1m : 10.0.0.2"));
        let listener = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 0 0";
        assert_eq!(network_line(listener).as_deref(), Some("listener 0100007F:1F90"));
        let connection = "1: 0100007F:1F90 0100007F:1F91 06 00000000:00000000 00:00000000 0 0";
        assert_eq!(network_line(connection), None);
        let socket = "0000000000000000: 00000002 00000000 00010000 0001 01 35087 /run/fault.sock";
        assert_eq!(network_line(socket).as_deref(), Some("unix socket /run/fault.sock"));
    }

    #[test]
    fn differences_are_lines_with_their_side() {
        let listing = |lines: &[&str]| {
            let mut listing = Listing::default();
            lines.iter().for_each(|line| listing.add((*line).to_owned()));
            listing
        };
        let (before, after) = (listing(&["a", "b", "c"]), listing(&["a", "b", "b", "d"]));
        let difference = Difference::between(&before, &after).to_string();
        let lines: Vec<&str> = difference.split_whitespace().collect();
        assert_eq!(lines, ["+", "b", "+", "d", "-", "c"]);
    }
}
