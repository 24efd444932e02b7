//! What the shim knows of containers and of the processes in them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::Deserialize;

use super::options::Options;
use super::rootfs::Mount;
use super::stdio::{Held, Stdio, Unopened};
use super::wire::{Any, Writer};
use crate::cgroup::{Paths, oom};
use crate::fs::record;
use crate::sys::tty::Size;

/// A process of a container; no exec id: its init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub id: String,
    pub exec: String,
}

impl Who {
    pub fn init(id: &str) -> Self {
        Self { id: id.to_owned(), exec: String::new() }
    }

    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub connection: u64,
    pub stream: u32,
}

/// Where a process is in its life. While a command is under way that will change it, nothing else may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An init: `create` is under way.
    Creating,
    /// An init that waits for `start`; an exec of which only its description is there.
    Created,
    Starting,
    Running,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

/// A Delete that waits for the last of its conditions.
#[derive(Debug)]
pub struct Removal {
    pub reply: Reply,
    /// The runtime has deleted what it had.
    pub deleted: bool,
    /// Until then the rest of the output is waited for.
    pub deadline: Instant,
}

impl Removal {
    /// Of what goes with its pod.
    pub fn unasked() -> Self {
        // No connection has this number.
        let reply = Reply { connection: 0, stream: 0 };
        Self { reply, deleted: false, deadline: Instant::now() }
    }
}

#[derive(Debug)]
pub struct Process {
    pub stdio: Stdio,
    pub phase: Phase,
    pub pid: i32,
    /// Reaped, and not yet told of: others have to be told first.
    pub ended: Option<Exit>,
    /// As everybody was told.
    pub exit: Option<Exit>,
    pub waiters: Vec<Reply>,
    pub held: Held,
    /// CloseIO may come before there is anything to close.
    pub stdin_closed: bool,
    /// The outputs that are still being copied, by their tokens.
    pub outputs: Vec<u64>,
    pub unopened: Vec<Unopened>,
    pub input: Option<u64>,
    pub console: Option<OwnedFd>,
    /// Asked for before there was a terminal.
    pub size: Option<Size>,
    /// process.json of an exec.
    pub spec: Vec<u8>,
    pub logger: Option<i32>,
    pub removal: Option<Removal>,
}

impl Process {
    pub fn new(stdio: Stdio, phase: Phase, spec: Vec<u8>) -> Self {
        Self {
            stdio,
            phase,
            pid: 0,
            ended: None,
            exit: None,
            waiters: Vec::new(),
            held: Held::default(),
            stdin_closed: false,
            outputs: Vec::new(),
            unopened: Vec::new(),
            input: None,
            console: None,
            size: None,
            spec,
            logger: None,
            removal: None,
        }
    }

    /// Whose exit others may have to wait for.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Known by its pid, and not reaped yet.
    pub fn is_expected(&self, pid: i32) -> bool {
        self.pid == pid && self.ended.is_none() && self.exit.is_none()
    }
}

pub struct Container {
    pub bundle: PathBuf,
    pub options: Options,
    pub mounts: Vec<Mount>,
    /// The words by which the runtime mounts them, where that is for it to do.
    pub inside: Option<Vec<String>>,
    pub checkpoint: String,
    pub config: Config,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    pub paused: bool,
    /// Where its first process was born; none if that could not be told.
    pub cgroup: Option<Paths>,
    pub oom: Option<(u64, oom::Watch)>,
    /// Its last picture, for who asks after the end.
    pub metrics: Option<Any>,
}

impl Container {
    pub fn process(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec) }
    }

    /// Init's exit is told when no other process can end any more.
    pub fn has_live_execs(&self) -> bool {
        self.execs.values().any(Process::is_alive)
    }

    pub fn io(&self) -> Writer {
        let Stdio { stdin, stdout, stderr, terminal } = &self.init.stdio;
        let writer = Writer::new().bytes(1, stdin).bytes(2, stdout).bytes(3, stderr);
        writer.number(4, (*terminal).into())
    }
}

/// What matters to the shim in a config.json, whatever else is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    pub annotations: BTreeMap<String, String>,
    hooks: Option<BTreeMap<String, serde_json::Value>>,
    linux: Linux,
    process: Labelled,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Labelled {
    selinux_label: String,
}

impl Config {
    /// One that cannot be read says nothing; the runtime will say why.
    pub fn read(bundle: &Path) -> Self {
        const LIMIT: usize = 16 << 20;
        let text = record::read(&bundle.join("config.json"), LIMIT).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Whether the kernel ends the other processes when init ends.
    pub fn has_own_pids(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.r#type == "pid" && ns.path.is_empty())
    }

    pub fn has_user_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.r#type == "user")
    }

    /// Whether the cgroup path has the systemd driver's form, `slice:prefix:name`. An empty slice means the default one.
    pub fn has_systemd_cgroup(&self) -> bool {
        let path = self.linux.cgroups_path.as_deref().unwrap_or_default();
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, _, name] = parts[..] else { return false };
        let is_slice = slice.is_empty() || slice.ends_with(".slice");
        is_slice && !name.is_empty() && !path.contains('/')
    }

    pub fn has_hooks(&self) -> bool {
        let some = |list: &serde_json::Value| list.as_array().is_some_and(|list| !list.is_empty());
        self.hooks.iter().flatten().any(|(_, list)| some(list))
    }

    pub fn is_labelled(&self) -> bool {
        !self.process.selinux_label.is_empty()
    }

    /// The containers of one group share a shim. containerd writes the id of a container's pod itself, over
    /// whatever the pod's author wrote, so that counts first; the other is for clients of containerd.
    pub fn group(&self) -> Option<&str> {
        const GROUPS: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"];
        GROUPS.iter().find_map(|key| self.annotations.get(*key)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn of_a_config_only_what_matters() {
        let own = r#"{"linux":{"namespaces":[{"type":"pid"}],"x":1},"process":{"args":["a"]}}"#;
        assert!(config(own).has_own_pids());
        let shared = r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#;
        assert!(!config(shared).has_own_pids());
        assert!(!Config::read(Path::new("/nonexistent")).has_own_pids());
        assert!(config(r#"{"process":{"selinuxLabel":"a:b"}}"#).is_labelled());
    }

    #[test]
    fn paths_of_the_systemd_driver() {
        let of = |path: &str| {
            config(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#)).has_systemd_cgroup()
        };
        for path in [
            "system.slice:docker:0123",
            "kubepods-burstable-podx.slice:cri-containerd:0123",
            ":docker:0123",
            "user.slice::0123",
        ] {
            assert!(of(path), "{path}");
        }
        for path in [
            "",
            "/system.slice/a",
            "a:b:c",
            "/x.slice:b:c",
            "x.slice:b",
            "x.slice:b:c:d",
            "x.slice:b:",
            "x.slice:a/b:c",
        ] {
            assert!(!of(path), "{path}");
        }
        assert!(!config(r#"{"linux":{"cgroupsPath":null}}"#).has_systemd_cgroup());
    }

    #[test]
    fn pods_share_a_shim() {
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s"}}"#;
        assert_eq!(config(pod).group(), Some("s"));
        assert_eq!(config("{}").group(), None);
        let of_client = r#"{"annotations":{"io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(config(of_client).group(), Some("g"));
        // The author of a pod does not choose the shim of another.
        let hostile = r#"{"annotations":{"io.containerd.runc.v2.group":"other",
            "io.kubernetes.cri.sandbox-id":"s"}}"#;
        assert_eq!(config(hostile).group(), Some("s"));
    }
}
