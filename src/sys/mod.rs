//! System calls without a safe wrapper: one file per kernel area, with every `unsafe` of the project.
//!
//! Functions here make one call, return its errno, and add no policy except close-on-exec.

pub mod bpf;
pub mod clone;
pub mod entry;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod open;
pub mod pidfd;
pub mod process;
pub mod quota;
pub mod regex;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod timeline;
pub mod tty;
pub mod userns;
pub mod wait;
pub mod xattr;

pub use nix::errno::Errno;

pub type Result<T> = std::result::Result<T, Errno>;

/// Converts the return value of a raw system call to a value or errno.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
