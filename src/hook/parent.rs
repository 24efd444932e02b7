//! Runs hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::{Hook, HookContext, Point, run};
use crate::error::{Error, Result};

/// Runs hooks in order, up to the first that fails.
///
/// # Errors
///
/// A hook fails, or exceeds its timeout.
pub fn run(point: Point, hooks: &[Hook], context: &HookContext) -> Result<()> {
    run::run(point, hooks, context).collect::<std::result::Result<_, _>>().map_err(Error::system)
}

/// Runs all poststop hooks, even if some fail, as the specification demands.
pub fn run_all(point: Point, hooks: &[Hook], context: &HookContext, warn: &dyn Fn(&str)) {
    run::run(point, hooks, context).filter_map(|outcome| outcome.err()).for_each(|why| warn(&why));
}

/// Environment of a hook in the runtime's namespaces that specifies none.
#[expect(clippy::disallowed_methods, reason = "a hook inherits them, as the specification demands")]
pub fn own_environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
