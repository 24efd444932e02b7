//! Where networks are kept.
//!
//! Definitions last: a network is the administrator's, as a volume is. What containers hold of them is
//! below `/run`, which a reboot empties together with the kernel's links and rules. Both are one for
//! the host, whatever state root a container has: two roots that gave out addresses of one bridge by
//! themselves would give one out twice.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::definition::Network;
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::{closed, record};
use crate::sys::open::open;

pub const DEFINITIONS: &str = "/var/lib/aril/networks";
/// No container's id has an `@`.
pub const STATE: &str = "/run/aril/@network";

const LONGEST: usize = 1 << 20;

/// Held while networks and the filter's table are made or removed; a container that comes to a network
/// that is there needs it not.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

pub fn lock() -> Result<Lock> {
    lock_directory(Path::new(STATE))
}

/// The directory is made where it is missing.
pub(super) fn lock_directory(path: &Path) -> Result<Lock> {
    closed::directory(path)?;
    let file =
        File::from(open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).os("open", path.display())?);
    let lock = Flock::lock(file, FlockArg::LockExclusive);
    lock.map(Lock).map_err(|(_, errno)| Error::os("flock", path.display(), errno))
}

fn file(name: &str) -> PathBuf {
    Path::new(DEFINITIONS).join(format!("{name}.json"))
}

pub fn load(name: &str) -> Result<Option<Network>> {
    let path = file(name);
    let bytes = match record::read(&path, LONGEST) {
        Err(e) if e.errno() == Some(nix::errno::Errno::ENOENT) => return Ok(None),
        other => other?,
    };
    let network: Network = serde_json::from_slice(&bytes)
        .map_err(|e| Error::system(format!("{}: {e}", path.display())))?;
    if network.name != name {
        return Err(Error::system(format!("{}: its name is {:?}", path.display(), network.name)));
    }
    Ok(Some(network))
}

/// The network of that name, or an error that says that there is none.
pub fn get(name: &str) -> Result<Network> {
    load(name)?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("network does not exist: {name}"))
            .hint("`aril network ls` shows what there is, `aril network create` makes one")
    })
}

/// By name.
pub fn all() -> Result<Vec<Network>> {
    let mut networks = Vec::new();
    for name in entries(Path::new(DEFINITIONS))? {
        if let Some(name) = name.strip_suffix(".json").filter(|name| !name.starts_with('.')) {
            networks.extend(load(name)?);
        }
    }
    Ok(networks)
}

pub fn save(network: &Network) -> Result<()> {
    closed::directory(Path::new(DEFINITIONS))?;
    let text = serde_json::to_vec_pretty(network)
        .map_err(|e| Error::system(format!("encode network {}: {e}", network.name)))?;
    record::write(&file(&network.name), 0o644, &text)
        .context(|| format!("keep network {}", network.name))
}

pub fn remove(name: &str) -> Result<()> {
    unlink(&file(name))
}

/// No error where there is no such file.
pub(super) fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("unlink", path.display(), &e)),
        _ => Ok(()),
    }
}

/// No error where there is none, or somebody has put something into it meanwhile.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io("rmdir", path.display(), &e))
        }
        _ => Ok(()),
    }
}

/// Names in a directory, sorted; none where it is missing, or another user's.
pub(super) fn entries(path: &Path) -> Result<Vec<String>> {
    let found = match fs::read_dir(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        other => other.os("open", path.display())?,
    };
    let mut names = Vec::new();
    for entry in found {
        names.push(entry.os("read", path.display())?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
