//! Decides which descriptors above 2 the container's process inherits, and closes the others.
//!
//! The process inherits descriptors of socket activation, then those of `--preserve-fds`, with their numbers. All
//! others are closed before execve, so that no descriptor of the host is reachable as `/proc/self/fd/N`
//! (CVE-2024-21626).

use std::os::fd::RawFd;

use crate::error::fault::{Attempt, ChildResult};
use crate::error::{Error, OsContext, Result};
use crate::sys::process;

/// First descriptor after the standard ones.
const FIRST: u32 = 3;

/// Numbers of inherited descriptors, which begin at 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassedDescriptors {
    listen: u32,
    preserve: u32,
}

/// Reads LISTEN_FDS and LISTEN_PID of the runtime's environment (sd_listen_fds(3)), without system calls.
///
/// They only count if LISTEN_PID is this process: they may be inherited from the caller's caller.
pub fn plan(
    listen_fds: Option<&str>,
    listen_pid: Option<&str>,
    own_pid: u32,
    preserve: u32,
) -> PassedDescriptors {
    let own = listen_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid);
    let listen = listen_fds.and_then(|n| n.parse().ok()).filter(|_| own).unwrap_or(0);
    PassedDescriptors { listen, preserve }
}

fn is_inherited(fd: u32) -> bool {
    i32::try_from(fd).is_ok_and(|fd| process::is_cloexec(fd) == Ok(false))
}

impl PassedDescriptors {
    /// Returns the first descriptor that is not inherited.
    pub fn end(self) -> u32 {
        FIRST.saturating_add(self.listen).saturating_add(self.preserve)
    }

    /// Returns the variables to add to the container's environment. The container's process has the pid 1.
    pub fn variables(self) -> Vec<String> {
        match self.listen {
            0 => Vec::new(),
            n => vec![format!("LISTEN_FDS={n}"), "LISTEN_PID=1".to_owned()],
        }
    }

    /// Checks that the caller has passed all descriptors of socket activation. A close-on-exec descriptor cannot have
    /// survived the runtime's own execve, so it is one of the runtime, which must not leak.
    ///
    /// # Errors
    ///
    /// A descriptor that LISTEN_FDS counts is closed or close-on-exec.
    pub fn check(self) -> Result<()> {
        let listen_end = FIRST.saturating_add(self.listen);
        match (FIRST..listen_end).find(|fd| !is_inherited(*fd)) {
            None => Ok(()),
            Some(fd) => Err(Error::system(format!(
                "LISTEN_FDS={}: descriptor {fd} was not passed to the runtime",
                self.listen
            ))),
        }
    }

    /// Fills the unused numbers among the preserved descriptors, and returns the number of preserved descriptors up to
    /// the last one that is open.
    ///
    /// Not all preserved descriptors need to be open. Without this, descriptors of the runtime could get these numbers,
    /// and would stay open until execve. Called before any other file is opened.
    ///
    /// # Errors
    ///
    /// An error of eventfd2(2).
    pub fn reserve(self) -> Result<u32> {
        let first = FIRST.saturating_add(self.listen);
        let last = (first..self.end()).rev().find(|fd| is_inherited(*fd));
        let Some(last) = last else { return Ok(0) };
        process::occupy(last as RawFd).os("eventfd", "a free descriptor")?;
        Ok(last - first + 1)
    }

    /// Marks all other descriptors as close-on-exec, early in the child.
    ///
    /// # Errors
    ///
    /// An error of close_range(2).
    pub fn protect(self) -> ChildResult<()> {
        process::cloexec_from(self.end()).during("close_range")
    }

    /// Closes all other descriptors except `keep`. No owner of a closed descriptor may be dropped afterwards.
    ///
    /// # Errors
    ///
    /// An error of close_range(2).
    pub fn close_others(self, keep: &mut [RawFd]) -> ChildResult<()> {
        keep.sort_unstable();
        let mut next = self.end();
        for kept in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
            if next < kept {
                process::close_range(next, kept - 1).during("close_range")?;
            }
            next = next.max(kept + 1);
        }
        process::close_range(next, u32::MAX).during("close_range")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activation_counts_only_for_us() {
        let own = plan(Some("2"), Some("7"), 7, 1);
        assert_eq!((own.end(), own.variables().join(" ")), (6, "LISTEN_FDS=2 LISTEN_PID=1".into()));
        for (fds, pid) in [
            (Some("2"), Some("8")),
            (Some("2"), None),
            (None, Some("7")),
            (Some("x"), Some("7")),
            (Some("-1"), Some("7")),
        ] {
            let passed = plan(fds, pid, 7, 1);
            assert_eq!((passed.end(), passed.variables().len()), (4, 0));
        }
    }

    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(plan(Some("4294967295"), Some("7"), 7, 9).end(), u32::MAX);
    }

    #[test]
    fn a_missing_descriptor_of_activation_is_named() {
        let _ours: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let message = plan(Some("16"), Some("7"), 7, 0).check().unwrap_err().to_string();
        assert!(message.starts_with("LISTEN_FDS=16: descriptor "), "{message}");
        plan(None, None, 7, 16).check().unwrap();
    }

    #[test]
    fn gaps_among_preserved_descriptors_are_occupied() {
        use std::os::fd::AsRawFd;

        let end = crate::sys::spawn::in_child(|| {
            process::close_range(FIRST, u32::MAX).unwrap();
            assert_eq!(plan(None, None, 7, 1 << 20).reserve().unwrap(), 0);
            let file = std::fs::File::open("/dev/null").unwrap();
            let inherited = nix::unistd::dup(&file).unwrap();
            assert_eq!((file.as_raw_fd(), inherited.as_raw_fd()), (3, 4));
            drop(file);
            // Descriptor 3 is free, 4 is inherited, and no others are open.
            assert_eq!(plan(None, None, 7, 1 << 20).reserve().unwrap(), 2);
            assert_eq!(std::fs::File::open("/dev/null").unwrap().as_raw_fd(), 5);
            assert_eq!(process::is_cloexec(3), Ok(true));
        });
        assert_eq!(end, crate::sys::pidfd::Ended::Exited(0));
    }

    #[test]
    fn only_the_passed_and_the_kept_stay_open() {
        use std::os::fd::AsRawFd;

        let end = crate::sys::spawn::in_child(|| {
            let passed = plan(None, None, 7, 1);
            let files: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
            // The descriptor is closed without its owner, for which std aborts.
            let files = std::mem::ManuallyDrop::new(files);
            let kept = [files[6].as_raw_fd(), files[2].as_raw_fd()];
            passed.close_others(&mut kept.clone()).unwrap();
            let open = (FIRST as i32..1024).filter(|fd| process::is_cloexec(*fd).is_ok());
            assert_eq!(open.collect::<Vec<_>>(), [3, kept[1], kept[0]]);
        });
        assert_eq!(end, crate::sys::pidfd::Ended::Exited(0));
    }
}
