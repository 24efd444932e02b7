//! Named volumes: directories that outlive their containers.
//!
//! # Theory of operation
//!
//! Containers see `<root>/<name>/data`, which is mounted like any other bind mount. Beside it are:
//!
//! | file | meaning |
//! |---|---|
//! | `users` | state directories of containers with this volume: it is in use while one of them exists |
//! | `filling` | a container is copying the image's content at the mount point: incomplete |
//! | `filled` | the copy is complete, or was not needed; it is not done again |
//!
//! A process that changes them holds flock(2) on `<root>/<name>`: the start of a container holds it until the copy is
//! complete. If it is killed before that, `filling` remains, and the next start copies anew.

pub mod plan;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::{closed, may_exist, record, remove};
use crate::path::c_path;
use crate::spec;
use crate::sys::Errno;
use crate::sys::open::{birth_time, open};

const DATA: &str = "data";
const USERS: &str = "users";
const FILLING: &str = "filling";
const FILLED: &str = "filled";
/// Maximum length of `users`, in bytes: room for thousands of paths.
const LONGEST_USERS: usize = 1 << 20;

/// Directory of named volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volumes {
    root: PathBuf,
}

/// Volume that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    pub all: Volumes,
    pub name: String,
}

/// A volume, as `aril volume ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Directory that containers see.
    pub path: PathBuf,
    pub created: Option<SystemTime>,
    /// Containers that use the volume.
    pub users: Vec<String>,
}

/// Lock on a volume while a container is being created with it.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    /// True if the image's content is to be copied into the volume.
    pub fill: bool,
    _lock: Flock<OwnedFd>,
}

