//! What `features` claims, asked of the code that does it.
//!
//! Where that code matches a whole enum of the specification, the enum's values are the list; the
//! match would not compile with one left out.

use std::fmt::Display;

use oci_spec::runtime::{
    LinuxSeccompAction, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator, MemoryPolicyFlagType,
    MemoryPolicyModeType,
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
            // Told by `mountExtensions.idmap`.
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
        acted_on_annotations: [
            "org.systemd.property.",
            annotation::LAYERS,
            annotation::UPPER,
            annotation::SHOW,
        ]
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

fn seccomp() -> SeccompFacts {
    use LinuxSeccompAction::*;
    use LinuxSeccompOperator::*;
    let known = [
        Flag::SeccompFilterFlagTsync,
        Flag::SeccompFilterFlagSpecAllow,
        Flag::SeccompFilterFlagLog,
        Flag::SeccompFilterFlagWaitKillableRecv,
    ];
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
    SeccompFacts {
        actions: sorted(
            names(&[
                ScmpActAllow,
                ScmpActErrno,
                ScmpActKill,
                ScmpActKillProcess,
                ScmpActKillThread,
                ScmpActLog,
                ScmpActNotify,
                ScmpActTrace,
                ScmpActTrap,
            ])
            .into_iter(),
        ),
        operators: sorted(
            names(&[
                ScmpCmpNe,
                ScmpCmpLt,
                ScmpCmpLe,
                ScmpCmpEq,
                ScmpCmpGe,
                ScmpCmpGt,
                ScmpCmpMaskedEq,
            ])
            .into_iter(),
        ),
        archs: sorted(
            Arch::ALL
                .iter()
                .map(|arch| format!("SCMP_ARCH_{}", arch.to_string().to_ascii_uppercase())),
        ),
        known_flags: names(&known),
        supported_flags: supported.map(|flag| flag.to_string()).collect(),
    }
}

fn memory_policy() -> MemoryPolicyFacts {
    use MemoryPolicyFlagType::*;
    use MemoryPolicyModeType::*;
    MemoryPolicyFacts {
        modes: names(&[
            MpolDefault,
            MpolBind,
            MpolInterleave,
            MpolWeightedInterleave,
            MpolPreferred,
            MpolPreferredMany,
            MpolLocal,
        ]),
        flags: names(&[MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes]),
    }
}
