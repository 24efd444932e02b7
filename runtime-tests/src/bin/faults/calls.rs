//! System calls that aril makes: name, argument that is a path, and errors that the call can plausibly return.

use nix::errno::Errno::{self, *};

/// What a call acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    None,
    /// The path or name of the argument with this index.
    Path(usize),
    /// The file that is open as the first argument.
    Descriptor,
}

#[derive(Debug)]
pub struct Kind {
    number: i64,
    pub name: &'static str,
    pub object: Object,
    /// Empty for a call that cannot fail, or whose failure would be a fault of the caller.
    pub errors: &'static [Errno],
}

const fn kind(number: i64, name: &'static str, errors: &'static [Errno]) -> Kind {
    Kind { number, name, object: Object::None, errors }
}

const fn by_path(number: i64, name: &'static str, path: usize, errors: &'static [Errno]) -> Kind {
    Kind { number, name, object: Object::Path(path), errors }
}

const fn by_fd(number: i64, name: &'static str, errors: &'static [Errno]) -> Kind {
    Kind { number, name, object: Object::Descriptor, errors }
}

/// Errors of calls that make a descriptor, change a file, allocate memory, and so on.
const OPEN: &[Errno] = &[EMFILE, ENOMEM, EIO];
const CREATE: &[Errno] = &[ENOSPC, EIO, EROFS];
const REMOVE: &[Errno] = &[EBUSY, EIO];
const LOOK: &[Errno] = &[ENOMEM, EIO];
const DESCRIPTOR: &[Errno] = &[EMFILE, ENOMEM];
const MOUNT: &[Errno] = &[ENOMEM, EPERM, EBUSY, ENOSPC];
const PROCESS: &[Errno] = &[EAGAIN, ENOMEM];
const RIGHTS: &[Errno] = &[EPERM];
const NEVER: &[Errno] = &[];

