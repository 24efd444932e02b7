//! Networking for a container without root: pasta(1), a program that moves packets between the
//! container's network namespace and sockets of the user's.
//!
//! It is given the container's process before that is let go, for as long as an ordinary user may look
//! into it. The one argument that nobody else's has, the path of its pid file in the container's state
//! directory, is what it is found by later: so it is found, too, if its caller was killed right after.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use crate::error::{Context, Error, OsContext, Result};
use crate::id::HostPid;
use crate::spec::Extensions;
use crate::spec::annotation::NETWORK;
use crate::sys::pidfd;

/// The value of [`NETWORK`] that asks for it.
pub const NAME: &str = "pasta";

/// Nothing is forwarded into the container, and nothing out of it to the host's own loopback.
const CLOSED: [&str; 11] = [
    "--config-net",
    "--quiet",
    "--no-map-gw",
    "--tcp-ports",
    "none",
    "--udp-ports",
    "none",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
];

pub fn is_wanted(extensions: &Extensions) -> bool {
    extensions.network.as_deref() == Some(NAME)
}

/// Gives the config the network namespace that pasta connects. `privileged`: the runtime is the host's
/// root.
pub fn edit(spec: &mut Spec, privileged: bool) -> Result<()> {
    if privileged {
        return Err(Error::config(format!("{NETWORK}={NAME} is for containers without root")));
    }
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut all = linux.namespaces_mut().take().unwrap_or_default();
    let own = all.iter().find(|n| n.typ() == LinuxNamespaceType::Network);
    let joined = own.and_then(|n| n.path().as_deref()).filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = joined {
        return Err(Error::config(format!(
            "{NETWORK}={NAME} connects a new network namespace, and the config joins {}",
            path.display()
        )));
    }
    if own.is_none() {
        let mut network = LinuxNamespace::default();
        network.set_typ(LinuxNamespaceType::Network);
        all.push(network);
    }
    linux.set_namespaces(Some(all));
    Ok(())
}

fn marker(state_directory: &Path) -> PathBuf {
    state_directory.join("pasta.pid")
}

/// Returns when the namespace of `pid` is connected; pasta goes on by itself.
pub fn start(state_directory: &Path, pid: HostPid) -> Result<()> {
    let output = Command::new(NAME)
        .args(CLOSED)
        .arg("--pid")
        .arg(marker(state_directory))
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = "network pasta: exec: \"pasta\": executable file not found in $PATH";
            return Err(Error::system(text)
                .hint("install the package passt, or use the host's network, or none"));
        }
        other => other.os("exec", NAME)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(Error::system(format!("network pasta: {}: {}", output.status, said.join("; ")))
        .hint("pasta needs /dev/net/tun, readable and writable by everybody"))
}

/// Ends the pasta of a container. Some versions notice by themselves that the namespace is gone.
pub fn end(state_directory: &Path) -> Result<()> {
    const ROUNDS: usize = 10;
    const DEATH_MS: i32 = 1000;
    let marker = marker(state_directory);
    // Between its start and its daemon there are two of them for a moment.
    for _ in 0..ROUNDS {
        let found = processes(&marker);
        if found.is_empty() {
            break;
        }
        for pid in found {
            let Ok(process) = pidfd::open(pid) else { continue };
            // The number may be somebody else's by now.
            if is_ours(pid, &marker) {
                let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
                let ended = pidfd::wait_end(process.as_fd(), DEATH_MS);
                ended.os("poll", "pidfd").context(|| format!("end pasta, process {pid}"))?;
            }
        }
    }
    Ok(())
}

fn processes(marker: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_ours(*pid, marker)).collect()
}

/// Whether its arguments are those of [`start`].
fn is_ours(pid: i32, marker: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == b"--pid") && words.next() == Some(marker.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":{namespaces}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_namespace_to_connect() {
        for namespaces in [r#"[]"#, r#"[{"type":"network"}]"#] {
            let mut spec = spec(namespaces);
            edit(&mut spec, false).unwrap();
            let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].typ(), LinuxNamespaceType::Network);
        }
        let mut joins = spec(r#"[{"type":"network","path":"/n"}]"#);
        assert!(edit(&mut joins, false).unwrap_err().to_string().ends_with("the config joins /n"));
        assert!(edit(&mut spec("[]"), true).is_err());
    }

    #[test]
    fn ends_its_own_only() {
        let directory = std::env::temp_dir().join(format!("aril-pasta-{}", std::process::id()));
        let start = |of: &Path| {
            let script = ["-c", "sleep 100; true", "--pid"];
            let child = Command::new("sh").args(script).arg(marker(of)).spawn().unwrap();
            // The kernel shows a new program's arguments a moment after it has begun.
            while processes(&marker(of)).is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let (mut ours, mut other) = (start(&directory), start(&directory.join("other")));
        end(&directory).unwrap();
        let alive = other.try_wait().unwrap().is_none();
        let ended = ours.wait().unwrap();
        end(&directory.join("other")).unwrap();
        other.wait().unwrap();
        assert!(alive && !ended.success());
    }
}
