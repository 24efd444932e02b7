//! Tests that cannot run here say so; with `CI=true` what could have been installed is a failure.

use std::path::Path;

/// Whether a skip for want of something that can be had is a failure.
fn strict() -> bool {
    std::env::var_os("CI").is_some_and(|v| v == "true")
}

/// A skip that better preparation of the machine would have avoided.
#[track_caller]
pub fn unprepared(reason: &str) {
    assert!(!strict(), "needless skip: {reason}");
    eprintln!("skipped: {reason}");
}

/// A skip in the nature of the host or of the runtime under test.
pub fn inapplicable(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// True when the tests may make containers at all.
pub fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    unprepared("these tests need root");
    false
}

/// The absolute path of a tool of the host, or a skip that names its package.
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