static KINDS: &[Kind] = &[
    by_fd(libc::SYS_accept4, "accept4", &[EMFILE, EINTR]),
    by_fd(libc::SYS_bind, "bind", &[EADDRINUSE, ENOMEM]),
    kind(libc::SYS_bpf, "bpf", &[EPERM, ENOMEM]),
    kind(libc::SYS_capget, "capget", NEVER),
    kind(libc::SYS_capset, "capset", RIGHTS),
    by_path(libc::SYS_chdir, "chdir", 0, &[EACCES, EIO]),
    kind(libc::SYS_clock_gettime, "clock_gettime", NEVER),
    kind(libc::SYS_clone, "clone", PROCESS),
    kind(libc::SYS_clone3, "clone3", PROCESS),
    by_fd(libc::SYS_close, "close", NEVER),
    kind(libc::SYS_close_range, "close_range", NEVER),
    by_fd(libc::SYS_connect, "connect", &[ECONNREFUSED, EINTR]),
    by_fd(libc::SYS_copy_file_range, "copy_file_range", &[ENOSPC, EIO]),
    kind(libc::SYS_dup, "dup", DESCRIPTOR),
    kind(libc::SYS_dup3, "dup3", DESCRIPTOR),
    kind(libc::SYS_epoll_create1, "epoll_create1", DESCRIPTOR),
    kind(libc::SYS_epoll_ctl, "epoll_ctl", &[ENOMEM]),
    kind(libc::SYS_epoll_pwait, "epoll_pwait", &[EINTR]),
    kind(libc::SYS_eventfd2, "eventfd2", DESCRIPTOR),
    by_path(libc::SYS_execve, "execve", 0, &[ENOMEM, EACCES]),
    by_path(libc::SYS_execveat, "execveat", 1, &[ENOMEM, EACCES]),
    by_path(libc::SYS_faccessat2, "faccessat2", 1, LOOK),
    by_fd(libc::SYS_fallocate, "fallocate", &[ENOSPC, EINTR]),
    by_fd(libc::SYS_fchdir, "fchdir", &[EACCES, EIO]),
    by_fd(libc::SYS_fchmod, "fchmod", CREATE),
    by_path(libc::SYS_fchmodat, "fchmodat", 1, CREATE),
    by_fd(libc::SYS_fchown, "fchown", CREATE),
    by_path(libc::SYS_fchownat, "fchownat", 1, CREATE),
    by_fd(libc::SYS_fcntl, "fcntl", &[EMFILE]),
    by_fd(libc::SYS_fdatasync, "fdatasync", &[EIO, ENOSPC]),
    by_fd(libc::SYS_fgetxattr, "fgetxattr", LOOK),
    by_fd(libc::SYS_flistxattr, "flistxattr", LOOK),
    by_fd(libc::SYS_flock, "flock", &[EINTR, ENOLCK]),
    by_fd(libc::SYS_fsconfig, "fsconfig", MOUNT),
    by_fd(libc::SYS_fsetxattr, "fsetxattr", CREATE),
    by_fd(libc::SYS_fsmount, "fsmount", MOUNT),
    by_path(libc::SYS_fsopen, "fsopen", 0, MOUNT),
    by_fd(libc::SYS_fstat, "fstat", LOOK),
    by_fd(libc::SYS_fstatfs, "fstatfs", LOOK),
    by_fd(libc::SYS_fsync, "fsync", &[EIO, ENOSPC]),
    by_fd(libc::SYS_ftruncate, "ftruncate", CREATE),
    kind(libc::SYS_getcwd, "getcwd", NEVER),
    by_fd(libc::SYS_getdents64, "getdents64", &[EIO]),
    kind(libc::SYS_getpeername, "getpeername", NEVER),
    kind(libc::SYS_getrandom, "getrandom", &[EINTR]),
    kind(libc::SYS_getsockname, "getsockname", NEVER),
    kind(libc::SYS_getsockopt, "getsockopt", NEVER),
    by_fd(libc::SYS_ioctl, "ioctl", &[EIO, EPERM]),
    kind(libc::SYS_keyctl, "keyctl", &[EDQUOT, ENOMEM, EPERM]),
    kind(libc::SYS_landlock_add_rule, "landlock_add_rule", &[ENOMEM]),
    kind(libc::SYS_landlock_create_ruleset, "landlock_create_ruleset", DESCRIPTOR),
    kind(libc::SYS_landlock_restrict_self, "landlock_restrict_self", &[ENOMEM]),
    by_path(libc::SYS_lgetxattr, "lgetxattr", 0, LOOK),
    kind(libc::SYS_linkat, "linkat", CREATE),
    kind(libc::SYS_listen, "listen", &[EADDRINUSE]),
    by_fd(libc::SYS_lseek, "lseek", NEVER),
    by_path(libc::SYS_lsetxattr, "lsetxattr", 0, CREATE),
    kind(libc::SYS_memfd_create, "memfd_create", DESCRIPTOR),
    by_path(libc::SYS_mkdirat, "mkdirat", 1, CREATE),
    by_path(libc::SYS_mknodat, "mknodat", 1, CREATE),
    kind(libc::SYS_mmap, "mmap", &[ENOMEM]),
    by_path(libc::SYS_mount, "mount", 1, MOUNT),
    by_path(libc::SYS_mount_setattr, "mount_setattr", 1, MOUNT),
    by_path(libc::SYS_move_mount, "move_mount", 3, MOUNT),
    kind(libc::SYS_mprotect, "mprotect", &[ENOMEM]),
    kind(libc::SYS_munmap, "munmap", NEVER),
    by_path(libc::SYS_open_tree, "open_tree", 1, &[EMFILE, ENOMEM, EPERM]),
    by_path(libc::SYS_openat, "openat", 1, OPEN),
    by_path(libc::SYS_openat2, "openat2", 1, &[EMFILE, ENOMEM, EIO, EAGAIN]),
    kind(libc::SYS_personality, "personality", RIGHTS),
    kind(libc::SYS_pidfd_getfd, "pidfd_getfd", &[EPERM, EMFILE]),
    kind(libc::SYS_pidfd_open, "pidfd_open", DESCRIPTOR),
    kind(libc::SYS_pidfd_send_signal, "pidfd_send_signal", RIGHTS),
    kind(libc::SYS_pipe2, "pipe2", DESCRIPTOR),
    by_path(libc::SYS_pivot_root, "pivot_root", 0, &[EBUSY, EINVAL]),
    kind(libc::SYS_ppoll, "ppoll", &[EINTR, ENOMEM]),
    kind(libc::SYS_prctl, "prctl", RIGHTS),
    by_fd(libc::SYS_pread64, "pread64", &[EIO, EINTR]),
    kind(libc::SYS_prlimit64, "prlimit64", RIGHTS),
    by_fd(libc::SYS_pwrite64, "pwrite64", &[ENOSPC, EIO, EINTR]),
    by_fd(libc::SYS_read, "read", &[EIO, EINTR]),
    by_path(libc::SYS_readlinkat, "readlinkat", 1, LOOK),
    by_fd(libc::SYS_recvfrom, "recvfrom", &[EINTR, ENOBUFS]),
    by_fd(libc::SYS_recvmsg, "recvmsg", &[EINTR, ENOBUFS]),
    by_path(libc::SYS_renameat, "renameat", 3, CREATE),
    by_path(libc::SYS_renameat2, "renameat2", 3, CREATE),
    kind(libc::SYS_rt_sigaction, "rt_sigaction", NEVER),
    kind(libc::SYS_rt_sigprocmask, "rt_sigprocmask", NEVER),
    kind(libc::SYS_sched_setaffinity, "sched_setaffinity", NEVER),
    kind(libc::SYS_sched_setattr, "sched_setattr", RIGHTS),
    kind(libc::SYS_seccomp, "seccomp", &[ENOMEM, EACCES]),
    by_fd(libc::SYS_sendmsg, "sendmsg", &[ENOBUFS, EINTR, EPIPE]),
    by_fd(libc::SYS_sendto, "sendto", &[ENOBUFS, EINTR, EPIPE]),
    kind(libc::SYS_setgroups, "setgroups", RIGHTS),
    kind(libc::SYS_sethostname, "sethostname", RIGHTS),
    by_fd(libc::SYS_setns, "setns", &[EPERM, ENOMEM]),
    kind(libc::SYS_setresgid, "setresgid", RIGHTS),
    kind(libc::SYS_setresuid, "setresuid", &[EPERM, EAGAIN]),
    kind(libc::SYS_setsid, "setsid", RIGHTS),
    kind(libc::SYS_setsockopt, "setsockopt", &[ENOBUFS]),
    kind(libc::SYS_signalfd4, "signalfd4", DESCRIPTOR),
    kind(libc::SYS_socket, "socket", DESCRIPTOR),
    kind(libc::SYS_socketpair, "socketpair", DESCRIPTOR),
    by_path(libc::SYS_statfs, "statfs", 0, LOOK),
    by_path(libc::SYS_statx, "statx", 1, LOOK),
    by_path(libc::SYS_symlinkat, "symlinkat", 2, CREATE),
    by_path(libc::SYS_umount2, "umount2", 0, REMOVE),
    by_path(libc::SYS_unlinkat, "unlinkat", 1, REMOVE),
    kind(libc::SYS_unshare, "unshare", &[EPERM, ENOSPC, ENOMEM]),
    by_path(libc::SYS_utimensat, "utimensat", 1, CREATE),
    kind(libc::SYS_waitid, "waitid", &[EINTR]),
    by_fd(libc::SYS_write, "write", &[ENOSPC, EIO, EINTR]),
    by_fd(libc::SYS_writev, "writev", &[ENOSPC, EIO, EINTR]),
];

