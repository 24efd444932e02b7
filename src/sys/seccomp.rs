//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_long, c_ulong, sock_filter, sock_fprog};

use super::{Errno, Result, check};

fn fprog(program: &[sock_filter]) -> Result<sock_fprog> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    Ok(sock_fprog { len, filter: program.as_ptr().cast_mut() })
}

/// `prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)` for the calling thread.
pub fn set_mode(program: &[sock_filter]) -> Result<()> {
    let fprog = fprog(program)?;
    // SAFETY: the kernel reads `len` instructions from `filter` during the call, and both live in
    // `program`, which outlives it.
    let ret = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const fprog,
        )
    };
    check(ret.into()).map(drop)
}

/// `SECCOMP_SET_MODE_FILTER` for the calling thread; the listener with `NEW_LISTENER`, which the
/// kernel makes CLOEXEC.
pub fn set_mode_filter(program: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let fprog = fprog(program)?;
    let ret = seccomp(flags, &raw const fprog)?;
    let listens = c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with that flag the kernel returns a new descriptor, which nobody else owns.
    Ok(listens.then(|| unsafe { OwnedFd::from_raw_fd(ret as i32) }))
}

/// Whether the kernel knows the flag: it looks at flags first and then faults on the program that is
/// not there.
pub fn flag_supported(flag: u32) -> bool {
    let mut flags = flag;
    if c_ulong::from(flag) == libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
        // Refused alone.
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    }
    seccomp(flags, ptr::null()) == Err(Errno::EFAULT)
}

fn seccomp(flags: u32, fprog: *const sock_fprog) -> Result<c_long> {
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `fprog` is null, which the kernel answers with EFAULT, or points to a live program,
    // which the kernel only reads.
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
