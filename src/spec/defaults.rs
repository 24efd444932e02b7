//! Defaults of a container without a config.json (`run --rootfs`): capabilities, masked paths and the seccomp profile.
//!
//! The profile is a list of allowed system calls, which allows nothing that Docker's default profile denies
//! (`docs/decisions/0023-default-profile-allows-by-name.md`). A system call that is newer than the list gets ENOSYS, on
//! which C libraries fall back.

use std::fs;
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

use crate::error::{Error, Result};

/// Capabilities that engines grant by default.
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

/// Masked paths in addition to those of every default config. /proc/interrupts and thermal_throttle reveal the activity
/// of other containers (GHSA-6fw5-f8r9-fgfm).
pub const MASKED: [&str; 2] = ["/proc/interrupts", "/sys/devices/virtual/powercap"];

/// Returns the `thermal_throttle` directories in `cpus`, which is /sys/devices/system/cpu. Only some physical
/// processors have them.
pub fn thermal_throttles(cpus: &Path) -> Vec<String> {
    let is_cpu = |name: &str| {
        let digits = name.strip_prefix("cpu").unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let paths =
        names.filter(|name| is_cpu(name)).map(|name| cpus.join(name).join("thermal_throttle"));
    let mut found: Vec<_> = paths
        .filter(|path| path.exists())
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect();
    found.sort_unstable();
    found
}

/// System calls that are allowed with any capabilities: names of all architectures, because unknown ones are ignored.
/// `socketcall` is absent: see [`profile`].
const ALLOWED: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset \
    chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range \
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername \
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid \
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid \
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
    ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open \
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 \
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 \
    restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount \
    statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times \
    tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev \
    arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush modify_ldt \
    riscv_flush_icache set_tls sync_file_range2";

/// System calls that are allowed if the container has one of the capabilities.
const BY_CAPABILITY: [(&[Capability], &str); 14] = [
    (&[Capability::DacReadSearch], "open_by_handle_at"),
    (
        &[Capability::SysAdmin],
        "clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree quotactl quotactl_fd setdomainname sethostname setns umount umount2 unshare",
    ),
    (&[Capability::SysAdmin, Capability::Bpf], "bpf"),
    (&[Capability::SysAdmin, Capability::Perfmon], "perf_event_open"),
    (&[Capability::SysAdmin, Capability::Syslog], "syslog"),
    (&[Capability::SysBoot], "reboot"),
    (&[Capability::SysChroot], "chroot"),
    (&[Capability::SysModule], "delete_module finit_module init_module"),
    (&[Capability::SysPacct], "acct"),
    (&[Capability::SysPtrace], "kcmp pidfd_getfd process_madvise"),
    (&[Capability::SysRawio], "ioperm iopl"),
    (&[Capability::SysTime], "clock_settime clock_settime64 settimeofday stime"),
    (&[Capability::SysNice], "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (&[Capability::SysTtyConfig], "vhangup"),
];

/// Flags of clone(2) that create a namespace.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Execution domains of personality(2): Linux, 32 bits, both with UNAME26, and the value that only queries the domain.
/// ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC are not allowed.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_ALG: u64 = libc::AF_ALG as u64;
const AF_VSOCK: u64 = libc::AF_VSOCK as u64;
/// Highest address family of Linux: AF_MCTP.
const AF_LAST: u64 = 45;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchAarch64, Arch::ScmpArchArm];
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchRiscv64];

/// Returns the profile of a container with these capabilities.
///
/// AF_ALG (CVE-2026-31431) and AF_VSOCK are denied in socket(2). A filter cannot see the family in i386's `socketcall`,
/// so `socketcall` is denied completely. Other C libraries then use socket(2), but glibc for i386 does not.
///
/// Families above AF_VSOCK are listed one by one. The kernel uses 32 bits of the argument, but "greater than" compares
/// 64, so 2^32 + AF_ALG would pass.
///
/// # Errors
///
/// oci-spec's builder rejects a value.
pub fn profile(held: &Capabilities) -> Result<LinuxSeccomp> {
    build(held).map_err(|e| Error::config(format!("the default seccomp profile: {e}")))
}

fn build(held: &Capabilities) -> std::result::Result<LinuxSeccomp, OciSpecError> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpLt, ScmpCmpMaskedEq};
    let holds = |needed: &[Capability]| needed.iter().any(|one| held.contains(one));
    let names = |list: &str| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut allowed = names(ALLOWED);
    for (needed, list) in BY_CAPABILITY {
        if holds(needed) {
            allowed.extend(names(list));
        }
    }
    let mut rules = vec![
        allow(allowed).build()?,
        refuse("socketcall").build()?,
        one("socket", argument(ScmpCmpLt, AF_ALG)?)?,
        one("socket", argument(ScmpCmpEq, AF_ALG + 1)?)?,
    ];
    for family in AF_VSOCK + 1..=AF_LAST {
        rules.push(one("socket", argument(ScmpCmpEq, family)?)?);
    }
    for domain in PERSONALITIES {
        rules.push(one("personality", argument(ScmpCmpEq, domain)?)?);
    }
    if !holds(&[Capability::SysAdmin]) {
        rules.push(one("clone", argument(ScmpCmpMaskedEq, NEW_NAMESPACES)?)?);
        // A filter cannot read the flags of clone3. C libraries then use clone.
        rules.push(refuse("clone3").build()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(ARCHITECTURES.to_vec())
        .syscalls(rules)
        .build()
}

fn allow(names: Vec<String>) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow)
}

/// Returns a rule that denies a system call with ENOSYS, as if the kernel did not have it.
fn refuse(name: &str) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::ENOSYS as u32)
}

fn one(name: &str, condition: LinuxSeccompArg) -> std::result::Result<LinuxSyscall, OciSpecError> {
    allow(vec![name.to_owned()]).args(vec![condition]).build()
}

/// Returns a condition on the first argument. With the masked operator, none of the bits may be set.
fn argument(
    op: LinuxSeccompOperator,
    value: u64,
) -> std::result::Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(0_usize).value(value).value_two(0_u64).op(op).build()
}

/// Returns all capabilities that this build knows.
pub fn every_capability() -> Capabilities {
    caps::all()
        .iter()
        .filter_map(|one| serde_json::from_value(one.to_string().into()).ok())
        .collect()
}
