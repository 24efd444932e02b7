//! Runs hooks in the runtime's namespaces, for the points of the lifecycle that are not the child's.

use super::inspect::{state_document, stored_config};
use crate::error::Result;
use crate::hook;
use crate::id::HostPid;
use crate::path::c_path;
use crate::state::{Phase, Record, Slot, Status};
use crate::sys::Errno;

/// Runs the hooks of one point in the runtime's namespaces.
pub(super) fn run(
    point: hook::Point,
    hooks: &hook::Plan,
    record: &Record,
    status: Status,
    pid: Option<HostPid>,
) -> Result<()> {
    within(record, status, pid, hooks.at(point), |hooks, around| {
        hook::parent::run(point, hooks, around)
    })
}

/// Runs the poststop hooks of a deleted container. A failed hook is a warning.
pub(super) fn run_poststop(hooks: &hook::Plan, record: &Record, warn: &dyn Fn(&str)) {
    let point = hook::Point::Poststop;
    let done = within(record, Status::Stopped, None, hooks.at(point), |hooks, around| {
        hook::parent::run_all(point, hooks, around, warn);
        Ok(())
    });
    done.unwrap_or_else(|e| warn(&format!("{point} hooks: {e}")));
}

fn within(
    record: &Record,
    status: Status,
    pid: Option<HostPid>,
    hooks: &[hook::Hook],
    run: impl FnOnce(&[hook::Hook], &hook::HookContext) -> Result<()>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let bundle = c_path("bundle", &record.bundle)?;
    let around = hook::HookContext {
        state: &state_document(record, status, pid)?,
        env: &hook::parent::own_environment(),
        cwd: Some(&bundle),
    };
    run(hooks, &around)
}

/// Reads the hooks of a container from its stored config: none if the record has none, or its create was killed before
/// the first hook.
pub(super) fn stored(slot: &Slot, record: &Record) -> Result<hook::Plan> {
    if !record.has_hooks {
        return Ok(hook::Plan::default());
    }
    match stored_config(slot) {
        Err(e) if record.phase == Phase::Creating && e.errno() == Some(Errno::ENOENT) => {
            Ok(hook::Plan::default())
        }
        config => hook::plan::plan(config?.spec.hooks().as_ref()),
    }
}
