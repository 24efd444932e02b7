//! Applies the flags of `exec` to the container's process.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

use crate::error::{Error, Kind, Result};
use crate::id::Principal;

/// Parses `uid[:gid]`. Text after a number is an error (CVE-2026-30892); names were resolved before (CVE-2016-3697).
/// Without a group, the config's stays.
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |text| match Principal::parse(text) {
        Ok(Principal::Number(id)) => Some(id),
        Ok(Principal::Name(_)) | Err(_) => None,
    };
    let parsed = match text.split_once(':') {
        Some((uid, gid)) => number(uid).zip(number(gid)).map(|(uid, gid)| (uid, Some(gid))),
        None => number(text).map(|uid| (uid, None)),
    };
    parsed.ok_or_else(|| {
        Error::new(
            Kind::Usage,
            format!("invalid value {text:?} for flag --user: want uid[:gid], in numbers"),
        )
    })
}

/// Returns true if no part of the value of `--user` is a name. Text that resembles a number is never looked up.
pub fn is_numeric(text: &str) -> bool {
    !text.split(':').any(|part| matches!(Principal::parse(part), Ok(Principal::Name(_))))
}

/// Changes that the flags ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Command; never empty.
    pub args: Vec<String>,
    pub cwd: Option<String>,
    pub env: Vec<String>,
    /// True if the exec gets a terminal. The terminal of config.json is for the container's first process.
    pub tty: bool,
    /// User as `uid[:gid]`.
    pub user: Option<String>,
    pub additional_gids: Vec<u32>,
    pub process_label: Option<String>,
    pub apparmor: Option<String>,
    pub no_new_privs: bool,
    pub capabilities: Vec<String>,
}

impl Edits {
    /// Applies the changes. `warn` gets a message for each unknown capability, which a newer caller may know.
    ///
    /// # Errors
    ///
    /// A value is invalid.
    pub fn apply(&self, mut process: Process, warn: &dyn Fn(&str)) -> Result<Process> {
        process.set_args(Some(self.args.clone()));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.into());
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(self.env.iter().cloned());
        process.set_env(Some(env));
        process.set_terminal(Some(self.tty));
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        self.apply_user(&mut process)?;
        self.apply_capabilities(&mut process, warn);
        Ok(process)
    }

    fn apply_user(&self, process: &mut Process) -> Result<()> {
        let mut user = process.user().clone();
        if let Some(text) = &self.user {
            let (uid, gid) = self::user(text)?;
            user.set_uid(uid);
            user.set_gid(gid.unwrap_or(user.gid()));
        }
        if !self.additional_gids.is_empty() {
            let mut gids = user.additional_gids().clone().unwrap_or_default();
            gids.extend(&self.additional_gids);
            user.set_additional_gids(Some(gids));
        }
        process.set_user(user);
        Ok(())
    }

    /// Adds capabilities, but not to the inheritable set (CVE-2022-29162). The ambient set gets them only if the config has an
    /// inheritable set: the kernel refuses them otherwise.
    fn apply_capabilities(&self, process: &mut Process, warn: &dyn Fn(&str)) {
        if self.capabilities.is_empty() {
            return;
        }
        let (mut added, mut unknown) = (Vec::new(), Vec::new());
        for name in &self.capabilities {
            match serde_json::from_value::<Capability>(name.as_str().into()) {
                Ok(capability) => added.push(capability),
                Err(_) => unknown.push(name.as_str()),
            }
        }
        if !unknown.is_empty() {
            warn(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
        }
        let with = |set: &Option<Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(added.iter().copied());
            Some(set)
        };
        let mut sets = process.capabilities().clone().unwrap_or_else(empty);
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        if sets.inheritable().is_some() {
            sets.set_ambient(with(sets.ambient()));
        }
        process.set_capabilities(Some(sets));
    }
}

/// An empty process. oci-spec's default has the capabilities of an example.
fn empty() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_permitted(None)
        .set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        serde_json::from_str(
            r#"{"terminal":true,"user":{"uid":1,"gid":2,"additionalGids":[3]},"args":["a"],
                "env":["X=1"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]}}"#,
        )
        .unwrap()
    }

    fn edits() -> Edits {
        Edits { args: vec!["ls".to_owned()], ..Edits::default() }
    }

    #[test]
    fn only_what_was_given_changes() {
        let p = edits().apply(process(), &|_| panic!()).unwrap();
        assert_eq!(p.args().as_deref(), Some(&["ls".to_owned()][..]));
        assert_eq!(p.terminal(), Some(false));
        assert_eq!((p.user().uid(), p.user().gid()), (1, 2));
        assert_eq!(p.env().as_deref(), Some(&["X=1".to_owned()][..]));
    }

    #[test]
    fn a_uid_alone_keeps_the_group() {
        let user = Some("7".to_owned());
        let p = Edits { user, additional_gids: vec![4], ..edits() };
        let p = p.apply(process(), &|_| panic!()).unwrap();
        assert_eq!((p.user().uid(), p.user().gid()), (7, 2));
        assert_eq!(p.user().additional_gids().as_deref(), Some(&[3, 4][..]));
        assert_eq!(p.terminal(), Some(false));
    }

    #[test]
    fn a_user_is_numbers() {
        assert_eq!(user("1:2").unwrap(), (1, Some(2)));
        for bad in ["", "root", "1:", ":1", "1x", " 1", "-1", "+1", "4294967296", "1:2:3"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities_are_never_inheritable() {
        let edits = Edits { capabilities: vec!["CAP_NET_ADMIN".to_owned()], ..edits() };
        let p = edits.apply(process(), &|_| panic!()).unwrap();
        let sets = p.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
        assert_eq!(sets.permitted().as_ref().unwrap().len(), 1);
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
        let unknown = Edits { capabilities: vec!["CAP_X".to_owned()], ..edits };
        let warned = std::cell::Cell::new(false);
        let p = unknown.apply(process(), &|text| warned.set(text.ends_with(": [CAP_X]"))).unwrap();
        assert!(warned.get());
        assert_eq!(p.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    }
}
