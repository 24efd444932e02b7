//! Names and numbers of system calls, from the kernel's tables up to Linux 7.0.
//!
//! Names that exist only on other architectures are listed too, so that a profile for many machines causes no warning.
//! `cargo run -p runtime-tests --bin syscalls -- src/seccomp/syscalls.rs` writes the rows.

use super::Arch;

/// Name of a system call and its number on each architecture, in the order of [`Arch`].
pub struct Syscall {
    pub name: &'static str,
    numbers: [u16; Arch::COUNT],
}

/// Number of a system call that an architecture does not have.
const NO: u16 = u16::MAX;

/// First number of 32-bit ARM's private calls, which a row stores with a small offset.
const ARM_PRIVATE: u16 = 0xf000;
const ARM_PRIVATE_BASE: u32 = 0x0f_0000;

impl Syscall {
    /// Returns the number that a filter sees as `nr`.
    pub fn number(&self, arch: Arch) -> Option<u32> {
        match self.numbers[arch as usize] {
            NO => None,
            n if n >= ARM_PRIVATE => Some(ARM_PRIVATE_BASE + u32::from(n - ARM_PRIVATE)),
            n => Some(arch.first_number() + u32::from(n)),
        }
    }
}

/// Finds system calls by name. It first looks after the last result, because most profiles are in alphabetical order.
#[derive(Default)]
pub struct Finder {
    next: usize,
}

impl Finder {
    #[cfg(test)]
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|s| s.name)
    }

    pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
        TABLE.iter().find(|s| s.number(arch) == Some(number)).map(|s| s.name)
    }

    /// Iterates over the names that the architecture has.
    pub fn native(arch: Arch) -> impl Iterator<Item = &'static str> {
        TABLE.iter().filter(move |s| s.number(arch).is_some()).map(|s| s.name)
    }

    pub fn find(&mut self, name: &str) -> Option<&'static Syscall> {
        let near = TABLE[self.next..].iter().take(8).position(|s| s.name == name);
        let index = match near {
            Some(offset) => self.next + offset,
            None => TABLE.binary_search_by(|s| s.name.cmp(name)).ok()?,
        };
        self.next = index + 1;
        Some(&TABLE[index])
    }
}

/// System call that i386 also reaches through `socketcall` or `ipc`. The value of the first argument stands for the
/// call.
#[derive(Debug, PartialEq, Eq)]
pub struct Multiplexed {
    pub number: u32,
    pub first_argument: u8,
}

impl Multiplexed {
    #[cfg(test)]
    pub const NUMBERS: [u32; 2] = [SOCKETCALL, IPC];

    pub fn find(name: &str) -> Option<Self> {
        let i = MULTIPLEXED.binary_search_by(|(n, ..)| (*n).cmp(name)).ok()?;
        let (_, number, first_argument) = MULTIPLEXED[i];
        Some(Self { number, first_argument })
    }
}

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

#[rustfmt::skip]
static MULTIPLEXED: [(&str, u32, u8); 32] = [
    ("accept", SOCKETCALL, 5), ("accept4", SOCKETCALL, 18), ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3), ("getpeername", SOCKETCALL, 7), ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15), ("listen", SOCKETCALL, 4), ("msgctl", IPC, 14),
    ("msgget", IPC, 13), ("msgrcv", IPC, 12), ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10), ("recvfrom", SOCKETCALL, 12), ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17), ("semctl", IPC, 3), ("semget", IPC, 2),
    ("semop", IPC, 1), ("semtimedop", IPC, 4), ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20), ("sendmsg", SOCKETCALL, 16), ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14), ("shmat", IPC, 21), ("shmctl", IPC, 24),
    ("shmdt", IPC, 22), ("shmget", IPC, 23), ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1), ("socketpair", SOCKETCALL, 8),
];

const fn s(name: &'static str, numbers: [u16; Arch::COUNT]) -> Syscall {
    Syscall { name, numbers }
}

