//! Writes id mappings and time offsets, and reads namespaces by path, in the parent.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::auto::{self, Grants};
use super::plan::Facts;
use super::{Mapping, Maps};
use crate::error::{Context, Error, OsContext, Result};
use crate::id::HostPid;
use crate::sys;
use crate::sys::clone::SingleThread;

/// Reads the facts about namespaces that the config names by path. `needs_network` is true if the config has settings for a
/// network namespace that is not the runtime's.
///
/// # Errors
///
/// A namespace cannot be opened, or its mappings cannot be read.
pub fn facts(namespaces: &[LinuxNamespace], needs_network: bool) -> Result<Facts> {
    let path_of = |kind| {
        namespaces
            .iter()
            .find(|n| n.typ() == kind)
            .and_then(|n| n.path().as_deref())
            .filter(|p| !p.as_os_str().is_empty())
    };
    let joins_host_network = match path_of(LinuxNamespaceType::Network) {
        Some(path) if needs_network => same_namespace(path, Path::new("/proc/self/ns/net"))?,
        _ => false,
    };
    let joined = path_of(LinuxNamespaceType::User).map(maps_behind).transpose()?;
    let joined_denies_setgroups = joined.as_ref().is_some_and(|(_, denies)| *denies);
    let joined_maps = joined.map(|(maps, _)| maps);
    Ok(Facts { joins_host_network, joined_maps, joined_denies_setgroups, opened_network: None })
}

fn same_namespace(a: &Path, b: &Path) -> Result<bool> {
    let identity = |p: &Path| fs::metadata(p).map(|m| (m.dev(), m.ino())).os("stat", p.display());
    Ok(identity(a)? == identity(b)?)
}

/// Reads the mappings of a user namespace relative to this one, and if it denies setgroups(2). Only /proc of a task in it
/// has them, so a child joins it.
fn maps_behind(path: &Path) -> Result<(Maps, bool)> {
    let what = || format!("read the id maps of user namespace {}", path.display());
    let file = fs::File::open(path).os("open", path.display()).context(what)?;
    let (ours, theirs) = sys::socket::pair().os("socketpair", "").context(what)?;
    let inside = sys::clone::clone3(SingleThread::proof(), 0, None, || {
        let joined = sys::namespace::setns(file.as_fd(), libc::CLONE_NEWUSER);
        if joined.is_ok() && sys::socket::send(theirs.as_fd(), b"+", &[]).is_ok() {
            // Wait until the parent has read the mappings and kills this process.
            nix::unistd::pause();
        }
        sys::clone::exit_now(1)
    })
    .os("clone3", "")
    .context(what)?;
    // The child reports it: an ordinary user cannot read the namespace of a process that has gained capabilities.
    drop(theirs);
    let joined = sys::socket::receive(ours.as_fd(), &mut [0]).is_ok_and(|(length, _)| length > 0);
    let result = read_joined_maps(&inside, path, joined);
    let _ = sys::pidfd::send_signal(inside.pidfd.as_fd(), libc::SIGKILL);
    let _ = sys::pidfd::wait(inside.pidfd.as_fd(), true);
    result.context(what)
}

fn read_joined_maps(
    inside: &sys::clone::Spawned,
    namespace: &Path,
    joined: bool,
) -> Result<(Maps, bool)> {
    if !joined {
        return Err(Error::os("setns", namespace.display(), nix::errno::Errno::EPERM));
    }
    let read = |file: &str| {
        let path = format!("/proc/{}/{file}", inside.pid);
        fs::read_to_string(&path).os("read", &path).map(|text| parse_map(&text))
    };
    let denies = denies_setgroups(&inside.pid.to_string());
    Ok((Maps { uid: read("uid_map")?, gid: read("gid_map")? }, denies))
}

/// Returns true if the user namespace of process `pid` (or `self`) denies setgroups(2).
pub fn denies_setgroups(pid: &str) -> bool {
    fs::read(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.starts_with(b"deny"))
}

/// Reads the uid mappings of the user namespace of process `pid`.
///
/// # Errors
///
/// The process has ended.
pub fn uid_map_of(pid: i32) -> Result<Vec<Mapping>> {
    map_of(pid, "uid_map")
}

/// Reads the id mappings of the process's user namespace.
///
/// # Errors
///
/// The process has ended.
pub fn maps_of(pid: i32) -> Result<Maps> {
    Ok(Maps { uid: map_of(pid, "uid_map")?, gid: map_of(pid, "gid_map")? })
}

fn map_of(pid: i32, name: &str) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).os("read", &path).map(|text| parse_map(&text))
}

