//! `aril features`: the runtime's features as JSON, for engines.
//!
//! The lists come from the code that implements them, through [`FeatureFacts`]: containerd and
//! CRI-O turn on user namespaces and recursive read-only mounts by what stands here.

use std::collections::BTreeMap;

use serde::Serialize;

use super::output::indented;
use super::version;

/// Features of this build, regardless of the running kernel.
#[derive(Debug, Default)]
pub struct FeatureFacts {
    /// Hooks, in the order in which they run.
    pub hooks: Vec<String>,
    /// Mount options that apply to every file system.
    pub mount_options: Vec<String>,
    pub namespaces: Vec<String>,
    pub capabilities: Vec<String>,
    pub cgroup: CgroupFacts,
    /// `None` if seccomp is not supported.
    pub seccomp: Option<SeccompFacts>,
    pub apparmor: bool,
    pub selinux: bool,
    pub intel_rdt: RdtFacts,
    pub idmapped_mounts: bool,
    pub net_devices: bool,
    pub memory_policy: Option<MemoryPolicyFacts>,
    pub checkpoint: bool,
    /// Annotations that change the runtime's behaviour. One that ends in `.` is a prefix.
    pub acted_on_annotations: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupFacts {
    pub v1: bool,
    pub v2: bool,
    pub systemd: bool,
    pub systemd_user: bool,
    pub rdma: bool,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompFacts {
    pub actions: Vec<String>,
    pub operators: Vec<String>,
    pub archs: Vec<String>,
    pub known_flags: Vec<String>,
    /// Known values that the running kernel supports.
    pub supported_flags: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct RdtFacts {
    pub enabled: bool,
    pub schemata: bool,
    pub monitoring: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct MemoryPolicyFacts {
    pub modes: Vec<String>,
    pub flags: Vec<String>,
}

pub fn text(facts: FeatureFacts) -> String {
    let mut text = indented(&Features::of(facts), "    ");
    text.push('\n');
    text
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<String>,
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    potentially_unsafe_config_annotations: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<String>,
    capabilities: Vec<String>,
    cgroup: CgroupFacts,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: RdtFacts,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_policy: Option<MemoryPolicyFacts>,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
struct Seccomp {
    enabled: bool,
    #[serde(flatten)]
    facts: Option<SeccompFacts>,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

impl Features {
    fn of(facts: FeatureFacts) -> Self {
        let enabled = |enabled| Enabled { enabled };
        Self {
            oci_version_min: "1.0.0",
            oci_version_max: crate::spec::OCI_VERSION,
            hooks: facts.hooks,
            mount_options: sorted(facts.mount_options),
            linux: Linux {
                namespaces: sorted(facts.namespaces),
                capabilities: facts.capabilities,
                cgroup: facts.cgroup,
                seccomp: Seccomp { enabled: facts.seccomp.is_some(), facts: facts.seccomp },
                apparmor: enabled(facts.apparmor),
                selinux: enabled(facts.selinux),
                intel_rdt: facts.intel_rdt,
                memory_policy: facts.memory_policy,
                mount_extensions: MountExtensions { idmap: enabled(facts.idmapped_mounts) },
                net_devices: enabled(facts.net_devices),
            },
            annotations: annotations(facts.checkpoint),
            potentially_unsafe_config_annotations: sorted(facts.acted_on_annotations),
        }
    }
}

fn annotations(checkpoint: bool) -> BTreeMap<&'static str, &'static str> {
    let mut annotations = BTreeMap::from([("aril.version", version::VERSION)]);
    if let Some(commit) = version::COMMIT {
        annotations.insert("aril.commit", commit);
    }
    if checkpoint {
        // CRI-O looks for it by this name.
        annotations.insert("org.opencontainers.runc.checkpoint.enabled", "true");
    }
    annotations
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime as oci;
    use serde_json::{Value, json};

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| item.to_string()).collect()
    }

    fn parsed(facts: FeatureFacts) -> Value {
        serde_json::from_str(&text(facts)).unwrap()
    }

    #[test]
    fn what_engines_look_at() {
        let document = parsed(FeatureFacts {
            mount_options: list(&["rw", "rro", "bind"]),
            namespaces: list(&["user", "pid"]),
            idmapped_mounts: true,
            checkpoint: true,
            ..Default::default()
        });
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["mountOptions"], json!(["bind", "rro", "rw"]));
        assert_eq!(document["linux"]["namespaces"], json!(["pid", "user"]));
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
    }

    #[test]
    fn what_is_not_there_is_not_claimed() {
        let document = parsed(FeatureFacts::default());
        assert_eq!(document["linux"]["seccomp"], json!({"enabled": false}));
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], false);
        assert!(document["linux"].get("memoryPolicy").is_none());
        assert!(document.get("potentiallyUnsafeConfigAnnotations").is_none());
        assert!(
            document["annotations"].as_object().unwrap().keys().all(|k| k.starts_with("aril."))
        );
    }

    #[test]
    fn the_specifications_types_read_it() {
        let facts = FeatureFacts {
            namespaces: list(&["mount", "user"]),
            seccomp: Some(SeccompFacts {
                actions: list(&["SCMP_ACT_ALLOW"]),
                archs: list(&["SCMP_ARCH_X86_64"]),
                ..Default::default()
            }),
            memory_policy: Some(MemoryPolicyFacts::default()),
            acted_on_annotations: list(&["org.systemd.property."]),
            ..Default::default()
        };
        let features: oci::Features = serde_json::from_str(&text(facts)).unwrap();
        let linux = features.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 2);
        assert_eq!(*linux.seccomp().as_ref().unwrap().enabled(), Some(true));
    }

    #[test]
    fn is_indented_by_four() {
        assert!(text(FeatureFacts::default()).starts_with("{\n    \"ociVersionMin\""));
    }
}
