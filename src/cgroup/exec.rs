//! Chooses the cgroups that a further process of a container joins.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::file::is_gone;
use super::{Paths, Step, Version, freezer, layout};
use crate::error::{Error, OsContext, Result};
use crate::sys::open::open;

/// Cgroups for an exec, in the form of [`super::parent::Created`].
#[derive(Debug)]
pub struct Target {
    /// Directory for `CLONE_INTO_CGROUP`.
    pub dir: Option<OwnedFd>,
    /// `tasks` files for [`super::child::run`], with `steps`.
    pub tasks: Vec<Option<OwnedFd>>,
    pub steps: Vec<Step>,
}

impl Target {
    /// Returns a target that leaves the process in the runtime's cgroup.
    pub fn inherited() -> Self {
        Self { dir: None, tasks: Vec::new(), steps: Vec::new() }
    }
}

/// Opens the target. `sub` is the value of `exec --cgroup`: a path below the container's cgroup, or on v1
/// `CONTROLLER[,CONTROLLER]:PATH`, more than once. Without it, a removed cgroup of the container, which the container
/// must have left, is replaced by the present cgroup of its init process `init`.
///
/// # Errors
///
/// `sub` names an unknown controller, leads out of the container's cgroup, or names a cgroup that does not exist or is
/// frozen.
pub fn target(paths: &Paths, sub: &[String], init: i32) -> Result<Target> {
    let mut target = Target::inherited();
    let mut now = None;
    for (path, (name, version)) in places(paths, sub)? {
        let (path, opened) = match open_in(&path, version) {
            Err(errno) if is_gone(errno) && sub.is_empty() => {
                let now: &Paths = match &mut now {
                    Some(now) => now,
                    none => none.insert(layout::paths_of(init)?),
                };
                let there = now.get(name).ok_or_else(|| missing(&path, errno))?.clone();
                refuse_frozen(name, &there)?;
                let opened = open_in(&there, version).map_err(|e| missing(&there, e))?;
                (there, opened)
            }
            opened => {
                let opened = opened.map_err(|e| missing(&path, e))?;
                (path, opened)
            }
        };
        match version {
            Version::V2 => target.dir = Some(opened),
            Version::V1 => {
                target.steps.push(Step::Join { index: target.tasks.len(), path });
                target.tasks.push(Some(opened));
            }
        }
    }
    Ok(target)
}

impl Target {
    /// Returns the same target, but on cgroup v2 the cgroup that the container's init process is in. This is for a
    /// cgroup of the container that accepts no process. The kernel answers EBUSY if controllers are enabled for its
    /// children, EOPNOTSUPP if it is an invalid domain of a threaded subtree, and ENODEV if it was removed.
    ///
    /// # Errors
    ///
    /// The process has ended, or its cgroup cannot be opened.
    pub fn with_cgroup_of(&self, init: i32) -> Result<Self> {
        let now = layout::paths_of(init)?;
        let dir = now.get("").ok_or_else(|| {
            Error::system(format!("/proc/{init}/cgroup names no cgroup of this namespace"))
        })?;
        let tasks = self.tasks.iter().map(|tasks| tasks.as_ref().map(OwnedFd::try_clone));
        Ok(Self {
            dir: Some(open_in(dir, Version::V2).map_err(|e| missing(dir, e))?),
            tasks: tasks
                .map(Option::transpose)
                .collect::<std::io::Result<_>>()
                .os("dup", "tasks")?,
            steps: self.steps.clone(),
        })
    }
}

/// Opens the file by which a process joins the cgroup: a directory for `CLONE_INTO_CGROUP`, on v1 its `tasks` file.
fn open_in(path: &Path, version: Version) -> std::result::Result<OwnedFd, Errno> {
    match version {
        Version::V2 => open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC),
        Version::V1 => open(&path.join("tasks"), OFlag::O_WRONLY | OFlag::O_CLOEXEC),
    }
}

/// Rejects a frozen cgroup: a process that joins it never executes its program. The container's status does not show
/// the state of a cgroup that is not the container's own.
fn refuse_frozen(name: &str, dir: &Path) -> Result<()> {
    let paths = Paths::from([(name.to_owned(), dir.to_owned())]);
    if freezer::is_frozen(&paths)? {
        let text = format!("cannot exec in a paused container: cgroup {} is frozen", dir.display());
        return Err(Error::state(text));
    }
    Ok(())
}

/// Adds the hint that the process is not run outside of the container's limits.
fn missing(path: &Path, errno: Errno) -> Error {
    not_added(Error::os("open", path.display(), errno))
}

/// Adds the words that callers know from runc.
pub fn not_added(error: Error) -> Error {
    error.context("error adding pid to cgroups")
}

