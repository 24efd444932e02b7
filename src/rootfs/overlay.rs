//! Root file system of layers: read-only lower directories, and an upper directory that receives what the container
//! writes.
//!
//! # Theory of operation
//!
//! [`plan`] decides the directories from the operator's grant alone. The overlay itself is one detached mount
//! ([`mount`]). The parent makes it if it has the privileges (root on the host), otherwise the child makes it in its
//! user namespace. It is attached only in the container's mount namespace, so it is never in the host's mount table,
//! and ends with the namespace.
//!
//! [`Layers`] contains what later commands need. It is part of the container's record, which is written before any of
//! the directories is created:
//!
//! | upper | location of its directories `upper` and `work` | after the container |
//! |---|---|---|
//! | [`Upper::Ephemeral`] | the container's state directory | removed with it |
//! | [`Upper::Tmpfs`] | a tmpfs of this container alone | end with the mount |
//! | [`Upper::Kept`] | a directory of the caller | stay |
//! | [`Upper::Given`] | two directories of the caller | stay |

pub mod mount;
pub mod parent;
pub mod plan;
mod quota;
pub mod view;

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::IdMap;

/// Maximum number of lower directories in the kernel.
pub const MOST_LOWERS: usize = 500;

/// Directories of a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Absolute paths of the host, lowest first. At least one.
    pub lowers: Vec<PathBuf>,
    pub upper: Upper,
    /// Path at which the rootfs is also mounted on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<PathBuf>,
}

/// Kind of the upper directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Upper {
    /// Removed with the container. `directory` is the container's state directory. `size` in bytes is enforced by a
    /// quota.
    Ephemeral { directory: PathBuf, size: Option<u64> },
    /// In memory. `size` in bytes; the kernel's default is half of the memory.
    Tmpfs { size: Option<u64> },
    /// Kept after the container. `size` as for an ephemeral one; the limit stays with the directory.
    Kept {
        directory: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// Two existing directories of the caller, such as an engine's snapshot. The caller ensures that only one container
    /// uses them.
    Given { upper: PathBuf, work: PathBuf },
}

impl Upper {
    /// Returns the directory that contains `upper` and `work`, if the host can see it.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Ephemeral { directory, .. } | Self::Kept { directory, .. } => Some(directory),
            Self::Tmpfs { .. } | Self::Given { .. } => None,
        }
    }

    /// Returns the directory and its limit in bytes, if a quota must enforce it.
    pub fn quota(&self) -> Option<(&Path, u64)> {
        match self {
            Self::Ephemeral { directory, size } | Self::Kept { directory, size } => {
                size.map(|size| (directory.as_path(), size))
            }
            Self::Tmpfs { .. } | Self::Given { .. } => None,
        }
    }

    /// Returns the upper directory, if the host can see it.
    pub fn upper(&self) -> Option<PathBuf> {
        match self {
            Self::Given { upper, .. } => Some(upper.clone()),
            _ => self.directory().map(|directory| directory.join(UPPER)),
        }
    }

    /// Returns the work directory of overlayfs, which is on the same file system.
    pub fn work(&self) -> Option<PathBuf> {
        match self {
            Self::Given { work, .. } => Some(work.clone()),
            _ => self.directory().map(|directory| directory.join(WORK)),
        }
    }

    /// Returns true if no process reads the upper directory after a crash, so that nothing needs to be synced
    /// (`volatile`, Linux 5.10).
    pub fn is_volatile(&self) -> bool {
        !matches!(self, Self::Kept { .. } | Self::Given { .. })
    }
}

pub const UPPER: &str = "upper";
pub const WORK: &str = "work";

/// Step that mounts the overlay at `at`, the rootfs. If the parent has not made the overlay, the child makes it first.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlay {
    pub layers: Layers,
    /// Directory of the host.
    pub at: CString,
    /// Source in mount tables: the container's state directory, which is unique.
    pub source: CString,
    /// Index of the overlay in the parent's trees. `None` if the child makes it, in its user namespace.
    pub tree: Option<usize>,
    /// Mapping of the lower directories, and for each of them whether it is id-mapped.
    pub id_map: Option<(IdMap, Vec<bool>)>,
}

impl Overlay {
    /// Returns true if the lower directory with this index is id-mapped.
    fn is_mapped(&self, lower: usize) -> bool {
        self.id_map.as_ref().is_some_and(|(_, mapped)| mapped[lower])
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.layers.lowers.len();
        write!(f, "overlay {count} layer{} on ", if count == 1 { "" } else { "s" })?;
        write!(f, "{} (upper {})", self.at.to_string_lossy(), self.layers.upper)
    }
}

impl fmt::Display for Upper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self {
            Self::Ephemeral { size, .. } => f.write_str("ephemeral").map(|()| size)?,
            Self::Tmpfs { size } => f.write_str("tmpfs").map(|()| size)?,
            Self::Kept { directory, size } => directory.display().fmt(f).map(|()| size)?,
            Self::Given { upper, .. } => return upper.display().fmt(f),
        };
        size.map_or(Ok(()), |bytes| write!(f, ", {bytes} bytes"))
    }
}
