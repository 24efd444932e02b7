//! `-info`: prints the description of this runtime as `containerd.types.RuntimeInfo`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use super::command::{self, Command};
use super::membership::HostNamespaces;
use super::options::Options;
use super::print;
use super::status::Status;
use super::wire::{Any, Writer};
use crate::error::OsContext;
use crate::sys::pidfd;

/// Name of the runtime in containerd.
pub const NAME: &str = "io.containerd.aril.v2";
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints the description.
///
/// # Errors
///
/// The options on stdin cannot be decoded, or the runtime fails.
pub fn info() -> Result<(), Status> {
    const LIMIT: u64 = 4 << 20;
    let mut stdin = Vec::new();
    std::io::stdin().take(LIMIT).read_to_end(&mut stdin).os("read", "stdin")?;
    let any = Any::parse(&stdin)?;
    let options = Options::decode(&any)?;
    let version = Writer::new().bytes(1, env!("CARGO_PKG_VERSION"));
    let mut info = Writer::new().bytes(1, NAME).message(2, version);
    if !any.type_url.is_empty() {
        info = info.any(3, &any);
    }
    // A runtime may lack features.
    if let Some(features) = features(&options)? {
        info = info.any(4, &Any::new(FEATURES, features));
    }
    print(&info.finish())
}

/// Returns the document that the runtime prints.
fn features(options: &Options) -> Result<Option<String>, Status> {
    let call = Command {
        options,
        namespace: "",
        bundle: Path::new("/"),
        log: None,
        words: &["features"],
        home: &HostNamespaces::default(),
    };
    let (input, output, errors) =
        (command::scratch(b"")?, command::scratch(b"")?, command::scratch(b"")?);
    let pid = call.spawn([input.as_fd(), output.as_fd(), errors.as_fd()])?;
    let child = pidfd::open(pid).os("pidfd_open", pid)?;
    let ended = pidfd::wait(child.as_fd(), true).os("waitid", pid)?;
    let text = command::said(&output);
    Ok((ended == Some(pidfd::Ended::Exited(0)) && text.starts_with('{')).then_some(text))
}
