//! Which descriptors above 2 the container's process gets: those of socket activation, then those
//! of `--preserve-fds`, under the numbers they have. All others are closed before execve, so that
//! none of the host's is reachable as `/proc/self/fd/N` (CVE-2024-21626).

use std::os::fd::RawFd;

use crate::error::fault::{Attempt, ChildResult};
use crate::error::{Error, OsContext, Result};
use crate::sys::process;

/// The first one after the standard three.
const FIRST: u32 = 3;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    listen: u32,
    preserve: u32,
}

/// `listen_fds` and `listen_pid` are LISTEN_FDS and LISTEN_PID of the runtime's own environment.
/// They count only if they name this process: a caller's caller may have left them. Pure.
pub fn plan(
    listen_fds: Option<&str>,
    listen_pid: Option<&str>,
    own_pid: u32,
    preserve: u32,
) -> Passed {
    let ours = listen_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid);
    let listen = listen_fds.and_then(|n| n.parse().ok()).filter(|_| ours).unwrap_or(0);
    Passed { listen, preserve }
}

fn is_inherited(fd: u32) -> bool {
    i32::try_from(fd).is_ok_and(|fd| process::is_cloexec(fd) == Ok(false))
}

impl Passed {
    /// The first descriptor that is not passed.
    pub fn end(self) -> u32 {
        FIRST.saturating_add(self.listen).saturating_add(self.preserve)
    }

    /// What the container's environment gains. Its process will be 1 to itself.
    pub fn variables(self) -> Vec<String> {
        match self.listen {
            0 => Vec::new(),
            n => vec![format!("LISTEN_FDS={n}"), "LISTEN_PID=1".to_owned()],
        }
    }

    /// Those of socket activation must all have come from the caller. What is marked close-on-exec
    /// cannot have survived our own execve, so it is ours and must not leak.
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

    /// Of the preserved descriptors not all need be open. Takes the free numbers below the last one
    /// that is, so that nothing of the runtime's comes to be among them, where it would stay open until
    /// execve; the number of preserved descriptors ends there. Called before anything is opened.
    pub fn reserve(self) -> Result<u32> {
        let first = FIRST.saturating_add(self.listen);
        let last = (first..self.end()).rev().find(|fd| is_inherited(*fd));
        let Some(last) = last else { return Ok(0) };
        process::occupy(last as RawFd).os("eventfd", "a free descriptor")?;
        Ok(last - first + 1)
    }

    /// Early in the child: nothing but the passed survives any execve.
    pub fn protect(self) -> ChildResult<()> {
        process::cloexec_from(self.end()).during("close_range")
    }

    /// Closes all others but `keep`. No owner of one of them may be dropped after this.
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
        let ours = plan(Some("2"), Some("7"), 7, 1);
        assert_eq!(
            (ours.end(), ours.variables().join(" ")),
            (6, "LISTEN_FDS=2 LISTEN_PID=1".into())
        );
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
            // 3 is free, 4 is inherited, nothing else is open.
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
            // Closed behind its back, which std aborts for.
            let files = std::mem::ManuallyDrop::new(files);
            let kept = [files[6].as_raw_fd(), files[2].as_raw_fd()];
            passed.close_others(&mut kept.clone()).unwrap();
            let open = (FIRST as i32..1024).filter(|fd| process::is_cloexec(*fd).is_ok());
            assert_eq!(open.collect::<Vec<_>>(), [3, kept[1], kept[0]]);
        });
        assert_eq!(end, crate::sys::pidfd::Ended::Exited(0));
    }
}
