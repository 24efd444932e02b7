//! Directories of containers in the state root, `<root>/<id>/`, and their locks.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;

use super::Record;
use super::record::VERSION;
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::record::{self, Prepared};
use crate::fs::{closed, remove};
use crate::id::ContainerId;
use crate::sys::Errno;
use crate::sys::open::open;

/// FIFO that exists while the container waits for `start`.
pub const FIFO: &str = "exec.fifo";
/// Directory of the notify socket.
pub const NOTIFY: &str = "notify";

/// Default state root of root.
pub const SYSTEM: &str = "/run/aril";

const RECORD: &str = "state.json";
/// File with the record before the first effect, by which the effects are found if the record is damaged.
const INTENT: &str = "intent.json";
const CONFIG: &str = "config.json";

/// Maximum size of a record in bytes. Annotations are its largest part.
const LONGEST: usize = 64 << 20;

/// Part of a record that every version has.
#[derive(serde::Deserialize)]
struct Version {
    aril_version: u32,
}

impl Version {
    fn is_newer(&self) -> bool {
        self.aril_version > VERSION
    }

    #[cold]
    fn refused(&self, path: &Path) -> Error {
        Error::system(format!(
            "{} was written by a newer aril (format {}, this one reads {VERSION})",
            path.display(),
            self.aril_version
        ))
        .hint("use that version for this container")
    }
}

/// Time to wait for the lock. A verb holds it for milliseconds, but hooks run under it.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Directory of a container.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    /// Descriptor with the lock, which drop releases.
    lock: Option<Flock<File>>,
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locks the state root, for decisions that depend on all containers.
    ///
    /// # Errors
    ///
    /// The root cannot be created or locked.
    pub fn lock_all(&self) -> Result<Flock<File>> {
        self.make_root()?;
        let directory = File::open(&self.root).os("open", self.root.display())?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive);
        lock.map_err(|(_, errno)| Error::os("flock", self.root.display(), errno))
    }

    /// Creates the root, or checks an existing one.
    fn make_root(&self) -> Result<()> {
        match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => {
                closed::check_root(&self.root, &meta, self.root == Path::new(SYSTEM))
            }
            _ => closed::directory(&self.root),
        }
        .context(|| "create the state directory".to_owned())
    }

    /// Creates the directory of a new container and takes its lock. Of two creates of one id, the mkdir(2) of one succeeds. If
    /// `reconcile` removes the directory before the lock is taken, it is created again.
    ///
    /// # Errors
    ///
    /// A container has the id, or the directory cannot be created.
    pub fn create(&self, id: &ContainerId) -> Result<Slot> {
        loop {
            let mut slot = self.make(id)?;
            match slot.take_lock(id) {
                Err(e) if e.kind() == Kind::NotFound => {}
                other => return other.map(|()| slot),
            }
        }
    }

    fn make(&self, id: &ContainerId) -> Result<Slot> {
        let path = self.root.join(id);
        self.make_root()?;
        match closed::create(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(
                    Kind::Exists,
                    format!("container with given ID already exists: {id}"),
                )
                .hint("delete it first, or choose another id"));
            }
            other => other
                .os("mkdir", path.display())
                .context(|| "create the container's state directory".to_owned())?,
        }
        Ok(Slot { path, lock: None })
    }

    /// Opens the directory of an existing container without its lock, for verbs that change nothing.
    ///
    /// # Errors
    ///
    /// The container does not exist.
    pub fn open(&self, id: &ContainerId) -> Result<Slot> {
        let path = self.root.join(id);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Slot { path, lock: None }),
            Ok(_) => Err(Error::system(format!("{} is not a directory", path.display()))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(not_found(id))
            }
            Err(e) => Err(Error::io("stat", path.display(), &e)),
        }
    }

    /// Opens and locks the directory of an existing container.
    ///
    /// # Errors
    ///
    /// The container does not exist, or another verb holds the lock.
    pub fn lock(&self, id: &ContainerId) -> Result<Slot> {
        let mut slot = self.open(id)?;
        slot.take_lock(id)?;
        crate::time::step("lock the container");
        Ok(slot)
    }

    /// Opens and locks the directory, and waits without a limit for another verb.
    ///
    /// # Errors
    ///
    /// The container does not exist.
    pub fn lock_patiently(&self, id: &ContainerId) -> Result<Slot> {
        loop {
            match self.lock(id) {
                Err(e) if e.kind() == Kind::Busy => {}
                other => return other,
            }
        }
    }

    /// Lists the ids with a directory, sorted. A missing root has none.
    ///
    /// # Errors
    ///
    /// The root cannot be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.os("open", self.root.display())?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.os("read", self.root.display())?;
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            if let (true, Some(name)) = (is_dir, entry.file_name().to_str()) {
                ids.extend(ContainerId::parse(name).ok());
            }
        }
        ids.sort();
        Ok(ids)
    }
}

pub(super) fn not_found(id: &ContainerId) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {id}"))
        .hint("`aril list` shows what there is under this --root")
}

impl Slot {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn fifo(&self) -> PathBuf {
        self.path.join(FIFO)
    }

