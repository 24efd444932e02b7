//! Annotations of a config.json that the operator allows, from options and configuration files.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Arg;

use super::given::Given;
use super::table::{switch, values};
use crate::error::Result;
use crate::fs::process::in_user_namespace;
use crate::spec::grant::file::ConfigFile;
use crate::spec::grant::{Policy, Rules};

/// Configuration file of the host's root.
const SYSTEM: &str = "/etc/aril/aril.conf";

/// Configuration file of another user, below `$XDG_CONFIG_HOME` or `~/.config`.
const OF_USER: &str = "aril/aril.conf";

pub fn flags() -> [Arg; 3] {
    [
        values("allow-annotation", "KEY|PREFIX*", "Let this annotation of config.json act"),
        values("deny-annotation", "KEY|PREFIX*", "Do not let this annotation of config.json act"),
        switch(
            "strict-annotations",
            "Refuse annotations that may not act instead of ignoring them",
        ),
    ]
}

/// Reads the options that allow or deny annotations.
///
/// # Errors
///
/// A pattern is no key or prefix of an annotation.
pub fn read(given: &Given) -> Result<Rules> {
    let mut rules = Rules::default();
    given.texts("allow-annotation")?.iter().try_for_each(|text| rules.allow(text))?;
    given.texts("deny-annotation")?.iter().try_for_each(|text| rules.deny(text))?;
    if given.switch("strict-annotations") {
        rules.be_strict();
    }
    Ok(rules)
}

/// Adds the rules of the configuration files to `rules`.
#[expect(clippy::disallowed_methods, reason = "the caller's configuration file")]
pub fn policy(rules: Rules) -> Policy {
    Policy::new(rules, || {
        let variable = |name| std::env::var_os(name);
        files(&Caller {
            uid: nix::unistd::geteuid().as_raw(),
            in_user_namespace: in_user_namespace(),
            config_home: variable("XDG_CONFIG_HOME"),
            home: variable("HOME"),
        })
    })
}

struct Caller {
    uid: u32,
    in_user_namespace: bool,
    config_home: Option<OsString>,
    home: Option<OsString>,
}

/// Lists the configuration files. The host's root has the system's file alone, which no environment variable changes.
/// Every other caller, also root of a user namespace, has a second file. It affects the caller's containers only, which
/// have no more privileges than the caller.
fn files(caller: &Caller) -> Vec<ConfigFile> {
    let inside = caller.in_user_namespace;
    let is_root = caller.uid == 0 && !inside;
    let system = ConfigFile { path: SYSTEM.into(), owner: 0, optional: !is_root, unmapped: None };
    if is_root {
        return vec![system];
    }
    let set = |value: &Option<OsString>| {
        value.as_ref().map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let home = || Some(set(&caller.home)?.join(".config"));
    // The user's home may be reached by a link, such as /home to /var/home.
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let own = set(&caller.config_home).or_else(home).map(real).map(|directory| ConfigFile {
        path: directory.join(OF_USER),
        owner: caller.uid,
        optional: false,
        unmapped: inside.then(overflow_uid),
    });
    std::iter::once(system).chain(own).collect()
}

/// User ID that stat(2) reports for files of unmapped users.
fn overflow_uid() -> u32 {
    const DEFAULT: u32 = 65534;
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn paths(
        uid: u32,
        inside: bool,
        config_home: Option<&str>,
        home: Option<&str>,
    ) -> Vec<PathBuf> {
        let (config_home, home) = (config_home.map(OsString::from), home.map(OsString::from));
        let caller = Caller { uid, in_user_namespace: inside, config_home, home };
        files(&caller)
            .into_iter()
            .map(|file| {
                let system = file.path == Path::new(SYSTEM);
                assert_eq!(file.owner, if system { 0 } else { uid });
                assert_eq!(file.unmapped.is_some(), inside && !system);
                assert_eq!(file.optional, (inside || uid != 0) && system);
                file.path
            })
            .collect()
    }

    #[test]
    fn the_environment_of_root_chooses_no_file() {
        assert_eq!(paths(0, false, Some("/evil"), Some("/evil")), [Path::new(SYSTEM)]);
    }

    #[test]
    fn other_users_have_one_of_their_own() {
        let both = |own: &str| [PathBuf::from(SYSTEM), PathBuf::from(own)];
        assert_eq!(paths(7, false, Some("/c"), Some("/h")), both("/c/aril/aril.conf"));
        assert_eq!(paths(7, false, None, Some("/h")), both("/h/.config/aril/aril.conf"));
        assert_eq!(paths(7, false, Some(""), Some("/h")), both("/h/.config/aril/aril.conf"));
        assert_eq!(paths(0, true, None, Some("/h")), both("/h/.config/aril/aril.conf"));
        assert_eq!(paths(7, false, Some("relative"), None), [Path::new(SYSTEM)]);
    }
}
