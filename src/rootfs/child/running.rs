//! Adds mounts to a running container, and removes them.

use std::cell::RefCell;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::fchdir;

use super::{State, fd_path};
use crate::error::fault::{Attempt, ChildResult, Fault};

impl State<'_> {
    /// Records mounts from now on, for [`State::undo_mounts`].
    pub fn remember_mounts(&mut self) {
        self.added = Some(RefCell::default());
    }

    pub(super) fn remember(&self, mount: BorrowedFd<'_>) -> ChildResult<()> {
        if let Some(added) = &self.added {
            added.borrow_mut().push(mount.try_clone_to_owned().map_err(|e| Fault {
                call: "dup".into(),
                errno: Errno::from_raw(e.raw_os_error().unwrap_or_default()),
            })?);
        }
        Ok(())
    }

    /// Unmounts the recorded mounts, in reverse order.
    pub fn undo_mounts(&mut self) {
        let added = self.added.take().map(RefCell::into_inner).unwrap_or_default();
        for mount in added.iter().rev() {
            // An earlier error is the one to report.
            let _ = self.unmount(mount.as_fd());
        }
    }

    /// Unmounts a mount by the path of its descriptor: see [`State::mount_by_path`].
    fn unmount(&self, mount: BorrowedFd<'_>) -> ChildResult<()> {
        let path = fd_path(mount)?;
        fchdir(self.proc).during("fchdir")?;
        let done = umount2(path.as_c_str(), MntFlags::MNT_DETACH);
        if let Some(root) = &self.root {
            fchdir(root).during("fchdir")?;
        }
        done.during("umount2")
    }
}

/// Unmounts the mount at `path`, and all mounts in it.
pub(super) fn unmount(state: &State<'_>, path: &CStr) -> ChildResult<()> {
    let place = state.root()?.open(path, libc::O_PATH).during("open")?;
    match state.unmount(place.as_fd()) {
        Err(Fault { errno: Errno::EINVAL, .. }) => Err(Fault {
            call: "umount2: not a mount point, or locked by the kernel".into(),
            errno: Errno::EINVAL,
        }),
        other => other,
    }
}