/// System calls sorted by name. Columns: x86_64, i386, x32, aarch64, arm, riscv64.
static TABLE: [Syscall; 508] = [
    s("_llseek", [NO, 140, NO, NO, 140, NO]),
    s("_newselect", [NO, 142, NO, NO, 142, NO]),
    s("_sysctl", [156, 149, NO, NO, 149, NO]),
    s("accept", [43, NO, 43, 202, 285, 202]),
    s("accept4", [288, 364, 288, 242, 366, 242]),
    s("access", [21, 33, 21, NO, 33, NO]),
    s("acct", [163, 51, 163, 89, 51, 89]),
    s("add_key", [248, 286, 248, 217, 309, 217]),
    s("adjtimex", [159, 124, 159, 171, 124, 171]),
    s("afs_syscall", [183, 137, 183, NO, NO, NO]),
    s("alarm", [37, 27, 37, NO, NO, NO]),
    s("arch_prctl", [158, 384, 158, NO, NO, NO]),
    s("arm_fadvise64_64", [NO, NO, NO, NO, 270, NO]),
    s("arm_sync_file_range", [NO, NO, NO, NO, 341, NO]),
    s("atomic_barrier", [NO, NO, NO, NO, NO, NO]),
    s("atomic_cmpxchg_32", [NO, NO, NO, NO, NO, NO]),
    s("bdflush", [NO, 134, NO, NO, 134, NO]),
    s("bind", [49, 361, 49, 200, 282, 200]),
    s("bpf", [321, 357, 321, 280, 386, 280]),
    s("break", [NO, 17, NO, NO, NO, NO]),
    s("breakpoint", [NO, NO, NO, NO, 0xf001, NO]),
    s("brk", [12, 45, 12, 214, 45, 214]),
    s("cachectl", [NO, NO, NO, NO, NO, NO]),
    s("cacheflush", [NO, NO, NO, NO, 0xf002, NO]),
    s("cachestat", [451, 451, 451, 451, 451, 451]),
    s("capget", [125, 184, 125, 90, 184, 90]),
    s("capset", [126, 185, 126, 91, 185, 91]),
    s("chdir", [80, 12, 80, 49, 12, 49]),
    s("chmod", [90, 15, 90, NO, 15, NO]),
    s("chown", [92, 182, 92, NO, 182, NO]),
    s("chown32", [NO, 212, NO, NO, 212, NO]),
    s("chroot", [161, 61, 161, 51, 61, 51]),
    s("clock_adjtime", [305, 343, 305, 266, 372, 266]),
    s("clock_adjtime64", [NO, 405, NO, NO, 405, NO]),
    s("clock_getres", [229, 266, 229, 114, 264, 114]),
    s("clock_getres_time64", [NO, 406, NO, NO, 406, NO]),
    s("clock_gettime", [228, 265, 228, 113, 263, 113]),
    s("clock_gettime64", [NO, 403, NO, NO, 403, NO]),
    s("clock_nanosleep", [230, 267, 230, 115, 265, 115]),
    s("clock_nanosleep_time64", [NO, 407, NO, NO, 407, NO]),
    s("clock_settime", [227, 264, 227, 112, 262, 112]),
    s("clock_settime64", [NO, 404, NO, NO, 404, NO]),
    s("clone", [56, 120, 56, 220, 120, 220]),
    s("clone3", [435, 435, 435, 435, 435, 435]),
    s("close", [3, 6, 3, 57, 6, 57]),
    s("close_range", [436, 436, 436, 436, 436, 436]),
    s("connect", [42, 362, 42, 203, 283, 203]),
    s("copy_file_range", [326, 377, 326, 285, 391, 285]),
    s("creat", [85, 8, 85, NO, 8, NO]),
    s("create_module", [174, 127, NO, NO, NO, NO]),
    s("delete_module", [176, 129, 176, 106, 129, 106]),
    s("dup", [32, 41, 32, 23, 41, 23]),
    s("dup2", [33, 63, 33, NO, 63, NO]),
    s("dup3", [292, 330, 292, 24, 358, 24]),
    s("epoll_create", [213, 254, 213, NO, 250, NO]),
    s("epoll_create1", [291, 329, 291, 20, 357, 20]),
    s("epoll_ctl", [233, 255, 233, 21, 251, 21]),
    s("epoll_ctl_old", [214, NO, NO, NO, NO, NO]),
    s("epoll_pwait", [281, 319, 281, 22, 346, 22]),
    s("epoll_pwait2", [441, 441, 441, 441, 441, 441]),
    s("epoll_wait", [232, 256, 232, NO, 252, NO]),
    s("epoll_wait_old", [215, NO, NO, NO, NO, NO]),
    s("eventfd", [284, 323, 284, NO, 351, NO]),
    s("eventfd2", [290, 328, 290, 19, 356, 19]),
    s("execve", [59, 11, 520, 221, 11, 221]),
    s("execveat", [322, 358, 545, 281, 387, 281]),
    s("exit", [60, 1, 60, 93, 1, 93]),
    s("exit_group", [231, 252, 231, 94, 248, 94]),
    s("faccessat", [269, 307, 269, 48, 334, 48]),
    s("faccessat2", [439, 439, 439, 439, 439, 439]),
    s("fadvise64", [221, 250, 221, 223, NO, 223]),
    s("fadvise64_64", [NO, 272, NO, NO, NO, NO]),
    s("fallocate", [285, 324, 285, 47, 352, 47]),
    s("fanotify_init", [300, 338, 300, 262, 367, 262]),
    s("fanotify_mark", [301, 339, 301, 263, 368, 263]),
    s("fchdir", [81, 133, 81, 50, 133, 50]),
    s("fchmod", [91, 94, 91, 52, 94, 52]),
    s("fchmodat", [268, 306, 268, 53, 333, 53]),
    s("fchmodat2", [452, 452, 452, 452, 452, 452]),
    s("fchown", [93, 95, 93, 55, 95, 55]),
    s("fchown32", [NO, 207, NO, NO, 207, NO]),
    s("fchownat", [260, 298, 260, 54, 325, 54]),
    s("fcntl", [72, 55, 72, 25, 55, 25]),
    s("fcntl64", [NO, 221, NO, NO, 221, NO]),
    s("fdatasync", [75, 148, 75, 83, 148, 83]),
    s("fgetxattr", [193, 231, 193, 10, 231, 10]),
    s("file_getattr", [468, 468, 468, 468, 468, 468]),
    s("file_setattr", [469, 469, 469, 469, 469, 469]),
    s("finit_module", [313, 350, 313, 273, 379, 273]),
    s("flistxattr", [196, 234, 196, 13, 234, 13]),
    s("flock", [73, 143, 73, 32, 143, 32]),
    s("fork", [57, 2, 57, NO, 2, NO]),
    s("fremovexattr", [199, 237, 199, 16, 237, 16]),
    s("fsconfig", [431, 431, 431, 431, 431, 431]),
    s("fsetxattr", [190, 228, 190, 7, 228, 7]),
    s("fsmount", [432, 432, 432, 432, 432, 432]),
    s("fsopen", [430, 430, 430, 430, 430, 430]),
    s("fspick", [433, 433, 433, 433, 433, 433]),
    s("fstat", [5, 108, 5, 80, 108, 80]),
    s("fstat64", [NO, 197, NO, NO, 197, NO]),
    s("fstatat64", [NO, 300, NO, NO, 327, NO]),
    s("fstatfs", [138, 100, 138, 44, 100, 44]),
    s("fstatfs64", [NO, 269, NO, NO, 267, NO]),
    s("fsync", [74, 118, 74, 82, 118, 82]),
    s("ftime", [NO, 35, NO, NO, NO, NO]),
    s("ftruncate", [77, 93, 77, 46, 93, 46]),
    s("ftruncate64", [NO, 194, NO, NO, 194, NO]),
    s("futex", [202, 240, 202, 98, 240, 98]),
    s("futex_requeue", [456, 456, 456, 456, 456, 456]),
    s("futex_time64", [NO, 422, NO, NO, 422, NO]),
    s("futex_wait", [455, 455, 455, 455, 455, 455]),
    s("futex_waitv", [449, 449, 449, 449, 449, 449]),
    s("futex_wake", [454, 454, 454, 454, 454, 454]),
    s("futimesat", [261, 299, 261, NO, 326, NO]),
    s("get_kernel_syms", [177, 130, NO, NO, NO, NO]),
    s("get_mempolicy", [239, 275, 239, 236, 320, 236]),
    s("get_robust_list", [274, 312, 531, 100, 339, 100]),
    s("get_thread_area", [211, 244, NO, NO, NO, NO]),
    s("get_tls", [NO, NO, NO, NO, 0xf006, NO]),
    s("getcpu", [309, 318, 309, 168, 345, 168]),
    s("getcwd", [79, 183, 79, 17, 183, 17]),
    s("getdents", [78, 141, 78, NO, 141, NO]),
    s("getdents64", [217, 220, 217, 61, 217, 61]),
    s("getegid", [108, 50, 108, 177, 50, 177]),
    s("getegid32", [NO, 202, NO, NO, 202, NO]),
    s("geteuid", [107, 49, 107, 175, 49, 175]),
    s("geteuid32", [NO, 201, NO, NO, 201, NO]),
    s("getgid", [104, 47, 104, 176, 47, 176]),
    s("getgid32", [NO, 200, NO, NO, 200, NO]),
    s("getgroups", [115, 80, 115, 158, 80, 158]),
    s("getgroups32", [NO, 205, NO, NO, 205, NO]),
    s("getitimer", [36, 105, 36, 102, 105, 102]),
    s("getpagesize", [NO, NO, NO, NO, NO, NO]),
    s("getpeername", [52, 368, 52, 205, 287, 205]),
    s("getpgid", [121, 132, 121, 155, 132, 155]),
    s("getpgrp", [111, 65, 111, NO, 65, NO]),
    s("getpid", [39, 20, 39, 172, 20, 172]),
    s("getpmsg", [181, 188, 181, NO, NO, NO]),
    s("getppid", [110, 64, 110, 173, 64, 173]),
    s("getpriority", [140, 96, 140, 141, 96, 141]),
    s("getrandom", [318, 355, 318, 278, 384, 278]),
    s("getresgid", [120, 171, 120, 150, 171, 150]),
    s("getresgid32", [NO, 211, NO, NO, 211, NO]),
    s("getresuid", [118, 165, 118, 148, 165, 148]),
    s("getresuid32", [NO, 209, NO, NO, 209, NO]),
    s("getrlimit", [97, 76, 97, 163, NO, 163]),
    s("getrusage", [98, 77, 98, 165, 77, 165]),
    s("getsid", [124, 147, 124, 156, 147, 156]),
    s("getsockname", [51, 367, 51, 204, 286, 204]),
    s("getsockopt", [55, 365, 542, 209, 295, 209]),
    s("gettid", [186, 224, 186, 178, 224, 178]),
    s("gettimeofday", [96, 78, 96, 169, 78, 169]),
    s("getuid", [102, 24, 102, 174, 24, 174]),
    s("getuid32", [NO, 199, NO, NO, 199, NO]),
    s("getxattr", [191, 229, 191, 8, 229, 8]),
    s("getxattrat", [464, 464, 464, 464, 464, 464]),
    s("gtty", [NO, 32, NO, NO, NO, NO]),
    s("idle", [NO, 112, NO, NO, NO, NO]),
    s("init_module", [175, 128, 175, 105, 128, 105]),
    s("inotify_add_watch", [254, 292, 254, 27, 317, 27]),
    s("inotify_init", [253, 291, 253, NO, 316, NO]),
    s("inotify_init1", [294, 332, 294, 26, 360, 26]),
    s("inotify_rm_watch", [255, 293, 255, 28, 318, 28]),
    s("io_cancel", [210, 249, 210, 3, 247, 3]),
    s("io_destroy", [207, 246, 207, 1, 244, 1]),
    s("io_getevents", [208, 247, 208, 4, 245, 4]),
    s("io_pgetevents", [333, 385, 333, 292, 399, 292]),
    s("io_pgetevents_time64", [NO, 416, NO, NO, 416, NO]),
    s("io_setup", [206, 245, 543, 0, 243, 0]),
    s("io_submit", [209, 248, 544, 2, 246, 2]),
    s("io_uring_enter", [426, 426, 426, 426, 426, 426]),
    s("io_uring_register", [427, 427, 427, 427, 427, 427]),
    s("io_uring_setup", [425, 425, 425, 425, 425, 425]),
    s("ioctl", [16, 54, 514, 29, 54, 29]),
    s("ioperm", [173, 101, 173, NO, NO, NO]),
    s("iopl", [172, 110, 172, NO, NO, NO]),
    s("ioprio_get", [252, 290, 252, 31, 315, 31]),
    s("ioprio_set", [251, 289, 251, 30, 314, 30]),
    s("ipc", [NO, 117, NO, NO, NO, NO]),
    s("kcmp", [312, 349, 312, 272, 378, 272]),
    s("kexec_file_load", [320, NO, 320, 294, 401, 294]),
    s("kexec_load", [246, 283, 528, 104, 347, 104]),
    s("keyctl", [250, 288, 250, 219, 311, 219]),
    s("kill", [62, 37, 62, 129, 37, 129]),
    s("landlock_add_rule", [445, 445, 445, 445, 445, 445]),
    s("landlock_create_ruleset", [444, 444, 444, 444, 444, 444]),
    s("landlock_restrict_self", [446, 446, 446, 446, 446, 446]),
    s("lchown", [94, 16, 94, NO, 16, NO]),
    s("lchown32", [NO, 198, NO, NO, 198, NO]),
    s("lgetxattr", [192, 230, 192, 9, 230, 9]),
    s("link", [86, 9, 86, NO, 9, NO]),
    s("linkat", [265, 303, 265, 37, 330, 37]),
    s("listen", [50, 363, 50, 201, 284, 201]),
    s("listmount", [458, 458, 458, 458, 458, 458]),
    s("listns", [470, 470, 470, 470, 470, 470]),
    s("listxattr", [194, 232, 194, 11, 232, 11]),
    s("listxattrat", [465, 465, 465, 465, 465, 465]),
    s("llistxattr", [195, 233, 195, 12, 233, 12]),
    s("lock", [NO, 53, NO, NO, NO, NO]),
    s("lookup_dcookie", [212, 253, 212, 18, 249, 18]),
    s("lremovexattr", [198, 236, 198, 15, 236, 15]),
    s("lseek", [8, 19, 8, 62, 19, 62]),
    s("lsetxattr", [189, 227, 189, 6, 227, 6]),
    s("lsm_get_self_attr", [459, 459, 459, 459, 459, 459]),
    s("lsm_list_modules", [461, 461, 461, 461, 461, 461]),
    s("lsm_set_self_attr", [460, 460, 460, 460, 460, 460]),
    s("lstat", [6, 107, 6, NO, 107, NO]),
    s("lstat64", [NO, 196, NO, NO, 196, NO]),
    s("madvise", [28, 219, 28, 233, 220, 233]),
    s("map_shadow_stack", [453, 453, 453, 453, 453, 453]),
    s("mbind", [237, 274, 237, 235, 319, 235]),
    s("membarrier", [324, 375, 324, 283, 389, 283]),
    s("memfd_create", [319, 356, 319, 279, 385, 279]),
    s("memfd_secret", [447, 447, 447, 447, NO, 447]),
    s("migrate_pages", [256, 294, 256, 238, 400, 238]),
    s("mincore", [27, 218, 27, 232, 219, 232]),
    s("mkdir", [83, 39, 83, NO, 39, NO]),
    s("mkdirat", [258, 296, 258, 34, 323, 34]),
    s("mknod", [133, 14, 133, NO, 14, NO]),
    s("mknodat", [259, 297, 259, 33, 324, 33]),
    s("mlock", [149, 150, 149, 228, 150, 228]),
    s("mlock2", [325, 376, 325, 284, 390, 284]),
    s("mlockall", [151, 152, 151, 230, 152, 230]),
    s("mmap", [9, 90, 9, 222, NO, 222]),
    s("mmap2", [NO, 192, NO, NO, 192, NO]),
    s("modify_ldt", [154, 123, 154, NO, NO, NO]),
    s("mount", [165, 21, 165, 40, 21, 40]),
    s("mount_setattr", [442, 442, 442, 442, 442, 442]),
    s("move_mount", [429, 429, 429, 429, 429, 429]),
    s("move_pages", [279, 317, 533, 239, 344, 239]),
    s("mprotect", [10, 125, 10, 226, 125, 226]),
    s("mpx", [NO, 56, NO, NO, NO, NO]),
    s("mq_getsetattr", [245, 282, 245, 185, 279, 185]),
    s("mq_notify", [244, 281, 527, 184, 278, 184]),
    s("mq_open", [240, 277, 240, 180, 274, 180]),
    s("mq_timedreceive", [243, 280, 243, 183, 277, 183]),
    s("mq_timedreceive_time64", [NO, 419, NO, NO, 419, NO]),
    s("mq_timedsend", [242, 279, 242, 182, 276, 182]),
    s("mq_timedsend_time64", [NO, 418, NO, NO, 418, NO]),
    s("mq_unlink", [241, 278, 241, 181, 275, 181]),
    s("mremap", [25, 163, 25, 216, 163, 216]),
    s("mseal", [462, 462, 462, 462, 462, 462]),
    s("msgctl", [71, 402, 71, 187, 304, 187]),
    s("msgget", [68, 399, 68, 186, 303, 186]),
    s("msgrcv", [70, 401, 70, 188, 302, 188]),
    s("msgsnd", [69, 400, 69, 189, 301, 189]),
    s("msync", [26, 144, 26, 227, 144, 227]),
    s("multiplexer", [NO, NO, NO, NO, NO, NO]),
    s("munlock", [150, 151, 150, 229, 151, 229]),
    s("munlockall", [152, 153, 152, 231, 153, 231]),
    s("munmap", [11, 91, 11, 215, 91, 215]),
    s("name_to_handle_at", [303, 341, 303, 264, 370, 264]),
    s("nanosleep", [35, 162, 35, 101, 162, 101]),
    s("newfstatat", [262, NO, 262, 79, NO, 79]),
    s("nfsservctl", [180, 169, NO, 42, 169, 42]),
    s("nice", [NO, 34, NO, NO, 34, NO]),
    s("oldfstat", [NO, 28, NO, NO, NO, NO]),
    s("oldlstat", [NO, 84, NO, NO, NO, NO]),
    s("oldolduname", [NO, 59, NO, NO, NO, NO]),
    s("oldstat", [NO, 18, NO, NO, NO, NO]),
    s("olduname", [NO, 109, NO, NO, NO, NO]),
    s("open", [2, 5, 2, NO, 5, NO]),
    s("open_by_handle_at", [304, 342, 304, 265, 371, 265]),
    s("open_tree", [428, 428, 428, 428, 428, 428]),
    s("open_tree_attr", [467, 467, 467, 467, 467, 467]),
    s("openat", [257, 295, 257, 56, 322, 56]),
    s("openat2", [437, 437, 437, 437, 437, 437]),
    s("pause", [34, 29, 34, NO, 29, NO]),
    s("pciconfig_iobase", [NO, NO, NO, NO, 271, NO]),
    s("pciconfig_read", [NO, NO, NO, NO, 272, NO]),
    s("pciconfig_write", [NO, NO, NO, NO, 273, NO]),
    s("perf_event_open", [298, 336, 298, 241, 364, 241]),
    s("personality", [135, 136, 135, 92, 136, 92]),
    s("pidfd_getfd", [438, 438, 438, 438, 438, 438]),
    s("pidfd_open", [434, 434, 434, 434, 434, 434]),
    s("pidfd_send_signal", [424, 424, 424, 424, 424, 424]),
    s("pipe", [22, 42, 22, NO, 42, NO]),
    s("pipe2", [293, 331, 293, 59, 359, 59]),
    s("pivot_root", [155, 217, 155, 41, 218, 41]),
    s("pkey_alloc", [330, 381, 330, 289, 395, 289]),
    s("pkey_free", [331, 382, 331, 290, 396, 290]),
    s("pkey_mprotect", [329, 380, 329, 288, 394, 288]),
    s("poll", [7, 168, 7, NO, 168, NO]),
    s("ppoll", [271, 309, 271, 73, 336, 73]),
    s("ppoll_time64", [NO, 414, NO, NO, 414, NO]),
    s("prctl", [157, 172, 157, 167, 172, 167]),
    s("pread64", [17, 180, 17, 67, 180, 67]),
    s("preadv", [295, 333, 534, 69, 361, 69]),
    s("preadv2", [327, 378, 546, 286, 392, 286]),
    s("prlimit64", [302, 340, 302, 261, 369, 261]),
    s("process_madvise", [440, 440, 440, 440, 440, 440]),
    s("process_mrelease", [448, 448, 448, 448, 448, 448]),
    s("process_vm_readv", [310, 347, 539, 270, 376, 270]),
    s("process_vm_writev", [311, 348, 540, 271, 377, 271]),
    s("prof", [NO, 44, NO, NO, NO, NO]),
    s("profil", [NO, 98, NO, NO, NO, NO]),
    s("pselect6", [270, 308, 270, 72, 335, 72]),
    s("pselect6_time64", [NO, 413, NO, NO, 413, NO]),
    s("ptrace", [101, 26, 521, 117, 26, 117]),
    s("putpmsg", [182, 189, 182, NO, NO, NO]),
    s("pwrite64", [18, 181, 18, 68, 181, 68]),
    s("pwritev", [296, 334, 535, 70, 362, 70]),
    s("pwritev2", [328, 379, 547, 287, 393, 287]),
    s("query_module", [178, 167, NO, NO, NO, NO]),
    s("quotactl", [179, 131, 179, 60, 131, 60]),
    s("quotactl_fd", [443, 443, 443, 443, 443, 443]),
    s("read", [0, 3, 0, 63, 3, 63]),
    s("readahead", [187, 225, 187, 213, 225, 213]),
    s("readdir", [NO, 89, NO, NO, NO, NO]),
    s("readlink", [89, 85, 89, NO, 85, NO]),
    s("readlinkat", [267, 305, 267, 78, 332, 78]),
    s("readv", [19, 145, 515, 65, 145, 65]),
    s("reboot", [169, 88, 169, 142, 88, 142]),
    s("recv", [NO, NO, NO, NO, 291, NO]),
    s("recvfrom", [45, 371, 517, 207, 292, 207]),
    s("recvmmsg", [299, 337, 537, 243, 365, 243]),
    s("recvmmsg_time64", [NO, 417, NO, NO, 417, NO]),
    s("recvmsg", [47, 372, 519, 212, 297, 212]),
    s("remap_file_pages", [216, 257, 216, 234, 253, 234]),
    s("removexattr", [197, 235, 197, 14, 235, 14]),
    s("removexattrat", [466, 466, 466, 466, 466, 466]),
    s("rename", [82, 38, 82, NO, 38, NO]),
    s("renameat", [264, 302, 264, 38, 329, NO]),
    s("renameat2", [316, 353, 316, 276, 382, 276]),
    s("request_key", [249, 287, 249, 218, 310, 218]),
    s("restart_syscall", [219, 0, 219, 128, 0, 128]),
    s("riscv_flush_icache", [NO, NO, NO, NO, NO, 259]),
    s("riscv_hwprobe", [NO, NO, NO, NO, NO, 258]),
    s("rmdir", [84, 40, 84, NO, 40, NO]),
    s("rseq", [334, 386, 334, 293, 398, 293]),
    s("rseq_slice_yield", [471, 471, 471, 471, 471, 471]),
    s("rt_sigaction", [13, 174, 512, 134, 174, 134]),
    s("rt_sigpending", [127, 176, 522, 136, 176, 136]),
    s("rt_sigprocmask", [14, 175, 14, 135, 175, 135]),
    s("rt_sigqueueinfo", [129, 178, 524, 138, 178, 138]),
    s("rt_sigreturn", [15, 173, 513, 139, 173, 139]),
    s("rt_sigsuspend", [130, 179, 130, 133, 179, 133]),
    s("rt_sigtimedwait", [128, 177, 523, 137, 177, 137]),
    s("rt_sigtimedwait_time64", [NO, 421, NO, NO, 421, NO]),
    s("rt_tgsigqueueinfo", [297, 335, 536, 240, 363, 240]),
    s("rtas", [NO, NO, NO, NO, NO, NO]),
    s("s390_guarded_storage", [NO, NO, NO, NO, NO, NO]),
    s("s390_pci_mmio_read", [NO, NO, NO, NO, NO, NO]),
    s("s390_pci_mmio_write", [NO, NO, NO, NO, NO, NO]),
    s("s390_runtime_instr", [NO, NO, NO, NO, NO, NO]),
    s("s390_sthyi", [NO, NO, NO, NO, NO, NO]),
    s("sched_get_priority_max", [146, 159, 146, 125, 159, 125]),
    s("sched_get_priority_min", [147, 160, 147, 126, 160, 126]),
    s("sched_getaffinity", [204, 242, 204, 123, 242, 123]),
    s("sched_getattr", [315, 352, 315, 275, 381, 275]),
    s("sched_getparam", [143, 155, 143, 121, 155, 121]),
    s("sched_getscheduler", [145, 157, 145, 120, 157, 120]),
    s("sched_rr_get_interval", [148, 161, 148, 127, 161, 127]),
    s("sched_rr_get_interval_time64", [NO, 423, NO, NO, 423, NO]),
    s("sched_setaffinity", [203, 241, 203, 122, 241, 122]),
    s("sched_setattr", [314, 351, 314, 274, 380, 274]),
    s("sched_setparam", [142, 154, 142, 118, 154, 118]),
    s("sched_setscheduler", [144, 156, 144, 119, 156, 119]),
    s("sched_yield", [24, 158, 24, 124, 158, 124]),
    s("seccomp", [317, 354, 317, 277, 383, 277]),
    s("security", [185, NO, 185, NO, NO, NO]),
    s("select", [23, 82, 23, NO, NO, NO]),
    s("semctl", [66, 394, 66, 191, 300, 191]),
    s("semget", [64, 393, 64, 190, 299, 190]),
    s("semop", [65, NO, 65, 193, 298, 193]),
    s("semtimedop", [220, NO, 220, 192, 312, 192]),
    s("semtimedop_time64", [NO, 420, NO, NO, 420, NO]),
    s("send", [NO, NO, NO, NO, 289, NO]),
    s("sendfile", [40, 187, 40, 71, 187, 71]),
    s("sendfile64", [NO, 239, NO, NO, 239, NO]),
    s("sendmmsg", [307, 345, 538, 269, 374, 269]),
    s("sendmsg", [46, 370, 518, 211, 296, 211]),
    s("sendto", [44, 369, 44, 206, 290, 206]),
    s("set_mempolicy", [238, 276, 238, 237, 321, 237]),
    s("set_mempolicy_home_node", [450, 450, 450, 450, 450, 450]),
    s("set_robust_list", [273, 311, 530, 99, 338, 99]),
    s("set_thread_area", [205, 243, NO, NO, NO, NO]),
    s("set_tid_address", [218, 258, 218, 96, 256, 96]),
    s("set_tls", [NO, NO, NO, NO, 0xf005, NO]),
    s("setdomainname", [171, 121, 171, 162, 121, 162]),
    s("setfsgid", [123, 139, 123, 152, 139, 152]),
    s("setfsgid32", [NO, 216, NO, NO, 216, NO]),
    s("setfsuid", [122, 138, 122, 151, 138, 151]),
    s("setfsuid32", [NO, 215, NO, NO, 215, NO]),
    s("setgid", [106, 46, 106, 144, 46, 144]),
    s("setgid32", [NO, 214, NO, NO, 214, NO]),
    s("setgroups", [116, 81, 116, 159, 81, 159]),
    s("setgroups32", [NO, 206, NO, NO, 206, NO]),
    s("sethostname", [170, 74, 170, 161, 74, 161]),
    s("setitimer", [38, 104, 38, 103, 104, 103]),
    s("setns", [308, 346, 308, 268, 375, 268]),
    s("setpgid", [109, 57, 109, 154, 57, 154]),
    s("setpriority", [141, 97, 141, 140, 97, 140]),
    s("setregid", [114, 71, 114, 143, 71, 143]),
    s("setregid32", [NO, 204, NO, NO, 204, NO]),
    s("setresgid", [119, 170, 119, 149, 170, 149]),
    s("setresgid32", [NO, 210, NO, NO, 210, NO]),
    s("setresuid", [117, 164, 117, 147, 164, 147]),
    s("setresuid32", [NO, 208, NO, NO, 208, NO]),
    s("setreuid", [113, 70, 113, 145, 70, 145]),
    s("setreuid32", [NO, 203, NO, NO, 203, NO]),
    s("setrlimit", [160, 75, 160, 164, 75, 164]),
    s("setsid", [112, 66, 112, 157, 66, 157]),
    s("setsockopt", [54, 366, 541, 208, 294, 208]),
    s("settimeofday", [164, 79, 164, 170, 79, 170]),
    s("setuid", [105, 23, 105, 146, 23, 146]),
    s("setuid32", [NO, 213, NO, NO, 213, NO]),
    s("setxattr", [188, 226, 188, 5, 226, 5]),
    s("setxattrat", [463, 463, 463, 463, 463, 463]),
    s("sgetmask", [NO, 68, NO, NO, NO, NO]),
    s("shmat", [30, 397, 30, 196, 305, 196]),
    s("shmctl", [31, 396, 31, 195, 308, 195]),
    s("shmdt", [67, 398, 67, 197, 306, 197]),
    s("shmget", [29, 395, 29, 194, 307, 194]),
    s("shutdown", [48, 373, 48, 210, 293, 210]),
    s("sigaction", [NO, 67, NO, NO, 67, NO]),
    s("sigaltstack", [131, 186, 525, 132, 186, 132]),
    s("signal", [NO, 48, NO, NO, NO, NO]),
    s("signalfd", [282, 321, 282, NO, 349, NO]),
    s("signalfd4", [289, 327, 289, 74, 355, 74]),
    s("sigpending", [NO, 73, NO, NO, 73, NO]),
    s("sigprocmask", [NO, 126, NO, NO, 126, NO]),
    s("sigreturn", [NO, 119, NO, NO, 119, NO]),
    s("sigsuspend", [NO, 72, NO, NO, 72, NO]),
    s("socket", [41, 359, 41, 198, 281, 198]),
    s("socketcall", [NO, 102, NO, NO, NO, NO]),
    s("socketpair", [53, 360, 53, 199, 288, 199]),
    s("splice", [275, 313, 275, 76, 340, 76]),
    s("spu_create", [NO, NO, NO, NO, NO, NO]),
    s("spu_run", [NO, NO, NO, NO, NO, NO]),
    s("ssetmask", [NO, 69, NO, NO, NO, NO]),
    s("stat", [4, 106, 4, NO, 106, NO]),
    s("stat64", [NO, 195, NO, NO, 195, NO]),
    s("statfs", [137, 99, 137, 43, 99, 43]),
    s("statfs64", [NO, 268, NO, NO, 266, NO]),
    s("statmount", [457, 457, 457, 457, 457, 457]),
    s("statx", [332, 383, 332, 291, 397, 291]),
    s("stime", [NO, 25, NO, NO, NO, NO]),
    s("stty", [NO, 31, NO, NO, NO, NO]),
    s("subpage_prot", [NO, NO, NO, NO, NO, NO]),
    s("swapcontext", [NO, NO, NO, NO, NO, NO]),
    s("swapoff", [168, 115, 168, 225, 115, 225]),
    s("swapon", [167, 87, 167, 224, 87, 224]),
    s("switch_endian", [NO, NO, NO, NO, NO, NO]),
    s("symlink", [88, 83, 88, NO, 83, NO]),
    s("symlinkat", [266, 304, 266, 36, 331, 36]),
    s("sync", [162, 36, 162, 81, 36, 81]),
    s("sync_file_range", [277, 314, 277, 84, NO, 84]),
    s("sync_file_range2", [NO, NO, NO, NO, NO, NO]),
    s("syncfs", [306, 344, 306, 267, 373, 267]),
    s("sys_debug_setcontext", [NO, NO, NO, NO, NO, NO]),
    s("syscall", [NO, NO, NO, NO, NO, NO]),
    s("sysfs", [139, 135, 139, NO, 135, NO]),
    s("sysinfo", [99, 116, 99, 179, 116, 179]),
    s("syslog", [103, 103, 103, 116, 103, 116]),
    s("sysmips", [NO, NO, NO, NO, NO, NO]),
    s("tee", [276, 315, 276, 77, 342, 77]),
    s("tgkill", [234, 270, 234, 131, 268, 131]),
    s("time", [201, 13, 201, NO, NO, NO]),
    s("timer_create", [222, 259, 526, 107, 257, 107]),
    s("timer_delete", [226, 263, 226, 111, 261, 111]),
    s("timer_getoverrun", [225, 262, 225, 109, 260, 109]),
    s("timer_gettime", [224, 261, 224, 108, 259, 108]),
    s("timer_gettime64", [NO, 408, NO, NO, 408, NO]),
    s("timer_settime", [223, 260, 223, 110, 258, 110]),
    s("timer_settime64", [NO, 409, NO, NO, 409, NO]),
    s("timerfd", [NO, NO, NO, NO, NO, NO]),
    s("timerfd_create", [283, 322, 283, 85, 350, 85]),
    s("timerfd_gettime", [287, 326, 287, 87, 354, 87]),
    s("timerfd_gettime64", [NO, 410, NO, NO, 410, NO]),
    s("timerfd_settime", [286, 325, 286, 86, 353, 86]),
    s("timerfd_settime64", [NO, 411, NO, NO, 411, NO]),
    s("times", [100, 43, 100, 153, 43, 153]),
    s("tkill", [200, 238, 200, 130, 238, 130]),
    s("truncate", [76, 92, 76, 45, 92, 45]),
    s("truncate64", [NO, 193, NO, NO, 193, NO]),
    s("tuxcall", [184, NO, 184, NO, NO, NO]),
    s("ugetrlimit", [NO, 191, NO, NO, 191, NO]),
    s("ulimit", [NO, 58, NO, NO, NO, NO]),
    s("umask", [95, 60, 95, 166, 60, 166]),
    s("umount", [NO, 22, NO, NO, NO, NO]),
    s("umount2", [166, 52, 166, 39, 52, 39]),
    s("uname", [63, 122, 63, 160, 122, 160]),
    s("unlink", [87, 10, 87, NO, 10, NO]),
    s("unlinkat", [263, 301, 263, 35, 328, 35]),
    s("unshare", [272, 310, 272, 97, 337, 97]),
    s("uprobe", [336, NO, 336, NO, NO, NO]),
    s("uretprobe", [335, NO, 335, NO, NO, NO]),
    s("uselib", [134, 86, NO, NO, 86, NO]),
    s("userfaultfd", [323, 374, 323, 282, 388, 282]),
    s("usr26", [NO, NO, NO, NO, 0xf003, NO]),
    s("usr32", [NO, NO, NO, NO, 0xf004, NO]),
    s("ustat", [136, 62, 136, NO, 62, NO]),
    s("utime", [132, 30, 132, NO, NO, NO]),
    s("utimensat", [280, 320, 280, 88, 348, 88]),
    s("utimensat_time64", [NO, 412, NO, NO, 412, NO]),
    s("utimes", [235, 271, 235, NO, 269, NO]),
    s("vfork", [58, 190, 58, NO, 190, NO]),
    s("vhangup", [153, 111, 153, 58, 111, 58]),
    s("vm86", [NO, 166, NO, NO, NO, NO]),
    s("vm86old", [NO, 113, NO, NO, NO, NO]),
    s("vmsplice", [278, 316, 532, 75, 343, 75]),
    s("vserver", [236, 273, NO, NO, 313, NO]),
    s("wait4", [61, 114, 61, 260, 114, 260]),
    s("waitid", [247, 284, 529, 95, 280, 95]),
    s("waitpid", [NO, 7, NO, NO, NO, NO]),
    s("write", [1, 4, 1, 64, 4, 64]),
    s("writev", [20, 146, 516, 66, 146, 66]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<&'static Syscall> {
        Finder::default().find(name)
    }

    #[test]
    fn finds_in_any_order() {
        let mut finder = Finder::default();
        for syscall in TABLE.iter().chain(TABLE.iter().rev()) {
            assert_eq!(finder.find(syscall.name).unwrap().name, syscall.name);
        }
    }

    #[test]
    fn tables_are_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        assert!(MULTIPLEXED.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn no_number_has_two_names() {
        for arch in Arch::ALL {
            let mut seen = std::collections::HashMap::new();
            for (n, name) in TABLE.iter().filter_map(|s| Some((s.number(arch)?, s.name))) {
                assert_eq!(seen.insert(n, name), None, "{name} on {arch}");
            }
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        let number = |name, arch| find(name).unwrap().number(arch);
        for (name, n) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("socket", libc::SYS_socket),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(number(name, Arch::native()), Some(n as u32));
        }
        assert_eq!(number("execve", Arch::X32), Some(0x4000_0000 + 520));
        assert_eq!(number("read", Arch::X32), Some(0x4000_0000));
        assert_eq!(number("execve", Arch::X86), Some(11));
        assert_eq!(number("open", Arch::Aarch64), None);
        assert_eq!(number("set_tls", Arch::Arm), Some(0xf_0005));
        assert_eq!(number("riscv_hwprobe", Arch::Riscv64), Some(258));
        assert!(find("no_such_call").is_none());
        assert_eq!(
            Multiplexed::find("shmget"),
            Some(Multiplexed { number: 117, first_argument: 23 })
        );
    }
}
