//! Where the state of containers is kept.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    /// `--root`.
    Explicit,
    /// Root's default. Missing means that there are no containers.
    System,
    /// Below `$XDG_RUNTIME_DIR`: to be made 0700 and sticky, which keeps that directory's cleaners off.
    User,
}

impl StateRoot {
    /// Makes a user's root, once; the others are made by the first create.
    pub fn prepare(&self) -> Result<()> {
        if self.chosen != Chosen::User {
            return Ok(());
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
            other => other.os("mkdir", self.path.display())?,
        }
        // mkdir(2) takes no sticky bit.
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o1700))
            .os("chmod", self.path.display())
    }
}

/// What the choice depends on.
pub struct Caller {
    pub euid: u32,
    pub user: Option<OsString>,
    pub xdg_runtime_dir: Option<OsString>,
    /// Asked only when the rest does not decide.
    pub in_user_namespace: fn() -> bool,
}

impl Caller {
    pub fn current() -> Self {
        Self {
            euid: nix::unistd::geteuid().as_raw(),
            user: std::env::var_os("USER"),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            in_user_namespace,
        }
    }

    /// Root in a user namespace that somebody else's name made is still that somebody: so rootless
    /// engines run us.
    fn is_rootless(&self) -> bool {
        self.euid != 0
            || (self.user.as_deref() != Some("root".as_ref()) && (self.in_user_namespace)())
    }
}

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
    match caller.xdg_runtime_dir.as_deref().filter(|dir| !dir.is_empty()) {
        Some(dir) if caller.is_rootless() => {
            Ok(StateRoot { path: Path::new(dir).join("aril"), chosen: Chosen::User })
        }
        _ => Ok(StateRoot { path: "/run/aril".into(), chosen: Chosen::System }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(euid: u32, user: &str, xdg: Option<&str>, inside: fn() -> bool) -> Caller {
        let xdg_runtime_dir = xdg.map(OsString::from);
        Caller { euid, user: Some(user.into()), xdg_runtime_dir, in_user_namespace: inside }
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
        assert_eq!(chosen(&caller(7, "seven", None, no)), system);
        assert_eq!(chosen(&caller(7, "seven", Some(""), no)), system);
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