impl Volumes {
    /// Volumes of the caller: in `ARIL_VOLUMES` if set; for root in /var/lib/aril/volumes, which outlives a reboot;
    /// otherwise in the user's data directory (`XDG_DATA_HOME`).
    ///
    /// # Errors
    ///
    /// There is no home directory.
    #[expect(clippy::disallowed_methods, reason = "the caller's data directory")]
    pub fn of_the_caller() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || {
            variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|h| h.join(".local/share")))
        };
        let root = match variable("ARIL_VOLUMES") {
            Some(root) => root,
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/aril/volumes"),
            None => home()
                .ok_or_else(|| {
                    Error::config("no directory for volumes: neither XDG_DATA_HOME nor HOME is set")
                        .hint("set XDG_DATA_HOME")
                })?
                .join("aril/volumes"),
        };
        Ok(Self { root: std::path::absolute(&root).os("getcwd", "")? })
    }

    /// Volumes in this directory.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Source of a bind mount of the volume.
    pub fn source(&self, name: &str) -> PathBuf {
        self.directory(name).join(DATA)
    }

    /// Creates an empty volume. Fails if it exists.
    ///
    /// # Errors
    ///
    /// The name is invalid, a volume has it, or the directory cannot be created.
    pub fn create(&self, name: &str) -> Result<()> {
        plan::check_name(name)?;
        match fs::symlink_metadata(self.directory(name)) {
            Ok(_) => Err(Error::new(Kind::Exists, format!("volume {name} already exists"))),
            Err(_) => self.make(name),
        }
    }

    /// Creates the directories. Only the owner may enter: a volume may contain set-user-id programs.
    fn make(&self, name: &str) -> Result<()> {
        let directory = self.directory(name);
        let data = directory.join(DATA);
        closed::directory(&directory)
            .and_then(|()| match DirBuilder::new().mode(0o755).create(&data) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    Err(Error::io("mkdir", data.display(), &e))
                }
                _ => Ok(()),
            })
            .context(|| format!("create volume {name}"))
    }

    /// Lists all volumes, sorted by name.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.os("open", self.root.display())?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.os("read", self.root.display())?;
            names.extend(entry.file_name().into_string().ok());
        }
        names.retain(|name| plan::check_name(name).is_ok());
        names.sort();
        // A volume may have been removed in the meantime.
        Ok(names.iter().filter_map(|name| self.find(name).ok()).collect())
    }

    /// Finds a volume with its users.
    ///
    /// # Errors
    ///
    /// The volume does not exist.
    pub fn find(&self, name: &str) -> Result<Volume> {
        plan::check_name(name)?;
        let path = self.source(name);
        let directory = self.directory(name);
        let born = match birth_time(&c_path("volume", &directory)?) {
            Err(Errno::ENOENT) => return Err(not_found(name)),
            other => other.os("statx", directory.display())?,
        };
        // A file system without birth times reports 0, or nothing.
        let created = born
            .filter(|(seconds, _)| *seconds > 0)
            .map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds.cast_unsigned(), nanos));
        let users = self.users(name)?.iter().map(|user| id_of(user)).collect();
        Ok(Volume { name: name.to_owned(), path, created, users })
    }

    /// Removes a volume. Fails while a container uses it.
    ///
    /// # Errors
    ///
    /// The volume does not exist, is in use, or cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        plan::check_name(name)?;
        let directory = self.directory(name);
        let in_use = |by: String| {
            Error::state(format!("volume {name} is in use by {by}"))
                .hint("delete the containers that use it first")
        };
        let _lock = match lock(&directory, FlockArg::LockExclusiveNonblock) {
            Err(Errno::ENOENT) => return Err(not_found(name)),
            Err(Errno::EWOULDBLOCK) => {
                return Err(in_use("a container that is being created".into()));
            }
            other => other.os("flock", directory.display())?,
        };
        let users: Vec<_> = self.users(name)?.iter().map(|user| id_of(user)).collect();
        if !users.is_empty() {
            return Err(in_use(users.join(", ")));
        }
        remove::tree(&directory).os("remove", directory.display())
    }

    /// Claims the volume for a container with state directory `user`. Creates the volume if it does not exist.
    ///
    /// # Errors
    ///
    /// The name is invalid, or the volume cannot be created or locked.
    pub fn claim(&self, name: &str, user: &Path) -> Result<Claim> {
        plan::check_name(name)?;
        let what = || format!("use volume {name}");
        let directory = self.directory(name);
        let lock = loop {
            self.make(name)?;
            let lock = lock(&directory, FlockArg::LockExclusive);
            let lock = lock.os("flock", directory.display()).context(what)?;
            // Another process removed the volume while this one waited.
            if directory.join(DATA).is_dir() {
                break lock;
            }
        };
        self.note_user(name, user).context(what)?;
        let alone = self.users(name)? == [user];
        let fill = begin_to_fill(&directory, alone).context(what)?;
        Ok(Claim { directory, fill, _lock: lock })
    }

    fn note_user(&self, name: &str, user: &Path) -> Result<()> {
        let mut users = self.users(name)?;
        users.retain(|other| other != user);
        users.push(user.to_owned());
        let lines: Vec<_> = users.iter().map(|user| user.as_os_str().as_bytes()).collect();
        record::write(&self.directory(name).join(USERS), 0o600, &lines.join(&0))
    }

    /// State directories of containers that still use the volume.
    fn users(&self, name: &str) -> Result<Vec<PathBuf>> {
        let path = self.directory(name).join(USERS);
        let text = match record::read(&path, LONGEST_USERS) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let source = self.source(name);
        let users = text.split(|b| *b == 0).filter(|user| !user.is_empty());
        Ok(users
            .map(|user| PathBuf::from(std::ffi::OsString::from_vec(user.to_vec())))
            .filter(|user| uses(user, &source))
            .collect())
    }
}

impl MountedVolume {
    /// Source of the bind mount.
    pub fn source(&self) -> PathBuf {
        self.all.source(&self.name)
    }

    /// Claims the volume: see [`Volumes::claim`].
    ///
    /// # Errors
    ///
    /// The name is invalid, or the volume cannot be created or locked.
    pub fn claim(&self, user: &Path) -> Result<Claim> {
        self.all.claim(&self.name, user)
    }
}

impl Claim {
    /// Records that the copy is complete.
    ///
    /// # Errors
    ///
    /// The files cannot be written.
    pub fn filled(self) -> Result<()> {
        if self.fill {
            record::write(&self.directory.join(FILLED), 0o600, b"")?;
            let filling = self.directory.join(FILLING);
            fs::remove_file(&filling).os("unlink", filling.display())?;
        }
        Ok(())
    }
}

/// Decides if the image's content is to be copied: into an empty volume that no other container is about to write to,
/// or after a copy that was interrupted. Records the decision.
fn begin_to_fill(directory: &Path, alone: bool) -> Result<bool> {
    let (data, filled) = (directory.join(DATA), directory.join(FILLED));
    let is_empty =
        || -> Result<bool> { Ok(fs::read_dir(&data).os("open", data.display())?.next().is_none()) };
    let once = may_exist(&filled);
    if once && !(alone && is_empty()?) {
        return Ok(false);
    }
    if !once && directory.join(FILLING).exists() {
        remove::tree(&data).os("remove", data.display())?;
        DirBuilder::new().mode(0o755).create(&data).os("mkdir", data.display())?;
    }
    let empty = is_empty()?;
    record::write(&directory.join(if empty { FILLING } else { FILLED }), 0o600, b"")?;
    if once {
        fs::remove_file(&filled).os("unlink", filled.display())?;
    }
    Ok(empty)
}

