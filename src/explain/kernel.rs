//! Findings on what the container reaches of the kernel.

use std::path::PathBuf;

use super::{Finding, Grade, Subject, add};
use crate::error::Result;
use crate::landlock;
use crate::seccomp::coverage::{self, Verdict};
use crate::sys::Errno;

/// System calls that known escapes have used, and that programs seldom need.
const NOTABLE: [&str; 22] = [
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "fsopen",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_vm_writev",
    "ptrace",
    "setns",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// Those of [`NOTABLE`] that engines allow: ptrace and its like, since they obey no_new_privs and Yama.
const ENGINES_ALLOW: [&str; 2] = ["process_vm_writev", "ptrace"];

/// Reports the seccomp profile.
pub(super) fn seccomp(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "seccomp", grade, text);
    let profile = subject.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let Some(profile) = profile else {
        return say(Grade::Loose, "no profile: every system call is allowed".to_owned());
    };
    let coverage = coverage::of(profile);
    let count = |verdict| coverage.values().filter(|v| **v == verdict).count();
    let refused = count(Verdict::Refused);
    let partly = count(Verdict::ByArguments);
    let all = coverage.len();
    let allowed: Vec<_> =
        NOTABLE.into_iter().filter(|name| coverage.get(name) == Some(&Verdict::Allowed)).collect();
    let unusual = allowed.iter().any(|name| !ENGINES_ALLOW.contains(name));
    let grade = if unusual || refused == 0 { Grade::Loose } else { Grade::Usual };
    say(
        if refused == 0 { Grade::Loose } else { Grade::Usual },
        format!("{refused} of {all} system calls are refused, {partly} by their arguments"),
    );
    if !allowed.is_empty() {
        say(
            grade,
            format!("allowed system calls that known escapes have used: {}", allowed.join(", ")),
        );
    }
}

/// Files of procfs and sysfs that show or change the host.
const HIDDEN: [&str; 6] =
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi", "/sys/firmware"];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Reports files of /proc and /sys that are neither masked nor read-only.
pub(super) fn proc_and_sys(subject: &Subject, findings: &mut Vec<Finding>) {
    let Some(linux) = subject.spec.linux().as_ref() else { return };
    let missing = |wanted: &[&str], lists: &[&Option<Vec<String>>]| {
        let listed = |path: &&&str| lists.iter().copied().flatten().flatten().any(|l| l == *path);
        wanted.iter().filter(|path| !listed(path)).copied().collect::<Vec<_>>().join(", ")
    };
    let visible = missing(&HIDDEN, &[linux.masked_paths()]);
    let writable = missing(&READ_ONLY, &[linux.readonly_paths(), linux.masked_paths()]);
    let mut say = |grade, text: String| add(findings, "kernel files", grade, text);
    if !visible.is_empty() {
        say(Grade::Loose, format!("not masked: {visible}"));
    }
    if !writable.is_empty() {
        say(subject.if_root(Grade::Open), format!("writable: {writable}"));
    }
    if visible.is_empty() && writable.is_empty() {
        say(Grade::Usual, "files that show or change the host are masked or read-only".to_owned());
    }
}

/// Reports sysctls.
pub(super) fn sysctls(subject: &Subject, findings: &mut Vec<Finding>) {
    let sysctls = subject.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut texts: Vec<_> = sysctls.iter().flat_map(|s| s.iter()).collect();
    texts.sort_unstable();
    for (name, value) in texts {
        let text = format!("{name} = {value:?}, in the container's namespaces");
        add(findings, "sysctls", Grade::Usual, text);
    }
}

/// Reports AppArmor profile and SELinux label.
pub(super) fn security_modules(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "security module", grade, text);
    let Some(process) = subject.spec.process() else { return };
    let given = |label: &Option<String>| label.clone().filter(|text| !text.is_empty());
    let (profile, label) = (given(process.apparmor_profile()), given(process.selinux_label()));
    match &profile {
        Some(name) if name == "unconfined" => {
            say(Grade::Loose, "no AppArmor profile confines it".to_owned());
        }
        Some(name) => say(Grade::Usual, format!("the AppArmor profile {name} confines it")),
        None if subject.facts.apparmor => {
            say(
                Grade::Loose,
                "no AppArmor profile confines it, although the host has AppArmor".to_owned(),
            );
        }
        None => {}
    }
    match &label {
        Some(label) if label.contains(":spc_t:") => {
            say(Grade::Loose, format!("the SELinux label {label} does not confine it"));
        }
        Some(label) => say(Grade::Usual, format!("the SELinux label {label} confines it")),
        None if subject.facts.selinux => {
            say(
                Grade::Loose,
                "no SELinux label confines it, although the host has SELinux".to_owned(),
            );
        }
        None => {}
    }
}

/// Reports the Landlock ruleset.
pub(super) fn landlock(subject: &Subject, findings: &mut Vec<Finding>) -> Result<()> {
    let Some(text) = subject.grant.landlock.as_deref() else { return Ok(()) };
    let plan = landlock::plan::plan(text, subject.facts.landlock.ok_or(Errno::EOPNOTSUPP))?;
    let mut say = |grade, text: String| add(findings, "landlock", grade, text);
    if let Some(ruleset) = plan.ruleset {
        say(Grade::Tight, format!("restricts {}", ruleset.restricts()));
    }
    if let Some(warning) = plan.warning {
        say(Grade::Usual, warning);
    }
    Ok(())
}

/// Reports limits of memory and processes, the out-of-memory score, and the cgroup.
pub(super) fn limits(subject: &Subject, findings: &mut Vec<Finding>) {
    let mut say = |grade, text: String| add(findings, "limits", grade, text);
    let resources = subject.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let positive = |limit: Option<i64>| limit.filter(|limit| *limit > 0);
    let memory = resources.and_then(|r| r.memory().as_ref()).and_then(|m| m.limit());
    match positive(memory) {
        Some(limit) => say(Grade::Tight, format!("memory: {limit} bytes")),
        None => {
            say(Grade::Usual, "memory: no limit: it can use all of the host's memory".to_owned())
        }
    }
    match positive(resources.and_then(|r| r.pids().as_ref()).map(|pids| pids.limit())) {
        Some(limit) => say(Grade::Tight, format!("processes: {limit}")),
        None => say(
            Grade::Usual,
            "processes: no limit: it can use all of the host's process IDs".to_owned(),
        ),
    }
    let process = subject.spec.process().as_ref();
    if let Some(score) = process.and_then(|p| p.oom_score_adj()).filter(|score| *score < 0) {
        let text = format!(
            "when memory runs out, the kernel kills it later than other processes ({score})"
        );
        say(Grade::Loose, text);
    }
    let rooted: Option<&PathBuf> =
        subject.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    if rooted.is_some_and(|path| path.as_os_str() == "/") {
        say(Grade::Loose, "it is in the root of the cgroup tree, which has no limits".to_owned());
    }
}
