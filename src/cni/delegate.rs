//! Runs another IPAM plugin, such as `host-local`, that assigns addresses.

#![expect(clippy::disallowed_types, reason = "plugins in the directories that CNI_PATH names")]

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::config::Call;
use super::output::{DECODE, Failure, INVALID, IO};
use crate::network::definition::subnet::Subnet;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    dns: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: Subnet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

/// Addresses and DNS settings that the plugin assigned.
#[derive(Debug)]
pub struct Assigned {
    pub ips: Vec<(Subnet, Option<IpAddr>)>,
    pub dns: Option<Value>,
}

/// Runs ADD of the plugin `kind`.
///
/// # Errors
///
/// The plugin is not found, or fails.
pub fn add(kind: &str, call: &Call) -> Result<Assigned, Failure> {
    let text = run(kind, "ADD", call)?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|e| {
        Failure::new(DECODE, format!("decode the answer of ipam plugin {kind}: {e}"))
    })?;
    if answer.ips.is_empty() {
        return Err(Failure::new(INVALID, format!("ipam plugin {kind} assigned no address")));
    }
    let ips = answer.ips.into_iter().map(|ip| (ip.address, ip.gateway)).collect();
    Ok(Assigned { ips, dns: answer.dns })
}

/// Runs the plugin with this process's environment and another `CNI_COMMAND`.
///
/// # Errors
///
/// The plugin is not found, cannot be executed, or reports an error.
pub fn run(kind: &str, command: &str, call: &Call) -> Result<Vec<u8>, Failure> {
    let directories = call.environment.path.split(':').filter(|directory| !directory.is_empty());
    let mut programs = directories.map(|directory| Path::new(directory).join(kind));
    let program = programs.find(|path| path.is_file()).ok_or_else(|| {
        let text = format!("ipam plugin {kind} is not in CNI_PATH ({})", call.environment.path);
        Failure::new(INVALID, text)
    })?;
    let io = |e: std::io::Error| Failure::new(IO, format!("run {}: {e}", program.display()));
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(&call.input));
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        // The plugin may have answered without reading its input.
        return Ok(output.stdout);
    }
    // The plugin's error is passed on with its code.
    #[derive(Deserialize)]
    struct Refusal {
        code: u32,
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<Refusal>(&output.stdout) {
        Ok(Refusal { code, msg, details }) => {
            Err(Failure { code, message: format!("ipam plugin {kind}: {msg}"), details })
        }
        Err(_) => {
            written.transpose().map_err(io)?;
            Err(Failure::new(IO, format!("ipam plugin {kind}: {}", output.status)))
        }
    }
}
