//! Finds the mounted cgroup hierarchies, and the runtime's own cgroup in each.
//!
//! On a host with cgroup v2 alone this costs one statfs(2); the runtime's own cgroup is read only for a `cgroupsPath`
//! that is relative to it.

use std::io::Read;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::systemd::plan::levels;
use super::{Paths, stored};
use crate::error::{Error, OsContext, Result};
use crate::path::absolute;

/// Mount point of cgroups on every distribution, and the only place where a cgroup v2 hierarchy alone is looked for.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Cgroup hierarchies of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Cgroup v2 alone, at [`MOUNT`].
    Unified {
        /// Runtime's own cgroup, absolute within the mount, if the container's path is relative to it.
        own: Option<PathBuf>,
    },
    /// Hierarchies of v1, and on a hybrid host cgroup v2 beside them.
    Legacy { hierarchies: Vec<Hierarchy> },
}

/// Mounted hierarchy of a [`Layout::Legacy`] host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Controllers, or `name=...` for a hierarchy without one; the single empty name is that of cgroup v2.
    pub names: Vec<String>,
    pub mount: PathBuf,
    /// Runtime's own cgroup, absolute within the mount.
    pub own: PathBuf,
}

impl Layout {
    /// Reads the layout for a container with this `linux.cgroupsPath`.
    ///
    /// # Errors
    ///
    /// The host's cgroup mounts or the runtime's own cgroup cannot be read.
    pub fn observe(cgroups_path: Option<&Path>) -> Result<Self> {
        let unified = statfs(MOUNT).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if !unified {
            let mounts = read("/proc/self/mountinfo")?;
            return Ok(Self::legacy(&mounts, &read("/proc/self/cgroup")?));
        }
        let absolute = cgroups_path.is_some_and(Path::is_absolute);
        let own = if absolute { None } else { own_unified(&read("/proc/self/cgroup")?) };
        Ok(Self::Unified { own })
    }

    /// Reads the layout with the cgroups of another process instead of the runtime's own.
    fn of_process(pid: i32) -> Result<Self> {
        let membership = visible(&read(&format!("/proc/{pid}/cgroup"))?);
        let unified = statfs(MOUNT).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if unified {
            return Ok(Self::Unified { own: own_unified(&membership) });
        }
        Ok(Self::legacy(&read("/proc/self/mountinfo")?, &membership))
    }

    fn legacy(mountinfo: &str, membership: &str) -> Self {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let hierarchies = membership
            .lines()
            .filter_map(|line| {
                let (names, own) = line.split_once(':')?.1.split_once(':')?;
                let names: Vec<String> = names.split(',').map(str::to_owned).collect();
                let mount = mounts.iter().find(|m| m.carries(&names))?;
                Some(Hierarchy { names, mount: mount.point.clone(), own: mount.within(own) })
            })
            .collect();
        Self::Legacy { hierarchies }
    }
}

/// Lists the directories of the cgroups that a process is in.
///
/// # Errors
///
/// The process has ended, or the host's cgroup mounts cannot be read.
pub fn paths_of(pid: i32) -> Result<Paths> {
    Ok(directories(Layout::of_process(pid)?, |own| own))
}

/// Lists the existing directories of the cgroup of this name; a name in the form of the systemd driver is that of a
/// slice.
///
/// # Errors
///
/// The host's cgroup mounts cannot be read.
pub fn paths_at(cgroup: &Path) -> Result<Paths> {
    let slice = cgroup.file_name().and_then(|name| name.to_str());
    let wanted = match slice.filter(|name| name.ends_with(".slice")) {
        Some(slice) => levels(slice)?.into_iter().collect(),
        None => clean(cgroup),
    };
    let mut paths = directories(Layout::of_process(std::process::id() as i32)?, |_| wanted.clone());
    paths.retain(|_, dir| dir.is_dir());
    Ok(paths)
}

/// Moves a process into the cgroups of this path, in all hierarchies in which it exists.
///
/// # Errors
///
/// A hierarchy rejects the process, or no hierarchy has the cgroup.
pub fn join_existing(cgroup: &Path, pid: i32) -> Result<()> {
    let wanted = clean(cgroup);
    let mut paths = directories(Layout::of_process(pid)?, |_| wanted.clone());
    paths.retain(|_, dir| dir.is_dir());
    if paths.is_empty() {
        return Err(Error::system("no such cgroup".to_owned()));
    }
    stored::join(&paths, pid)
}

/// Returns directories by controller. `place` maps the process's own cgroup in a hierarchy to the wanted one.
fn directories(layout: Layout, place: impl Fn(PathBuf) -> PathBuf) -> Paths {
    let within = |mount: &Path, own: PathBuf| {
        let place = place(own);
        mount.join(place.strip_prefix("/").unwrap_or(&place))
    };
    match layout {
        Layout::Unified { own } => {
            own.map(|own| (String::new(), within(Path::new(MOUNT), own))).into_iter().collect()
        }
        Layout::Legacy { hierarchies } => hierarchies
            .into_iter()
            .flat_map(|Hierarchy { names, mount, own }| {
                let dir = within(&mount, own);
                names.into_iter().map(move |name| (name, dir.clone()))
            })
            .collect(),
    }
}

