//! Files, where the path is not ours to trust.
//!
//! - [`Root`]: a directory tree that a container controls. Every lookup is made by the kernel as if
//!   the directory were `/`, so a symlink swapped at any moment can lead elsewhere *inside* only.
//! - [`Proc`]: a procfs known to be one, taken before the container could have a say.
//! - [`process`]: what /proc tells of one process.
//! - [`tree`]: all of such a directory, in order, without recursion.
//! - [`closed`]: directories and files of container content, closed to other users of the host.
//! - [`record`]: small files of ours, replaced whole or not at all.
//! - [`remove`]: a tree that a container has filled, whatever it is filled with.

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
