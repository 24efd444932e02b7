//! Hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::{Hook, Point, Surroundings, run};
use crate::error::{Error, Result};

/// In order; the first that fails ends it.
pub fn run(point: Point, hooks: &[Hook], around: &Surroundings) -> Result<()> {
    run::run(point, hooks, around).collect::<std::result::Result<_, _>>().map_err(Error::system)
}

/// All of them, whichever fail: poststop, as the specification has it.
pub fn run_all(point: Point, hooks: &[Hook], around: &Surroundings, warn: &dyn Fn(&str)) {
    run::run(point, hooks, around).filter_map(|outcome| outcome.err()).for_each(|why| warn(&why));
}

/// What a hook without an environment has in the runtime's namespaces.
pub fn own_environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
