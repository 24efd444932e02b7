//! landlock(7): a process's own restriction of itself.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, c_uint, c_void};

use super::{Result, check};

const CREATE_RULESET_VERSION: c_uint = 1;
const RULE_PATH_BENEATH: c_int = 1;
const RULE_NET_PORT: c_int = 2;

/// `struct landlock_ruleset_attr`. Kernels that know less of it want the rest to be zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handled {
    pub fs: u64,
    pub net: u64,
    pub scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: c_int,
}

#[repr(C)]
struct NetPort {
    allowed: u64,
    port: u64,
}

/// The version of the interface: `ENOSYS` where it is not built in, `EOPNOTSUPP` where it is off.
pub fn version() -> Result<u32> {
    create(ptr::null(), 0, CREATE_RULESET_VERSION).map(|version| version as u32)
}

pub fn ruleset(handled: &Handled) -> Result<OwnedFd> {
    let fd = create(handled, size_of::<Handled>(), 0)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn create(handled: *const Handled, size: usize, flags: c_uint) -> Result<c_long> {
    // SAFETY: the kernel reads `size` bytes: none of a null pointer, all of a live structure.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, flags) })
}

/// Allows `access` to `parent`, and to all that is beneath it if it is a directory.
pub fn allow_path(ruleset: BorrowedFd<'_>, parent: BorrowedFd<'_>, access: u64) -> Result<()> {
    let rule = PathBeneath { allowed: access, parent: parent.as_raw_fd() };
    add(ruleset, RULE_PATH_BENEATH, (&raw const rule).cast())
}

pub fn allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<()> {
    let rule = NetPort { allowed: access, port: port.into() };
    add(ruleset, RULE_NET_PORT, (&raw const rule).cast())
}

fn add(ruleset: BorrowedFd<'_>, kind: c_int, rule: *const c_void) -> Result<()> {
    let flags: c_uint = 0;
    // SAFETY: the two callers pass a live structure of the kind that they name, which is only read.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, flags)
    })
    .map(drop)
}

/// For the calling thread, which has no_new_privs or CAP_SYS_ADMIN.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    let flags: c_uint = 0;
    // SAFETY: all arguments are numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) })
        .map(drop)
}
