//! On the host, before the clone: the overlay, and sources of binds that the child could not open as
//! it must.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::{IdMap, Step, overlay};
use crate::error::{Context, OsContext, Result};
use crate::sys::mount::{Attributes, Extent, mount_setattr, open_tree};

pub mod id_map;

/// Opens them in the order that [`BindMount::tree`] and [`overlay::Overlay::tree`] count. They are detached copies, in no mount
/// table, and go away with the last process that holds them. None: the child shall try by itself.
pub fn open_trees<'a>(steps: impl Iterator<Item = &'a Step>) -> Result<Vec<Option<OwnedFd>>> {
    let mut trees = Vec::new();
    for step in steps {
        match step {
            Step::Bind(bind) if bind.tree.is_some() => {
                trees.push(
                    open(&bind.source, bind.extent, bind.id_map.as_ref())
                        .context(|| step.to_string())?,
                );
            }
            Step::Overlay(overlay) if overlay.tree.is_some() => {
                trees.push(Some(overlay::parent::make(overlay).context(|| step.to_string())?));
            }
            Step::CloneRoot { path, mapped: Some((_, map)) } => {
                trees.push(open(path, Extent::Tree, Some(map)).context(|| step.to_string())?);
            }
            _ => {}
        }
    }
    Ok(trees)
}

fn open(path: &CStr, extent: Extent, id_map: Option<&IdMap>) -> Result<Option<OwnedFd>> {
    let source = path.to_string_lossy();
    let tree = match open_tree(None, path, extent) {
        // An ordinary user may copy mounts only in a namespace of their own: the child's.
        Err(Errno::EPERM) if id_map.is_none() => return Ok(None),
        other => other.os("open_tree", &source)?,
    };
    // A copy of a shared mount is its peer: what the container mounts below it would reach the
    // host. As a slave it still learns of what the host mounts.
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    match mount_setattr(tree.as_fd(), Extent::Tree, slave) {
        // Linux before 5.12.
        Err(Errno::ENOSYS) if id_map.is_none() => return Ok(None),
        other => other.os("mount_setattr", &source)?,
    }
    if let Some(map) = id_map {
        id_map::apply(tree.as_fd(), Path::new(&*source), map)?;
    }
    Ok(Some(tree))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::{BindMount, Target};
    use nix::sys::stat::fstat;

    fn bind(id_map: Option<IdMap>) -> BindMount {
        BindMount {
            source: c"/tmp".into(),
            extent: Extent::One,
            target: Target { path: c"/x".into(), in_proc: false, ordinary: false },
            change: None,
            proc_only: false,
            tree: Some(0),
            id_map,
            fill: false,
            finish: Default::default(),
            options: String::new(),
        }
    }

    #[test]
    fn owners_are_shown_as_mapped() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: not root");
        }
        let before = std::fs::read("/proc/self/mountinfo").unwrap();
        let map = IdMap { extent: Extent::One, uids: vec![[0, 4000, 9]], gids: vec![[0, 5000, 9]] };
        let tree = open(c"/tmp", Extent::One, Some(&map)).unwrap().unwrap();
        let stat = fstat(&tree).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (4000, 5000));
        assert_eq!(std::fs::read("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn says_what_is_missing() {
        let source = c"/nonexistent/source".into();
        let steps = [Step::Bind(Box::new(BindMount { source, ..bind(None) }))];
        assert_eq!(
            open_trees(steps.iter()).unwrap_err().to_string(),
            "bind /nonexistent/source on /x: open_tree /nonexistent/source: \
             no such file or directory"
        );
    }
}
