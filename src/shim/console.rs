//! Socket over which the runtime sends a terminal's master. It is beside the shim's socket, in a directory of root,
//! because a bundle's path may be too long for an address.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::console::parent::receive_master;
use crate::error::{Context, Error, OsContext, Result};
use crate::sys::process::set_nonblocking;

/// Socket whose file is removed on drop.
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    /// Creates the socket. `number`: that of the call.
    ///
    /// # Errors
    ///
    /// The socket cannot be created.
    pub fn bind(shim: &Path, number: u64) -> Result<Self> {
        let path = PathBuf::from(format!("{}.{number}", shim.display()));
        let listener = UnixListener::bind(&path).os("bind", path.display())?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))
            .os("chmod", path.display())?;
        set_nonblocking(&listener).os("fcntl", path.display())?;
        Ok(Self { listener, path })
    }

    /// Receives the master. The command has ended: it has sent the master, or failed.
    ///
    /// # Errors
    ///
    /// The command has sent no terminal.
    pub fn receive(&self) -> Result<OwnedFd> {
        let (connection, _) = self
            .listener
            .accept()
            .os("accept", self.path.display())
            .context(|| "the runtime sent no terminal".to_owned())?;
        set_nonblocking(&connection).os("fcntl", "console")?;
        let master = receive_master(connection.as_fd())?;
        set_nonblocking(&master).os("fcntl", "console")?;
        Ok(master)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // A missing path needs no removal.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the sockets of a shim that was killed.
///
/// # Errors
///
/// The directory cannot be read.
pub fn remove_left(shim: &Path) -> Result<()> {
    let (Some(dir), Some(name)) = (shim.parent(), shim.file_name()) else {
        return Err(Error::system(format!("{}: not a socket's path", shim.display())));
    };
    let prefix = format!("{}.", name.display());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
