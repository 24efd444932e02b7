//! Operates on the cgroups of a record, for later verbs. Some or all of them may not exist any more.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Paths, Version, descendants, directories, file, freezer};
use crate::error::{Error, OsContext, Result};
use crate::fs::process;
use crate::id::HostPid;

/// Lists every process of the container by host pid, also in cgroups that the container created.
///
/// # Errors
///
/// A list of processes cannot be read. A missing cgroup is no error.
pub fn pids(paths: &Paths) -> Result<Vec<i32>> {
    let Some(top) = process_directory(paths) else { return Ok(Vec::new()) };
    let mut pids = Vec::new();
    descendants::read(top, c"cgroup.procs", |text| {
        // 0 is a process of another pid namespace, without a pid in this one.
        pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
    })
    .os("read cgroup.procs", format_args!("in {} and below", top.display()))?;
    if pids.is_empty() && is_threaded(top)? {
        pids = processes_of_threads(top)?;
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Returns true if the container, or its engine, has made the cgroup threaded: its `cgroup.procs` cannot be read, and
/// the kernel rejects `cgroup.kill`.
fn is_threaded(top: &Path) -> Result<bool> {
    Ok(file::read(&top.join("cgroup.type"))?.is_some_and(|kind| kind.trim() == "threaded"))
}

/// Lists the processes of the threads in a threaded cgroup and below it.
fn processes_of_threads(top: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    descendants::read(top, c"cgroup.threads", |text| {
        let threads = text.lines().filter_map(|line| line.parse().ok()).filter(|tid| *tid > 0);
        pids.extend(threads.filter_map(|tid| process::of_thread(HostPid(tid))).map(|pid| pid.0));
    })
    .os("read cgroup.threads", format_args!("in {} and below", top.display()))?;
    Ok(pids)
}

/// Chooses the hierarchies to list. Any would do; processes are moved least in these.
fn process_directory(paths: &Paths) -> Option<&Path> {
    let preferred = ["devices", "freezer", "pids", ""].into_iter().find_map(|n| paths.get(n));
    preferred.or_else(|| paths.values().next()).map(PathBuf::as_path)
}

/// Kills every process of the container, frozen or not. Returns when all have been signalled, before all are dead.
///
/// # Errors
///
/// A process cannot be signalled, or new processes keep appearing.
pub fn kill_all(paths: &Paths) -> Result<()> {
    let at_once = match paths.get("") {
        Some(dir) => match file::write_if_there(&dir.join("cgroup.kill"), "1") {
            // A threaded cgroup.
            Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => false,
            killed => killed?,
        },
        None => false,
    };
    if at_once && Version::of(paths) == Version::V2 {
        return Ok(());
    }
    // A kernel before 5.14, a threaded cgroup, or v1: freeze the processes, if possible, so that they do not fork.
    const PATIENCE: Duration = Duration::from_millis(500);
    if !at_once && process_directory(paths).is_some_and(Path::exists) {
        freezer::freeze_within(paths, PATIENCE).ok();
    }
    let killed = kill_each(paths);
    freezer::thaw(paths).and(killed)
}

/// Kills until every process that is found has been killed before.
fn kill_each(paths: &Paths) -> Result<()> {
    const ROUNDS: usize = 100;
    let mut killed = Vec::new();
    for _ in 0..ROUNDS {
        let mut found = pids(paths)?;
        found.retain(|pid| !killed.contains(pid));
        if found.is_empty() {
            break;
        }
        for pid in &found {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                Err(Errno::ESRCH) => {}
                other => other.os("kill", pid)?,
            }
        }
        killed.append(&mut found);
    }
    Ok(())
}

/// Returns true if any of the cgroups exists.
pub fn exist(paths: &Paths) -> bool {
    directories(paths).into_iter().any(Path::exists)
}

/// Lists cgroups of this name, or of the last part of this `cgroupsPath`. They may belong to another container.
pub fn named(id: &str, cgroups_path: Option<&Path>) -> Vec<PathBuf> {
    let last = cgroups_path.and_then(Path::file_name).map(|name| name.to_string_lossy());
    let last = last.as_deref().map(|name| name.rsplit(':').next().unwrap_or(name).to_owned());
    let names: Vec<String> = last.into_iter().chain([id.to_owned()]).collect();
    let mut found = Vec::new();
    look_for(&names, Path::new(super::layout::MOUNT), 0, &mut found);
    found.sort();
    found
}

fn look_for(names: &[String], dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    // Containers create cgroups of any depth.
    const DEEPEST: u32 = 12;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let scope = name.strip_suffix(".scope");
        let is = |wanted: &String| {
            *name == **wanted || scope.is_some_and(|scope| scope.ends_with(&format!("-{wanted}")))
        };
        if names.iter().any(is) {
            found.push(path);
        } else if depth < DEEPEST {
            look_for(names, &path, depth + 1, found);
        }
    }
}

