//! Network of a rootless container: pasta(1), a program that moves packets between the container's network namespace
//! and sockets of the user.
//!
//! pasta gets the container's process before init executes the program, while an unprivileged user may still inspect
//! that process. One argument is unique: the path of its pid file in the container's state directory. Aril finds
//! pasta by it later, even if the start was killed right after.

pub mod effect;
pub mod plan;

use std::path::{Path, PathBuf};

use crate::spec::Extensions;

/// Value of [`crate::spec::annotation::NETWORK`] that selects pasta.
pub const NAME: &str = "pasta";

/// True if the options select pasta.
pub fn is_wanted(extensions: &Extensions) -> bool {
    extensions.network.as_deref() == Some(NAME)
}

fn pid_file(state_directory: &Path) -> PathBuf {
    state_directory.join("pasta.pid")
}
