//! Findings on what the container shares with the host: namespaces, mounts, devices, hooks.

use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType as Kind, Mount};

use super::{Finding, Grade, Subject, add};

/// Namespaces whose sharing with the host is a finding, and its consequence.
const KINDS: [(Kind, &str, Grade, &str); 5] = [
    (Kind::Mount, "mount", Grade::Open, "it can change the host's mounts"),
    (
        Kind::Pid,
        "pid",
        Grade::Loose,
        "it sees the host's processes and can signal those of its user",
    ),
    (
        Kind::Network,
        "network",
        Grade::Loose,
        "it uses the host's addresses and ports, and reaches the host's abstract sockets",
    ),
    (Kind::Ipc, "ipc", Grade::Loose, "it can access the host's shared memory"),
    (Kind::Uts, "uts", Grade::Loose, "it sees the host's hostname"),
];

/// Reports namespaces that are shared with the host or joined.
pub(super) fn namespaces(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "namespaces", grade, text);
    let mut own = Vec::new();
    for (kind, name, grade, meaning) in KINDS {
        if subject.has(kind) {
            own.push(name);
        } else {
            let controls = kind == Kind::Pid && holds(subject, "SYS_PTRACE")
                || kind == Kind::Network && holds(subject, "NET_ADMIN");
            let grade = if controls { Grade::Open } else { grade };
            say(subject.if_root(grade), format!("{name}: shared with the host: {meaning}"));
        }
    }
    let more = [(Kind::User, "user"), (Kind::Cgroup, "cgroup"), (Kind::Time, "time")];
    own.extend(more.into_iter().filter(|(kind, _)| subject.has(*kind)).map(|(_, name)| name));
    if !own.is_empty() {
        let grade = if subject.has(Kind::User) { Grade::Tight } else { Grade::Usual };
        say(grade, format!("separate from the host: {}", own.join(", ")));
    }
    let list = subject.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    for namespace in list.unwrap_or_default() {
        let Some(path) = namespace.path().as_deref() else { continue };
        let hosts = path.starts_with("/proc/1") || path.starts_with("/proc/self");
        let (grade, whose) = if hosts {
            (Grade::Open, "joins the host's namespace")
        } else {
            (Grade::Usual, "joins the namespace")
        };
        let text = format!("{}: {whose} {}", namespace.typ(), path.display());
        say(subject.if_root(grade), text);
    }
}

fn holds(subject: &Subject, capability: &str) -> bool {
    subject.capabilities().iter().any(|name| name == capability)
}

/// Files that engines write for each container.
const ENGINES_OWN: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/shm", "/run/.containerenv"];

/// Host paths whose writers can become root of the host.
const VITAL: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
    "/usr", "/var", "/home",
];

/// Sockets of services that carry out requests as root.
const SOCKETS: [&str; 5] =
    ["docker.sock", "containerd.sock", "crio.sock", "podman.sock", "system_bus_socket"];

/// Reports mounts of host paths and kernel interfaces, the root's mode, and propagation.
pub(super) fn mounts(subject: &Subject, findings: &mut Vec<Finding>) {
    let read_only = subject.spec.root().as_ref().is_some_and(|r| r.readonly().unwrap_or(false));
    if subject.grant.layers.is_none() {
        let (grade, text) = match read_only {
            true => (Grade::Tight, "its root file system is read-only"),
            false => (Grade::Usual, "its root file system is writable"),
        };
        add(findings, "files", grade, text);
    }
    for mount in subject.spec.mounts().iter().flatten() {
        if let Some((grade, text)) = mounted(subject, mount) {
            add(findings, "files", grade, text);
        }
    }
    let propagation = subject.spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref());
    if propagation.is_some_and(|word| word.ends_with("shared")) {
        add(findings, "files", subject.if_root(Grade::Open), "its mounts propagate to the host");
    }
}

