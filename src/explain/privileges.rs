//! Findings on the user of the container's program, and its privileges.

use oci_spec::runtime::LinuxIdMapping;

use super::{Finding, Grade, Subject, add};
use crate::spec::defaults;

/// Reports the user of the program, in the container and on the host.
pub(super) fn user(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "user", grade, text);
    let uid = subject.spec.process().as_ref().map_or(0, |process| process.user().uid());
    let user = if uid == 0 { "root".to_owned() } else { format!("user {uid}") };
    if subject.facts.rootless {
        return say(
            Grade::Tight,
            format!("runs as {user}, with only the caller's privileges on the host"),
        );
    }
    if subject.grant.userns.is_some() {
        return say(
            Grade::Tight,
            format!("runs as {user}, mapped to host IDs that no other container has"),
        );
    }
    let maps = subject.spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_deref());
    match (maps.and_then(|maps| on_the_host(maps, uid)), uid) {
        (Some(0), _) => {
            say(Grade::Loose, format!("runs as {user}, which its user namespace maps to host root"))
        }
        (Some(host), _) => {
            say(Grade::Tight, format!("runs as {user}, which is uid {host} on the host"))
        }
        (None, 0) => say(
            Grade::Usual,
            "runs as root, which is also root on the host, confined only by the following"
                .to_owned(),
        ),
        (None, _) => say(Grade::Tight, format!("runs as {user}, also on the host")),
    }
}

fn on_the_host(maps: &[LinuxIdMapping], uid: u32) -> Option<u32> {
    let offset = |map: &LinuxIdMapping| uid.checked_sub(map.container_id()).zip(Some(*map));
    let (offset, map) = maps.iter().filter_map(offset).find(|(n, map)| *n < map.size())?;
    map.host_id().checked_add(offset)
}

/// Reports no_new_privs.
pub(super) fn no_new_privileges(subject: &Subject, findings: &mut Vec<Finding>) {
    let process = subject.spec.process().as_ref();
    let set = process.and_then(|process| process.no_new_privileges()).unwrap_or(false)
        || subject.grant.landlock.is_some();
    let (grade, text) = match set {
        true => (Grade::Tight, "no program gains privileges by being executed (no_new_privs)"),
        false => (Grade::Usual, "set-user-id programs of its image may raise its privileges"),
    };
    add(findings, "privileges", grade, text);
}

/// Capabilities beyond the default ones, and what each allows. Those that give the power of root on the host are
/// `Open`.
const CAPABILITIES: [(&str, Grade, &str); 27] = [
    ("AUDIT_CONTROL", Grade::Loose, "change the host's audit rules"),
    ("AUDIT_READ", Grade::Loose, "read the host's audit log"),
    ("BLOCK_SUSPEND", Grade::Loose, "keep the host from suspending"),
    ("BPF", Grade::Open, "load programs into the kernel"),
    ("CHECKPOINT_RESTORE", Grade::Loose, "open files of other processes by /proc/PID/map_files"),
    ("DAC_READ_SEARCH", Grade::Open, "open any file of a file system that it has a mount of"),
    ("IPC_LOCK", Grade::Loose, "lock memory without limit"),
    ("IPC_OWNER", Grade::Loose, "use shared memory of any user"),
    ("LEASE", Grade::Loose, "take leases on other users' files"),
    ("LINUX_IMMUTABLE", Grade::Loose, "make files that cannot be changed or removed"),
    ("MAC_ADMIN", Grade::Open, "change the policy of the host's security module"),
    ("MAC_OVERRIDE", Grade::Open, "bypass the policy of the host's security module"),
    ("NET_ADMIN", Grade::Loose, "configure interfaces, routes and firewalls of its network"),
    ("NET_BROADCAST", Grade::Loose, "broadcast and multicast"),
    ("PERFMON", Grade::Open, "trace the whole kernel, including its memory"),
    ("SYSLOG", Grade::Loose, "read the kernel's log and its addresses"),
    ("SYS_ADMIN", Grade::Open, "mount, enter namespaces and administer most of the kernel"),
    ("SYS_BOOT", Grade::Open, "reboot the host, or load another kernel"),
    ("SYS_MODULE", Grade::Open, "load modules into the kernel"),
    ("SYS_NICE", Grade::Loose, "take CPU time from all other processes"),
    ("SYS_PACCT", Grade::Loose, "turn process accounting on and off"),
    ("SYS_PTRACE", Grade::Loose, "read and change the memory of every process that it sees"),
    ("SYS_RAWIO", Grade::Open, "access I/O ports, memory and disks of the host directly"),
    ("SYS_RESOURCE", Grade::Loose, "exceed quotas and limits"),
    ("SYS_TIME", Grade::Loose, "set the host's clock"),
    ("SYS_TTY_CONFIG", Grade::Loose, "configure and hang up terminals"),
    ("WAKE_ALARM", Grade::Loose, "wake the host"),
];

/// Reports capabilities.
pub(super) fn capabilities(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "capabilities", grade, text);
    let held = subject.capabilities();
    let usual = |name: &&String| defaults::CAPABILITIES.contains(&name.as_str());
    let of_default = held.iter().filter(usual).count();
    match of_default {
        0 if held.is_empty() => say(Grade::Tight, "none".to_owned()),
        0 => {}
        n if n < defaults::CAPABILITIES.len() => {
            say(Grade::Tight, format!("{n} of the {} usual ones", defaults::CAPABILITIES.len()))
        }
        n => say(Grade::Usual, format!("the {n} usual ones")),
    }
    for name in held.iter().filter(|name| !usual(name)) {
        let known = CAPABILITIES.iter().find(|(known, ..)| known == name);
        let (grade, what) =
            known.map_or((Grade::Loose, "unknown"), |(_, grade, what)| (*grade, what));
        let within = if subject.mapped { ", in its user namespace" } else { "" };
        say(subject.if_root(grade), format!("CAP_{name}: may {what}{within}"));
    }
}
