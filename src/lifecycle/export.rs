//! `export`: writes a container's root as an archive. Also defines the destination of archives.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::inside::Place;
use super::{frozen, inspect, view};
use crate::error::{Error, Kind, OsContext, Result};
use crate::fs::{Tree, closed};
use crate::id::ContainerId;
use crate::layer::Ids;
use crate::layer::pack::{Archive, Packer};
use crate::state::{Store, observe};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    /// Directory of a layer, absolute, as the next variant.
    File(PathBuf),
    /// Directory of a layer for overlayfs.
    Folder(PathBuf),
}

impl Target {
    /// Archive to write; `-` is stdout.
    ///
    /// # Errors
    ///
    /// The path is that of a terminal.
    pub fn archive(word: &str) -> Result<Self> {
        match word {
            "-" => Ok(Self::Stdout),
            "" => Err(Error::new(Kind::Usage, "the name of the archive is empty")),
            path => std::path::absolute(path).os("getcwd", "").map(Self::File),
        }
    }

    /// Returns the destination: a directory, unless the path is a file or has the name of an archive.
    ///
    /// # Errors
    ///
    /// The path cannot be examined.
    pub fn layer(word: &str) -> Result<Self> {
        Ok(match Self::archive(word)? {
            Self::File(path) if path.is_dir() => Self::Folder(path),
            Self::File(path) if !path.exists() && path.extension().is_none_or(|e| e != "tar") => {
                Self::Folder(path)
            }
            other => other,
        })
    }
}

/// Returns the files that were left out. The lock is held, so that no other verb deletes or resumes the container.
///
/// # Errors
///
/// The container does not exist, or its files cannot be read or written.
pub fn export(
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
    let view = view::of(&record, &observed)?;
    let mut destination = Destination::open(to)?;
    let frozen = if pause { frozen::freeze(&record, &observed)? } else { None };
    let skipped = pack_all(&view, &ids, &mut destination)?;
    destination.keep()?;
    frozen.map_or(Ok(()), frozen::Frozen::thaw)?;
    Ok(skipped)
}

fn pack_all(view: &Tree, ids: &Ids, destination: &mut Destination) -> Result<Vec<String>> {
    let name = destination.name();
    let mut archive = Archive::new(&mut destination.out, name);
    let mut packer = Packer::new(view, ids, &mut archive);
    for entry in view.walk(b"") {
        let (path, found) = entry?;
        packer.add(&path, &found)?;
    }
    packer.finish()
}

/// Archive that is being written. Drop removes it unless it was kept.
pub(super) struct Destination {
    pub(super) out: BufWriter<File>,
    /// Temporary path and final path.
    file: Option<(PathBuf, PathBuf)>,
}

impl Destination {
    pub(super) fn open(to: &Target) -> Result<Self> {
        match to {
            Target::Stdout => Self::stdout(),
            Target::File(path) => Self::file(path),
            Target::Folder(path) => {
                Err(Error::os("create", path.display(), crate::sys::Errno::EISDIR))
            }
        }
    }

    fn stdout() -> Result<Self> {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Error::new(Kind::Usage, "refusing to write an archive to a terminal")
                .hint("name a file, or redirect stdout"));
        }
        let copy = stdout.as_fd().try_clone_to_owned().os("dup", "stdout")?;
        Ok(Self { out: BufWriter::new(copy.into()), file: None })
    }

    fn file(path: &Path) -> Result<Self> {
        // A pipe or a device cannot be replaced by a file.
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            let out = OpenOptions::new().write(true).open(path).os("open", path.display())?;
            return Ok(Self { out: BufWriter::new(out), file: None });
        }
        let beside = beside(path)?;
        let _ = fs::remove_file(&beside);
        let out = closed::file(&beside)?;
        Ok(Self { out: BufWriter::new(out), file: Some((beside, path.to_owned())) })
    }

    pub(super) fn name(&self) -> String {
        self.file.as_ref().map_or("the archive".into(), |(_, path)| path.display().to_string())
    }

    /// Keeps the complete archive. It replaces an existing file.
    pub(super) fn keep(mut self) -> Result<()> {
        match self.file.take() {
            Some((beside, path)) => fs::rename(&beside, &path).os("rename", path.display()),
            None => Ok(()),
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.file {
            let _ = fs::remove_file(beside);
        }
    }
}

/// Returns a hidden name in the same directory. The next call replaces the file of a killed one.
pub(super) fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        Error::new(Kind::Usage, format!("{} is not the name of a file", path.display()))
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}
