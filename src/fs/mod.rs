//! Files with paths that Aril cannot trust.
//!
//! - [`Root`]: a directory tree that a container controls. Every lookup is made by the kernel as if
//!   the directory were `/`, so a symlink swapped at any moment can lead elsewhere *inside* only.
//! - [`Proc`]: the host's procfs, checked and opened before the container starts.
//! - [`process`]: facts about a process from /proc.
//! - [`tree`]: all files of such a directory, in order, without recursion.
//! - [`closed`]: directories and files of container content, closed to other users of the host.
//! - [`record`]: small files of Aril, replaced atomically.
//! - [`remove`]: removes a tree that a container has written.

pub mod closed;
mod proc;
pub mod process;
pub mod record;
pub mod remove;
mod root;
pub mod tree;

pub use proc::Proc;
pub use root::Root;
pub use tree::Tree;
