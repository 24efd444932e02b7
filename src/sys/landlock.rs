//! landlock(7): restricts the calling process.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, c_uint, c_void};

use super::{Result, check};

const CREATE_RULESET_VERSION: c_uint = 1;
const RULE_PATH_BENEATH: c_int = 1;
const RULE_NET_PORT: c_int = 2;

/// `struct landlock_ruleset_attr`. A kernel with a shorter version requires zeros in the other fields.
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

/// Returns the version of the interface.
///
/// # Errors
///
/// `ENOSYS` if Landlock is not built in, `EOPNOTSUPP` if it is disabled.
pub fn version() -> Result<u32> {
    create(ptr::null(), 0, CREATE_RULESET_VERSION).map(|version| version as u32)
}

/// Creates a ruleset that handles the given access rights.
///
/// # Errors
///
/// An error of landlock_create_ruleset(2).
pub fn ruleset(handled: &Handled) -> Result<OwnedFd> {
    let fd = create(handled, size_of::<Handled>(), 0)?;
    // SAFETY: the kernel has just created this descriptor (close-on-exec), and no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn create(handled: *const Handled, size: usize, flags: c_uint) -> Result<c_long> {
    // SAFETY: the kernel reads `size` bytes: none of a null pointer, all of a live structure.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, flags) })
}

/// Allows `access` to `parent`, and to everything below it if it is a directory.
///
/// # Errors
///
/// An error of landlock_add_rule(2).
pub fn allow_path(ruleset: BorrowedFd<'_>, parent: BorrowedFd<'_>, access: u64) -> Result<()> {
    let rule = PathBeneath { allowed: access, parent: parent.as_raw_fd() };
    add(ruleset, RULE_PATH_BENEATH, (&raw const rule).cast())
}

/// Allows `access` to a TCP port.
///
/// # Errors
///
/// An error of landlock_add_rule(2).
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

/// Enforces the ruleset on the calling thread, which needs no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
///
/// An error of landlock_restrict_self(2).
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    let flags: c_uint = 0;
    // SAFETY: the arguments are integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) })
        .map(drop)
}
