//! Checks that the default profile of `run --rootfs` allows nothing that Docker's default profile denies, for any
//! capabilities. The answers are compared with those of the file `seccomp/default.json` of moby/profiles, if it is
//! installed or named by `DOCKER_SECCOMP`.

use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp};
use runtime_tests::skip;
use serde_json::Value;

use super::super::plan::{Facts, compile};
use super::super::reference::{Data, run};
use super::super::syscalls::Finder;
use super::super::{Action, Arch};
use super::libseccomp::{conditional, numbers, of_an_engine, values};
use super::{ALLOW, spec};
use crate::spec::defaults;

const PLACES: [&str; 2] = [
    "/usr/share/gocode/src/github.com/moby/profiles/seccomp/default.json",
    "/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
];

/// Docker's profile, of version 29 or later: the first version that denies AF_ALG, with a comparison of families.
#[expect(clippy::disallowed_methods, reason = "a test: the developer may name a profile")]
fn dockers() -> Option<Value> {
    let named = std::env::var_os("DOCKER_SECCOMP").map(PathBuf::from);
    let must = named.is_some();
    let found = named.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()));
    let Some(path) = found else {
        skip::inapplicable("Docker's profile is not here: DOCKER_SECCOMP=FILE names one");
        return None;
    };
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let rules = file["syscalls"].as_array().unwrap();
    let current = rules
        .iter()
        .any(|rule| rule["names"][0] == "socket" && rule["args"][0]["op"] == "SCMP_CMP_LT");
    assert!(current || !must, "{}: older than Docker 29", path.display());
    if !current {
        skip::inapplicable(&format!("{} is older than Docker 29", path.display()));
    }
    current.then_some(file)
}

fn set(names: &[&str]) -> Capabilities {
    let one = |name: &&str| serde_json::from_value::<Capability>((*name).into()).unwrap();
    names.iter().map(one).collect()
}

/// System calls that Aril denies on purpose: see `defaults::profile`.
const STRICTER: [&str; 2] = ["socket", "socketcall"];

fn compare(docker: &LinuxSeccomp, aril: &LinuxSeccomp, what: &str) -> usize {
    let native = Arch::native();
    let facts = Facts { native, flag_supported: |_| true };
    let program = |spec| compile(spec, &facts).unwrap().filter.program;
    let (reference, own) = (program(docker), program(aril));
    let mut values = values(docker);
    values.extend(super::libseccomp::values(aril));
    let mut conditions = conditional(docker);
    conditions.extend(conditional(aril));
    let mut compared = 0;
    for arch in Arch::ALL {
        for nr in numbers(arch) {
            let name = Finder::name(arch, nr).unwrap_or("a number without a name");
            let of_interest = conditions.contains(&(arch as usize, nr));
            for value in values.iter().take(if of_interest { values.len() } else { 1 }) {
                let data = Data { nr, arch: arch.audit(), args: [*value, *value, 0, 0, 0, 0] };
                let (reference, own) = (run(&reference, &data), run(&own, &data));
                assert!(
                    own != ALLOW || reference == ALLOW,
                    "{what}: Docker refuses {name} of {arch} with {value:#x}, and aril allows it"
                );
                assert!(
                    own == ALLOW || reference != ALLOW || STRICTER.contains(&name),
                    "{what}: Docker allows {name} of {arch} with {value:#x}, and aril refuses it"
                );
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn nothing_is_allowed_that_docker_refuses() {
    let Some(file) = dockers() else { return };
    let machine = match Arch::native() {
        Arch::Aarch64 => "arm64",
        Arch::Riscv64 => "riscv64",
        _ => "amd64",
    };
    let default: Vec<_> = defaults::CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let every: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
    let mut held: Vec<Vec<&str>> = vec![vec![], every.iter().map(String::as_str).collect()];
    for more in &every {
        held.push(default.iter().chain([more]).map(String::as_str).collect());
    }
    for names in held {
        let docker = spec(of_an_engine(&file, machine, &names));
        let aril = defaults::profile(&set(&names)).unwrap();
        let compared = compare(&docker, &aril, &format!("with {}", names.join(" ")));
        assert!(compared > 5000, "{compared}");
    }
}

/// Checks system calls with known security problems, without Docker's profile.
#[test]
fn families_and_domains_beyond_the_everyday_are_refused() {
    let aril = defaults::profile(&set(&[])).unwrap();
    let facts = Facts { native: Arch::native(), flag_supported: |_| true };
    let program = compile(&aril, &facts).unwrap().filter.program;
    let answer = |arch: Arch, name: &str, first: u64| {
        let nr = Finder::default().find(name).unwrap().number(arch).unwrap();
        run(&program, &Data { nr, arch: arch.audit(), args: [first, 0, 0, 0, 0, 0] })
    };
    let native = Arch::native();
    for family in 0..64_u64 {
        let usual = !matches!(family, 38 | 40 | 46..);
        assert_eq!(answer(native, "socket", family) == ALLOW, usual, "{family}");
        assert_ne!(answer(native, "socket", family | 1 << 32), ALLOW, "2^32 + {family}");
    }
    for domain in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(answer(native, "personality", domain), ALLOW, "{domain:#x}");
    }
    for domain in [1, 4, 0x4_0000, 0x40_0000, 0x2_0001, 1 << 32] {
        assert_ne!(answer(native, "personality", domain), ALLOW, "{domain:#x}");
    }
    for name in ["syslog", "io_uring_setup", "userfaultfd", "keyctl", "mount", "bpf", "mbind"] {
        assert_ne!(answer(native, name, 0), ALLOW, "{name}");
    }
    if native == Arch::X86_64 {
        assert_eq!(answer(Arch::X86, "socketcall", 1), Action::ENOSYS.code());
        assert_ne!(answer(Arch::X86, "socket", 38), ALLOW);
        assert_ne!(answer(Arch::X32, "socket", 40), ALLOW);
    }
}
