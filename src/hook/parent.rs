//! Hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::{Hook, Point, Surroundings, run};
use crate::error::{Error, Result};

/// In order; the first that fails ends it.
pub fn run(point: Point, hooks: &[Hook], around: &Surroundings) -> Result<()> {
    run::run(point, hooks, around).map_err(Error::system)
}

/// What a hook without an environment has in the runtime's namespaces.
pub fn own_environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
