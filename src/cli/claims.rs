//! Facts that `features` prints, from the code that implements them.
//!
//! If that code matches a whole enum of the specification, the list is the enum's values: neither that match nor [`every`]
//! compiles if one is missing.

use std::fmt::Display;

use oci_spec::runtime::{
    LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator,
    MemoryPolicyFlagType as PolicyFlag, MemoryPolicyModeType as Mode,
};

use super::features::{CgroupFacts, FeatureFacts, MemoryPolicyFacts, RdtFacts, SeccompFacts};
use crate::hook::Point;
use crate::namespace::Kind;
use crate::rootfs::options;
use crate::seccomp::Arch;
use crate::spec::annotation;
use crate::sys;

pub fn facts() -> FeatureFacts {
    FeatureFacts {
        hooks: names(&Point::ALL),
        mount_options: options::recognised()
            .into_iter()
            // `mountExtensions.idmap` reports it.
            .filter(|name| !matches!(*name, "idmap" | "ridmap"))
            .map(str::to_owned)
            .collect(),
        namespaces: sorted(Kind::ALL.iter().map(|kind| kind.oci().to_owned())),
        capabilities: capabilities(),
        cgroup: CgroupFacts { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
        seccomp: Some(seccomp()),
        apparmor: true,
        selinux: true,
        intel_rdt: RdtFacts { enabled: true, schemata: true, monitoring: true },
        idmapped_mounts: true,
        net_devices: true,
        memory_policy: Some(memory_policy()),
        checkpoint: false,
        acted_on_annotations: [annotation::SYSTEMD, annotation::ARIL, annotation::KEEP_GROUPS]
            .map(str::to_owned)
            .to_vec(),
    }
}

fn names<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn capabilities() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(caps::Capability::index);
    names(&all)
}

/// Lists all values of an enum. An incomplete list does not compile.
macro_rules! every {
    ($type:ident: $($value:ident),* $(,)?) => {{
        const _: fn($type) = |value| match value {
            $($type::$value)|* => (),
        };
        [$($type::$value),*]
    }};
}

fn seccomp() -> SeccompFacts {
    let known = every!(Flag: SeccompFilterFlagTsync, SeccompFilterFlagSpecAllow,
        SeccompFilterFlagLog, SeccompFilterFlagWaitKillableRecv);
    let supported = known.into_iter().filter(|flag| {
        let bit = match flag {
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            // Accepted, and nothing to do for one thread.
            Flag::SeccompFilterFlagTsync => return true,
        };
        sys::seccomp::flag_supported(bit as u32)
    });
    let actions = every!(Action: ScmpActAllow, ScmpActErrno, ScmpActKill, ScmpActKillProcess,
        ScmpActKillThread, ScmpActLog, ScmpActNotify, ScmpActTrace, ScmpActTrap);
    let operators = every!(Operator: ScmpCmpNe, ScmpCmpLt, ScmpCmpLe, ScmpCmpEq, ScmpCmpGe,
        ScmpCmpGt, ScmpCmpMaskedEq);
    let archs = Arch::ALL.iter();
    SeccompFacts {
        actions: sorted(names(&actions).into_iter()),
        operators: sorted(names(&operators).into_iter()),
        archs: sorted(
            archs.map(|arch| format!("SCMP_ARCH_{}", arch.to_string().to_ascii_uppercase())),
        ),
        known_flags: names(&known),
        supported_flags: supported.map(|flag| flag.to_string()).collect(),
    }
}

fn memory_policy() -> MemoryPolicyFacts {
    MemoryPolicyFacts {
        modes: names(&every!(Mode: MpolDefault, MpolBind, MpolInterleave,
            MpolWeightedInterleave, MpolPreferred, MpolPreferredMany, MpolLocal)),
        flags: names(&every!(PolicyFlag: MpolFNumaBalancing, MpolFRelativeNodes,
            MpolFStaticNodes)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::limits;
    use crate::seccomp::plan::{Facts, compile};

    fn compiles(profile: Value) {
        let text = profile.to_string();
        let spec = serde_json::from_value(profile).expect(&text);
        let facts = Facts { native: Arch::native(), flag_supported: |_| true };
        let plan = compile(&spec, &facts).expect(&text);
        assert_eq!(plan.unknown, None, "{text}");
    }

    #[test]
    fn what_is_claimed_of_seccomp_compiles() {
        let claimed = seccomp();
        compiles(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": claimed.archs}));
        compiles(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "flags": claimed.known_flags,
            "syscalls": [{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]}));
        for (action, operator) in claimed.actions.iter().zip(claimed.operators.iter().cycle()) {
            compiles(json!({"defaultAction": "SCMP_ACT_TRAP", "listenerPath": "/run/agent",
                "syscalls": [{"names": ["sync"], "action": action, "args":
                    [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]}]}));
        }
    }

    /// An architecture that is claimed is read as itself, not passed over as unknown.
    #[test]
    fn what_is_claimed_of_architectures_is_read() {
        for (name, arch) in seccomp().archs.iter().zip(sorted_arches()) {
            let value = serde_json::from_value(json!(name)).expect(name);
            assert_eq!(Arch::from_spec(value, Arch::native()), Some(arch), "{name}");
        }
    }

    fn sorted_arches() -> Vec<Arch> {
        let mut arches = Arch::ALL.to_vec();
        arches.sort_by_key(ToString::to_string);
        arches
    }

    #[test]
    fn what_is_claimed_of_memory_policies_is_planned() {
        let claimed = memory_policy();
        for mode in &claimed.modes {
            for nodes in [json!("0"), Value::Null] {
                let policy = json!({"mode": mode, "nodes": nodes, "flags": claimed.flags});
                let policy = serde_json::from_value(policy).expect(mode);
                if limits::plan::memory_policy(&policy).is_ok() {
                    break;
                }
                assert!(nodes.is_string(), "{mode}");
            }
        }
    }

    #[test]
    fn every_annotation_of_ours_is_told_of() {
        for key in [annotation::LAYERS, annotation::NETWORK, annotation::USERNS] {
            assert!(facts().acted_on_annotations.iter().any(|prefix| key.starts_with(prefix)));
        }
    }
}
