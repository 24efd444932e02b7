//! Lists a container's changes: compares its merged merged with the lower directories, where its upper directory has
//! entries.

use std::io::Read;

use super::{Entry, Form, Ids};
use crate::error::{OsContext, Result};
use crate::fs::Tree;
use crate::fs::tree::{self, Found};

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    /// The entry itself has changed, or, for a directory, something in it.
    Changed,
    Deleted,
}

/// Change of one path.
#[derive(Debug)]
pub struct Change {
    pub kind: Kind,
    /// Path from the root, without a leading slash.
    pub path: Vec<u8>,
}

/// Trees to compare.
pub struct Trees<'a> {
    /// What the container sees.
    pub merged: &'a Tree,
    /// The lower directories alone: what the container would see if it had written nothing.
    pub lower: &'a Tree,
    /// The upper directory. `None`: compare everything.
    pub upper: Option<&'a Tree>,
    pub ids: &'a Ids,
}

/// Returns changes in the order of a walk: a directory before its entries.
///
/// # Errors
///
/// A directory or file cannot be read.
pub fn changes(trees: &Trees) -> Result<Vec<Change>> {
    let mut search = Search { trees, found: Vec::new(), pending: Vec::new() };
    search.run()?;
    let mut found = with_parents(search.found);
    found.sort_unstable_by(|a, b| tree::order(&a.path, &b.path));
    Ok(found)
}

struct Search<'a> {
    trees: &'a Trees<'a>,
    found: Vec<Change>,
    /// Directories that exist in both, and whether the upper one hides the lower one.
    pending: Vec<(Vec<u8>, bool)>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<()> {
        self.compare(Vec::new(), self.trees.upper.is_none())?;
        while let Some((directory, whole)) = self.pending.pop() {
            for name in self.names(&directory, whole)? {
                self.compare(tree::join(&directory, &name), whole)?;
            }
        }
        Ok(())
    }

    fn names(&self, directory: &[u8], whole: bool) -> Result<Vec<Vec<u8>>> {
        match self.trees.upper {
            Some(upper) if !whole => upper.names(directory),
            _ => {
                let mut names = self.trees.merged.names(directory)?;
                names.extend(self.trees.lower.names(directory)?);
                names.sort_unstable();
                names.dedup();
                Ok(names)
            }
        }
    }

    fn compare(&mut self, path: Vec<u8>, whole: bool) -> Result<()> {
        let Trees { merged, lower, .. } = self.trees;
        match (present(merged.look(&path)?), present(lower.look(&path)?)) {
            (None, None) => Ok(()),
            (None, Some(_)) => self.note(Kind::Deleted, path),
            (Some(new), None) => self.add_all(Kind::Added, path, &new),
            (Some(new), Some(old)) if new.kind() != old.kind() => {
                self.add_all(Kind::Changed, path, &new)
            }
            (Some(new), Some(old)) => {
                if new.is_directory() {
                    let whole = whole || self.hides(&path)?;
                    self.pending.push((path.clone(), whole));
                }
                if self.differ(&path, &new, &old)? {
                    self.note(Kind::Changed, path)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn note(&mut self, kind: Kind, path: Vec<u8>) -> Result<()> {
        self.found.push(Change { kind, path });
        Ok(())
    }

    /// Adds everything in a new directory as new.
    fn add_all(&mut self, kind: Kind, path: Vec<u8>, new: &Found) -> Result<()> {
        if new.is_directory() {
            for entry in self.trees.merged.walk(&path).skip(1) {
                self.found.push(Change { kind: Kind::Added, path: entry?.0 });
            }
        }
        self.note(kind, path)
    }

    /// True if the upper directory at `path` hides lower entries: it is opaque, or it was renamed and shows the lower
    /// entries of its old name.
    fn hides(&self, path: &[u8]) -> Result<bool> {
        let Some(upper) = self.trees.upper else { return Ok(true) };
        let Some(found) = upper.look(path)? else { return Ok(false) };
        for name in [
            c"trusted.overlay.opaque",
            c"user.overlay.opaque",
            c"trusted.overlay.redirect",
            c"user.overlay.redirect",
        ] {
            if found.xattr(name).os("getxattr", upper.shown(path))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn differ(&self, path: &[u8], new: &Found, old: &Found) -> Result<bool> {
        let Trees { merged, lower, ids, .. } = self.trees;
        let entry = Entry::read(merged, path, new, ids)?;
        if entry != Entry::read(lower, path, old, ids)? {
            return Ok(true);
        }
        // A hard link was added: the names must stay names of one file.
        if entry.form != Form::Directory && new.stat.st_nlink > old.stat.st_nlink {
            return Ok(true);
        }
        // Every write changes the ctime.
        let changed = |found: &Found| (found.stat.st_ctime, found.stat.st_ctime_nsec);
        if entry.form != Form::File || changed(new) == changed(old) {
            return Ok(false);
        }
        let new = new.open().os("open", merged.shown(path))?;
        let old = old.open().os("open", lower.shown(path))?;
        same(new, old).map(|same| !same).os("read", merged.shown(path))
    }
}

/// Treats a whiteout as absent. The kernel does not resolve whiteouts in a single directory, which is no overlay.
fn present(found: Option<Found>) -> Option<Found> {
    found.filter(|found| found.kind() != libc::S_IFCHR || found.stat.st_rdev != 0)
}

fn same(mut new: impl Read, mut old: impl Read) -> std::io::Result<bool> {
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (n, m) = (fill(&mut new, &mut a)?, fill(&mut old, &mut b)?);
        if n != m || a[..n] != b[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

/// Adds parent directories: a directory with a change in it has changed, as in `docker diff`. The root is omitted.
fn with_parents(mut found: Vec<Change>) -> Vec<Change> {
    let mut known: std::collections::BTreeSet<Vec<u8>> =
        found.iter().map(|change| change.path.clone()).collect();
    for at in 0..found.len() {
        let mut path = tree::split(&found[at].path).0.to_owned();
        while !path.is_empty() && known.insert(path.clone()) {
            let parent = tree::split(&path).0.to_owned();
            found.push(Change { kind: Kind::Changed, path });
            path = parent;
        }
    }
    found
}
