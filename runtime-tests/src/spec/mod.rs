//! config.json files like those that callers generate, written from the specification, not copied. Each is complete
//! for a bundle with `rootfs/`, except for `args`.

pub mod seccomp;

use std::path::Path;

use serde_json::{Value, json};

use crate::view::View;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities that containerd and Docker leave by default.
pub const FOURTEEN: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Bind mount of a test.
pub fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = std::iter::once("rbind").chain(options.iter().copied()).collect();
    mount(destination, "bind", source.to_str().expect("utf-8"), &options)
}

fn devpts() -> Value {
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    mount("/dev/pts", "devpts", "devpts", &options)
}

fn tmpfs_dev(first: &[&str]) -> Value {
    let options: Vec<&str> =
        first.iter().chain(&["strictatime", "mode=755", "size=65536k"]).copied().collect();
    mount("/dev", "tmpfs", "tmpfs", &options)
}

const INERT: [&str; 3] = ["nosuid", "noexec", "nodev"];

fn inert(more: &[&'static str]) -> Vec<&'static str> {
    INERT.iter().chain(more).copied().collect()
}

fn namespaces(view: View, kinds: &[&str]) -> Vec<Value> {
    let private_cgroup = view.is_v2().then_some(&"cgroup");
    kinds.iter().chain(private_cgroup).map(|kind| json!({"type": kind})).collect()
}

fn capabilities(names: &[&str]) -> Value {
    json!({"bounding": names, "effective": names, "permitted": names})
}

/// Config like that of `runc spec`, without a terminal.
pub fn runc(view: View) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": capabilities(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            tmpfs_dev(&["nosuid"]),
            devpts(),
            mount("/dev/shm", "tmpfs", "shm", &inert(&["mode=1777", "size=65536k"])),
            mount("/dev/mqueue", "mqueue", "mqueue", &INERT),
            mount("/sys", "sysfs", "sysfs", &inert(&["ro"])),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &inert(&["relatime", "ro"])),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces(view, &["pid", "network", "ipc", "uts", "mount"]),
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    })
}

/// Config like that of containerd's `ctr run`.
pub fn containerd(view: View) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["sh"],
            "env": [PATH],
            "cwd": "/",
            "capabilities": capabilities(&FOURTEEN),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "proc", &INERT),
            tmpfs_dev(&["nosuid"]),
            devpts(),
            mount("/dev/shm", "tmpfs", "shm", &inert(&["mode=1777", "size=65536k"])),
            mount("/dev/mqueue", "mqueue", "mqueue", &INERT),
            mount("/sys", "sysfs", "sysfs", &inert(&["ro"])),
            mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &inert(&["relatime", "ro"])),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces(view, &["pid", "ipc", "uts", "mount", "network"]),
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    })
}

/// Config like that of `docker run`. `files` contains `hosts`, `hostname` and `resolv.conf`, as the daemon writes
/// them.
pub fn docker(view: View, files: &Path) -> Value {
    let etc = |name: &str| bind(&files.join(name), &format!("/etc/{name}"), &["rprivate"]);
    let open = |major: i64, minor: i64| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let mut masked = MASKED.to_vec();
    masked.extend(["/proc/interrupts", "/sys/devices/virtual/powercap"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 1, 2, 3, 4, 6, 10, 11, 20, 26, 27]},
            "args": ["sh"],
            "env": [PATH, "HOSTNAME=0123456789ab"],
            "cwd": "/",
            "capabilities": capabilities(&FOURTEEN),
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs"},
        "hostname": "0123456789ab",
        "mounts": [
            mount("/proc", "proc", "proc", &INERT),
            tmpfs_dev(&["nosuid"]),
            devpts(),
            mount("/sys", "sysfs", "sysfs", &inert(&["ro"])),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &INERT),
            mount("/dev/shm", "tmpfs", "shm", &inert(&["mode=1777", "size=67108864"])),
            etc("resolv.conf"),
            etc("hostname"),
            etc("hosts"),
        ],
        "linux": {
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            },
            "resources": {
                "devices": [
                    {"allow": false, "access": "rwm"},
                    open(1, 5),
                    open(1, 3),
                    open(1, 9),
                    open(1, 8),
                    open(5, 0),
                    open(5, 1),
                    {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
                ],
                "memory": {},
                "cpu": {"shares": 0},
                "blockIO": {"weight": 0},
            },
            "namespaces": namespaces(view, &["mount", "network", "uts", "pid", "ipc"]),
            "seccomp": seccomp::allow_list(),
            "maskedPaths": masked,
            "readonlyPaths": READONLY,
        },
    })
}

/// Config like that of `podman run`.
pub fn podman(view: View, files: &Path) -> Value {
    let file = |name: &str, to: &str| bind(&files.join(name), to, &["rprivate"]);
    let eleven: Vec<&str> = FOURTEEN
        .into_iter()
        .filter(|cap| !["CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"].contains(cap))
        .collect();
    let mut masked = MASKED.to_vec();
    masked.extend(["/sys/fs/selinux", "/sys/dev/block", "/sys/devices/virtual/powercap"]);
    let readonly: Vec<&str> = READONLY.into_iter().chain(["/proc/asound"]).collect();
    let pids = match view.controls("pids") {
        true => json!({"limit": 2048}),
        false => Value::Null,
    };
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 18},
            "args": ["sh"],
            "env": [PATH, "container=podman", "HOME=/root", "HOSTNAME=0123456789ab"],
            "cwd": "/",
            "capabilities": capabilities(&eleven),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096},
                {"type": "RLIMIT_NPROC", "hard": 4096, "soft": 4096},
            ],
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs"},
        "hostname": "0123456789ab",
        "mounts": [
            mount("/proc", "proc", "proc", &INERT),
            tmpfs_dev(&["nosuid", "noexec"]),
            mount("/sys", "sysfs", "sysfs", &inert(&["ro"])),
            devpts(),
            mount("/dev/mqueue", "mqueue", "mqueue", &INERT),
            file("resolv.conf", "/etc/resolv.conf"),
            file("hosts", "/etc/hosts"),
            file("shm", "/dev/shm"),
            file("containerenv", "/run/.containerenv"),
            file("hostname", "/etc/hostname"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &inert(&["rprivate", "relatime", "ro"])),
        ],
        "annotations": {
            "io.container.manager": "libpod",
            "org.opencontainers.image.stopSignal": "15",
        },
        "linux": {
            "sysctl": {"net.ipv4.ping_group_range": "0 0"},
            "resources": {"pids": pids, "devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces(view, &["pid", "network", "ipc", "uts", "mount"]),
            "seccomp": seccomp::allow_list(),
            "maskedPaths": masked,
            "readonlyPaths": readonly,
        },
    })
}
