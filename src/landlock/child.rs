//! Creates the ruleset in the container's root file system, and enforces it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::{SFlag, fstat};

use super::{Ruleset, fs};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::text;
use crate::fs::Root;
use crate::sys::{self, Errno};

/// Creates the ruleset. Paths are opened beneath `root`, and no symbolic link leads out of it.
///
/// # Errors
///
/// A path cannot be opened, or the kernel has no Landlock.
pub fn make(ruleset: &Ruleset, root: &Root) -> ChildResult<OwnedFd> {
    let made = sys::landlock::ruleset(&ruleset.handled).during("landlock_create_ruleset")?;
    for rule in &ruleset.paths {
        let Some(place) = open(root, &rule.path, ruleset.required)? else { continue };
        let of_files = if is_directory(&place)? { u64::MAX } else { fs::OF_FILES };
        match rule.access & of_files {
            0 => {}
            access => sys::landlock::allow_path(made.as_fd(), place.as_fd(), access)
                .map_err(|errno| about(&rule.path, errno))?,
        }
    }
    for rule in &ruleset.ports {
        sys::landlock::allow_port(made.as_fd(), rule.port, rule.access)
            .during("landlock_add_rule")?;
    }
    Ok(made)
}

/// Allows reading and executing `program`, regardless of the rules for its path. A program that is on no mounted
/// file system, such as a copy in memory, needs no rule.
///
/// # Errors
///
/// The program cannot be opened, or the kernel rejects the rule.
pub fn allow_program(
    ruleset: &Ruleset,
    made: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> ChildResult<()> {
    let access = ruleset.handled.fs & (fs::EXECUTE | fs::READ_FILE);
    match sys::landlock::allow_path(made, program, access) {
        Err(errno) if access != 0 && errno != Errno::EBADFD => {
            Err(errno).during("landlock_add_rule")
        }
        _ => Ok(()),
    }
}

/// Opens a path. Returns `None` if it is missing and not required: a missing path needs no rule.
fn open(root: &Root, path: &CStr, required: bool) -> ChildResult<Option<OwnedFd>> {
    match root.open(path, libc::O_PATH) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) if !required => Ok(None),
        Err(errno) => Err(about(path, errno)),
    }
}

fn about(path: &CStr, errno: Errno) -> Fault {
    let (path, why) = (path.to_string_lossy(), text::errno(errno));
    Fault::refused(format!("allow {path:?} in the container: {why}"))
}

fn is_directory(place: &OwnedFd) -> ChildResult<bool> {
    let mode = fstat(place).during("fstat")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Enforces the ruleset on this process and on every program that it executes.
///
/// # Errors
///
/// The process has neither `no_new_privs` nor CAP_SYS_ADMIN.
pub fn enforce(ruleset: BorrowedFd<'_>) -> ChildResult<()> {
    sys::landlock::restrict_self(ruleset).during("landlock_restrict_self")
}
