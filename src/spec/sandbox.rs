//! What an everyday container may: the capabilities and the system calls.
//!
//! The profile names what is refused, not what is allowed: two kilobytes instead of twenty, and no new
//! system call breaks a program. What it refuses is what the kernel guards by a capability that such a
//! container does not have, or what has been a way out before.

use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp};
use serde_json::json;

use crate::error::{Error, Result};

/// Those that engines give by default.
pub const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Hidden besides what every container is not shown.
pub const MASKED: [&str; 2] = ["/proc/interrupts", "/sys/devices/virtual/powercap"];

/// Refused to whom does not hold the capability; without one, to everybody.
const REFUSED: [(Option<Capability>, &[&str]); 10] = [
    (
        None,
        &[
            "add_key",
            "keyctl",
            "request_key",
            "kexec_file_load",
            "kexec_load",
            "lookup_dcookie",
            "nfsservctl",
            "uselib",
            "userfaultfd",
            "ustat",
            "sysfs",
            "_sysctl",
            "vm86",
            "vm86old",
            "create_module",
            "get_kernel_syms",
            "query_module",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
        ],
    ),
    (
        Some(Capability::SysAdmin),
        &[
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setns",
            "swapoff",
            "swapon",
            "umount",
            "umount2",
            "unshare",
            "lsm_set_self_attr",
        ],
    ),
    (Some(Capability::SysModule), &["delete_module", "finit_module", "init_module"]),
    (Some(Capability::SysBoot), &["reboot"]),
    (Some(Capability::SysPacct), &["acct"]),
    (Some(Capability::SysRawio), &["ioperm", "iopl"]),
    (Some(Capability::Bpf), &["bpf"]),
    (Some(Capability::Perfmon), &["perf_event_open"]),
    (Some(Capability::DacReadSearch), &["open_by_handle_at"]),
    (Some(Capability::SysTime), &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
];

/// What makes a namespace: clone(2) has the flags in its first argument.
const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_RISCV64"];

/// For a container that holds these.
pub fn profile(held: &Capabilities) -> Result<LinuxSeccomp> {
    let refused = |needs: &Option<Capability>| needs.is_none_or(|needed| !held.contains(&needed));
    let names: Vec<_> = REFUSED
        .iter()
        .filter(|(needs, _)| refused(needs))
        .flat_map(|(_, names)| names.iter())
        .collect();
    let eperm = "SCMP_ACT_ERRNO";
    let mut rules = vec![json!({"names": names, "action": eperm, "errnoRet": libc::EPERM})];
    if refused(&Some(Capability::SysAdmin)) {
        rules.extend(NEW_NAMESPACES.map(|flag| {
            let set =
                json!({"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"});
            json!({"names": ["clone"], "action": eperm, "errnoRet": libc::EPERM, "args": [set]})
        }));
        // Its flags are out of a filter's reach: C libraries go back to clone.
        rules.push(json!({"names": ["clone3"], "action": eperm, "errnoRet": libc::ENOSYS}));
    }
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ARCHITECTURES,
        "syscalls": rules,
    }))
    .map_err(|e| Error::config(format!("the default seccomp profile: {e}")))
}

pub fn every_capability() -> Capabilities {
    caps::all()
        .iter()
        .filter_map(|one| serde_json::from_value(one.to_string().into()).ok())
        .collect()
}
