//! Asks the kernel for the present status of a container.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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

/// Live init process of a container.
#[derive(Debug)]
pub struct Live {
    pidfd: OwnedFd,
}

impl Live {
    /// pidfd of the process.
    pub fn init(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn into_init(self) -> OwnedFd {
        self.pidfd
    }
}

/// Live process of a created container, which waits for `start`.
#[derive(Debug)]
pub struct Created(pub Live);

/// Live process of a container that executes its program, and is not frozen.
#[derive(Debug)]
pub struct Running(pub Live);

/// Live process of a frozen container.
#[derive(Debug)]
pub struct Paused(pub Live);

/// Present status of a container, with its process. Only [`observe`] creates one, so a function that takes [`Created`],
/// [`Running`] or [`Paused`] acts on a container that the kernel has been asked about.
#[derive(Debug)]
pub enum Observed {
    /// A create has the lock. Its process may exist.
    Creating(Option<Live>),
    Created(Created),
    Running(Running),
    Paused(Paused),
    Stopped,
}

impl Observed {
    pub fn status(&self) -> Status {
        match self {
            Self::Creating(_) => Status::Creating,
            Self::Created(_) => Status::Created,
            Self::Running(_) => Status::Running,
            Self::Paused(_) => Status::Paused,
            Self::Stopped => Status::Stopped,
        }
    }

    /// pidfd of a live init process.
    pub fn init(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Creating(live) => live.as_ref().map(Live::init),
            Self::Created(Created(live))
            | Self::Running(Running(live))
            | Self::Paused(Paused(live)) => Some(live.init()),
            Self::Stopped => None,
        }
    }

    /// Returns a live init process, also one that a create is setting up.
    pub fn into_live(self) -> Option<Live> {
        match self {
            Self::Creating(live) => live,
            Self::Created(Created(live))
            | Self::Running(Running(live))
            | Self::Paused(Paused(live)) => Some(live),
            Self::Stopped => None,
        }
    }

    /// Returns the process of a container whose create has finished, and that has not stopped.
    pub fn into_created(self) -> Option<Live> {
        match self {
            Self::Creating(_) => None,
            other => other.into_live(),
        }
    }
}

/// Returns the container's present status. Frozen takes precedence, as in runc, also if another program froze the cgroup.
///
/// # Errors
///
/// The process or the freezer cannot be examined.
pub fn observe(slot: &Slot, record: &Record) -> Result<Observed> {
    if record.init_process_pid.0 == 0 {
        // The kernel has released the lock of a killed create.
        return Ok(if slot.is_busy() { Observed::Creating(None) } else { Observed::Stopped });
    }
    let pid = record.init_process_pid.0;
    let observed = match live(record.init_process_pid, record.init_process_start)? {
        None => Observed::Stopped,
        Some(live) if cgroup::freezer::has_frozen(&record.cgroup_paths, pid)? => {
            Observed::Paused(Paused(live))
        }
        Some(live) if record.phase == Phase::Creating => Observed::Creating(Some(live)),
        Some(live) if slot.has_fifo()? => Observed::Created(Created(live)),
        Some(live) => Observed::Running(Running(live)),
    };
    crate::time::step(format_args!("look at the container: {}", observed.status()));
    Ok(observed)
}

/// Returns the kernel's id of the present boot.
///
/// # Errors
///
/// procfs is not mounted.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let mut id = [0; 64];
    let read = File::open(path).and_then(|mut file| file.read(&mut id));
    let length = read.os("read", path)?;
    Ok(String::from_utf8_lossy(&id[..length]).trim_end().to_owned())
}

/// Opens a pidfd of the recorded process. `None` if it has ended or its pid belongs to another process.
fn live(pid: HostPid, start: u64) -> Result<Option<Live>> {
    let pidfd = match sys::pidfd::open(pid.0) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(errno) => return Err(Error::os("pidfd_open", pid, errno)),
    };
    // Read after the pidfd was opened: if this is the recorded process, the pidfd refers to it.
    match process::stat(pid)? {
        Some(stat) if stat.start == start && !stat.dead => Ok(Some(Live { pidfd })),
        _ => Ok(None),
    }
}
