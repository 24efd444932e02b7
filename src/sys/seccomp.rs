//! seccomp(2) and seccomp_unotify(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_long, c_ulong, sock_filter, sock_fprog};

use super::{Errno, Result, check};

fn fprog(program: &[sock_filter]) -> Result<sock_fprog> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    Ok(sock_fprog { len, filter: program.as_ptr().cast_mut() })
}

/// Loads a filter for the calling thread with `prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)`.
///
/// # Errors
///
/// `EINVAL` if the program is invalid or too long, `EACCES` without no_new_privs and CAP_SYS_ADMIN.
pub fn set_mode(program: &[sock_filter]) -> Result<()> {
    let fprog = fprog(program)?;
    // SAFETY: the kernel reads `len` instructions from `filter` during the call. `program` contains both and outlives
    // the call.
    let ret = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const fprog,
        )
    };
    check(ret.into()).map(drop)
}

/// Loads a filter for the calling thread with `SECCOMP_SET_MODE_FILTER`. Returns the listener if `flags` contains
/// `NEW_LISTENER`; the kernel sets close-on-exec.
///
/// # Errors
///
/// The errors of [`set_mode`], and `EBUSY` if the thread has a listener already.
pub fn set_mode_filter(program: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let fprog = fprog(program)?;
    let ret = seccomp(flags, &raw const fprog)?;
    let listens = c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with that flag the kernel returns a new descriptor, which has no other owner.
    Ok(listens.then(|| unsafe { OwnedFd::from_raw_fd(ret as i32) }))
}

/// Returns true if the kernel supports the flag. It checks the flags before it reads the program, which is a null
/// pointer here.
pub fn flag_supported(flag: u32) -> bool {
    let mut flags = flag;
    if c_ulong::from(flag) == libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
        // The kernel rejects this flag without a listener.
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    }
    seccomp(flags, ptr::null()) == Err(Errno::EFAULT)
}

/// System call that the kernel reports to the listener: `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    pub id: u64,
    pid: u32,
    flags: u32,
    pub number: u32,
    pub arch: u32,
    instruction: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: u32 = 0xc050_2100;
const NOTIF_SEND: u32 = 0xc018_2101;

impl Notification {
    /// Returns a call without arguments.
    pub fn of(arch: u32, number: u32) -> Self {
        Self { id: 0, pid: 0, flags: 0, number, arch, instruction: 0, arguments: [0; 6] }
    }

    /// Returns the word that a filter loads from this offset of `struct seccomp_data`.
    pub fn word(&self, offset: u32) -> u32 {
        let Some(behind) = offset.checked_sub(16) else {
            return if offset == 0 { self.number } else { self.arch };
        };
        let argument = self.arguments.get(behind as usize / 8).copied().unwrap_or(0);
        (if behind.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
    }
}

/// Waits for the next system call that a filter reports.
///
/// # Errors
///
/// `ENOENT` if the process has ended, or another error of seccomp_unotify(2).
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    let mut asked = Notification::of(0, 0);
    // SAFETY: the request is for a structure of this size, which is zeroed as the kernel requires.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut asked) }.into())?;
    Ok(asked)
}

/// Lets the reported system call fail with `errno`.
///
/// # Errors
///
/// `ENOENT` if the process has ended, or another error of seccomp_unotify(2).
pub fn answer(listener: BorrowedFd<'_>, id: u64, errno: i32) -> Result<()> {
    let answer = Answer { id, value: 0, error: -errno, flags: 0 };
    // SAFETY: the request is for a structure of this size, which the kernel only reads.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw const answer) }.into())
        .map(drop)
}

fn seccomp(flags: u32, fprog: *const sock_fprog) -> Result<c_long> {
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `fprog` is null, for which the kernel returns EFAULT, or points to a live program, which the kernel only
    // reads.
    check(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, fprog) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_flags_one_by_one() {
        assert!(flag_supported(libc::SECCOMP_FILTER_FLAG_LOG as u32));
        assert!(flag_supported(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32));
        assert!(!flag_supported(1 << 30));
    }
}
