//! Finds what is left of a container on the host: processes, cgroups, mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Environment variable of every call of a test. It marks a process of the runtime even after the process has left
/// the cgroup and the mount namespace.
pub const MARK: &str = "ARIL_TEST";

/// Lists everything on the host with the mark, a string unique to one container.
pub fn traces(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for pid in processes(mark) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        found.push(format!("process {pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    found.extend(cgroups(mark).iter().map(|dir| format!("cgroup {}", dir.display())));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|l| l.contains(mark)).map(|l| format!("mount {l}")));
    found
}

/// Lists the same after processes that are ending had time to end.
pub fn traces_that_stay(mark: &str) -> Vec<String> {
    let start = Instant::now();
    loop {
        let found = traces(mark);
        if found.is_empty() || start.elapsed() > crate::container::PATIENCE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Live processes marked by environment, command line, cgroup or root. Other mounts do not count: a mount in the host's table would
/// mark every process of the host, and a failing test ends the marked processes.
pub fn processes(mark: &str) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let belongs = |pid: i32| is_marked(pid, mark) || has(pid, "cmdline", mark);
    pids().filter(|pid| *pid != own && !is_zombie(*pid) && belongs(*pid)).collect()
}

/// True if a process belongs to the test with this mark, by its cgroup, environment or root: not by its command line,
/// which also a daemon has that the test started.
pub fn is_marked(pid: i32, mark: &str) -> bool {
    has(pid, "cgroup", mark)
        || has(pid, "environ", mark)
        || has_root(&String::from_utf8_lossy(&read(pid, "mountinfo")), mark)
}

fn has(pid: i32, file: &str, mark: &str) -> bool {
    String::from_utf8_lossy(&read(pid, file)).contains(mark)
}

fn read(pid: i32, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn has_root(mountinfo: &str, mark: &str) -> bool {
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(mark))
}

/// Process IDs of all processes.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub fn is_zombie(pid: i32) -> bool {
    matches!(state(pid), Some('Z' | 'X'))
}

/// State letter in /proc/PID/stat.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// True if the process does not exist or is a zombie.
pub fn is_gone(pid: i32) -> bool {
    state(pid).is_none_or(|s| matches!(s, 'Z' | 'X'))
}

/// Roots of all cgroup hierarchies of the host.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| line.contains(" - cgroup");
    let target = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    mounts.lines().filter(is_cgroup).filter_map(target).collect()
}

/// Directories in all hierarchies whose path contains the mark; deepest first.
pub fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in hierarchies() {
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(mark) {
                collect_directories(&entry.path(), &mut found);
            }
        }
    }
    found
}

fn collect_directories(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_directories(&entry.path(), found);
        }
    }
    found.push(dir.to_owned());
}

/// Removes all traces by force, after a test that failed.
pub fn scrub(mark: &str) {
    for dir in cgroups(mark) {
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
        let _ = fs::write(dir.join("cgroup.freeze"), "0");
    }
    for pid in processes(mark) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        for dir in cgroups(mark) {
            let _ = fs::remove_dir(dir);
        }
        if cgroups(mark).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for target in mounts.lines().rev().filter_map(|l| l.split(' ').nth(4)) {
        if target.contains(mark) {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Mount options of the host's cgroup2, for a further mount of it. They belong to the hierarchy: a mount without them
/// would clear them on the host.
pub fn cgroup2_options() -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts.lines().map(|l| l.split(' ')).find_map(|mut l| {
        let of_cgroup2 = l.nth(2) == Some("cgroup2");
        l.next().filter(|_| of_cgroup2)
    });
    let of_the_hierarchy = |option: &&str| {
        !matches!(*option, "rw" | "ro" | "relatime" | "noatime" | "nosuid" | "nodev" | "noexec")
    };
    let options = line.unwrap_or_default().split(',').filter(of_the_hierarchy);
    options.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_the_host_marks_no_process() {
        let host =
            "27 1 254:0 / / rw - ext4 /dev/vda rw\n42 27 0:56 / /tmp/mark/x rw - tmpfs shm rw\n";
        assert!(!has_root(host, "mark"));
        assert!(has_root("40 39 254:0 /tmp/mark/rootfs / rw - ext4 /dev/vda rw\n", "mark"));
    }
}
