//! A user namespace that nobody lives in.

use std::os::fd::AsRawFd;

use libc::{c_int, c_long, pid_t};

use super::{Errno, Result, check};

/// Runs `work` with the id of a process in a new user namespace, which then ends. What `work`
/// keeps of it (an open `/proc/ID/ns/user`) keeps the namespace.
pub fn with_new_user_namespace<T>(work: impl FnOnce(pid_t) -> T) -> Result<T> {
    let (wait, release) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack this is fork(2). The child makes no call but
    // close, read and _exit on descriptors it has, all async-signal-safe, so other threads' locks
    // do not matter.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? as pid_t;
    if pid == 0 {
        // SAFETY: as above; the buffer is one byte long, and _exit does not return.
        unsafe {
            libc::close(release.as_raw_fd());
            let mut byte = 0u8;
            libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    let done = work(pid);
    drop(release);
    loop {
        let mut status: c_int = 0;
        // SAFETY: status is a valid place for the kernel to write, and pid our own child.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| done),
        }
    }
}
