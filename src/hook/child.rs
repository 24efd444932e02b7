//! Hooks in the container's namespaces: createContainer and startContainer.

use super::{Hook, Point, Surroundings, run};
use crate::error::fault::{ChildResult, Fault};

/// In order; the first that fails ends it.
pub fn run(point: Point, hooks: &[Hook], around: &Surroundings) -> ChildResult<()> {
    run::run(point, hooks, around).collect::<Result<_, _>>().map_err(Fault::refused)
}
