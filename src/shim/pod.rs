//! Decodes the description of a pod without a process of its own, and adds the pod's settings to its containers.
//!
//! containerd passes on the kubelet's PodSandboxConfig. The pod's files are in its bundle. The file system that its
//! containers share as /dev/shm is mounted on the bundle's own `rootfs`, where containerd's removal of the bundle
//! would unmount it, too.
//!
//! ```text
//! PodSandboxConfig --parse--> Pod --plan--> namespaces
//!                               |--create_files--> hostname, hosts, resolv.conf, /dev/shm in the bundle
//!                               `--share----> config.json of each container
//! ```

use std::collections::HashMap;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rootfs::{self, Mount};
use super::status::Status;
use super::wire::{Any, Message};
use crate::error::{Error, OsContext, Result};
use crate::fs::record;
use crate::namespace::parent;
use crate::namespace::plan::{NamespaceRequest, Plan, plan};

const CONFIG: &str = "runtime.v1.PodSandboxConfig";
/// Values of runtime.v1.NamespaceMode.
const POD: u64 = 0;
const CONTAINER: u64 = 1;
const NODE: u64 = 2;
const TARGET: u64 = 3;

/// Settings of a pod.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    hostname: String,
    /// Network namespace; with `None` the pod has the host's network and the host's name.
    netns: Option<PathBuf>,
    host_ipc: bool,
    shares_pids: bool,
    /// True if the pod has a user namespace, which owns the network namespace.
    has_user_namespace: bool,
    /// User and group ID on the host that are 0 in the pod's user namespace: owners of the pod's files.
    #[serde(default)]
    root: Option<[u32; 2]>,
    sysctls: HashMap<String, String>,
    /// Text of resolv.conf; with `None` the host's.
    dns: Option<String>,
    /// Cgroup of the pod; empty if the request has none.
    pub cgroup: PathBuf,
}

impl Pod {
    /// Decodes the configuration of a pod.
    ///
    /// # Errors
    ///
    /// The message cannot be decoded, or requests namespaces that need another sandboxer.
    pub fn parse(options: &Any, netns: &str) -> std::result::Result<Self, Status> {
        let netns = Some(netns).filter(|path| !path.is_empty()).map(PathBuf::from);
        let name = options.type_url.rsplit('/').next().unwrap_or_default();
        if !name.is_empty() && name != CONFIG {
            let text = format!("options of a sandbox of unknown type {name:?}: expected {CONFIG}");
            return Err(Status::invalid(text));
        }
        let config = Message::parse(&options.value)?;
        let linux = config.message(8)?;
        let modes = linux.message(2)?.message(1)?;
        let user = modes.all(5).next().map(Message::parse).transpose()?;
        let has_user_namespace = user.as_ref().map(in_user_namespace).transpose()?;
        let pod = Self {
            hostname: config.text(2)?.to_owned(),
            host_ipc: modes.number(3) == NODE,
            shares_pids: !name.is_empty() && modes.number(2) == POD,
            has_user_namespace: has_user_namespace.unwrap_or_default(),
            root: user.as_ref().map(root_of).transpose()?.flatten(),
            sysctls: linux.all(3).map(entry).collect::<std::result::Result<_, _>>()?,
            dns: config.all(4).next().map(resolv_conf).transpose()?,
            cgroup: linux.text(1)?.into(),
            netns,
        };
        if pod.has_user_namespace && pod.netns.is_none() {
            let text = "a pod with a user namespace and the host's network needs sandboxer = \"podsandbox\"";
            return Err(Status::refused(text));
        }
        Ok(pod)
    }

    /// Returns true if a process must keep the namespaces: a pid namespace ends with its first process, and a user
    /// namespace cannot be entered and left.
    pub fn needs_anchor(&self) -> bool {
        self.shares_pids || self.has_user_namespace
    }

    /// Returns true if the containers share a pid namespace.
    pub fn shares_pids(&self) -> bool {
        self.shares_pids
    }

