//! Compiles a profile to a filter, without system calls.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag as Flag, LinuxSyscall,
};

use super::bpf;
use super::profile::{self, Profile};
use super::{Arch, Filter, Listener, Summary};
use crate::error::{Error, Result};

/// Facts of the machine: see [`super::parent::facts`].
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub native: Arch,
    /// Returns true if the kernel supports a flag. Called only for flags that the profile needs.
    pub flag_supported: fn(u32) -> bool,
}

/// Filter of a container and the agent that it needs.
#[derive(Debug)]
pub struct Plan {
    pub filter: Filter,
    /// Agent, if the filter notifies.
    pub listener: Option<Listener>,
    /// System calls of the profile that Aril does not know. Their rules are ignored.
    pub unknown: Option<String>,
}

/// Compiles a profile.
///
/// # Errors
///
/// A rule is invalid, rules contradict each other, the listener cannot work, the kernel does not support a flag, an
/// architecture is big-endian, or the program is too long.
pub fn compile(spec: &LinuxSeccomp, facts: &Facts) -> Result<Plan> {
    let listener = listener(spec)?;
    let flags = flags(spec, facts, listener.is_some())?;
    let profile = Profile::read(spec)?;
    check_architectures(spec)?;
    let arches = arches(spec, facts.native);
    let tables = arches.iter().map(|arch| profile.table(*arch)).collect::<Result<Vec<_>>>()?;

    let summary = Summary { default: profile.default, syscalls: tables[0].decided, arches };
    let program = bpf::assemble(&profile::branches(tables))
        .map_err(|e| Error::config(format!("error creating seccomp filter: {e}")))?;
    if program.len() > bpf::MAX_INSTRUCTIONS {
        return Err(Error::config(format!(
            "error creating seccomp filter: the profile needs {} instructions, the kernel takes {}",
            program.len(),
            bpf::MAX_INSTRUCTIONS
        )));
    }
    Ok(Plan { filter: Filter { program, flags, summary }, listener, unknown: profile.unknown() })
}

fn listener(spec: &LinuxSeccomp) -> Result<Option<Listener>> {
    if spec.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::config("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let path = spec.listener_path().as_ref().filter(|p| !p.as_os_str().is_empty());
    let metadata = spec.listener_metadata().as_ref().filter(|m| !m.is_empty());
    if metadata.is_some() && path.is_none() {
        return Err(Error::config("seccomp listenerMetadata is set but listenerPath is not"));
    }
    let mut notifying = spec
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
        .flat_map(LinuxSyscall::names)
        .peekable();
    if notifying.peek().is_none() {
        return Ok(None);
    }
    // The child writes the listener's number to the parent after it has loaded the filter.
    if notifying.any(|name| name == "write") {
        return Err(Error::config("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    match path {
        Some(path) => Ok(Some(Listener { path: path.clone(), metadata: metadata.cloned() })),
        None => Err(Error::config("seccomp listenerPath is not set")),
    }
}

fn flags(spec: &LinuxSeccomp, facts: &Facts, notifies: bool) -> Result<u32> {
    const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    let mut bits = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 } else { 0 };
    let Some(flags) = spec.flags() else {
        // The default is runc's. Without the flag, the kernel slows a filtered process to mitigate speculation.
        let default = if (facts.flag_supported)(SPEC_ALLOW) { SPEC_ALLOW } else { 0 };
        return Ok(bits | default);
    };
    for flag in flags {
        let bit = match flag {
            // The flag has no effect, because the child has one thread.
            Flag::SeccompFilterFlagTsync => continue,
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if !notifies => {
                let message = format!("seccomp flag {flag} needs a rule with SCMP_ACT_NOTIFY");
                return Err(Error::config(message));
            }
            Flag::SeccompFilterFlagWaitKillableRecv => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32
            }
        };
        if !(facts.flag_supported)(bit) {
            let message = format!("seccomp flag {flag} is not supported by the kernel");
            return Err(Error::config(message));
        }
        bits |= bit;
    }
    Ok(bits)
}

/// Checks the architectures like libseccomp and runc: `SCMP_ARCH_NATIVE` is not in the specification, and a filter has
/// one byte order. All architectures that this program is built for are little-endian.
fn check_architectures(spec: &LinuxSeccomp) -> Result<()> {
    use oci_spec::runtime::Arch::*;
    for arch in spec.architectures().iter().flatten() {
        match arch {
            ScmpArchNative => {
                return Err(Error::config(
                    "string SCMP_ARCH_NATIVE is not a valid arch for seccomp",
                ));
            }
            ScmpArchMips | ScmpArchMips64 | ScmpArchMips64n32 | ScmpArchPpc | ScmpArchPpc64
            | ScmpArchS390 | ScmpArchS390x | ScmpArchParisc | ScmpArchParisc64 | ScmpArchM68k
            | ScmpArchSheb => {
                return Err(Error::config(format!(
                    "error adding architecture to seccomp filter: {arch} is big-endian, this machine \
                     is not"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the architectures without duplicates, the native one first.
pub(super) fn arches(spec: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let mut arches = vec![native];
    for arch in spec.architectures().iter().flatten() {
        match Arch::from_spec(*arch, native) {
            Some(arch) if !arches.contains(&arch) => arches.push(arch),
            _ => {}
        }
    }
    arches
}
