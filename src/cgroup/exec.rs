//! A place in the container's cgroup for one more process of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::layout::{MOUNT, own_unified};
use super::{Paths, Step, Version};
use crate::error::{Error, OsContext, Result};
use crate::sys::open::open;

/// As [`super::parent::Created`], for a container that runs.
#[derive(Debug)]
pub struct Target {
    /// For `CLONE_INTO_CGROUP`.
    pub dir: Option<OwnedFd>,
    /// For [`super::child::run`], with `steps`.
    pub tasks: Vec<Option<OwnedFd>>,
    pub steps: Vec<Step>,
}

impl Target {
    /// Where the runtime is.
    pub fn nowhere() -> Self {
        Self { dir: None, tasks: Vec::new(), steps: Vec::new() }
    }
}

/// `sub` is what `exec --cgroup` said: a path below the container's cgroup, or on v1
/// `CONTROLLER[,CONTROLLER]:PATH`, more than once.
pub fn target(paths: &Paths, sub: &[String]) -> Result<Target> {
    let places = places(paths, sub)?;
    let mut target = Target::nowhere();
    for (path, version) in places {
        match version {
            Version::V2 => target.dir = Some(open_dir(&path)?),
            Version::V1 => {
                let tasks = path.join("tasks");
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let tasks = open(&tasks, flags).map_err(|e| missing(&path, e))?;
                target.steps.push(Step::Join { index: target.tasks.len(), path });
                target.tasks.push(Some(tasks));
            }
        }
    }
    Ok(target)
}

/// Where the container's first process is, below its cgroup: the place to be when the cgroup itself
/// has controllers enabled for its children, so that cloning into it is refused with EBUSY.
pub fn beside(pid: i32) -> Result<OwnedFd> {
    let file = format!("/proc/{pid}/cgroup");
    let membership = std::fs::read_to_string(&file).os("read", &file)?;
    // Outside of our cgroup namespace's root, the path would be relative to what we cannot see.
    let own = own_unified(&membership).filter(|_| !membership.contains("0::/.."));
    let own = own.ok_or_else(|| Error::system(format!("{file} names no cgroup of ours")))?;
    open_dir(&Path::new(MOUNT).join(own.strip_prefix("/").unwrap_or(&own)))
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags).map_err(|e| missing(path, e))
}

/// Running it outside of the container's limits is no way out.
fn missing(path: &Path, errno: Errno) -> Error {
    let e = Error::os("open", path.display(), errno);
    if errno == Errno::ENOENT { e.context("cgroup not exist") } else { e }
}

fn places(paths: &Paths, sub: &[String]) -> Result<BTreeMap<PathBuf, Version>> {
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
                // Cgroups made inside of the container are made in its v1 hierarchies there.
                Some(_) if name.is_empty() && version == Version::V1 => "",
                Some(sub) => sub,
                None => "",
            };
            let kind = if name.is_empty() { Version::V2 } else { Version::V1 };
            Ok((below(base, sub)?, kind))
        })
        .collect()
}

/// Controller -> path below; the empty name is for all.
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
    let mut depth = 0_usize;
    for component in Path::new(sub).components() {
        match component {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                path.pop();
                depth -= 1;
            }
            Component::ParentDir => {
                let text = format!("bad sub cgroup path: {sub}");
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
        assert_eq!(at(&v2, &["a/../b"]).unwrap(), ["/cg/c/b"]);
        assert_eq!(at(&v2, &["/"]).unwrap(), ["/cg/c"]);
        assert_eq!(at(&v2, &["../d"]).unwrap_err(), "bad sub cgroup path: ../d");
        assert_eq!(at(&v2, &["a/../../c"]).unwrap_err(), "bad sub cgroup path: a/../../c");
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
            (&["memory:.."], "bad sub cgroup path: .."),
        ] {
            assert_eq!(at(&v1, sub).unwrap_err(), text);
        }
    }
}
