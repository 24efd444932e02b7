//! Chooses the directory for the state of containers.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::error::{Error, Kind, OsContext, Result};
use crate::fs::process::in_user_namespace;
use crate::path::clean;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    pub path: PathBuf,
    pub chosen: Chosen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// Directory of `--root`.
    Explicit,
    /// Default of root. If it is missing, there are no containers.
    System,
    /// Directory below `$XDG_RUNTIME_DIR` or its default value, created with mode 0700 and the sticky bit, with which
    /// programs that clean that directory leave it alone.
    User,
    /// Directory below /tmp, for a user without a runtime directory. Another user may have created it before.
    Fallback,
}

impl StateRoot {
    /// Creates a user's directory. `create` makes the others.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, or other users can write to it.
    pub fn prepare(&self) -> Result<()> {
        if !matches!(self.chosen, Chosen::User | Chosen::Fallback) {
            return Ok(());
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return self.require_own(),
            other => other.os("mkdir", self.path.display())?,
        }
        // mkdir(2) ignores the sticky bit.
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o1700))
            .os("chmod", self.path.display())
    }

    /// Rejects a directory of another user, which would control the containers.
    fn require_own(&self) -> Result<()> {
        if self.chosen != Chosen::Fallback {
            return Ok(());
        }
        let found = std::fs::symlink_metadata(&self.path).os("stat", self.path.display())?;
        let own = found.uid() == nix::unistd::geteuid().as_raw();
        if found.is_dir() && own && found.mode() & 0o077 == 0 {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::system(format!(
            "cannot keep state in {path}: it is not a directory of this user with mode 0700"
        ))
        .hint("set XDG_RUNTIME_DIR to a directory of your own, or give --root"))
    }

    /// Returns a warning about the directory for commands that create a container.
    pub fn warning(&self) -> Option<String> {
        let path = self.path.display();
        (self.chosen == Chosen::Fallback).then(|| {
            format!("XDG_RUNTIME_DIR is not set: the state of containers is kept in {path}")
        })
    }
}

/// Facts about the caller that the choice depends on.
pub struct Caller {
    pub euid: u32,
    pub user: Option<OsString>,
    pub xdg_runtime_dir: Option<OsString>,
    /// Called only if the other fields do not decide.
    pub in_user_namespace: fn() -> bool,
    /// Returns true if the caller can write to the directory.
    pub writable: fn(&Path) -> bool,
}

impl Caller {
    #[expect(clippy::disallowed_methods, reason = "the caller's runtime directory")]
    pub fn current() -> Self {
        Self {
            euid: nix::unistd::geteuid().as_raw(),
            user: std::env::var_os("USER"),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            in_user_namespace,
            writable: |path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        }
    }

    /// True for root in a user namespace with the environment of another user. Rootless engines call Aril so.
    fn is_rootless(&self) -> bool {
        self.euid != 0
            || (self.user.as_deref() != Some("root".as_ref()) && (self.in_user_namespace)())
    }

    /// True for root of a user namespace that cannot write to the default directory of root.
    fn is_shut_out(&self) -> bool {
        self.euid != 0
            || ((self.in_user_namespace)()
                && !["/run/aril", "/run"].iter().any(|dir| (self.writable)(Path::new(dir))))
    }
}

/// Chooses the state root for the caller.
///
/// # Errors
///
/// There is no directory for an ordinary user.
pub fn choose(explicit: Option<&OsStr>, caller: &Caller) -> Result<StateRoot> {
    if let Some(given) = explicit.filter(|given| !given.is_empty()) {
        let path = clean(&std::path::absolute(given).os("getcwd", "")?);
        if path == Path::new("/") {
            return Err(Error::new(
                Kind::Usage,
                format!("invalid value {given:?} for flag --root: state cannot be kept in /"),
            ));
        }
        return Ok(StateRoot { path, chosen: Chosen::Explicit });
    }
    let user = |dir: &Path| StateRoot { path: dir.join("aril"), chosen: Chosen::User };
    match caller.xdg_runtime_dir.as_deref().filter(|dir| !dir.is_empty()) {
        Some(dir) if caller.is_rootless() => return Ok(user(Path::new(dir))),
        // sudo, su and cron unset the variable; the directory may exist nevertheless.
        None if caller.is_shut_out() => {}
        _ => return Ok(StateRoot { path: "/run/aril".into(), chosen: Chosen::System }),
    }
    let uid = if caller.euid == 0 { outer_id() } else { caller.euid };
    let theirs = PathBuf::from(format!("/run/user/{uid}"));
    if (caller.writable)(&theirs) {
        return Ok(user(&theirs));
    }
    Ok(StateRoot { path: format!("/tmp/aril-{uid}").into(), chosen: Chosen::Fallback })
}

/// Returns the user ID of this user namespace's root in its parent.
fn outer_id() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(euid: u32, user: &str, xdg: Option<&str>, inside: fn() -> bool) -> Caller {
        let xdg_runtime_dir = xdg.map(OsString::from);
        let writable = |dir: &Path| dir == Path::new("/run/user/7");
        let user = Some(user.into());
        Caller { euid, user, xdg_runtime_dir, in_user_namespace: inside, writable }
    }

    fn chosen(caller: &Caller) -> (String, Chosen) {
        let root = choose(None, caller).unwrap();
        (root.path.to_str().unwrap().into(), root.chosen)
    }

    #[test]
    fn defaults() {
        let yes = || true;
        let no = || false;
        let system = ("/run/aril".to_owned(), Chosen::System);
        let user = ("/run/user/7/aril".to_owned(), Chosen::User);
        let xdg = Some("/run/user/7");
        assert_eq!(chosen(&caller(0, "root", xdg, no)), system);
        assert_eq!(chosen(&caller(0, "root", xdg, yes)), system);
        assert_eq!(chosen(&caller(0, "seven", xdg, no)), system);
        assert_eq!(chosen(&caller(0, "seven", xdg, yes)), user);
        assert_eq!(chosen(&caller(7, "seven", xdg, no)), user);
        assert_eq!(chosen(&caller(7, "seven", None, no)), user);
        assert_eq!(chosen(&caller(7, "seven", Some(""), no)), user);
        let fallback = ("/tmp/aril-8".to_owned(), Chosen::Fallback);
        assert_eq!(chosen(&caller(8, "eight", None, no)), fallback);
        // Root of a namespace that has a /run of its own, or not.
        let shut_out = caller(0, "root", None, yes);
        assert_eq!(chosen(&shut_out).1, Chosen::Fallback);
        assert_eq!(
            chosen(&Caller { writable: |dir| dir == Path::new("/run"), ..shut_out }),
            system
        );
    }

    #[test]
    fn explicit() {
        let by = caller(0, "root", None, || false);
        let path = |given: &str| choose(Some(given.as_ref()), &by).map(|root| root.path);
        assert_eq!(path("/a/./b//c/../d/").unwrap(), Path::new("/a/b/d"));
        assert_eq!(path("x").unwrap(), std::env::current_dir().unwrap().join("x"));
        assert_eq!(path("").unwrap(), Path::new("/run/aril"));
        for slash in ["/", "//", "/..", "/a/.."] {
            assert!(path(slash).is_err(), "{slash}");
        }
    }
}