    /// Returns the network namespace, if the user namespace is found through it.
    pub fn user_namespace_by(&self) -> Option<&Path> {
        self.netns.as_deref().filter(|_| self.has_user_namespace)
    }

    /// Plans the namespaces of the process that keeps them.
    ///
    /// # Errors
    ///
    /// The namespaces or sysctls are invalid.
    pub fn plan(&self, user: Option<&Path>) -> Result<Plan> {
        let namespace = |kind, path: Option<&Path>| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind).set_path(path.map(Path::to_owned));
            namespace
        };
        let mut namespaces = Vec::new();
        if let Some(netns) = &self.netns {
            namespaces.push(namespace(LinuxNamespaceType::Network, Some(netns)));
            namespaces.push(namespace(LinuxNamespaceType::Uts, None));
        }
        if !self.host_ipc {
            namespaces.push(namespace(LinuxNamespaceType::Ipc, None));
        }
        if self.shares_pids {
            namespaces.push(namespace(LinuxNamespaceType::Pid, None));
        }
        if let Some(user) = user {
            namespaces.push(namespace(LinuxNamespaceType::User, Some(user)));
        }
        plan(&NamespaceRequest {
            namespaces: &namespaces,
            hostname: self.netns.as_ref().map(|_| self.hostname.as_str()),
            sysctl: Some(&self.sysctls),
            facts: parent::facts(&namespaces, !self.sysctls.is_empty())?,
            ..NamespaceRequest::default()
        })
    }

    /// Creates the files of the pod, and its shared memory.
    ///
    /// # Errors
    ///
    /// A file or mount cannot be created.
    pub fn create_files(&self, bundle: &Path) -> Result<()> {
        let own = nix::unistd::gethostname().os("gethostname", "")?;
        let hostname = match self.hostname.as_str() {
            "" => own.to_string_lossy().into_owned(),
            name => name.to_owned(),
        };
        // A host without such a file gives the pod none.
        let of_the_host = |path| std::fs::read_to_string(path).unwrap_or_default();
        let dns = self.dns.clone().unwrap_or_else(|| of_the_host("/etc/resolv.conf"));
        let texts = [format!("{hostname}\n"), of_the_host("/etc/hosts"), dns];
        for ((name, _), text) in FILES.into_iter().zip(texts) {
            let path = bundle.join(name);
            record::write(&path, 0o644, text.as_bytes())?;
            if let Some([uid, gid]) = self.root {
                chown(&path, Some(uid), Some(gid)).os("chown", path.display())?;
            }
        }
        if self.host_ipc {
            return Ok(());
        }
        let options = ["nosuid", "nodev", "noexec", "mode=1777", "size=67108864"];
        let memory = Mount {
            kind: "tmpfs".into(),
            source: "shm".into(),
            target: String::new(),
            options: options.map(str::to_owned).into(),
        };
        rootfs::mount(bundle, &[memory])
    }

    /// Adds the pod's settings to a container's config.json, except where the config has its own.
    ///
    /// # Errors
    ///
    /// The container's config cannot be read or written.
    pub fn share(&self, pod: &Path, container: &Path) -> Result<()> {
        const LIMIT: usize = 16 << 20;
        let path = container.join("config.json");
        let text = record::read(&path, LIMIT)?;
        let mut config: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::config(format!("{}: {e}", path.display())))?;
        self.add_mounts(pod, &mut config);
        record::write(&path, 0o644, config.to_string().as_bytes())
    }

    fn add_mounts(&self, pod: &Path, config: &mut Value) {
        let access = if config["root"]["readonly"] == true { "ro" } else { "rw" };
        let bind = |source: PathBuf, destination: &str, options: &[&str]| json!({"type": "bind", "source": source, "destination": destination, "options": options});
        if config["mounts"].is_null() {
            config["mounts"] = json!([]);
        }
        let Some(mounts) = config["mounts"].as_array_mut() else { return };
        for (name, destination) in FILES {
            if !mounts.iter().any(|mount| mount["destination"] == destination) {
                mounts.push(bind(pod.join(name), destination, &["rbind", "rprivate", access]));
            }
        }
        if self.host_ipc {
            return;
        }
        let options = ["rbind", "rprivate", "nosuid", "nodev", "noexec"];
        let shared = bind(rootfs::directory(pod), MEMORY, &options);
        match mounts.iter_mut().find(|mount| mount["destination"] == MEMORY) {
            Some(mount) if mount["type"] == "tmpfs" => *mount = shared,
            Some(_) => {}
            None => mounts.push(shared),
        }
    }
}