    /// True while the container waits for `start`.
    ///
    /// # Errors
    ///
    /// The FIFO cannot be looked at.
    pub fn has_fifo(&self) -> Result<bool> {
        let fifo = self.fifo();
        fifo.try_exists().os("stat", fifo.display())
    }

    fn take_lock(&mut self, id: &ContainerId) -> Result<()> {
        let patience = Instant::now() + LOCK_PATIENCE;
        let mut file = match open(&self.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => return Err(not_found(id)),
            other => File::from(other.os("open", self.path.display())?),
        };
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((_, errno)) if errno != Errno::EWOULDBLOCK => {
                    return Err(Error::os("flock", self.path.display(), errno));
                }
                Err(_) if Instant::now() > patience => {
                    let text = format!(
                        "container {id} is busy: another call has held its lock for {} s",
                        LOCK_PATIENCE.as_secs()
                    );
                    return Err(Error::new(Kind::Busy, text));
                }
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        // The verb that held the lock before may have removed the directory.
        let links = lock.metadata().os("fstat", self.path.display())?.nlink();
        if links == 0 {
            return Err(not_found(id));
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Returns true if another process holds the lock.
    pub fn is_busy(&self) -> bool {
        self.lock.is_none()
            && File::open(&self.path).is_ok_and(|directory| {
                Flock::lock(directory, FlockArg::LockSharedNonblock).is_err()
            })
    }

    /// Releases the lock for other verbs, while this one continues (a foreground `run`).
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// Takes the lock again. The container may have been deleted in the meantime.
    ///
    /// # Errors
    ///
    /// The container has been deleted, or another verb holds the lock.
    pub fn relock(&mut self, id: &ContainerId) -> Result<()> {
        if self.lock.is_none() { self.take_lock(id) } else { Ok(()) }
    }

    /// Reads the record, or the intent if there is no record yet. `None` if a create was killed before it wrote either.
    ///
    /// # Errors
    ///
    /// The record cannot be read or has a later format.
    pub fn read(&self) -> Result<Option<Record>> {
        match self.read_file(RECORD) {
            Ok(None) => self.read_intent(),
            other => other,
        }
    }

    /// Reads the intent, which has no process.
    ///
    /// # Errors
    ///
    /// The intent cannot be read or has a later format.
    pub fn read_intent(&self) -> Result<Option<Record>> {
        self.read_file(INTENT)
    }

    fn read_file(&self, name: &str) -> Result<Option<Record>> {
        let path = self.path.join(name);
        let bytes = match record::read(&path, LONGEST) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| {
            let newer = serde_json::from_slice::<Version>(&bytes).ok().filter(Version::is_newer);
            newer.map_or_else(
                || Error::system(format!("{} is damaged: {e}", path.display())),
                |version| version.refused(&path),
            )
        })?;
        let version = Version { aril_version: record.aril_version };
        if version.is_newer() { Err(version.refused(&path)) } else { Ok(Some(record.upgraded())) }
    }

    /// Writes the intent, before any effect.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_intent(&self, record: &Record) -> Result<()> {
        self.prepare_file(INTENT, record)?
            .commit()
            .context(|| "write the container's record".to_owned())
    }

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.prepare(record)?.commit().context(|| "write the container's record".to_owned())
    }

    /// Writes the record to a temporary file, for [`Prepared::commit`] once it is true.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn prepare(&self, record: &Record) -> Result<Prepared> {
        self.prepare_file(RECORD, record)
    }

    fn prepare_file(&self, name: &str, record: &Record) -> Result<Prepared> {
        let text = serde_json::to_vec(record)
            .map_err(|e| Error::system(format!("encode the record: {e}")))?;
        record::prepare(&self.path.join(name), 0o600, &text)
            .context(|| "write the container's record".to_owned())
    }

    /// Writes the config.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_config(&self, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(CONFIG);
        record::write(&path, 0o600, bytes).context(|| "keep the container's config".to_owned())
    }

    /// Reads the config.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read_config(&self) -> Result<Vec<u8>> {
        record::read(&self.path.join(CONFIG), LONGEST)
    }

    /// Creates the FIFO at which init waits. Init inherits a descriptor, so the file is not accessible to other users.
    ///
    /// # Errors
    ///
    /// The FIFO cannot be created.
    pub fn make_fifo(&self) -> Result<()> {
        let path = self.fifo();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).os("mkfifo", path.display())
    }

    /// Removes the FIFO.
    ///
    /// # Errors
    ///
    /// The FIFO exists and cannot be removed.
    pub fn remove_fifo(&self) -> Result<()> {
        match fs::remove_file(self.fifo()) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::io("unlink", self.fifo().display(), &e))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directory: first the files that always exist, by name, then all others if the directory is not empty.
    ///
    /// # Errors
    ///
    /// A file or the directory cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for name in [RECORD, CONFIG, INTENT] {
            let _ = fs::remove_file(self.path.join(name));
        }
        match fs::remove_dir(&self.path).or_else(|e| match e.kind() {
            ErrorKind::DirectoryNotEmpty => remove::tree(&self.path).map_err(Into::into),
            _ => Err(e),
        }) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::io("remove", self.path.display(), &e))
            }
            _ => Ok(()),
        }
    }
}
