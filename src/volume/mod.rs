//! Named volumes: directories that outlive containers.
//!
//! # Theory of operation
//!
//! `<root>/<name>/data` is what containers see, a bind mount like any other. Beside it:
//!
//! | file | says |
//! |---|---|
//! | `users` | the state directories of containers that were made with it: in use while one exists |
//! | `filling` | a container is copying what its image has at the mount point: incomplete |
//! | `filled` | that has been done, or was not to be: never again |
//!
//! Whoever changes them holds flock(2) on `<root>/<name>`: a container that is being made does until
//! the copy is complete. Killed before, it leaves `filling`, and the next begins anew.

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
use crate::fs::{closed, record, remove};
use crate::path::c_path;
use crate::spec;
use crate::sys::Errno;
use crate::sys::open::{birth_time, open};

const DATA: &str = "data";
const USERS: &str = "users";
const FILLING: &str = "filling";
const FILLED: &str = "filled";
/// Thousands of users' paths.
const LONGEST_USERS: usize = 1 << 20;

/// Where named volumes are.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// What containers see.
    pub path: PathBuf,
    pub created: Option<SystemTime>,
    /// The containers that use it.
    pub users: Vec<String>,
}

/// A volume that a container is being made with. Dropped, others may have it.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    /// Its content is to come from the image.
    pub fill: bool,
    _lock: Flock<OwnedFd>,
}

