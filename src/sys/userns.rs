//! Creates a user namespace without a permanent process.

use std::os::fd::AsRawFd;

use libc::{c_int, c_long, pid_t};

use super::{Errno, Result, check};

/// Runs `work` with the pid of a process in a new user namespace, then ends that process.
///
/// An open `/proc/PID/ns/user` that `work` returns keeps the namespace.
///
/// # Errors
///
/// An error of pipe2(2), clone(2) or waitpid(2).
pub fn with_new_user_namespace<T>(work: impl FnOnce(pid_t) -> T) -> Result<T> {
    let (wait, release) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and a stack, this acts like fork(2). The child calls only close, read and _exit on
    // descriptors that it has. They are async-signal-safe, so locks of other threads do not matter.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? as pid_t;
    if pid == 0 {
        // SAFETY: the same. The buffer is one byte long, and _exit does not return.
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
        // SAFETY: the kernel can write to status, and pid is a child of this process.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| done),
        }
    }
}
