//! The one door to the kernel: every `unsafe` of the project is below this folder, one file per
//! kernel area. Functions here do one call, return its bare errno, and add no policy beyond
//! `CLOEXEC`.

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

/// The kernel's return value of a raw call, or errno.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
