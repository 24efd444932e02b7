//! Reads facts about a process from /proc.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, OsContext, Result};
use crate::id::HostPid;

/// Returns true if this process is in a user namespace other than the initial one.
///
/// The initial user namespace has a fixed inode number (PROC_USER_INIT_INO) since Linux 3.8. Its mappings do not identify it,
/// because another namespace may be mapped one to one.
pub fn in_user_namespace() -> bool {
    const INITIAL: u64 = 0xEFFF_FFFD;
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|m| m.ino() != INITIAL)
}

/// Lists the processes in the pid namespace of `pid` that the caller can access, sorted.
pub fn in_pid_namespace_of(pid: HostPid) -> Vec<HostPid> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(pid.0) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).as_ref() == Some(&wanted))
        .collect();
    pids.sort_unstable();
    pids.into_iter().map(HostPid).collect()
}

/// Returns the process that the thread `tid` belongs to. `None` if the thread does not exist.
pub fn of_thread(tid: HostPid) -> Option<HostPid> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    group.trim().parse().ok().map(HostPid)
}

/// Facts about a process. With the pid they identify it even after the pid is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// True for a zombie or an exiting process.
    pub dead: bool,
    /// True if the process has called execve(2).
    pub executed: bool,
    /// Parent process.
    pub parent: HostPid,
}

/// Reads the facts about process `pid`. `None` if it does not exist.
///
/// # Errors
///
/// If the file cannot be read although the process may exist, for example for lack of descriptors (EMFILE).
pub fn stat(pid: HostPid) -> Result<Option<Stat>> {
    let path = format!("/proc/{pid}/stat");
    // The line has about 300 bytes, which one read(2) returns.
    let mut line = [0; 1024];
    let length = match File::open(&path).and_then(|mut file| file.read(&mut line)) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        other => other.os("read", &path)?,
    };
    let stat = parse(&String::from_utf8_lossy(&line[..length]));
    stat.map(Some).ok_or_else(|| Error::system(format!("{path}: not a line of proc_pid_stat(5)")))
}

/// Flag `PF_FORKNOEXEC` of linux/sched.h: the process was forked and has not called execve(2).
const FORKED: u32 = 0x40;

/// Parses a line of proc_pid_stat(5).
///
/// The second field is the program's name in parentheses, which may contain parentheses and spaces. So fields are
/// counted from the last `)`.
fn parse(text: &str) -> Option<Stat> {
    let rest = text.get(text.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // State is field 3, the parent is field 4, the flags are field 9, the start time is field 22.
    let parent = HostPid(fields.next()?.parse().ok()?);
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        start,
        parent,
        dead: matches!(state, "Z" | "X" | "x"),
        executed: flags & FORKED == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names() {
        let tail = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        for name in ["sh", "a) Z 1 (b", ") S"] {
            let stat = parse(&format!("12 ({name}) S {tail}")).unwrap();
            assert_eq!(stat, Stat { start: 4711, dead: false, executed: true, parent: HostPid(1) });
        }
        assert!(parse(&format!("12 (sh) Z {tail}")).unwrap().dead);
        let forked = tail.replace("4194560", "4194624");
        assert!(!parse(&format!("12 (sh) S {forked}")).unwrap().executed);
        assert_eq!(parse("12 (sh"), None);
    }

    #[test]
    fn those_around_us() {
        let own = HostPid(std::process::id() as i32);
        assert!(in_pid_namespace_of(own).contains(&own));
        assert_eq!(in_pid_namespace_of(HostPid(0)), []);
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = HostPid(std::process::id() as i32);
        let thread = HostPid(nix::unistd::gettid().as_raw());
        assert_eq!((of_thread(thread), of_thread(own)), (Some(own), Some(own)));
        assert_eq!(of_thread(HostPid(0)), None);
    }

    #[test]
    fn our_own() {
        let own = stat(HostPid(std::process::id() as i32)).unwrap();
        let own = own.unwrap();
        assert!(!own.dead && own.start > 0 && own.executed);
    }
}
