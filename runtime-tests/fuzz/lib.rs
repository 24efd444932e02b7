//! What several targets need: choices made by the fuzzer's bytes, and a host to plan for.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aril::cgroup::layout::{Hierarchy, Layout};
use aril::cgroup::systemd::Manager;
use aril::explain;
use aril::id::ContainerId;
use aril::identity::SecurityModules;
use aril::identity::descriptors::PassedDescriptors;
use aril::limits::rdt::Resctrl;
use aril::namespace::plan::Facts;
use aril::namespace::{Mapping, Maps};
use aril::plan::compile::{self, ExecOptions, Options};
use aril::plan::facts::{HostFacts, ProcessFacts};
use aril::rootfs::overlay::plan::lowers_of;
use aril::spec::{Extensions, OperatorGrant};
use oci_spec::runtime::Spec;

/// Bytes as choices. Once they are used up every choice is the first.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let wide = bound > 256;
        let high = if wide { usize::from(self.byte()) << 8 } else { 0 };
        (high | usize::from(self.byte())) % bound.max(1)
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Hosts to plan for, none of them this one: a plan goes deep only where the host has what the config
/// wants.
#[derive(Debug, Clone, Copy)]
pub enum Host {
    /// Root, with cgroup2 alone.
    Unified,
    /// The same, with systemd to make cgroups.
    Systemd,
    /// Root, with hierarchies of v1 and cgroup2 beside them.
    Hybrid,
    /// An ordinary user, in whose user namespace the runtime is.
    Rootless,
}

impl Host {
    pub const ALL: [Self; 4] = [Self::Unified, Self::Systemd, Self::Hybrid, Self::Rootless];

    fn facts(self, extensions: &Extensions) -> HostFacts {
        let rootless = matches!(self, Self::Rootless);
        let rootfs = bundle().join("rootfs");
        let mapping = vec![Mapping { container: 0, host: 100_000, size: 65_536 }];
        let layers = lowers_of(extensions, &rootfs, bundle()).ok().flatten().unwrap_or_default();
        HostFacts {
            layer_owners: vec![100_000; layers.len()],
            rootfs,
            cgroups: self.cgroups(),
            systemd: matches!(self, Self::Systemd).then(|| Manager {
                user: false,
                cgroup: "/".into(),
                devices: "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n".into(),
            }),
            namespaces: Facts {
                joins_host_network: false,
                joined_maps: Some(Maps { uid: mapping.clone(), gid: mapping }),
                joined_denies_setgroups: rootless,
                opened_network: None,
            },
            process: ProcessFacts {
                security: SecurityModules { apparmor: true, selinux: true },
                rootless,
                setgroups_allowed: !rootless,
                capabilities: u64::MAX,
            },
            in_user_namespace: rootless,
            kcore: true,
            callers_mounts: None,
            no_place_for: Vec::new(),
            resctrl: Some(Resctrl { root: "/sys/fs/resctrl".into(), groups: vec!["a".into()] }),
        }
    }

    fn cgroups(self) -> Layout {
        if !matches!(self, Self::Hybrid) {
            return Layout::Unified { own: Some("/user.slice".into()) };
        }
        let hierarchy = |names: &str, mount: &str| Hierarchy {
            names: names.split(',').map(str::to_owned).collect(),
            mount: format!("/sys/fs/cgroup/{mount}").into(),
            own: "/own".into(),
        };
        let hierarchies = ["cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"]
            .into_iter()
            .chain(["net_cls,net_prio", "hugetlb", "rdma", "name=systemd"])
            .map(|names| hierarchy(names, names.trim_start_matches("name=")))
            .chain([hierarchy("", "unified")]);
        Layout::Legacy { hierarchies: hierarchies.collect() }
    }
}

/// Plans a container of the spec on the host, and a process of its own kind in it, as `aril plan` and `exec`
/// do; prints the plan or the error, and what `aril explain` says.
pub fn plan(spec: &Spec, host: Host) {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    let options = OPTIONS.get_or_init(|| options(bundle().to_owned()));
    let id = ContainerId::parse("fuzzed").expect("an id");
    // As if the operator had allowed every annotation.
    let annotations = spec.annotations().iter().flatten();
    let pairs: Vec<_> = annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let grant = &OperatorGrant::of(Extensions::of(&pairs));
    let facts = host.facts(grant);
    let rootless = matches!(host, Host::Rootless);
    match compile::container(&id, spec, grant, options, &facts) {
        Ok(plan) => assert!(!plan.to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Some(process) = spec.process() {
        let options = ExecOptions {
            detach: true,
            console_socket: None,
            passed: PassedDescriptors::default(),
            denies_setgroups: rootless,
        };
        let _ = compile::exec(&id, spec, grant, process, &options, &facts.process);
    }
    let facts = explain::Facts { rootless, apparmor: true, selinux: false, landlock: Some(6) };
    let _ = explain::explain(spec, grant, &facts);
}

fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let bundle = std::env::temp_dir().canonicalize().expect("a temporary directory");
        let bundle = bundle.join("aril-fuzz");
        std::fs::create_dir_all(bundle.join("rootfs")).expect("a bundle");
        bundle
    })
}

fn options(bundle: PathBuf) -> Options {
    Options {
        bundle,
        state_directory: "/run/aril/fuzzed".into(),
        host_mounts: true,
        volumes: Vec::new(),
        no_pivot: false,
        new_keyring: true,
        init: false,
        rootless_cgroups: false,
        no_cgroup: false,
        detach: false,
        console_socket: None,
        passed: PassedDescriptors::default(),
        notify_directory: None,
    }
}
