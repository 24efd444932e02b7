//! Reads the operator's configuration file.
//!
//! A line has one directive with the name of an option without dashes: `allow-annotation KEY`, `deny-annotation KEY`,
//! `strict-annotations`. Empty lines and text after `#` are comments.
//!
//! Other users must not be able to change the file. The file and every directory of its path must belong to root, or to
//! the owner that the caller of this module names, and must not be writable by group or others. No part of the path may
//! be a symbolic link.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::Rules;
use crate::error::{Context, Error, OsContext, Result};
use crate::sys::open::open;

/// Configuration file, which may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub path: PathBuf,
    /// User that may own the file, besides root.
    pub owner: u32,
    /// True to ignore a file with another owner, and one that the caller may not read. False to reject it.
    pub optional: bool,
    /// Owner that files of the host's root have in a user namespace. It is trusted for directories above that of the
    /// file.
    pub unmapped: Option<u32>,
}

/// Maximum size of the file in bytes.
const LIMIT: u64 = 1 << 20;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

impl ConfigFile {
    /// Reads the rules in the file. `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<Rules>> {
        let shown = || format!("read the configuration file {}", self.path.display());
        let Some(mut file) = self.open().context(shown)? else { return Ok(None) };
        let mut text = String::new();
        let read = file.by_ref().take(LIMIT).read_to_string(&mut text);
        read.map_err(|e| Error::io("read", self.path.display(), &e))?;
        parse(&text).map(Some).context(shown)
    }

    /// Opens the path component by component, so that the checked file is the one that is read.
    fn open(&self) -> Result<Option<File>> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open("/", directory).os("open", "/")?;
        let names = self.names()?;
        let Some((name, directories)) = names.split_last() else { return Ok(None) };
        let mut opened = vec![(root, PathBuf::from("/"))];
        for name in directories {
            let (at, above) = &opened[opened.len() - 1];
            let path = above.join(name);
            let Some(next) = self.step(at, name, directory, &path)? else { return Ok(None) };
            opened.push((next, path));
        }
        // O_NONBLOCK: opening a FIFO would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let (at, _) = &opened[opened.len() - 1];
        let Some(file) = self.step(at, name, flags, &self.path)? else { return Ok(None) };
        // The directories are checked only if the file exists: the path of a missing file may be anything.
        let last = opened.len() - 1;
        for (n, (fd, path)) in opened.iter().enumerate() {
            if !self.is_trusted(fd, path, n < last)? {
                return Ok(None);
            }
        }
        if !self.is_trusted(&file, &self.path, false)? {
            return Ok(None);
        }
        let file = File::from(file);
        if !file.metadata().os("fstat", self.path.display())?.is_file() {
            return Err(Error::config(format!("{} is not a regular file", self.path.display())));
        }
        Ok(Some(file))
    }

    /// Opens one component. `None` if it does not exist, or if a caller other than root may not access it.
    fn step(
        &self,
        at: &OwnedFd,
        name: &OsStr,
        flags: OFlag,
        path: &Path,
    ) -> Result<Option<OwnedFd>> {
        match openat(at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::EACCES) if self.optional || self.owner != 0 => Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) if path.is_symlink() => {
                Err(Error::config(format!("{} is a symbolic link", path.display())).hint(
                    "replace the link by the file: the owner of a link can choose another file",
                ))
            }
            Err(errno) => Err(Error::os("open", path.display(), errno)),
        }
    }

    fn names(&self) -> Result<Vec<&OsStr>> {
        let named = |component| match component {
            Component::RootDir => None,
            Component::Normal(name) => Some(Ok(name)),
            _ => Some(Err(Error::config(format!(
                "{}: the path contains . or ..",
                self.path.display()
            )))),
        };
        self.path.components().filter_map(named).collect()
    }

    /// Returns true if only trusted users can change the file. Returns false for an optional file with another owner.
    fn is_trusted(&self, fd: impl AsFd, path: &Path, is_above: bool) -> Result<bool> {
        let file = File::from(fd.as_fd().try_clone_to_owned().os("dup", path.display())?);
        let metadata = file.metadata().os("fstat", path.display())?;
        let owners = [Some(0), Some(self.owner), self.unmapped.filter(|_| is_above)];
        if !owners.contains(&Some(metadata.uid())) {
            if self.optional {
                return Ok(false);
            }
            let text = format!("{} belongs to user {}", path.display(), metadata.uid());
            let owner = match self.owner {
                0 => "root".to_owned(),
                user => format!("root or user {user}"),
            };
            return Err(Error::config(text).hint(format!("chown {} to {owner}", path.display())));
        }
        let sticky = is_above && metadata.mode() & STICKY != 0;
        if metadata.mode() & WRITABLE_BY_OTHERS != 0 && !sticky {
            let mode = metadata.mode() & 0o7777;
            let text = format!("other users can write {} (mode {mode:04o})", path.display());
            return Err(Error::config(text).hint(format!("chmod go-w {}", path.display())));
        }
        Ok(true)
    }
}

fn parse(text: &str) -> Result<Rules> {
    let mut rules = Rules::default();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_ascii_whitespace();
        let Some(directive) = words.next() else { continue };
        let value = words.next();
        let done = match (directive, value, words.next()) {
            ("allow-annotation", Some(key), None) => rules.allow(key),
            ("deny-annotation", Some(key), None) => rules.deny(key),
            ("strict-annotations", None, None) => {
                rules.be_strict();
                Ok(())
            }
            _ => Err(Error::config(format!("invalid directive {line:?}")).hint(
                "the directives are allow-annotation KEY, deny-annotation KEY and strict-annotations",
            )),
        };
        done.context(|| format!("line {}", n + 1))?;
    }
    Ok(rules)
}