/// Reads a runtime.v1.UserNamespace, with the rejections of containerd's own sandboxer.
fn in_user_namespace(user: &Message) -> std::result::Result<bool, Status> {
    let refused =
        |why: String| Err(Status::invalid(format!("user namespace configuration: {why}")));
    let mappings = [user.all(2).count(), user.all(3).count()];
    match user.number(1) {
        POD => Ok(true),
        NODE if mappings != [0, 0] => {
            let [uids, gids] = mappings;
            refused(format!(
                "cannot use mode NODE with mappings: got {uids} uid mappings and {gids} gid mappings"
            ))
        }
        NODE => Ok(false),
        CONTAINER => refused("unsupported mode CONTAINER: expected POD or NODE".into()),
        TARGET => refused("unsupported mode TARGET: expected POD or NODE".into()),
        other => refused(format!("unsupported mode {other}: expected POD or NODE")),
    }
}

/// Returns the host's user and group ID that a runtime.v1.UserNamespace maps to 0, if it maps both.
fn root_of(user: &Message) -> std::result::Result<Option<[u32; 2]>, Status> {
    let find = |field: u64| {
        let mappings = user.all(field).map(Message::parse);
        let mappings = mappings.collect::<std::result::Result<Vec<_>, _>>()?;
        let root = mappings.iter().find(|map| map.number(2) == 0 && map.number(3) > 0);
        Ok::<_, Status>(root.map(|map| map.number(1) as u32))
    };
    Ok(find(2)?.zip(find(3)?).map(|(uid, gid)| [uid, gid]))
}

/// Files in the bundle of a pod, and their paths in its containers.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];
const MEMORY: &str = "/dev/shm";

/// Decodes an entry of a map.
fn entry(bytes: &[u8]) -> std::result::Result<(String, String), Status> {
    let entry = Message::parse(bytes)?;
    Ok((entry.text(1)?.to_owned(), entry.text(2)?.to_owned()))
}

