//! Who the container's process is: user, groups, capabilities, labels, keyring, umask, and where
//! and as what image it starts.
//!
//! # Theory of operation
//!
//! [`plan::plan`] turns `process` into two lists of [`Step`]s, between which the caller loads
//! seccomp when `noNewPrivileges` is false (the filter then needs CAP_SYS_ADMIN). When it is true,
//! the filter comes after `late`, so that a profile need not allow what `late` does. The order is
//! runc's:
//!
//! 1. `early`, in the container's root and still privileged: session keyring, HOME
//!    ([`environment`]), first attempt at the working directory (which init makes when missing),
//!    umask, AppArmor and SELinux labels of the coming execve, no_new_privs.
//! 2. seccomp, unless no_new_privs.
//! 3. `late`: bounding set, keepcaps, owner of stdio, groups, gid, uid, second attempt at the
//!    working directory (a directory may be closed to root, as on NFS), check of where that is,
//!    effective, permitted and inheritable sets, ambient set.
//! 4. `args[0]` is looked up as the new user ([`executable`]).
//! 5. The gate and the last descriptors ([`descriptors`]); seccomp, if no_new_privs; execve.
//!
//! The bounding set goes first because dropping needs CAP_SETPCAP; the others go after the user
//! because a uid other than 0 empties them.
//!
//! Ids are numbers. `/etc/passwd` of the container is read for HOME only: names that look like
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

pub use plan::{Input, Plan, SecurityModules};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    SessionKeyring(Keyring),
    /// While it can be: the root may become read-only.
    MakeCwd(CString),
    EnterCwd(CString),
    Umask(u32),
    AppArmor {
        /// `exec <profile>`, as the kernel takes it.
        command: String,
    },
    SelinuxLabel(String),
    NoNewPrivileges,
    /// Drops every other capability.
    Bounding {
        keep: u64,
    },
    KeepCapabilities,
    StdioOwner {
        uid: u32,
        /// Of pipes only.
        gid: u32,
    },
    Groups(Vec<u32>),
    Gid(u32),
    Uid(u32),
    /// The second attempt, if the first was refused for lack of permission; then the check that
    /// the directory is one of the container's.
    SettleCwd {
        path: CString,
    },
    Capabilities(CapabilitySets),
    /// The same after the seccomp filter is loaded, where capset(2) is the only system call.
    ReducedCapabilities(CapabilitySets),
    Ambient(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    pub name: CString,
    /// Permissions added to those of a new keyring. None: it is joined as it is.
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
            Self::StdioOwner { uid, .. } => write!(f, "give stdio to uid {uid}"),
            Self::Groups(gids) => write!(f, "additional groups {gids:?}"),
            Self::Gid(gid) => write!(f, "gid {gid}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::SettleCwd { path } => {
                write!(f, "check working directory {}", path.to_string_lossy())
            }
            Self::Capabilities(sets) | Self::ReducedCapabilities(sets) => {
                write!(f, "capabilities {}", Sets(sets))
            }
            Self::Ambient(mask) => write!(f, "ambient set {}", Names(*mask)),
        }
    }
}

/// The names of the capabilities in `mask`, sorted.
fn names(mask: u64) -> Vec<String> {
    let held = caps::all().into_iter().filter(|capability| mask & capability.bitmask() != 0);
    let mut names: Vec<_> = held.map(|capability| capability.to_string()).collect();
    names.sort_unstable();
    names
}

/// A mask of capabilities by name.
struct Names(u64);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut known: Vec<_> = caps::all().into_iter().collect();
        known.sort_by_key(caps::Capability::index);
        // The shorter of what is in and what is not.
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

/// Which capabilities are in which sets; sets that are the same are said once.
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
