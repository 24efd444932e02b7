//! Skips of tests that cannot run here. With `CI=true`, a skip for a missing tool that can be installed is a failure.

use std::path::Path;

/// True if an avoidable skip is a failure.
fn strict() -> bool {
    std::env::var_os("CI").is_some_and(|v| v == "true")
}

/// Skips for lack of preparation of the machine.
#[track_caller]
pub fn unprepared(reason: &str) {
    assert!(!strict(), "needless skip: {reason}");
    eprintln!("skipped: {reason}");
}

/// Skips because of the nature of the host or of the runtime under test.
pub fn inapplicable(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// True if the tests can create containers.
pub fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    unprepared("these tests need root");
    false
}

/// Absolute path of a tool of the host. Without it, skips and names its package.
pub fn tool(name: &str, package: &str) -> Option<std::path::PathBuf> {
    let found = which(name);
    if found.is_none() {
        unprepared(&format!("{name} is missing: apt-get install {package}"));
    }
    found
}

pub fn which(name: &str) -> Option<std::path::PathBuf> {
    if name.contains('/') {
        return Path::new(name).canonicalize().ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
