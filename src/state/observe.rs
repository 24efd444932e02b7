//! Asks the kernel for the present status of a container.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use super::{Phase, Record, Slot};
use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::fs::process;
use crate::id::HostPid;
use crate::sys::{self, Errno};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status of a container. Only the statuses of a live container have a process.
#[derive(Debug)]
pub struct Observed {
    pub status: Status,
    init: Option<OwnedFd>,
}

impl Observed {
    /// Live init process of a container.
    pub fn init(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.init.as_ref().map(AsFd::as_fd)
    }

    /// Returns the pidfd.
    pub fn into_init(self) -> Option<OwnedFd> {
        self.init
    }
}

/// Returns the container's present status. Frozen takes precedence, as in runc, also if another program froze the cgroup.
pub fn observe(slot: &Slot, record: &Record) -> Result<Observed> {
    if record.init_process_pid.0 == 0 {
        // The kernel has released the lock of a killed create.
        let status = if slot.is_busy() { Status::Creating } else { Status::Stopped };
        return Ok(Observed { status, init: None });
    }
    let init = live(record.init_process_pid, record.init_process_start)?;
    let pid = record.init_process_pid.0;
    let status = if init.is_some() && cgroup::freezer::has_frozen(&record.cgroup_paths, pid)? {
        Status::Paused
    } else if init.is_none() {
        Status::Stopped
    } else if record.phase == Phase::Creating {
        Status::Creating
    } else if slot.fifo().exists() {
        Status::Created
    } else {
        Status::Running
    };
    crate::time::step(format_args!("look at the container: {status}"));
    Ok(Observed { status, init })
}

/// Returns the kernel's id of the present boot.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let mut id = [0; 64];
    let read = File::open(path).and_then(|mut file| file.read(&mut id));
    let length = read.os("read", path)?;
    Ok(String::from_utf8_lossy(&id[..length]).trim_end().to_owned())
}

/// Opens a pidfd of the recorded process. `None` if it has ended or its pid belongs to another process.
fn live(pid: HostPid, start: u64) -> Result<Option<OwnedFd>> {
    let pidfd = match sys::pidfd::open(pid.0) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(errno) => return Err(Error::os("pidfd_open", pid, errno)),
    };
    // Read after the pidfd was opened: if this is the recorded process, the pidfd refers to it.
    match process::stat(pid) {
        Some(stat) if stat.start == start && !stat.dead => Ok(Some(pidfd)),
        _ => Ok(None),
    }
}
