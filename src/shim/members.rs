//! Who else is in a shim, as a record in the bundle that it was started for: a file for each container,
//! which names its bundle.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fs::record;

const PREFIX: &str = "member-";

fn file(home: &Path, id: &str) -> PathBuf {
    home.join(format!("{PREFIX}{id}"))
}

/// Before there is anything of it.
pub fn add(home: &Path, id: &str, bundle: &Path) -> Result<()> {
    record::write(&file(home, id), 0o600, bundle.as_os_str().as_encoded_bytes())
}

pub fn remove(home: &Path, id: &str) {
    // It may have been the home's own, or the home is gone.
    let _ = std::fs::remove_file(file(home, id));
}

/// Ids and bundles.
pub fn all(home: &Path) -> Vec<(String, PathBuf)> {
    const LONGEST: usize = 4096;
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let member = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
        let bundle = record::read(&entry.path(), LONGEST).ok()?;
        Some((id, PathBuf::from(String::from_utf8(bundle).ok()?)))
    };
    entries.filter_map(member).collect()
}
