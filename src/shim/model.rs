//! The shim's data on containers and their processes.

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

/// Identifies a process of a container; without an exec id, its init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessKey {
    pub id: String,
    pub exec: String,
}

impl ProcessKey {
    /// Returns the name of a container's init.
    pub fn init(id: &str) -> Self {
        Self { id: id.to_owned(), exec: String::new() }
    }

    /// Returns true for init.
    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }
}

/// Address of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub connection: u64,
    pub stream: u32,
}

/// Phase in the life of a process. While a command that will change it runs, no other may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Init whose `create` runs.
    Creating,
    /// Init that waits for `start`; exec of which only the description exists.
    Created,
    Starting,
    Running,
    Stopped,
}

/// Exit status and time of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

/// Delete call that waits for its conditions.
#[derive(Debug)]
pub struct Removal {
    pub reply: Reply,
    /// True if the runtime has deleted the container.
    pub deleted: bool,
    /// End of the wait for the rest of the output.
    pub deadline: Instant,
}

impl Removal {
    /// Returns the removal of a container that is deleted with its pod.
    pub fn without_reply() -> Self {
        // No connection has this number.
        let reply = Reply { connection: 0, stream: 0 };
        Self { reply, deleted: false, deadline: Instant::now() }
    }
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    pub stdio: Stdio,
    pub phase: Phase,
    pub pid: i32,
    /// End of the process, which is reaped but not reported: other ends must be reported first.
    pub ended: Option<Exit>,
    /// End of the process, as it was reported.
    pub exit: Option<Exit>,
    pub waiters: Vec<Reply>,
    pub held: Held,
    /// True if CloseIO came, which may be before the stream is open.
    pub stdin_closed: bool,
    /// Tokens of the outputs that are still being copied.
    pub outputs: Vec<u64>,
    pub unopened: Vec<Unopened>,
    pub input: Option<u64>,
    pub console: Option<OwnedFd>,
    /// Size that was requested before there was a terminal.
    pub size: Option<Size>,
    /// process.json of an exec.
    pub spec: Vec<u8>,
    pub logger: Option<i32>,
    pub removal: Option<Removal>,
}

impl Process {
    /// Returns a process without a pid.
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

    /// Returns true if other exits may have to wait for the exit of this process.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Returns true if this is the process of that pid, and it is not reaped yet.
    pub fn is_expected(&self, pid: i32) -> bool {
        self.pid == pid && self.ended.is_none() && self.exit.is_none()
    }
}

/// A container of the shim.
pub struct Container {
    pub bundle: PathBuf,
    pub options: Options,
    pub mounts: Vec<Mount>,
    /// Options by which the runtime mounts the rootfs; `None` if the shim mounts it.
    pub inside: Option<Vec<String>>,
    pub checkpoint: String,
    pub config: Config,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    pub paused: bool,
    /// Cgroups in which its first process started; `None` if they are unknown.
    pub cgroup: Option<Paths>,
    pub oom: Option<(u64, oom::Watch)>,
    /// Last metrics, for a request after the end.
    pub metrics: Option<Any>,
}

impl Container {
    /// Returns init, or the exec process with this ID.
    pub fn process(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec) }
    }

    /// Returns true while an exec may still end: init's exit is reported last.
    pub fn has_live_execs(&self) -> bool {
        self.execs.values().any(Process::is_alive)
    }

    /// Returns init's standard streams as fields of a message.
    pub fn io(&self) -> Writer {
        let Stdio { stdin, stdout, stderr, terminal } = &self.init.stdio;
        let writer = Writer::new().bytes(1, stdin).bytes(2, stdout).bytes(3, stderr);
        writer.number(4, (*terminal).into())
    }
}

/// Fields of config.json that the shim uses.
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
    /// Reads the config. An unreadable one counts as empty: the runtime reports why.
    pub fn read(bundle: &Path) -> Self {
        const LIMIT: usize = 16 << 20;
        let text = record::read(&bundle.join("config.json"), LIMIT).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Returns true if the kernel ends the other processes when init ends.
    pub fn has_own_pids(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.r#type == "pid" && ns.path.is_empty())
    }

    /// Returns true if the container has a user namespace.
    pub fn has_user_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.r#type == "user")
    }

    /// Returns true if the cgroup path has the systemd driver's form, `slice:prefix:name`. An empty slice means the
    /// default one.
    pub fn has_systemd_cgroup(&self) -> bool {
        let path = self.linux.cgroups_path.as_deref().unwrap_or_default();
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, _, name] = parts[..] else { return false };
        let is_slice = slice.is_empty() || slice.ends_with(".slice");
        is_slice && !name.is_empty() && !path.contains('/')
    }

    /// Returns true if the config has hooks.
    pub fn has_hooks(&self) -> bool {
        let some = |list: &serde_json::Value| list.as_array().is_some_and(|list| !list.is_empty());
        self.hooks.iter().flatten().any(|(_, list)| some(list))
    }

    /// Returns true if the process has an SELinux label.
    pub fn is_labelled(&self) -> bool {
        !self.process.selinux_label.is_empty()
    }

    /// Returns the group of the container: containers of one group share a shim. containerd writes the id of a
    /// container's pod itself, over the value of the pod's author, so that annotation has precedence; the other is for
    /// clients of containerd.
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
        // The author of a pod does not choose the shim of another pod.
        let hostile = r#"{"annotations":{"io.containerd.runc.v2.group":"other",
            "io.kubernetes.cri.sandbox-id":"s"}}"#;
        assert_eq!(config(hostile).group(), Some("s"));
    }
}