/// Calls of architectures whose tables begin with the first Unix.
#[cfg(target_arch = "x86_64")]
static OLDER_KINDS: &[Kind] = &[
    by_path(libc::SYS_access, "access", 0, LOOK),
    kind(libc::SYS_arch_prctl, "arch_prctl", NEVER),
    by_path(libc::SYS_chmod, "chmod", 0, CREATE),
    by_path(libc::SYS_chown, "chown", 0, CREATE),
    kind(libc::SYS_dup2, "dup2", NEVER),
    by_path(libc::SYS_lchown, "lchown", 0, CREATE),
    by_path(libc::SYS_link, "link", 1, CREATE),
    by_path(libc::SYS_lstat, "lstat", 0, LOOK),
    by_path(libc::SYS_mkdir, "mkdir", 0, CREATE),
    by_path(libc::SYS_mknod, "mknod", 0, CREATE),
    kind(libc::SYS_newfstatat, "newfstatat", LOOK),
    by_path(libc::SYS_open, "open", 0, OPEN),
    kind(libc::SYS_pipe, "pipe", DESCRIPTOR),
    kind(libc::SYS_poll, "poll", &[EINTR, ENOMEM]),
    by_path(libc::SYS_readlink, "readlink", 0, LOOK),
    by_path(libc::SYS_rename, "rename", 1, CREATE),
    by_path(libc::SYS_rmdir, "rmdir", 0, REMOVE),
    by_path(libc::SYS_stat, "stat", 0, LOOK),
    by_path(libc::SYS_symlink, "symlink", 1, CREATE),
    by_path(libc::SYS_unlink, "unlink", 0, REMOVE),
    kind(libc::SYS_vfork, "vfork", PROCESS),
];

#[cfg(not(target_arch = "x86_64"))]
static OLDER_KINDS: &[Kind] = &[];

/// The call of this number. `None` if it is not in the table: it is only killed at.
pub fn of(number: i64) -> Option<&'static Kind> {
    KINDS.iter().chain(OLDER_KINDS).find(|kind| kind.number == number)
}

pub fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(OLDER_KINDS).find(|kind| kind.name == name)
}

impl Kind {
    /// Errors that the call can return for this object. A pipe, a fifo and a socket are never full of bytes on a disk.
    pub fn errors_of(&self, object: &str) -> &'static [Errno] {
        let is_stream = ["pipe:", "socket:", "exec.fifo", "anon_inode:"]
            .iter()
            .any(|kind| object.contains(kind));
        match self.name {
            "read" | "write" | "writev" if is_stream => &[EINTR],
            _ => self.errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_listed_once() {
        for kind in KINDS.iter().chain(OLDER_KINDS) {
            assert!(std::ptr::eq(of(kind.number).expect(kind.name), kind), "{}", kind.name);
            assert!(std::ptr::eq(named(kind.name).expect(kind.name), kind), "{}", kind.name);
        }
    }
}
