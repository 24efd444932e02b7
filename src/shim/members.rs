//! Records the containers of a shim in the bundle that the shim was started for: a file for each container, with all
//! that its removal needs, because the container's own bundle may be gone then.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::error::{Error, Result};
use crate::fs::record;

const PREFIX: &str = "member-";

/// Record of one container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Member {
    pub bundle: PathBuf,
    pub options: Options,
}

fn file(home: &Path, id: &str) -> PathBuf {
    home.join(format!("{PREFIX}{id}"))
}

/// Records a container, before anything of it exists.
///
/// # Errors
///
/// The file cannot be written.
pub fn add(home: &Path, id: &str, member: &Member) -> Result<()> {
    let text = serde_json::to_vec(member).map_err(|e| Error::system(e.to_string()))?;
    record::write(&file(home, id), 0o600, &text)
}

/// Deletes the record.
pub fn remove(home: &Path, id: &str) {
    // The container may be the one that the shim was started for, or the bundle is gone.
    let _ = std::fs::remove_file(file(home, id));
}

/// Lists the containers by their ids.
pub fn all(home: &Path) -> Vec<(String, Member)> {
    const LONGEST: usize = 1 << 16;
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let member = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
        let text = record::read(&entry.path(), LONGEST).ok()?;
        Some((id, serde_json::from_slice(&text).ok()?))
    };
    entries.filter_map(member).collect()
}
