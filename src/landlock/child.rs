//! Makes the ruleset in the container's root, and enforces it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::{SFlag, fstat};

use super::{Ruleset, fs};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::text;
use crate::fs::Root;
use crate::sys::{self, Errno};

/// With the paths as they are beneath `root`, which nothing can be led out of.
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

/// Allows to read and execute `program`, whatever the rules say of its path. One that is on no file system
/// of a mount, as a copy in memory, needs no rule.
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

/// None where a missing path is forgiven: what is not there need not be allowed.
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

/// From here on the rules hold, for all that this process executes.
pub fn enforce(ruleset: BorrowedFd<'_>) -> ChildResult<()> {
    sys::landlock::restrict_self(ruleset).during("landlock_restrict_self")
}
