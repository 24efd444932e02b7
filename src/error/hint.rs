//! Table of hints: failed call and errno to what an operator can do.

use nix::errno::Errno;

pub(super) fn for_cause(call: &str, object: &str, errno: Errno) -> Option<&'static str> {
    match (call, errno) {
        (_, Errno::EROFS) if object.contains("state") || object.starts_with("/run") => {
            Some("the state directory must be writable: choose another with --root")
        }
        (_, Errno::ENOSPC) if object.contains("/sys/fs/cgroup") => Some(
            "the parent cgroup's cgroup.max.descendants or the kernel's cgroup limit is reached",
        ),
        ("clone3", Errno::EPERM) => {
            Some("creating namespaces needs root, or a user namespace in the config")
        }
        ("clone3", Errno::ENOSPC) => Some("a limit of /proc/sys/user/max_*_namespaces is reached"),
        ("clone3", Errno::EAGAIN) => {
            Some("a limit on processes is reached: pids.max or RLIMIT_NPROC")
        }
        ("clone3", Errno::EBUSY) => {
            Some("the cgroup has controllers enabled for its children, so it cannot hold processes")
        }
        ("clone3", Errno::EOPNOTSUPP) => {
            Some("the cgroup is of the threaded kind, or its parent is")
        }
        // The oldest supported kernel has all of them.
        (
            "clone3" | "close_range" | "open" | "openat2" | "open_tree" | "fsopen" | "fsmount"
            | "move_mount",
            Errno::ENOSYS,
        ) => Some(
            "Linux 5.10 or later is needed, and no seccomp filter around aril that hides its calls",
        ),
        (call, Errno::ENOENT) if call.starts_with("apparmor") => Some(
            "the profile is not loaded into the kernel: `apparmor_parser -r FILE` loads one, \
             `aa-status` lists those that are",
        ),
        (_, Errno::EFBIG) => {
            Some("the caller's limit on the size of files is too low: `ulimit -f`")
        }
        (_, Errno::EMFILE) => Some("the caller's limit on open files is too low: `ulimit -Hn`"),
        ("getcwd", Errno::ENOENT) => Some(
            "the current directory has been deleted: change to another, or name it by --bundle",
        ),
        (_, Errno::ENOSPC) => Some("the file system is full, or out of inodes"),
        ("fsopen" | "mount", Errno::ENODEV) => {
            Some("the kernel does not know this type of file system: is its module loaded?")
        }
        ("open_tree", Errno::ENOENT) => Some("the source of a bind mount must exist on the host"),
        _ => None,
    }
}
