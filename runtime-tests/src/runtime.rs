//! The runtime under test, and the peer that it is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::skip;

#[derive(Debug)]
pub struct Runtime {
    pub path: PathBuf,
    /// Name that its `--version` prints.
    pub name: String,
    /// First line of its `--version`.
    pub version: String,
}

impl Runtime {
    /// Runtime under test: `RUNTIME` (a path, or a name in `PATH`), else `aril` of this workspace.
    pub fn under_test() -> &'static Self {
        static UNDER_TEST: OnceLock<Runtime> = OnceLock::new();
        UNDER_TEST.get_or_init(|| {
            let path = match std::env::var("RUNTIME") {
                Ok(name) => {
                    skip::which(&name).unwrap_or_else(|| panic!("RUNTIME={name}: no such file"))
                }
                Err(_) => own_aril(),
            };
            Self::at(path)
        })
    }

    /// Runtime that the observer compares with: `OBSERVER_PEER`, else runc.
    pub fn peer() -> Option<&'static Self> {
        static PEER: OnceLock<Option<Runtime>> = OnceLock::new();
        PEER.get_or_init(|| {
            let name = std::env::var("OBSERVER_PEER").unwrap_or_else(|_| "runc".into());
            skip::tool(&name, "runc").map(Self::at)
        })
        .as_ref()
    }

    fn at(path: PathBuf) -> Self {
        let out = Command::new(&path)
            .arg("--version")
            .output()
            .unwrap_or_else(|e| panic!("{} --version: {e}", path.display()));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default().to_owned();
        let name = version.split(' ').next().unwrap_or_default().to_owned();
        assert!(!name.is_empty(), "{} --version prints nothing", path.display());
        Self { path, name, version }
    }

    pub fn is_aril(&self) -> bool {
        self.name == "aril"
    }

    /// True for aril. For other runtimes, prints why the rest of the test does not apply.
    pub fn only_aril(&self, reason: &str) -> bool {
        if !self.is_aril() {
            skip::inapplicable(&format!("only aril, not {}: {reason}", self.name));
        }
        self.is_aril()
    }
}

/// Built aril. Tests run from `target/<host>/<profile>/deps`; a release build is preferred.
fn own_aril() -> PathBuf {
    let profile = own_directory();
    let host = profile.parent().expect("target/<host>");
    // Target of `make build`, where it is available.
    let musl = PathBuf::from(host.to_string_lossy().replace("-gnu", "-musl"));
    [musl.join("release"), host.join("release"), host.join("debug")]
        .iter()
        .map(|profile| profile.join("aril"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("no aril in {}: build it, or set RUNTIME", host.display()))
}

/// Directory of this package's programs.
pub fn own_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let exe = std::env::current_exe().expect("own path");
        let dir = exe.parent().expect("a directory");
        match dir.ends_with("deps") {
            true => dir.parent().expect("a profile").to_owned(),
            false => dir.to_owned(),
        }
    })
}
