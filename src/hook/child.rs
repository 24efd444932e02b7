//! Runs hooks in the container's namespaces: createContainer and startContainer.

use super::{Hook, HookContext, Point, run};
use crate::error::fault::{ChildResult, Fault};

/// Runs hooks in order, up to the first that fails.
///
/// # Errors
///
/// A hook fails, or exceeds its timeout.
pub fn run(point: Point, hooks: &[Hook], context: &HookContext) -> ChildResult<()> {
    run::run(point, hooks, context).collect::<Result<_, _>>().map_err(Fault::refused)
}