impl Volumes {
    /// `ARIL_VOLUMES`; for root /var/lib/aril/volumes, which outlives a reboot; else in the user's
    /// data directory.
    pub fn of_the_caller() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || {
            variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|h| h.join(".local/share")))
        };
        let root = match variable("ARIL_VOLUMES") {
            Some(root) => root,
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/aril/volumes"),
            None => home()
                .ok_or_else(|| Error::config("no place for volumes").hint("set XDG_DATA_HOME"))?
                .join("aril/volumes"),
        };
        Ok(Self { root: std::path::absolute(&root).os("getcwd", "")? })
    }

    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What a mount of the volume has as its source.
    pub fn source(&self, name: &str) -> PathBuf {
        self.directory(name).join(DATA)
    }

    pub fn create(&self, name: &str) -> Result<()> {
        plan::check_name(name)?;
        match fs::symlink_metadata(self.directory(name)) {
            Ok(_) => Err(Error::new(Kind::Exists, format!("volume {name} exists already"))),
            Err(_) => self.make(name),
        }
    }

    /// Only the owner passes: what is in a volume may be set-uid.
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
            .context(|| format!("make volume {name}"))
    }

    /// All there are, by name.
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
        // One may have been removed by now.
        Ok(names.iter().filter_map(|name| self.find(name).ok()).collect())
    }

    pub fn find(&self, name: &str) -> Result<Volume> {
        plan::check_name(name)?;
        let path = self.source(name);
        let directory = self.directory(name);
        let born = match birth_time(&c_path("volume", &directory)?) {
            Err(Errno::ENOENT) => return Err(not_found(name)),
            other => other.os("statx", directory.display())?,
        };
        // A file system that does not know says 0, if it says anything.
        let created = born
            .filter(|(seconds, _)| *seconds > 0)
            .map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds.cast_unsigned(), nanos));
        let users = self.users(name)?.iter().map(|user| id_of(user)).collect();
        Ok(Volume { name: name.to_owned(), path, created, users })
    }

    /// Refused while a container uses it.
    pub fn remove(&self, name: &str) -> Result<()> {
        plan::check_name(name)?;
        let directory = self.directory(name);
        let in_use = |by: String| {
            Error::state(format!("volume {name} is in use by {by}"))
                .hint("delete what uses it first")
        };
        let _lock = match lock(&directory, FlockArg::LockExclusiveNonblock) {
            Err(Errno::ENOENT) => return Err(not_found(name)),
            Err(Errno::EWOULDBLOCK) => return Err(in_use("a container that is being made".into())),
            other => other.os("flock", directory.display())?,
        };
        let users: Vec<_> = self.users(name)?.iter().map(|user| id_of(user)).collect();
        if !users.is_empty() {
            return Err(in_use(users.join(", ")));
        }
        remove::tree(&directory).os("remove", directory.display())
    }

    /// For a container whose state will be at `user`; made, if there is none of the name.
    pub fn claim(&self, name: &str, user: &Path) -> Result<Claim> {
        plan::check_name(name)?;
        let what = || format!("use volume {name}");
        let directory = self.directory(name);
        let lock = loop {
            self.make(name)?;
            let lock = lock(&directory, FlockArg::LockExclusive);
            let lock = lock.os("flock", directory.display()).context(what)?;
            // Removed while we waited.
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

    /// State directories of those that use it, as far as they still do.
    fn users(&self, name: &str) -> Result<Vec<PathBuf>> {
        let path = self.directory(name).join(USERS);
        let text = match fs::symlink_metadata(&path) {
            Err(_) => return Ok(Vec::new()),
            Ok(_) => record::read(&path, LONGEST_USERS)?,
        };
        let source = self.source(name);
        let users = text.split(|b| *b == 0).filter(|user| !user.is_empty());
        Ok(users
            .map(|user| PathBuf::from(std::ffi::OsString::from_vec(user.to_vec())))
            .filter(|user| uses(user, &source))
            .collect())
    }
}

impl Claim {
    /// The copy is complete.
    pub fn filled(self) -> Result<()> {
        if self.fill {
            record::write(&self.directory.join(FILLED), 0o600, b"")?;
            let filling = self.directory.join(FILLING);
            fs::remove_file(&filling).os("unlink", filling.display())?;
        }
        Ok(())
    }
}

/// Whether what the image has is to be copied: an empty volume, which nobody else is about to write to, or
/// a copy that was cut short.
fn begin_to_fill(directory: &Path, alone: bool) -> Result<bool> {
    let (data, filled) = (directory.join(DATA), directory.join(FILLED));
    let is_empty =
        || -> Result<bool> { Ok(fs::read_dir(&data).os("open", data.display())?.next().is_none()) };
    let once = filled.exists();
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

/// Another container may have the id by now: what it has mounted says so. One that is being made has
/// written down nothing yet.
fn uses(user: &Path, source: &Path) -> bool {
    match fs::read(user.join("config.json")) {
        Err(_) => user.is_dir(),
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
    Error::new(Kind::NotFound, format!("no volume {name}"))
        .hint("`aril volume ls` shows what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
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

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn made_listed_and_removed() {
        let folder = Folder::new("life");
        let volumes = folder.volumes();
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
        let folder = Folder::new("use");
        let volumes = folder.volumes();
        let user = folder.container("one", None);
        let claim = volumes.claim("v", &user).unwrap();
        let text = |name| volumes.remove(name).unwrap_err().to_string();
        assert_eq!(text("v"), "volume v is in use by a container that is being made");
        claim.filled().unwrap();
        assert_eq!(text("v"), "volume v is in use by one");
        folder.container("one", Some(&volumes.source("v")));
        assert_eq!(volumes.find("v").unwrap().users, ["one"]);
        // The id has been given to another container.
        folder.container("one", Some(Path::new("/elsewhere")));
        assert!(volumes.find("v").unwrap().users.is_empty());
        volumes.remove("v").unwrap();
    }

    #[test]
    fn filled_when_it_is_empty_and_anew_if_that_was_cut_short() {
        let folder = Folder::new("fill");
        let (volumes, user) = (folder.volumes(), folder.container("c", None));
        let claim = volumes.claim("v", &user).unwrap();
        assert!(claim.fill);
        fs::write(volumes.source("v").join("half"), "").unwrap();
        drop(claim);
        let claim = volumes.claim("v", &user).unwrap();
        assert!(claim.fill && !volumes.source("v").join("half").exists());
        claim.filled().unwrap();
        fs::write(volumes.source("v").join("of the image"), "").unwrap();
        assert!(!volumes.claim("v", &user).unwrap().fill);
        // Emptied, unless another container is about to write to it.
        fs::remove_file(volumes.source("v").join("of the image")).unwrap();
        let other = folder.container("d", None);
        assert!(!volumes.claim("v", &other).unwrap().fill);
        fs::remove_dir_all(&other).unwrap();
        assert!(volumes.claim("v", &user).unwrap().fill);
        // What somebody has put into one is not covered by an image's.
        volumes.create("w").unwrap();
        fs::write(volumes.source("w").join("mine"), "").unwrap();
        assert!(!volumes.claim("w", &user).unwrap().fill);
    }
}