/// Lists the cgroups to join, each once, with one of its names in [`Paths`].
fn places<'a>(paths: &'a Paths, sub: &[String]) -> Result<BTreeMap<PathBuf, (&'a str, Version)>> {
    let version = Version::of(paths);
    let subs = parse(sub)?;
    if let Some(name) = subs.keys().find(|n| !n.is_empty() && !paths.contains_key(**n)) {
        return Err(Error::new(
            crate::error::Kind::Usage,
            match version {
                Version::V1 => format!("unknown controller {name} in --cgroup"),
                Version::V2 => format!("--cgroup names controller {name}: cgroup v2 has one tree"),
            },
        ));
    }
    paths
        .iter()
        .map(|(name, base)| {
            let sub = match subs.get(&**name).or_else(|| subs.get("")) {
                // Cgroups that the container created are in its v1 hierarchies.
                Some(_) if name.is_empty() && version == Version::V1 => "",
                Some(sub) => sub,
                None => "",
            };
            let kind = if name.is_empty() { Version::V2 } else { Version::V1 };
            Ok((below(base, sub)?, (name.as_str(), kind)))
        })
        .collect()
}

/// Maps controllers to paths below the container's cgroup; the empty name is for all controllers.
fn parse(sub: &[String]) -> Result<BTreeMap<&str, &str>> {
    let bad = |arg: &str, why: &str| {
        Err(Error::new(
            crate::error::Kind::Usage,
            format!("invalid --cgroup argument: {arg} ({why})"),
        ))
    };
    let mut paths = BTreeMap::new();
    for arg in sub {
        let Some((controllers, path)) = arg.split_once(':') else {
            if sub.len() > 1 {
                return bad(arg, "missing <controller>: prefix");
            }
            paths.insert("", arg.as_str());
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return bad(arg, "empty <controller> prefix");
            }
            if paths.insert(controller, path).is_some() {
                let why = format!("controller {controller} specified multiple times");
                return bad(arg, &why);
            }
        }
    }
    Ok(paths)
}

fn below(base: &Path, sub: &str) -> Result<PathBuf> {
    let mut path = base.to_owned();
    for component in Path::new(sub).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                let text = format!("bad sub cgroup path: {sub}: `..` components are not allowed");
                return Err(Error::new(crate::error::Kind::Usage, text));
            }
            _ => {}
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(entries: &[(&str, &str)]) -> Paths {
        entries.iter().map(|(n, p)| (n.to_string(), p.into())).collect()
    }

    fn at(paths: &Paths, sub: &[&str]) -> std::result::Result<Vec<String>, String> {
        let sub: Vec<String> = sub.iter().map(|s| s.to_string()).collect();
        let places = places(paths, &sub).map_err(|e| e.to_string())?;
        Ok(places.keys().map(|p| p.display().to_string()).collect())
    }

    #[test]
    fn below_the_only_tree() {
        let v2 = paths(&[("", "/cg/c")]);
        assert_eq!(at(&v2, &[]).unwrap(), ["/cg/c"]);
        assert_eq!(at(&v2, &["a/./b"]).unwrap(), ["/cg/c/a/b"]);
        assert_eq!(at(&v2, &["/"]).unwrap(), ["/cg/c"]);
        for sub in ["../d", "a/..", "a/../../c", "./a/../b"] {
            let text = format!("bad sub cgroup path: {sub}: `..` components are not allowed");
            assert_eq!(at(&v2, &[sub]).unwrap_err(), text);
        }
        assert_eq!(
            at(&v2, &["cpu:a"]).unwrap_err(),
            "--cgroup names controller cpu: cgroup v2 has one tree"
        );
    }

    #[test]
    fn below_v1_trees() {
        let v1 = paths(&[
            ("", "/cg/unified/c"),
            ("cpu", "/cg/cpu,cpuacct/c"),
            ("cpuacct", "/cg/cpu,cpuacct/c"),
            ("memory", "/cg/memory/c"),
        ]);
        assert_eq!(at(&v1, &[]).unwrap(), ["/cg/cpu,cpuacct/c", "/cg/memory/c", "/cg/unified/c"]);
        assert_eq!(
            at(&v1, &["s"]).unwrap(),
            ["/cg/cpu,cpuacct/c/s", "/cg/memory/c/s", "/cg/unified/c"]
        );
        assert_eq!(
            at(&v1, &["cpu,cpuacct:a", "memory:b"]).unwrap(),
            ["/cg/cpu,cpuacct/c/a", "/cg/memory/c/b", "/cg/unified/c"]
        );
        for (sub, text) in [
            (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (
                &["cpu:a", "cpu:b"],
                "invalid --cgroup argument: cpu:b (controller cpu specified multiple times)",
            ),
            (&["pids:a"], "unknown controller pids in --cgroup"),
            (&["memory:.."], "bad sub cgroup path: ..: `..` components are not allowed"),
        ] {
            assert_eq!(at(&v1, sub).unwrap_err(), text);
        }
    }
}
