//! A root of layers: folders that are only read, under one that takes what the container writes.
//!
//! # Theory of operation
//!
//! [`plan`] decides which folders, from what the operator granted alone. The overlay itself is one detached
//! mount ([`mount`]), made by the parent where that has the privileges (the host's root), else by the
//! child in its user namespace, and attached in the container's mount namespace only: the host's
//! mount table never learns of it, and it ends with the namespace.
//!
//! What has to be found again is [`Layers`]. It is part of the container's record, written before
//! any folder of it is made:
//!
//! | upper | its folders `upper` and `work` are in | and after the container |
//! |---|---|---|
//! | [`Upper::Ephemeral`] | the container's state directory | go with it |
//! | [`Upper::Tmpfs`] | a tmpfs that nobody else sees | go with the mount |
//! | [`Upper::Kept`] | a directory of the caller's | stay |
//! | [`Upper::Given`] | the caller's, one by one | stay |

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

/// The kernel's own limit.
pub const MOST_LOWERS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Absolute paths of the host, lowest first. At least one.
    pub lowers: Vec<PathBuf>,
    pub upper: Upper,
    /// Where the host sees the rootfs too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Upper {
    /// `directory` is the container's state directory; `size` in bytes, by a quota.
    Ephemeral { directory: PathBuf, size: Option<u64> },
    /// `size` in bytes; without one the kernel's default counts, half of the memory.
    Tmpfs { size: Option<u64> },
    /// `size` as for an ephemeral one. A limit stays with the directory.
    Kept {
        directory: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// Both are there already and somebody else's, such as an engine's snapshot, who sees to it that
    /// they are used once.
    Given { upper: PathBuf, work: PathBuf },
}

impl Upper {
    /// Where `upper` and `work` are, if they are in a directory that the host can see.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Ephemeral { directory, .. } | Self::Kept { directory, .. } => Some(directory),
            Self::Tmpfs { .. } | Self::Given { .. } => None,
        }
    }

    /// In bytes, where a quota of the file system is to hold it.
    pub fn quota(&self) -> Option<(&Path, u64)> {
        match self {
            Self::Ephemeral { directory, size } | Self::Kept { directory, size } => {
                size.map(|size| (directory.as_path(), size))
            }
            Self::Tmpfs { .. } | Self::Given { .. } => None,
        }
    }

    /// What the container has written, if the host can see it.
    pub fn upper(&self) -> Option<PathBuf> {
        match self {
            Self::Given { upper, .. } => Some(upper.clone()),
            _ => self.directory().map(|directory| directory.join(UPPER)),
        }
    }

    /// The kernel's own, of the same file system.
    pub fn work(&self) -> Option<PathBuf> {
        match self {
            Self::Given { work, .. } => Some(work.clone()),
            _ => self.directory().map(|directory| directory.join(WORK)),
        }
    }

    /// Nobody reads it after a crash, so nothing need be synced (`volatile`, Linux 5.10).
    pub fn is_volatile(&self) -> bool {
        !matches!(self, Self::Kept { .. } | Self::Given { .. })
    }
}

pub const UPPER: &str = "upper";
pub const WORK: &str = "work";

/// The step: makes the overlay, if the parent has not, and attaches it at `at`, which is the root.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlay {
    pub layers: Layers,
    /// A directory of the host's.
    pub at: CString,
    /// What mount tables call it: the container's state directory, as nobody else's is.
    pub source: CString,
    /// The parent makes it, as the n-th of its trees; else the child, in its user namespace.
    pub tree: Option<usize>,
    /// How the owners in the lowers are shown, and which of them need it.
    pub id_map: Option<(IdMap, Vec<bool>)>,
}

impl Overlay {
    /// Whether the owners in the lower of this number have to be mapped.
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