/// Returns the lines of a `/proc/PID/cgroup` with a cgroup inside the runtime's own cgroup namespace. The path of any
/// other cgroup starts with `/..`, and has no path in this namespace.
fn visible(membership: &str) -> String {
    let outside = |line: &str| {
        line.split_once(":/..").is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
    };
    membership.lines().filter(|line| !outside(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Returns true if process `pid` is in these cgroups, or in one below them, or if the kernel shows no cgroup of it. A
/// container with write access to the cgroup tree can move itself to any other cgroup.
///
/// # Errors
///
/// The process's cgroups cannot be read.
pub fn holds(paths: &Paths, pid: i32) -> Result<bool> {
    Ok(left(paths, pid)?.is_none())
}

/// Returns a cgroup of `paths` that process `pid` has left, and the cgroup that it is in now.
///
/// # Errors
///
/// The process's cgroups cannot be read.
pub fn left(paths: &Paths, pid: i32) -> Result<Option<(PathBuf, PathBuf)>> {
    let now = match paths_of(pid) {
        // The process has ended in the meantime.
        Err(e) if matches!(e.errno(), Some(Errno::ENOENT | Errno::ESRCH)) => return Ok(None),
        now => now?,
    };
    Ok(paths.iter().find_map(|(name, dir)| {
        let there = now.get(name)?;
        (!there.starts_with(dir)).then(|| (dir.clone(), there.clone()))
    }))
}

fn read(path: &str) -> Result<String> {
    // Two reads; std starts with 32 bytes for a file without a size.
    let mut text = String::with_capacity(4096);
    std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text)).os("read", path)?;
    Ok(text)
}

/// Returns the cgroup v2 line of a `/proc/PID/cgroup`.
pub(super) fn own_unified(membership: &str) -> Option<PathBuf> {
    membership.lines().find_map(|line| line.strip_prefix("0::")).map(|own| clean(Path::new(own)))
}

/// Returns the path as absolute text without `.` or `..`; `..` never leads above the root.
pub(super) fn clean(path: &Path) -> PathBuf {
    absolute(Path::new("/"), path)
}

/// Cgroup mount in `/proc/self/mountinfo`.
struct Mount<'a> {
    /// Mounted part of the hierarchy: not `/` in a container without a cgroup namespace.
    root: &'a str,
    point: PathBuf,
    version2: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version2 = match kind.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        // Others are private views, such as those in a container's rootfs.
        if !point.starts_with(MOUNT) {
            return None;
        }
        let point = PathBuf::from(point.replace("\\040", " "));
        Some(Self { root, point, version2, options: kind.nth(1)? })
    }

    fn carries(&self, names: &[String]) -> bool {
        match names {
            [name] if name.is_empty() => self.version2,
            _ => !self.version2 && names.iter().all(|n| self.options.split(',').any(|o| o == n)),
        }
    }

    /// Converts a path of `/proc/self/cgroup`, which starts at the hierarchy's root, to one within the mounted part.
    fn within(&self, own: &str) -> PathBuf {
        clean(Path::new(own).strip_prefix(self.root).unwrap_or(Path::new(own)))
    }
}

/// Checks for `runtime-tests/fuzz/` that no cgroup is outside of its mount, for any content of the two files.
#[cfg(fuzzing)]
pub fn check_files(mountinfo: &str, membership: &str) {
    let Layout::Legacy { hierarchies } = Layout::legacy(mountinfo, membership) else { return };
    for Hierarchy { own, mount, .. } in hierarchies {
        assert!(own.is_absolute() && own == clean(&own), "{}", own.display());
        assert!(mount.starts_with(MOUNT) || mount.as_os_str().len() > MOUNT.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /elsewhere/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    const MEMBERSHIP: &str = "\
9:name=systemd:/user.slice
8:pids:/
4:memory:/docker/x/own
2:cpu,cpuacct:/a:b
0::/user.slice
";

    #[test]
    fn a_hybrid_host() {
        let Layout::Legacy { hierarchies } = Layout::legacy(MOUNTINFO, MEMBERSHIP) else {
            panic!("not legacy");
        };
        let seen: Vec<_> = hierarchies
            .iter()
            .map(|h| (h.names.join(","), h.mount.to_str().unwrap(), h.own.to_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                ("name=systemd".into(), "/sys/fs/cgroup/systemd", "/user.slice"),
                // pids is mounted elsewhere only; the path of memory starts at the mounted part.
                ("memory".into(), "/sys/fs/cgroup/memory", "/own"),
                ("cpu,cpuacct".into(), "/sys/fs/cgroup/cpu,cpuacct", "/a:b"),
                (String::new(), "/sys/fs/cgroup/unified", "/user.slice"),
            ]
        );
    }

    #[test]
    fn cgroups_outside_of_the_namespace_are_left_out() {
        let membership = "3:cpu:/../other\n2:memory:/..\n1:pids:/..x\n0::/a/../b\n";
        assert_eq!(visible(membership), "1:pids:/..x\n0::/a/../b\n");
    }

    #[test]
    fn own_cgroup_of_cgroup2() {
        assert_eq!(own_unified("1:name=x:/y\n0::/a/b\n"), Some("/a/b".into()));
        assert_eq!(own_unified("1:name=x:/y\n"), None);
    }

    #[test]
    fn dots_never_lead_above_the_root() {
        for (path, expected) in [
            ("/a/../../b/./c/", "/b/c"),
            ("a//b", "/a/b"),
            ("", "/"),
            ("..", "/"),
            ("slice:prefix:name", "/slice:prefix:name"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
