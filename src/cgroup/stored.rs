//! What later verbs do to the cgroup of a record. It may be gone, wholly or in part.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Paths, Version, below, directories, file, freezer};
use crate::error::{Error, OsContext, Result};

/// Every process of the container, in cgroups that it made itself, too; in our numbers.
pub fn pids(paths: &Paths) -> Result<Vec<i32>> {
    let Some(top) = process_directory(paths) else { return Ok(Vec::new()) };
    let mut pids = Vec::new();
    below::read(top, c"cgroup.procs", |text| {
        // 0 is a process of another pid namespace: it has no number here.
        pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
    })
    .os("read cgroup.procs", format_args!("in {} and below", top.display()))?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Any hierarchy would do; processes are moved least in these.
fn process_directory(paths: &Paths) -> Option<&Path> {
    let preferred = ["devices", "freezer", "pids", ""].into_iter().find_map(|n| paths.get(n));
    preferred.or_else(|| paths.values().next()).map(PathBuf::as_path)
}

/// Every process of the container, frozen or not. It returns when all have been signalled, not when
/// all are gone.
pub fn kill_all(paths: &Paths) -> Result<()> {
    let at_once = match paths.get("") {
        Some(dir) => file::write_if_there(&dir.join("cgroup.kill"), "1")?,
        None => false,
    };
    if at_once && Version::of(paths) == Version::V2 {
        return Ok(());
    }
    // A kernel before 5.14, or v1: stop them from forking away meanwhile, if they can be stopped.
    const PATIENCE: Duration = Duration::from_millis(500);
    if !at_once && process_directory(paths).is_some_and(Path::exists) {
        freezer::freeze_within(paths, PATIENCE).ok();
    }
    let killed = kill_each(paths);
    freezer::thaw(paths).and(killed)
}

/// Until none is found that has not been killed before.
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

/// Removes the container's cgroups and those below. Dying processes hold one up for an instant: it
/// waits a second in all, whatever the number of cgroups.
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
            // On v1 the others are busy with the same processes.
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

/// Mostly there is nothing below.
fn remove_tree(top: &Path) -> Result<()> {
    match file::rmdir(top) {
        Err(Errno::EBUSY) => {}
        Err(errno) if file::is_gone(errno) => return Ok(()),
        other => return other.os("rmdir", top.display()),
    }
    below::remove(top).os("rmdir", format_args!("below {}", top.display()))?;
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

/// How many of its processes the kernel killed for want of memory.
pub fn oom_kills(paths: &Paths) -> Result<u64> {
    let file = match (paths.get("memory"), paths.get("")) {
        (Some(dir), _) => dir.join("memory.oom_control"),
        (None, Some(dir)) => dir.join("memory.events"),
        (None, None) => return Ok(0),
    };
    Ok(file::read_key(&file, "oom_kill")?.unwrap_or(0))
}

/// Moves a process that is not ours to make, such as a restored one. Never on the way to a started
/// process: the kernel sleeps for a grace period.
pub fn join(paths: &Paths, pid: i32) -> Result<()> {
    for dir in directories(paths) {
        file::write(&dir.join("cgroup.procs"), &pid.to_string())?;
    }
    Ok(())
}