fn mounted(subject: &Subject, mount: &Mount) -> Option<(Grade, String)> {
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |words: &[&str]| options.iter().any(|option| words.contains(&option.as_str()));
    let read_only = has(&["ro", "rro"]);
    let to = mount.destination().display();
    let kind = mount.typ().as_deref().unwrap_or_default();
    if !has(&["bind", "rbind"]) {
        return match kind {
            "sysfs" if !read_only => Some((
                subject.if_root(Grade::Open),
                format!("{to}: the kernel's settings (sysfs) are writable"),
            )),
            "cgroup" | "cgroup2" if !read_only => {
                Some((Grade::Loose, format!("{to}: its cgroups are writable")))
            }
            "debugfs" | "tracefs" | "securityfs" | "configfs" | "efivarfs" => Some((
                subject.if_root(Grade::Open),
                format!("{to}: the kernel interface {kind} is mounted"),
            )),
            _ => None,
        };
    }
    if mount.destination().to_str().is_some_and(|path| ENGINES_OWN.contains(&path)) {
        return None;
    }
    let source = mount.source().as_deref().unwrap_or(Path::new("/"));
    let from = source.display();
    let name = source.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if SOCKETS.contains(&&*name) {
        let text = format!(
            "{to}: the socket {from}: a process that connects to it gains root privileges on the host"
        );
        return Some((Grade::Open, text));
    }
    let vital = source == Path::new("/") || VITAL.iter().any(|path| source == Path::new(path));
    let below =
        source.starts_with("/etc") || source.starts_with("/proc") || source.starts_with("/sys");
    let propagates =
        if has(&["shared", "rshared"]) { ", and mounts there propagate to the host" } else { "" };
    let (grade, access) = match (read_only, vital || below) {
        (false, true) => (subject.if_root(Grade::Open), "is writable"),
        (false, false) => (Grade::Loose, "is writable"),
        (true, true) => (Grade::Loose, "is readable"),
        (true, false) => (Grade::Usual, "is readable"),
    };
    let grade = if propagates.is_empty() { grade } else { grade.max(Grade::Loose) };
    Some((grade, format!("{to}: host path {from} {access}{propagates}")))
}

/// Major and minor numbers of the default devices (null, zero, full, random, urandom, tty, console, ptmx) and of
/// pseudoterminals.
const HARMLESS: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Reports devices beyond the default ones.
pub(super) fn devices(subject: &Subject, findings: &mut Vec<Finding>) {
    let linux = subject.spec.linux().as_ref();
    let rules = linux
        .and_then(|linux| linux.resources().as_ref())
        .and_then(|resources| resources.devices().as_deref())
        .unwrap_or_default();
    // A rule for all devices overrides those before it.
    let last_for_all = rules.iter().rposition(is_for_all);
    let before = findings.len();
    let mut say = |grade, text: String| add(findings, "devices", subject.if_root(grade), text);
    match last_for_all {
        Some(index) if rules[index].allow() => {
            say(
                Grade::Open,
                "every device of the host is accessible, including disks and memory".to_owned(),
            );
        }
        _ => {
            let after = last_for_all.map_or(0, |index| index + 1);
            for rule in rules[after..].iter().filter(|rule| rule.allow()) {
                if let Some((grade, text)) = allowed(rule) {
                    say(grade, text);
                }
            }
        }
    }
    for device in linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default() {
        let grade = if device.typ() == LinuxDeviceType::B { Grade::Open } else { Grade::Loose };
        let (path, major, minor) = (device.path().display(), device.major(), device.minor());
        if !is_harmless(major, Some(minor)) {
            say(grade, format!("{path}: device node {major}:{minor} of the host is created"));
        }
    }
    if findings.len() == before {
        add(findings, "devices", Grade::Usual, "only the default devices");
    }
}

fn is_for_all(rule: &LinuxDeviceCgroup) -> bool {
    let any_kind = matches!(rule.typ(), None | Some(LinuxDeviceType::A));
    let any_number = |number: Option<i64>| number.is_none_or(|n| n < 0);
    any_kind && any_number(rule.major()) && any_number(rule.minor())
}

fn is_harmless(major: i64, minor: Option<i64>) -> bool {
    HARMLESS.iter().any(|(m, n)| *m == major && (n.is_none() || *n == minor))
}

fn allowed(rule: &LinuxDeviceCgroup) -> Option<(Grade, String)> {
    let access = rule.access().as_deref().unwrap_or("rwm");
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let opens = access.contains('r') || access.contains('w');
    let block = rule.typ() != Some(LinuxDeviceType::C);
    // Creating a node is harmless if it cannot be opened.
    if !opens || (!block && is_harmless(rule.major().unwrap_or(-1), rule.minor())) {
        return None;
    }
    let memory = rule.major() == Some(1) && !block;
    let grade = if block || memory { Grade::Open } else { Grade::Loose };
    let kind = if block { "block" } else { "character" };
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    Some((grade, format!("{kind} device {major}:{minor} of the host ({access})")))
}

/// Reports hooks that run on the host.
pub(super) fn hooks(subject: &Subject, findings: &mut Vec<Finding>) {
    let Some(hooks) = subject.spec.hooks().as_ref() else { return };
    // The deprecated point: engines still use it.
    #[allow(deprecated)]
    let on_the_host =
        [hooks.prestart(), hooks.create_runtime(), hooks.poststart(), hooks.poststop()];
    for hook in on_the_host.into_iter().flatten().flatten() {
        let text =
            format!("{} runs on the host, with the caller's privileges", hook.path().display());
        add(findings, "hooks", Grade::Usual, text);
    }
}
