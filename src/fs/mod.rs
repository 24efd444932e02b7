//! Access to files whose paths Aril cannot trust.
//!
//! - [`Root`]: a directory tree that a container controls. The kernel resolves every path as if the directory were `/`,
//!   so a symlink that is replaced at any moment leads to another file *of the same tree* at most.
//! - [`Proc`]: the host's procfs, checked and opened before the container starts.
//! - [`process`]: facts about a process from /proc.
//! - [`tree`]: all files of such a directory, in order, without recursion.
//! - [`closed`]: directories and files of container content that other users of the host cannot reach.
//! - [`record`]: small files of Aril, replaced atomically.
//! - [`remove`]: removal of a tree that a container has written.

pub mod closed;
mod proc;
pub mod process;
pub mod record;
pub mod remove;
mod root;
pub mod tree;

use std::io::ErrorKind;
use std::path::Path;

pub use proc::Proc;
pub use root::Root;
pub use tree::Tree;

/// Returns false only if the kernel says that no such file exists. Another error, such as EIO or EACCES, is no absence: what
/// belongs to the file stays in use.
pub fn may_exist(path: &Path) -> bool {
    let absent = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    !path.symlink_metadata().is_err_and(|e| absent(e.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_no_absence() {
        assert!(may_exist(Path::new("/")));
        assert!(!may_exist(Path::new("/no such directory/file")));
        assert!(!may_exist(Path::new("/proc/self/stat/file")));
        // ENAMETOOLONG
        assert!(may_exist(Path::new(&format!("/{}", "x".repeat(300)))));
    }
}