/// Formats a runtime.v1.DNSConfig as resolv.conf(5).
fn resolv_conf(bytes: &[u8]) -> std::result::Result<String, Status> {
    let config = Message::parse(bytes)?;
    let mut text = String::new();
    let mut line = |key: &str, values: &[String]| {
        if !values.is_empty() {
            text.push_str(&format!("{key} {}\n", values.join(" ")));
        }
    };
    line("search", &config.texts(2)?);
    for server in config.texts(1)? {
        line("nameserver", &[server]);
    }
    line("options", &config.texts(3)?);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::wire::Writer;

    fn pod(modes: Writer, netns: &str) -> std::result::Result<Pod, Status> {
        let sysctl = Writer::new().bytes(1, "net.core.somaxconn").bytes(2, "77");
        let linux =
            Writer::new().bytes(1, "/kubepods/p").message(2, Writer::new().message(1, modes));
        let dns =
            Writer::new().bytes(1, "10.0.0.1").bytes(1, "10.0.0.2").bytes(2, "a.b").bytes(2, "c");
        let config = Writer::new()
            .bytes(2, "name")
            .message(4, dns.bytes(3, "ndots:5"))
            .message(8, linux.message(3, sysctl));
        Pod::parse(&Any::new(CONFIG, config.finish()), netns)
    }

    /// Mode CONTAINER for the pid namespace.
    fn own_pids() -> Writer {
        Writer::new().number(2, 1)
    }

    #[test]
    fn of_the_kubelets_config() {
        let pod = pod(own_pids(), "/proc/self/ns/uts").unwrap();
        assert_eq!(pod.hostname, "name");
        assert_eq!(pod.sysctls["net.core.somaxconn"], "77");
        assert_eq!(
            pod.dns.as_deref(),
            Some("search a.b c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n")
        );
        assert_eq!(pod.cgroup, Path::new("/kubepods/p"));
        assert!(!pod.needs_anchor());
        let plan = pod.plan(None).unwrap();
        assert_eq!(plan.clone_flags, (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64);
        assert_eq!((plan.enter.len(), plan.names.len(), plan.sysctls.len()), (1, 1, 1));
    }

    #[test]
    fn what_needs_a_process() {
        assert!(pod(Writer::new(), "/n").unwrap().needs_anchor(), "pids are shared by default");
        let user = own_pids().message(5, Writer::new());
        assert_eq!(pod(user.clone(), "/n").unwrap().user_namespace_by(), Some(Path::new("/n")));
        assert!(pod(user, "").unwrap_err().message.contains("podsandbox"));
        let node = own_pids().message(5, Writer::new().number(1, NODE));
        assert!(!pod(node, "").unwrap().needs_anchor());
    }

    #[test]
    fn a_user_namespace_is_the_pods_or_the_hosts() {
        let map = |host: u64, id: u64| Writer::new().number(1, host).number(2, id).number(3, 9);
        let both = |uid, gid| Writer::new().message(2, uid).message(2, map(7, 1)).message(3, gid);
        let root = |user: Writer| pod(own_pids().message(5, user), "/n").unwrap().root;
        assert_eq!(root(both(map(5, 0), map(6, 0))), Some([5, 6]));
        assert_eq!(root(both(map(5, 0), map(6, 1))), None);
        let refused = |user: Writer| {
            let refused = pod(own_pids().message(5, user), "/n").unwrap_err();
            assert_eq!(refused.code, crate::shim::status::Code::InvalidArgument);
            refused.message
        };
        for (mode, name) in [(CONTAINER, "CONTAINER"), (TARGET, "TARGET"), (9, "9")] {
            let message = refused(Writer::new().number(1, mode));
            assert!(message.contains(&format!("unsupported mode {name}:")), "{message}");
        }
        let mapped = Writer::new().number(1, NODE).message(2, Writer::new().number(3, 1));
        assert!(refused(mapped).contains("1 uid mappings and 0 gid mappings"));
    }

    #[test]
    fn what_is_the_hosts_stays() {
        let pod = pod(own_pids().number(3, NODE), "").unwrap();
        let why = pod.plan(None).unwrap_err().to_string();
        assert!(why.contains("not allowed in host network namespace"), "{why}");
        assert!(Pod::parse(&Any::new("a.B", []), "").unwrap_err().message.contains("a.B"));
        assert!(!Pod::parse(&Any::default(), "").unwrap().needs_anchor());
    }

    #[test]
    fn containers_get_what_they_do_not_have() {
        let pod = pod(own_pids(), "/n").unwrap();
        let mut config = json!({"root": {"readonly": true}, "mounts": [
            {"destination": "/etc/hosts", "type": "bind", "source": "/mine"},
            {"destination": "/dev/shm", "type": "tmpfs"},
        ]});
        pod.add_mounts(Path::new("/b"), &mut config);
        let mounts = config["mounts"].as_array().unwrap();
        let sources: Vec<_> = mounts.iter().map(|m| m["source"].as_str().unwrap()).collect();
        assert_eq!(sources, ["/mine", "/b/rootfs", "/b/hostname", "/b/resolv.conf"]);
        assert_eq!(mounts[2]["options"], json!(["rbind", "rprivate", "ro"]));
        let mut own =
            json!({"mounts": [{"destination": "/dev/shm", "type": "bind", "source": "/m"}]});
        pod.add_mounts(Path::new("/b"), &mut own);
        assert_eq!(own["mounts"][0]["source"], "/m");
    }
}
