//! `diff`: lists the files that a container changed in its layers.

use super::inside::Place;
use super::{inspect, view};
use crate::error::Result;
use crate::id::ContainerId;
use crate::layer::Entry;
use crate::layer::changes::Kind;
use crate::state::{Store, observe};

#[derive(Debug)]
pub struct Difference {
    pub kind: Kind,
    /// Path without a leading slash; may not be UTF-8.
    pub path: Vec<u8>,
    /// Attributes of the present file.
    pub entry: Option<Entry>,
}

/// Lists changes, without the root itself. The container is not frozen: a file that changes at the same time is listed in
/// its old or new state.
///
/// # Errors
///
/// The container does not exist or has no layers, or its files cannot be read.
pub fn diff(store: &Store, id: &ContainerId, place: Place) -> Result<Vec<Difference>> {
    let slot = store.open(id)?;
    let record = inspect::record(&slot, id)?;
    let observed = observe(&slot, &record)?;
    let ids = view::ids(&inspect::stored_config(&slot)?, place);
    let layered = view::layered(&record, &observed)?;
    let mut differences = Vec::new();
    for change in layered.changes(&ids)?.into_iter().filter(|change| !change.path.is_empty()) {
        let found = match change.kind {
            Kind::Deleted => None,
            Kind::Added | Kind::Changed => layered.view.look(&change.path)?,
        };
        let entry = found.map(|found| Entry::read(&layered.view, &change.path, &found, &ids));
        differences.push(Difference {
            kind: change.kind,
            entry: entry.transpose()?,
            path: change.path,
        });
    }
    Ok(differences)
}
