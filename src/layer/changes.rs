//! What a container changed: its view compared with what is below it, where its upper directory has
//! something.

use std::io::Read;

use super::{Entry, Form, Ids};
use crate::error::{OsContext, Result};
use crate::fs::Tree;
use crate::fs::tree::{self, Found};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    /// Itself, or, of a directory, something in it.
    Changed,
    Deleted,
}

#[derive(Debug)]
pub struct Change {
    pub kind: Kind,
    /// From the root, without a slash before it.
    pub path: Vec<u8>,
}

pub struct Trees<'a> {
    /// What the container sees.
    pub view: &'a Tree,
    /// What it would see had it written nothing.
    pub below: &'a Tree,
    /// What it wrote. Without, everything is compared.
    pub upper: Option<&'a Tree>,
    pub ids: &'a Ids,
}

/// In the order of a walk: a directory before what is in it.
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
    /// Directories that are in both, and whether the upper one hides what is below.
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
                let mut names = self.trees.view.names(directory)?;
                names.extend(self.trees.below.names(directory)?);
                names.sort_unstable();
                names.dedup();
                Ok(names)
            }
        }
    }

    fn compare(&mut self, path: Vec<u8>, whole: bool) -> Result<()> {
        let Trees { view, below, .. } = self.trees;
        match (present(view.look(&path)?), present(below.look(&path)?)) {
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

    /// All that is in a new directory is new.
    fn add_all(&mut self, kind: Kind, path: Vec<u8>, new: &Found) -> Result<()> {
        if new.is_directory() {
            for entry in self.trees.view.walk(&path).skip(1) {
                self.found.push(Change { kind: Kind::Added, path: entry?.0 });
            }
        }
        self.note(kind, path)
    }

    /// Whether the upper directory at `path` stands for more than what is in it: it is opaque, or it
    /// was moved here, with what is below its old name.
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
        let Trees { view, below, ids, .. } = self.trees;
        let entry = Entry::read(view, path, new, ids)?;
        if entry != Entry::read(below, path, old, ids)? {
            return Ok(true);
        }
        // A further name was given to it, which must stay one of the same file.
        if entry.form != Form::Directory && new.stat.st_nlink > old.stat.st_nlink {
            return Ok(true);
        }
        // Nothing can be written and leave this time as it is.
        let changed = |found: &Found| (found.stat.st_ctime, found.stat.st_ctime_nsec);
        if entry.form != Form::File || changed(new) == changed(old) {
            return Ok(false);
        }
        let new = new.open().os("open", view.shown(path))?;
        let old = old.open().os("open", below.shown(path))?;
        same(new, old).map(|same| !same).os("read", view.shown(path))
    }
}

/// A whiteout that the kernel did not resolve, because a single directory is no overlay, is nothing.
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

/// A directory in which something changed has changed, as in Docker's listing; the root is in none.
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
