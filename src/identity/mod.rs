//! Identity of the container's process: user, groups, capabilities, labels, keyring, umask, working directory and
//! program.
//!
//! # Theory of operation
//!
//! [`plan::plan`] turns `process` into two lists of [`Step`]s. If `noNewPrivileges` is false, the caller loads seccomp
//! between them, because the filter then needs CAP_SYS_ADMIN. If it is true, the filter is loaded after `late`, so that
//! a profile need not allow the system calls of `late`. The order is runc's:
//!
//! 1. `early`, in the container's root and still privileged: session keyring, HOME ([`environment`]), first attempt to
//!    enter the working directory (which init creates if it is missing), umask, AppArmor and SELinux labels for execve,
//!    no_new_privs.
//! 2. seccomp, without no_new_privs.
//! 3. `late`: bounding set, keepcaps, owner of stdio, groups, gid, uid, second attempt to enter the working directory
//!    (root may lack permission, as on NFS), check that it is in the container, effective, permitted and inheritable
//!    sets, ambient set.
//! 4. Lookup of `args[0]` as the new user ([`executable`]).
//! 5. The gate and the last descriptors ([`descriptors`]); seccomp, with no_new_privs; execve.
//!
//! The bounding set is first, because dropping needs CAP_SETPCAP. The other sets are after the user, because a uid
//! other than 0 clears them.
//!
//! IDs are numbers. The container's `/etc/passwd` is read only for HOME: names that look like numbers could become root
//! there (CVE-2016-3697).
//! numbers once became root there (CVE-2016-3697).

pub mod account;
pub mod child;
pub mod descriptors;
pub mod environment;
pub mod executable;
pub mod parent;
pub mod plan;

use std::ffi::CString;
use std::fmt;

use crate::sys::process::CapabilitySets;

pub use plan::{IdentityRequest, Plan, SecurityModules};

/// Step of the child that sets a part of the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    SessionKeyring(Keyring),
    /// Create the working directory, before the root may become read-only.
    MakeCwd(CString),
    EnterCwd(CString),
    Umask(u32),
    AppArmor {
        /// `exec <profile>`, the kernel's format.
        command: String,
    },
    SelinuxLabel(String),
    NoNewPrivileges,
    /// Drop all other capabilities from the bounding set.
    Bounding {
        keep: u64,
    },
    KeepCapabilities,
    StdioOwner {
        uid: u32,
        /// Group for pipes only.
        gid: u32,
    },
    Groups(Vec<u32>),
    Gid(u32),
    Uid(u32),
    /// Enter the working directory if the first attempt failed for lack of permission, then check that it is in the
    /// container.
    CheckCwd {
        path: CString,
    },
    Capabilities(CapabilitySets),
    /// Reduce the capabilities after the seccomp filter is loaded. capset(2) is the only system call of this step.
    ReducedCapabilities(CapabilitySets),
    Ambient(u64),
}

/// Session keyring of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    pub name: CString,
    /// Permissions to add to a new keyring. `None` to join an existing one.
    pub permissions: Option<u32>,
    /// SELinux label of the keyring.
    pub label: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionKeyring(ring) => {
                write!(f, "join session keyring {}", ring.name.to_string_lossy())
            }
            Self::MakeCwd(path) => write!(f, "make working directory {}", path.to_string_lossy()),
            Self::EnterCwd(path) => write!(f, "enter working directory {}", path.to_string_lossy()),
            Self::Umask(mask) => write!(f, "umask {mask:04o}"),
            Self::AppArmor { command } => {
                write!(f, "apparmor profile {}", command.trim_start_matches("exec "))
            }
            Self::SelinuxLabel(label) => write!(f, "selinux label {label}"),
            Self::NoNewPrivileges => f.write_str("no new privileges"),
            Self::Bounding { keep } => write!(f, "bounding set {}", Names(*keep)),
            Self::KeepCapabilities => f.write_str("keep capabilities across the change of user"),
            Self::StdioOwner { uid, .. } => write!(f, "change the owner of stdio to uid {uid}"),
            Self::Groups(gids) => write!(f, "additional groups {gids:?}"),
            Self::Gid(gid) => write!(f, "gid {gid}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::CheckCwd { path } => {
                write!(f, "check working directory {}", path.to_string_lossy())
            }
            Self::Capabilities(sets) | Self::ReducedCapabilities(sets) => {
                write!(f, "capabilities {}", Sets(sets))
            }
            Self::Ambient(mask) => write!(f, "ambient set {}", Names(*mask)),
        }
    }
}

/// Returns the names of the capabilities in `mask`, sorted.
fn names(mask: u64) -> Vec<String> {
    let held = caps::all().into_iter().filter(|capability| mask & capability.bitmask() != 0);
    let mut names: Vec<_> = held.map(|capability| capability.to_string()).collect();
    names.sort_unstable();
    names
}

/// Set of capabilities that is printed as names.
struct Names(u64);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut known: Vec<_> = caps::all().into_iter().collect();
        known.sort_by_key(caps::Capability::index);
        // The shorter list of two is printed: the capabilities in the set, or those that are missing.
        let (mut held, lacking): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|c| self.0 & c.bitmask() != 0);
        if lacking.is_empty() {
            return f.write_str("all");
        }
        if lacking.len() < held.len() {
            f.write_str("all but ")?;
            held = lacking;
        }
        let mut separator = "";
        for capability in held {
            write!(f, "{separator}{capability}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// Capability sets that are printed as names. Equal sets are printed once.
struct Sets<'a>(&'a CapabilitySets);

impl fmt::Display for Sets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CapabilitySets { effective, permitted, inheritable } = *self.0;
        let mut groups: Vec<(String, u64)> = Vec::new();
        for (name, mask) in
            [("effective", effective), ("permitted", permitted), ("inheritable", inheritable)]
        {
            match groups.iter_mut().find(|(_, other)| *other == mask) {
                Some((names, _)) => *names = format!("{names},{name}"),
                None => groups.push((name.to_owned(), mask)),
            }
        }
        let mut separator = "";
        for (names, mask) in groups {
            write!(f, "{separator}{names} {}", Names(mask))?;
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_said_briefly() {
        let all = caps::all().into_iter().fold(0, |mask, c| mask | c.bitmask());
        let text = |effective, permitted, inheritable| {
            Step::Capabilities(CapabilitySets { effective, permitted, inheritable }).to_string()
        };
        assert_eq!(
            text(all & !1, all, 0),
            "capabilities effective all but CAP_CHOWN permitted all inheritable none"
        );
        assert_eq!(text(1, 1, 0), "capabilities effective,permitted CAP_CHOWN inheritable none");
        assert_eq!(text(0, 0, 0), "capabilities effective,permitted,inheritable none");
    }
}
