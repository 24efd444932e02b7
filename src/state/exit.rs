//! Record of a container's end, written by the process that waits for it.
//!
//! That process creates an empty `exit.json` before the container's process, and holds a flock(2) on it. The kernel releases
//! the lock of a killed process. The file is written once, in place, so that a reader with an open descriptor reads the end
//! of a container that is deleted at the same moment.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Slot;
use crate::error::{Error, OsContext, Result};

/// Name of the file in the container's state directory.
pub(super) const EXIT: &str = "exit.json";

/// Maximum size of the file in bytes.
const LONGEST: u64 = 4096;

/// The end of a container's init process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status; 128 + N if signal N ended the process.
    pub status: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// True if the OOM killer killed a process of the container.
    #[serde(default)]
    pub oom_killed: bool,
    /// Time of the exec of the program: RFC 3339, UTC.
    pub started: String,
    /// Time of the end: RFC 3339, UTC.
    pub finished: String,
}

/// Knowledge about a container's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// No process of Aril waits for the container: its parent is the caller.
    Unattended,
    /// A process waits for the container.
    Awaited,
    Recorded(Exit),
    /// The process that waited for the container was killed.
    Lost,
}

/// The file `exit.json` in the process that waits for the container.
#[derive(Debug)]
pub struct ExitFile(File);

impl ExitFile {
    /// Creates the file and takes its lock.
    ///
    /// # Errors
    ///
    /// The file cannot be created or locked.
    pub fn make(slot: &Slot) -> Result<Self> {
        let path = path(slot);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = file.os("open", path.display())?;
        // A reader may hold the lock for a moment. The kernel releases it with the last descriptor.
        file.lock().os("flock", path.display())?;
        Ok(Self(file))
    }

    /// Takes the open and locked file from this process's standard output.
    ///
    /// # Errors
    ///
    /// Standard output is no file.
    pub fn inherited() -> Result<Self> {
        let file = std::io::stdout().as_fd().try_clone_to_owned().os("dup", "stdout")?;
        Ok(Self(file.into()))
    }

    /// Writes the end in one write(2): a reader sees all of it or nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn record(&self, exit: &Exit) -> Result<()> {
        let text = serde_json::to_vec(exit)
            .map_err(|e| Error::system(format!("encode the exit status: {e}")))?;
        (&self.0).write_all(&text).os("write", EXIT)
    }

    /// Returns true if the container has been deleted.
    ///
    /// # Errors
    ///
    /// The file cannot be examined.
    pub fn is_deleted(&self) -> Result<bool> {
        Ok(self.0.metadata().os("fstat", EXIT)?.nlink() == 0)
    }
}

impl AsFd for ExitFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn path(slot: &Slot) -> PathBuf {
    slot.path().join(EXIT)
}

/// Opens the file of a container for reading. `None` if no process waits for the container.
fn open(slot: &Slot) -> Result<Option<File>> {
    let path = path(slot);
    match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).os("open", path.display()),
    }
}

/// Reads the end without waiting.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn ending(slot: &Slot) -> Result<Ending> {
    let Some(file) = open(slot)? else { return Ok(Ending::Unattended) };
    match read(&file)? {
        Some(exit) => Ok(Ending::Recorded(exit)),
        None => match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Ok(Ending::Awaited),
            Err(TryLockError::Error(e)) => Err(Error::io("flock", path(slot).display(), &e)),
            // The process that held the lock may have written the end after the first read.
            Ok(()) => Ok(read(&file)?.map_or(Ending::Lost, Ending::Recorded)),
        },
    }
}

/// Waits for the process that waits for the container, then reads the end. Never returns [`Ending::Awaited`].
///
/// # Errors
///
/// The file cannot be locked or read.
pub fn wait_for_ending(slot: &Slot) -> Result<Ending> {
    let Some(file) = open(slot)? else { return Ok(Ending::Unattended) };
    while let Err(e) = file.lock_shared() {
        if e.kind() != ErrorKind::Interrupted {
            return Err(Error::io("flock", path(slot).display(), &e));
        }
    }
    Ok(read(&file)?.map_or(Ending::Lost, Ending::Recorded))
}

/// Parses the file. A damaged file has no end.
fn read(file: &File) -> Result<Option<Exit>> {
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).os("read", EXIT)?;
    Ok(serde_json::from_slice(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ContainerId;
    use crate::state::Store;

    #[test]
    fn awaited_recorded_and_lost() {
        let root = std::env::temp_dir().join(format!("aril-exit-{}", std::process::id()));
        let store = Store::new(root.clone());
        let slot = store.create(&ContainerId::parse("x").unwrap()).unwrap();
        assert_eq!(ending(&slot).unwrap(), Ending::Unattended);
        let file = ExitFile::make(&slot).unwrap();
        assert_eq!(ending(&slot).unwrap(), Ending::Awaited);
        let exit = Exit {
            status: 137,
            signal: Some(9),
            oom_killed: true,
            started: "a".into(),
            finished: "b".into(),
        };
        let reader = open(&slot).unwrap().unwrap();
        slot.remove().unwrap();
        assert!(file.is_deleted().unwrap());
        file.record(&exit).unwrap();
        assert_eq!(read(&reader).unwrap(), Some(exit));
        let slot = store.create(&ContainerId::parse("x").unwrap()).unwrap();
        drop(ExitFile::make(&slot).unwrap());
        assert_eq!(ending(&slot).unwrap(), Ending::Lost);
        assert_eq!(wait_for_ending(&slot).unwrap(), Ending::Lost);
        std::fs::remove_dir_all(root).unwrap();
    }
}
