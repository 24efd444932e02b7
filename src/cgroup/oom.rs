//! Watches for processes of the container that the kernel ends because memory is exhausted.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Paths, Version, file, stored};
use crate::error::{OsContext, Result};

/// Descriptor that is readable when there may be a new event. On cgroup v2 a counter tells the kills; v1 reports each
/// time that memory was exhausted.
#[derive(Debug)]
pub enum Watch {
    V1 { told: EventFd, control: PathBuf },
    V2 { changed: Inotify, paths: Paths, kills: u64 },
}

impl Watch {
    /// Opens the watch. `None` without a memory controller.
    ///
    /// # Errors
    ///
    /// The files of the memory controller cannot be opened or watched.
    pub fn begin(paths: &Paths) -> Result<Option<Self>> {
        let (key, name) = match Version::of(paths) {
            Version::V1 => ("memory", "memory.oom_control"),
            Version::V2 => ("", "memory.events"),
        };
        let Some(dir) = paths.get(key) else { return Ok(None) };
        let watched = dir.join(name);
        if !watched.exists() {
            return Ok(None);
        }
        match key {
            "memory" => Self::v1(dir, &watched).map(Some),
            _ => Self::v2(paths, &watched).map(Some),
        }
    }

    fn v1(dir: &Path, watched: &Path) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let told = EventFd::from_flags(flags).os("eventfd", "")?;
        let oom_control = File::open(watched).os("open", watched.display())?;
        let control = dir.join("cgroup.event_control");
        let line = format!("{} {}", told.as_raw_fd(), oom_control.as_raw_fd());
        file::write(&control, &line)?;
        Ok(Self::V1 { told, control })
    }

    fn v2(paths: &Paths, watched: &Path) -> Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let changed = Inotify::init(flags).os("inotify_init", "")?;
        changed
            .add_watch(watched, AddWatchFlags::IN_MODIFY)
            .os("inotify_add_watch", watched.display())?;
        Ok(Self::V2 { changed, paths: paths.clone(), kills: stored::oom_kills(paths)? })
    }

    /// Returns true if there was a kill since the last call. Never waits.
    ///
    /// # Errors
    ///
    /// The counter cannot be read.
    pub fn happened(&mut self) -> Result<bool> {
        match self {
            Self::V1 { told, control } => match told.read() {
                // The removal of the cgroup is reported in the same way.
                Ok(_) => Ok(control.exists()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno).os("read", "eventfd"),
            },
            Self::V2 { changed, paths, kills } => {
                match changed.read_events() {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Err(errno).os("read", "inotify"),
                }
                let now = stored::oom_kills(paths)?;
                Ok(now > std::mem::replace(kills, now))
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V1 { told, .. } => told.as_fd(),
            Self::V2 { changed, .. } => changed.as_fd(),
        }
    }
}