/// Removes the container's cgroups and those below. Dying processes delay that for an instant: waits at most one
/// second in all, for any number of cgroups.
///
/// # Errors
///
/// A cgroup still contains processes after a second, or cannot be removed.
pub fn remove(paths: &Paths) -> Result<()> {
    const LAST_PAUSE: Duration = Duration::from_millis(512);
    let mut left = directories(paths);
    let mut errors: Vec<Error> = Vec::new();
    let mut pause = Duration::from_millis(1);
    loop {
        let mut busy = Vec::new();
        for dir in left {
            match remove_tree(dir) {
                Ok(()) => {}
                Err(e) if e.errno() == Some(Errno::EBUSY) => busy.push((dir, e)),
                Err(e) => errors.push(e),
            }
        }
        if busy.is_empty() || pause > LAST_PAUSE {
            // On v1 the other hierarchies wait for the same processes.
            errors.extend(busy.into_iter().next().map(|(_, e)| e));
            return all_of(errors).map_err(|e| e.hint(who_is_there(paths)));
        }
        left = busy.into_iter().map(|(dir, _)| dir).collect();
        sleep(pause);
        pause *= 2;
    }
}

fn who_is_there(paths: &Paths) -> String {
    match pids(paths) {
        Ok(pids) if !pids.is_empty() => {
            format!("processes are in it: {pids:?}; delete --force kills them")
        }
        _ => "delete --force tries again".to_owned(),
    }
}

/// Removes a cgroup; mostly there is none below it.
fn remove_tree(top: &Path) -> Result<()> {
    match file::rmdir(top) {
        Err(Errno::EBUSY) => {}
        Err(errno) if file::is_gone(errno) => return Ok(()),
        other => return other.os("rmdir", top.display()),
    }
    descendants::remove(top).os("rmdir", format_args!("below {}", top.display()))?;
    match file::rmdir(top) {
        Err(errno) if file::is_gone(errno) => Ok(()),
        other => other.os("rmdir", top.display()),
    }
}

fn all_of(mut errors: Vec<Error>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => {
            let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
            Err(Error::system(texts.join("; ")))
        }
    }
}

/// Returns the number of processes that the kernel killed because memory was exhausted.
///
/// # Errors
///
/// The counter cannot be read. A missing cgroup counts as zero.
pub fn oom_kills(paths: &Paths) -> Result<u64> {
    let file = match (paths.get("memory"), paths.get("")) {
        (Some(dir), _) => dir.join("memory.oom_control"),
        (None, Some(dir)) => dir.join("memory.events"),
        (None, None) => return Ok(0),
    };
    Ok(file::read_key(&file, "oom_kill")?.unwrap_or(0))
}

/// Moves a process that Aril did not clone, such as a restored one. Not for a process that is being started: the
/// kernel sleeps for a grace period.
///
/// # Errors
///
/// A hierarchy rejects the process.
pub fn join(paths: &Paths, pid: i32) -> Result<()> {
    for dir in directories(paths) {
        file::write(&dir.join("cgroup.procs"), &pid.to_string())?;
    }
    Ok(())
}
