//! Directories of networks: definitions and state.
//!
//! Definitions are persistent: a network, like a volume, belongs to the administrator. State is in `/run`, which a
//! reboot empties together with the kernel's links and rules. Both are shared by all state roots of the host: two
//! roots that leased addresses of one bridge independently would lease one address twice.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::{closed, record};
use crate::network::definition::Network;
use crate::sys::open::open;

/// Directory of definitions: `NAME.json` for each network.
pub const DEFINITIONS: &str = "/var/lib/aril/networks";
/// Directory of state. No container ID contains an `@`.
pub const STATE: &str = "/run/aril/@network";

const LONGEST: usize = 1 << 20;

/// Lock held while networks and the packet filter's table are created or removed. Attaching a container to an
/// existing network does not need it.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// Locks all networks of the host.
///
/// # Errors
///
/// The directory cannot be created or locked.
pub fn lock() -> Result<Lock> {
    lock_directory(Path::new(STATE))
}

/// Locks a directory, and creates it if it is missing.
pub(in crate::network) fn lock_directory(path: &Path) -> Result<Lock> {
    closed::directory(path)?;
    let file =
        File::from(open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).os("open", path.display())?);
    let lock = Flock::lock(file, FlockArg::LockExclusive);
    lock.map(Lock).map_err(|(_, errno)| Error::os("flock", path.display(), errno))
}

fn file(name: &str) -> PathBuf {
    Path::new(DEFINITIONS).join(format!("{name}.json"))
}

/// Loads a network. Returns `None` if it does not exist.
///
/// # Errors
///
/// The file exists and cannot be read.
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

/// Loads a network. A network that does not exist is an error.
///
/// # Errors
///
/// The network does not exist, or its file cannot be read.
pub fn get(name: &str) -> Result<Network> {
    load(name)?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("network does not exist: {name}"))
            .hint("list networks with `aril network ls`, create one with `aril network create`")
    })
}

/// Loads all networks, sorted by name.
///
/// # Errors
///
/// A file cannot be read.
pub fn all() -> Result<Vec<Network>> {
    let mut networks = Vec::new();
    for name in entries(Path::new(DEFINITIONS))? {
        if let Some(name) = name.strip_suffix(".json").filter(|name| !name.starts_with('.')) {
            networks.extend(load(name)?);
        }
    }
    Ok(networks)
}

/// Writes the definition of a new network. The caller holds the lock, so no other process defines it.
///
/// # Errors
///
/// The network is defined already, or the file cannot be written.
pub fn save(network: &Network) -> Result<()> {
    closed::directory(Path::new(DEFINITIONS))?;
    let text = serde_json::to_vec_pretty(network)
        .map_err(|e| Error::system(format!("encode network {}: {e}", network.name)))?;
    let placed = record::place(&file(&network.name), 0o644, &text)
        .context(|| format!("save network {}", network.name))?;
    match placed {
        true => Ok(()),
        false => Err(Error::new(Kind::Exists, format!("network already exists: {}", network.name))),
    }
}

/// Removes a network's definition.
///
/// # Errors
///
/// The file cannot be removed.
pub fn remove(name: &str) -> Result<()> {
    unlink(&file(name))
}

/// Removes a file. A missing file is no error.
pub(in crate::network) fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("unlink", path.display(), &e)),
        _ => Ok(()),
    }
}

/// Removes a directory. It is no error if the directory is missing, or not empty because another process added a
/// file.
pub(in crate::network) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io("rmdir", path.display(), &e))
        }
        _ => Ok(()),
    }
}

/// Lists a directory's names, sorted. The list is empty if the directory is missing or belongs to another user.
pub(in crate::network) fn entries(path: &Path) -> Result<Vec<String>> {
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