fn parse_map(text: &str) -> Vec<Mapping> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Mapping { container: next()?, host: next()?, size: next()? })
        })
        .collect()
}

/// Parses and formats a mapping, for `runtime-tests/fuzz/`.
#[cfg(fuzzing)]
pub fn check_map(text: &str) {
    let map = parse_map(text);
    assert_eq!(parse_map(&lines(&map)), map);
}

/// Reads the ranges of the caller from /etc/subuid and /etc/subgid.
///
/// # Errors
///
/// A file exists and cannot be read.
pub fn grants() -> Result<Grants> {
    let read = |path: &str| match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.os("read", path),
    };
    let (uids, gids) = (read("/etc/subuid")?, read("/etc/subgid")?);
    let of = |names: &[&str]| Grants {
        own: None,
        name: names[0].to_owned(),
        uids: auto::granted(&uids, names),
        gids: auto::granted(&gids, names),
    };
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        let theirs = of(&["containers"]);
        return Ok(if theirs.uids.is_empty() { of(&["root"]) } else { theirs })
            .map(|grants| Grants { name: "containers".to_owned(), ..grants });
    }
    let number = uid.to_string();
    let name = read("/etc/passwd")?.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == number).then(|| name.to_owned())
    });
    let own = Some((uid.as_raw(), nix::unistd::getegid().as_raw()));
    Ok(Grants { own, ..of(&[name.as_deref().unwrap_or(&number), &number]) })
}

/// Writes the mappings of the new user namespace of process `pid`.
///
/// # Errors
///
/// The kernel rejects the mappings; without newuidmap(1), an ordinary user maps only its own ID.
pub fn write_maps(pid: HostPid, maps: &Maps) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        write(pid, "uid_map", &lines(&maps.uid))?;
        return write(pid, "gid_map", &lines(&maps.gid));
    }
    let own = |map: &[Mapping], id: u32| matches!(map, [m] if m.host == id && m.size == 1);
    if own(&maps.uid, nix::unistd::geteuid().as_raw()) {
        write(pid, "uid_map", &lines(&maps.uid))?;
    } else {
        by_helper("newuidmap", pid, &maps.uid)?;
    }
    if own(&maps.gid, nix::unistd::getegid().as_raw()) {
        // Since Linux 3.19 an unprivileged gid_map requires that setgroups(2) is denied first (CVE-2014-8989).
        write(pid, "setgroups", "deny")?;
        write(pid, "gid_map", &lines(&maps.gid))
    } else {
        by_helper("newgidmap", pid, &maps.gid)
    }
}

/// Creates a time namespace for the children of this process. Offsets can be written only before the first child enters it.
///
/// # Errors
///
/// The kernel has no time namespaces, or rejects an offset.
pub fn new_time_namespace(offsets: Option<&str>) -> Result<()> {
    sys::namespace::unshare(sys::namespace::TIME)
        .os("unshare", "CLONE_NEWTIME")
        .context(|| "new time namespace".to_owned())?;
    let Some(lines) = offsets else { return Ok(()) };
    fs::write("/proc/self/timens_offsets", lines)
        .os("write", "/proc/self/timens_offsets")
        .context(|| format!("set time offsets {}", lines.trim_end().replace('\n', ", ")))
}

fn lines(map: &[Mapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

fn write(pid: HostPid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text)
        .os("write", &path)
        .context(|| format!("map ids {}", text.trim_end().replace('\n', ", ")))
        .map_err(|e| e.hint("host ids are those that this process sees: /proc/self/uid_map and gid_map list them"))
}

/// Writes mappings by newuidmap(1) and newgidmap(1), which may map the ranges of /etc/subuid and /etc/subgid.
#[expect(clippy::disallowed_types, reason = "newuidmap(1) and newgidmap(1) have the privilege")]
fn by_helper(program: &str, pid: HostPid, map: &[Mapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.container, m.host, m.size]).map(|n| n.to_string());
    let output = std::process::Command::new(program)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .os("run", program)
        .map_err(|e| e.hint("install the uidmap package, or map only your own id"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::system(format!("{program} for process {pid}: {}", said.trim()))
        .hint("the ranges must be granted in /etc/subuid and /etc/subgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_as_the_kernel_prints_them() {
        let map = parse_map("         0     100000      65536\n     65536          1          1\n");
        assert_eq!(map[0], Mapping { container: 0, host: 100_000, size: 65_536 });
        assert_eq!(lines(&map), "0 100000 65536\n65536 1 1\n");
    }
}
