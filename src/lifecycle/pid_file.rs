//! Writes the file of `--pid-file`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, OsContext, Result};
use crate::id::HostPid;

/// Writes the pid in decimal without a newline, as go-runc parses it. The file appears complete, by rename(2): conmon waits
/// for its name.
pub(super) fn write(path: &Path, pid: HostPid) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::system(format!("pid file {}: not a file name", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    // A temporary file of a killed call is replaced.
    let _ = fs::remove_file(&temporary);
    let written = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&temporary)
        .and_then(|mut file| write!(file, "{pid}"))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.os("write pid file", path.display())
}
