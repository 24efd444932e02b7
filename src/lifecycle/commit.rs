//! `commit`: writes the changes of a container as a layer.

use std::fs;
use std::path::Path;

use super::export::{Destination, Target, beside};
use super::inside::Place;
use super::{frozen, inspect, view};
use crate::error::{Error, Kind as ErrorKind, OsContext, Result};
use crate::fs::{closed, remove};
use crate::id::ContainerId;
use crate::layer::Ids;
use crate::layer::changes::Kind;
use crate::layer::directory::LayerDirectory;
use crate::layer::pack::{Archive, Packer, Sink};
use crate::rootfs::overlay::view::open_directory;
use crate::state::{Store, observe};

/// Returns the files that were left out. The lock is held, so that no other verb deletes or resumes the container.
///
/// # Errors
///
/// The container does not exist or has no layers, or its files cannot be read or written.
pub fn commit(
    store: &Store,
    id: &ContainerId,
    to: &Target,
    pause: bool,
    place: Place,
) -> Result<Vec<String>> {
    let slot = store.lock(id)?;
    let record = inspect::record(&slot, id)?;
    let observed = observe(&slot, &record)?;
    let ids = view::ids(&inspect::stored_config(&slot)?, place);
    let layered = view::layered(&record, &observed)?;
    let write = |sink: &mut dyn Sink| -> Result<Vec<String>> {
        let frozen = if pause { frozen::freeze(&record, &observed)? } else { None };
        let skipped = pack(&layered, &ids, sink)?;
        frozen.map_or(Ok(()), frozen::Frozen::thaw)?;
        Ok(skipped)
    };
    match to {
        Target::Folder(path) => to_folder(path, write),
        archive => {
            let mut destination = Destination::open(archive)?;
            let name = destination.name();
            let skipped = write(&mut Archive::layer(&mut destination.out, name))?;
            destination.keep()?;
            Ok(skipped)
        }
    }
}

/// Lists the root first, changed or not: a layer always has it.
fn pack(layered: &view::Layered, ids: &Ids, sink: &mut dyn Sink) -> Result<Vec<String>> {
    let mut changes = layered.changes(ids)?;
    changes.retain(|change| !change.path.is_empty());
    let mut packer = Packer::new(&layered.view, ids, sink);
    let view = &layered.view;
    if let Some(root) = view.look(b"")? {
        packer.add(b"", &root)?;
    }
    for change in changes {
        match view.look(&change.path)? {
            _ if change.kind == Kind::Deleted => packer.whiteout(&change.path)?,
            Some(found) => packer.add(&change.path, &found)?,
            // This happens only if the container was not frozen.
            None => {
                let path = view.shown(&change.path);
                return Err(Error::state(format!("{path} went away while it was read")));
            }
        }
    }
    packer.finish()
}

/// Creates the layer beside its destination, and renames it when it is complete.
fn to_folder(
    path: &Path,
    write: impl FnOnce(&mut dyn Sink) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let taken = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if taken {
        let text = format!("{} is not empty", path.display());
        return Err(Error::new(ErrorKind::Exists, text).hint("name a new directory for the layer"));
    }
    let beside = beside(path)?;
    remove::tree(&beside).os("remove", beside.display())?;
    closed::create(&beside).os("mkdir", beside.display())?;
    let written = open_directory(&beside)
        .and_then(|folder| write(&mut LayerDirectory::new(folder, path.display().to_string())))
        .and_then(|skipped| {
            fs::rename(&beside, path).os("rename", path.display()).map(|()| skipped)
        });
    if written.is_err() {
        // The first error is the one to report.
        let _ = remove::tree(&beside);
    }
    written
}