/// True if the container at `user` mounts the volume. Another container may have the same ID in the meantime, so its
/// config decides. A container that is being created has no config yet, and counts as a user.
fn uses(user: &Path, source: &Path) -> bool {
    match fs::read(user.join("config.json")) {
        Err(e) if e.kind() == ErrorKind::NotFound => may_exist(user),
        // What cannot be read may mount the volume.
        Err(_) => true,
        Ok(bytes) => spec::parse(bytes).is_ok_and(|config| {
            let mounts = config.spec.mounts().iter().flatten();
            mounts.filter_map(|mount| mount.source().as_ref()).any(|other| other == source)
        }),
    }
}

fn id_of(user: &Path) -> String {
    user.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn lock(directory: &Path, how: FlockArg) -> std::result::Result<Flock<OwnedFd>, Errno> {
    let opened = open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
    Flock::lock(opened, how).map_err(|(_, errno)| errno)
}

fn not_found(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("volume does not exist: {name}"))
        .hint("list volumes with `aril volume ls`")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestDirectory(PathBuf);

    impl TestDirectory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("aril-volume-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn volumes(&self) -> Volumes {
            Volumes::at(self.0.join("volumes"))
        }

        fn container(&self, id: &str, source: Option<&Path>) -> PathBuf {
            let user = self.0.join(id);
            fs::create_dir_all(&user).unwrap();
            if let Some(source) = source {
                let text = format!(
                    r#"{{"ociVersion":"1.0.0","mounts":[{{"destination":"/d","source":{source:?}}}]}}"#
                );
                fs::write(user.join("config.json"), text).unwrap();
            }
            user
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn volumes_are_created_listed_and_removed() {
        let test = TestDirectory::new("life");
        let volumes = test.volumes();
        assert!(volumes.list().unwrap().is_empty());
        volumes.create("b").unwrap();
        volumes.create("a").unwrap();
        assert_eq!(volumes.create("a").unwrap_err().kind(), Kind::Exists);
        let names: Vec<_> = volumes.list().unwrap().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["a", "b"]);
        volumes.remove("a").unwrap();
        assert_eq!(volumes.remove("a").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(volumes.find("a").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn in_use_until_its_containers_are_gone() {
        let test = TestDirectory::new("use");
        let volumes = test.volumes();
        let user = test.container("one", None);
        let claim = volumes.claim("v", &user).unwrap();
        let text = |name| volumes.remove(name).unwrap_err().to_string();
        assert_eq!(text("v"), "volume v is in use by a container that is being created");
        claim.filled().unwrap();
        assert_eq!(text("v"), "volume v is in use by one");
        test.container("one", Some(&volumes.source("v")));
        assert_eq!(volumes.find("v").unwrap().users, ["one"]);
        // Another container has the ID now.
        test.container("one", Some(Path::new("/elsewhere")));
        assert!(volumes.find("v").unwrap().users.is_empty());
        volumes.remove("v").unwrap();
    }

    #[test]
    fn an_empty_volume_is_filled_and_an_interrupted_copy_repeated() {
        let test = TestDirectory::new("fill");
        let (volumes, user) = (test.volumes(), test.container("c", None));
        let claim = volumes.claim("v", &user).unwrap();
        assert!(claim.fill);
        fs::write(volumes.source("v").join("half"), "").unwrap();
        drop(claim);
        let claim = volumes.claim("v", &user).unwrap();
        assert!(claim.fill && !volumes.source("v").join("half").exists());
        claim.filled().unwrap();
        fs::write(volumes.source("v").join("of the image"), "").unwrap();
        assert!(!volumes.claim("v", &user).unwrap().fill);
        // An empty volume is filled again, unless another container is about to write to it.
        fs::remove_file(volumes.source("v").join("of the image")).unwrap();
        let other = test.container("d", None);
        assert!(!volumes.claim("v", &other).unwrap().fill);
        fs::remove_dir_all(&other).unwrap();
        assert!(volumes.claim("v", &user).unwrap().fill);
        // Files that a user put into a volume are kept.
        volumes.create("w").unwrap();
        fs::write(volumes.source("w").join("mine"), "").unwrap();
        assert!(!volumes.claim("w", &user).unwrap().fill);
    }
}
