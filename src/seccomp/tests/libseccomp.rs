//! Checks that Aril's programs and libseccomp decide alike: for every number, on every architecture, for arguments on
//! both sides of each condition.
//!
//! Debian's python3-seccomp compiles the same profiles, and the interpreter runs both programs. [`Reference::answer`]
//! adds two decisions that are not libseccomp's, as in runc: ENOSYS above the highest number that the profile names,
//! and for a name that i386 also reaches through `socketcall` or `ipc`, its own number counts as named too. (runc
//! counts only that of the multiplexer, and returns ENOSYS for calls that the profile allows.)

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test runs libseccomp in Python"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libc::sock_filter;
use oci_spec::runtime::LinuxSeccomp;
use runtime_tests::skip;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::plan::{self, Facts, compile};
use super::super::reference::{Data, check, run, run_counting};
use super::super::syscalls::{Finder, Multiplexed};
use super::super::{Action, Arch};
use super::random::Random;
use super::{ENGINE, spec};

const SCRIPT: &str = include_str!("../testdata/libseccomp.py");

struct Libseccomp {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Names that libseccomp knows. Aril knows some newer ones.
    known: BTreeSet<String>,
    numbers: BTreeMap<String, BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
struct Compiled {
    program: Option<Vec<(u16, u8, u8, u32)>>,
    refused: Option<String>,
}

impl Libseccomp {
    /// Starts Python with libseccomp. Prints the reason and returns `None` if it is not installed.
    fn start() -> Option<Self> {
        let python = Path::new("/usr/bin/python3");
        let imports = Command::new(python).args(["-c", "import seccomp"]).output();
        if !imports.is_ok_and(|out| out.status.success()) {
            skip::unprepared("python3-seccomp is missing: apt-get install python3-seccomp");
            return None;
        }
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reference = Self {
            requests: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            known: BTreeSet::new(),
            numbers: BTreeMap::new(),
        };
        let names: Vec<_> = Finder::names().collect();
        let mut numbers = reference.ask(&json!({"names": names}));
        reference.known = serde_json::from_value(numbers["known"].take()).unwrap();
        // The kernel has this call for x86_64 only, libseccomp 2.5 for x32 too.
        reference.known.remove("map_shadow_stack");
        numbers.as_object_mut().unwrap().remove("known");
        reference.numbers = serde_json::from_value(numbers).unwrap();
        Some(reference)
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {request}"))
    }

    fn compile(&mut self, profile: &Value, arches: &[Arch]) -> Result<Vec<sock_filter>, String> {
        let arches: Vec<_> = arches.iter().map(Arch::to_string).collect();
        let answer = self.ask(&json!({"profile": profile, "arches": arches}));
        let compiled: Compiled = serde_json::from_value(answer).unwrap();
        match compiled.program {
            None => Err(compiled.refused.unwrap()),
            Some(program) => Ok(program
                .into_iter()
                .map(|(code, jt, jf, k)| sock_filter { code, jt, jf, k })
                .collect()),
        }
    }

    /// Returns the highest number that the profile names.
    fn highest(&self, spec: &LinuxSeccomp, arch: Arch) -> Option<u32> {
        let numbers = &self.numbers[&arch.to_string()];
        let names = spec.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let all = names.flat_map(|name| {
            let multiplexed = arch == Arch::X86 && Multiplexed::find(name).is_some();
            let own = multiplexed.then(|| Finder::default().find(name)?.number(arch)).flatten();
            [numbers.get(name).copied(), own]
        });
        all.flatten().max()
    }

    /// Returns the profile without parts that this libseccomp is too old for.
    fn knows(&self, mut profile: Value) -> Value {
        let rules = profile["syscalls"].as_array_mut().unwrap();
        for rule in rules.iter_mut() {
            let names = rule["names"].as_array_mut().unwrap();
            names.retain(|name| self.known.contains(name.as_str().unwrap()));
        }
        rules.retain(|rule| rule["names"] != json!([]));
        profile
    }
}

impl Drop for Libseccomp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Decides as libseccomp and the two rules above do.
struct Reference {
    program: Vec<sock_filter>,
    permissive: bool,
    highest: Vec<(Arch, Option<u32>)>,
}

impl Reference {
    fn answer(&self, data: &Data) -> u32 {
        let mode = self.highest.iter().find(|(arch, _)| {
            arch.audit() == data.arch
                && (data.arch != Arch::X32.audit()
                    || (*arch == Arch::X32) == (data.nr & Arch::X32_BIT != 0))
        });
        match mode {
            Some((_, Some(highest))) if data.nr > *highest && !self.permissive => {
                Action::ENOSYS.code()
            }
            _ => run(&self.program, data),
        }
    }
}

/// Values on both sides of those that the conditions compare with, in both halves.
pub(super) fn values(spec: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, 0xffff_ffff, 1 << 32, 1 << 63, u64::MAX]);
    let args = spec.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
    for v in args.flat_map(|arg| [arg.value(), arg.value_two().unwrap_or(0)]) {
        let near = [v.wrapping_sub(1), v, v.wrapping_add(1)];
        values.extend(near.into_iter().flat_map(|v| [v, v ^ (1 << 32), v | (1 << 31)]));
        values.insert(!v);
    }
    values.into_iter().collect()
}

/// All numbers that a kernel could have, and the edges of ranges that a filter distinguishes.
pub(super) fn numbers(arch: Arch) -> impl Iterator<Item = u32> {
    let first = arch.first_number();
    let edges =
        [0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, !1, !0];
    (first..first + 700).chain(0xf_0000..0xf_0008).chain(edges)
}

/// Compares the decisions. Returns their number, or the reason why libseccomp rejects the profile.
fn compare(reference: &mut Libseccomp, profile: &Value, native: Arch) -> Result<usize, String> {
    let profile = reference.knows(profile.clone());
    let spec = spec(profile.clone());
    let arches = plan::arches(&spec, native);
    let expected = reference.compile(&profile, &arches);
    let own = compile(&spec, &Facts { native, flag_supported: |_| true });
    let expected = expected.inspect_err(|why| {
        assert!(own.is_err(), "libseccomp refuses: {why}: {profile}");
    })?;
    let own = own.unwrap_or_else(|e| panic!("Aril rejects it: {e}: {profile}")).filter.program;
    check(&own);
    let default = Action::from_spec(spec.default_action(), spec.default_errno_ret());
    let reference = Reference {
        program: expected,
        permissive: default.is_permissive(),
        highest: arches.iter().map(|a| (*a, reference.highest(&spec, *a))).collect(),
    };

    let conditional: BTreeSet<_> = conditional(&spec);
    let values = values(&spec);
    let mut r = Random(0x51ed_270b_ac0f_1d87);
    let mut compared = 0;
    for arch in Arch::ALL {
        for nr in numbers(arch) {
            let probes = if conditional.contains(&(arch as usize, nr)) { 400 } else { 2 };
            for probe in 0..probes {
                let args = match probe {
                    0 => [0; 6],
                    _ => std::array::from_fn(|_| r.of(&values)),
                };
                let data = Data { nr, arch: arch.audit(), args };
                assert_eq!(
                    run(&own, &data),
                    reference.answer(&data),
                    "{arch} {data:x?}, native {native}, {profile}"
                );
                compared += 1;
            }
        }
    }
    let mips = Data { nr: 0, arch: 8, args: [0; 6] };
    assert_eq!(run(&own, &mips), reference.answer(&mips));
    Ok(compared)
}

/// Returns the numbers of rules with conditions, on each architecture.
pub(super) fn conditional(spec: &LinuxSeccomp) -> BTreeSet<(usize, u32)> {
    let rules = spec.syscalls().iter().flatten();
    let conditions = |args: &Option<Vec<_>>| args.as_ref().is_some_and(|args| !args.is_empty());
    let names = rules.filter(|rule| conditions(rule.args())).flat_map(|rule| rule.names());
    let mut numbers: BTreeSet<_> = names
        .filter_map(|name| Finder::default().find(name))
        .flat_map(|s| Arch::ALL.map(|a| s.number(a).map(|n| (a as usize, n))))
        .flatten()
        .collect();
    numbers.extend(Multiplexed::NUMBERS.map(|n| (Arch::X86 as usize, n)));
    numbers
}

/// Converts the format of the files that engines are configured with (containers' and moby's), as an engine does.
pub(super) fn of_an_engine(file: &Value, arch: &str, capabilities: &[&str]) -> Value {
    let holds = |set: &Value| {
        let any = |key: &str, wanted: &dyn Fn(&str) -> bool| {
            let list = set[key].as_array().filter(|list| !list.is_empty());
            list.map(|list| list.iter().any(|item| wanted(item.as_str().unwrap())))
        };
        (any("arches", &|a| a == arch), any("caps", &|c| capabilities.contains(&c)))
    };
    let rules = file["syscalls"].as_array().unwrap().iter().filter(|rule| {
        let (arches, caps) = holds(&rule["includes"]);
        let (not_arches, not_caps) = holds(&rule["excludes"]);
        arches != Some(false)
            && caps != Some(false)
            && not_arches != Some(true)
            && not_caps != Some(true)
    });
    let rules = rules.cloned().map(|mut rule| {
        rule.as_object_mut().unwrap().retain(|key, value| {
            ["names", "action", "args", "errnoRet"].contains(&key.as_str()) && !value.is_null()
        });
        rule
    });
    let architecture = match arch {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        _ => "SCMP_ARCH_RISCV64",
    };
    let maps = file["archMap"].as_array().unwrap();
    let mut arches = vec![json!(architecture)];
    let map = maps.iter().find(|map| map["architecture"] == architecture);
    arches.extend(map.iter().flat_map(|m| m["subArchitectures"].as_array().unwrap().clone()));
    json!({"defaultAction": file["defaultAction"], "defaultErrnoRet": file["defaultErrnoRet"],
        "architectures": arches, "syscalls": rules.collect::<Vec<_>>()})
}

/// Returns the profiles of installed engines, each with its name and native architecture.
fn installed() -> Vec<(String, Arch, Value)> {
    let mut profiles = Vec::new();
    for path in [
        // Package golang-github-containers-common, which podman needs.
        "/usr/share/containers/seccomp.json",
        // Package golang-github-docker-docker-dev.
        "/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
    ] {
        let Ok(text) = fs::read(path) else {
            skip::inapplicable(&format!("no {path}"));
            continue;
        };
        let file: Value = serde_json::from_slice(&text).unwrap();
        let machines =
            [("amd64", Arch::X86_64), ("arm64", Arch::Aarch64), ("riscv64", Arch::Riscv64)];
        for (machine, native) in machines {
            for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_AUDIT_WRITE", "CAP_BPF"]] {
                let profile = of_an_engine(&file, machine, capabilities);
                profiles.push((format!("{path}, {machine}"), native, profile));
            }
        }
    }
    // The config.json files of containers that engines have created on this host.
    if let Some(dir) = std::env::var_os("SECCOMP_CONFIGS") {
        let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension().is_some_and(|e| e == "json")) {
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let profile = config["linux"]["seccomp"].take();
            if !profile.is_null() {
                profiles.push((path.display().to_string(), Arch::X86_64, profile));
            }
        }
    }
    profiles
}

#[test]
fn the_numbers_are_libseccomps() {
    let Some(reference) = Libseccomp::start() else { return };
    let mut compared = 0;
    for arch in Arch::ALL {
        for name in &reference.known {
            let expected = reference.numbers[&arch.to_string()].get(name).copied();
            let own = Finder::default().find(name).unwrap().number(arch);
            if arch == Arch::X86
                && let Some(Multiplexed { number, .. }) = Multiplexed::find(name)
            {
                assert_eq!(expected, Some(number), "{name} on {arch}");
            } else {
                assert_eq!(own, expected, "{name} on {arch}");
            }
            compared += 1;
        }
    }
    assert!(compared > 2000, "{compared}");
}

#[test]
fn profiles_of_engines() {
    let Some(mut reference) = Libseccomp::start() else { return };
    let own = serde_json::from_str(ENGINE).unwrap();
    let mut profiles = vec![("testdata/engine.json".to_owned(), Arch::X86_64, own)];
    profiles.extend(installed());
    for (name, native, profile) in profiles {
        let compared = compare(&mut reference, &profile, native)
            .unwrap_or_else(|why| panic!("{name}: libseccomp refuses it: {why}"));
        eprintln!("{name}: {compared} answers");
        assert!(compared > 8000, "{name}: {compared}");
    }
}

const ACTIONS: &[&str] =
    &["NOTIFY", "ALLOW", "ERRNO", "TRAP", "LOG", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRACE"];
const OPS: &[&str] = &["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const VALUES: &[u64] = &[
    0,
    1,
    2,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1234_5678_9abc_def0,
    u64::MAX,
];

/// Profiles without contradicting rules for one system call.
fn profile(r: &mut Random, names: &[&str]) -> Value {
    let arg = |r: &mut Random, op: &str| {
        json!({"index": r.below(6), "value": r.of(VALUES), "valueTwo": r.of(VALUES),
            "op": format!("SCMP_CMP_{op}")})
    };
    let errno = |r: &mut Random, action: &str| match action {
        "ERRNO" | "TRACE" => r.of(&[json!(null), json!(1), json!(38), json!(95), json!(4094)]),
        _ => json!(null),
    };
    let mut rules = Vec::new();
    for name in names {
        if r.below(5) > 1 {
            continue;
        }
        let action = match r.of(ACTIONS) {
            // Aril rejects this one: see `plan::listener`.
            "NOTIFY" if *name == "write" => "TRAP",
            action => action,
        };
        let alternatives = match r.below(8) {
            0..5 => vec![json!([])],
            5 | 6 => {
                let op = r.of(OPS);
                vec![json!([arg(r, op)])]
            }
            _ => (0..=r.below(3)).map(|_| json!([arg(r, "EQ")])).collect(),
        };
        let errno = errno(r, action);
        rules.extend(alternatives.into_iter().map(|args| {
            json!({"names": [name], "action": format!("SCMP_ACT_{action}"), "errnoRet": errno,
                "args": args})
        }));
    }
    let mut arches: Vec<_> = Arch::ALL.iter().filter(|_| r.below(2) == 0).map(scmp).collect();
    if arches.contains(&scmp(&Arch::X32)) {
        // No kernel supports x32 alone.
        arches.push(scmp(&Arch::X86_64));
    }
    let default = r.of(&ACTIONS[1..]);
    json!({"defaultAction": format!("SCMP_ACT_{default}"), "defaultErrnoRet": errno(r, default),
        "architectures": arches, "listenerPath": "/run/agent", "syscalls": rules})
}

fn scmp(arch: &Arch) -> String {
    format!("SCMP_ARCH_{}", arch.to_string().to_uppercase())
}

#[test]
fn fifty_random_profiles() {
    let Some(mut reference) = Libseccomp::start() else { return };
    let names: Vec<_> = Finder::names().collect();
    let mut compared = 0;
    for seed in 1..=50 {
        let mut r = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let profile = profile(&mut r, &names);
        let native = r.of(&[Arch::X86_64, Arch::Aarch64, Arch::Riscv64]);
        match compare(&mut reference, &profile, native) {
            Ok(answers) => compared += answers,
            Err(why) => panic!("profile {seed}: libseccomp refuses it: {why}"),
        }
    }
    eprintln!("{compared} answers");
}

/// Number of instructions that a program executes for the numbers of an architecture.
struct Cost {
    mean: f64,
    /// Cost of numbers that rules decide without conditions.
    most: usize,
    /// Cost of the other numbers, with the profile's values and their neighbors.
    most_conditional: usize,
}

impl Cost {
    fn of(
        program: &[sock_filter],
        arch: Arch,
        conditional: &BTreeSet<(usize, u32)>,
        values: &[u64],
    ) -> Self {
        let cost =
            |nr, value| run_counting(program, &Data { nr, arch: arch.audit(), args: [value; 6] }).1;
        let first = arch.first_number();
        let numbers = first..first + 470;
        let has_conditions = |nr: &u32| conditional.contains(&(arch as usize, *nr));
        let sum: usize = numbers.clone().map(|nr| cost(nr, 0)).sum();
        let plain = numbers.clone().filter(|nr| !has_conditions(nr)).map(|nr| cost(nr, 0));
        let with_conditions = numbers.filter(has_conditions);
        let probes = with_conditions.flat_map(|nr| values.iter().map(move |v| cost(nr, *v)));
        Self {
            mean: sum as f64 / 470.0,
            most: plain.max().unwrap(),
            most_conditional: probes.max().unwrap_or(0),
        }
    }
}

#[test]
fn answers_cost_less_than_libseccomps() {
    let Some(mut reference) = Libseccomp::start() else { return };
    let own = serde_json::from_str(ENGINE).unwrap();
    let mut profiles = vec![("testdata/engine.json".to_owned(), Arch::X86_64, own)];
    profiles.extend(installed());
    for (name, native, profile) in profiles {
        let profile = reference.knows(profile);
        let spec = spec(profile.clone());
        let arches = plan::arches(&spec, native);
        let expected = reference.compile(&profile, &arches).unwrap();
        let own = compile(&spec, &Facts { native, flag_supported: |_| true }).unwrap();
        let own = own.filter.program;
        eprintln!("{name}: {} instructions, libseccomp {}", own.len(), expected.len());
        assert!(own.len() < expected.len());
        let conditional = conditional(&spec);
        let values = values(&spec);
        for arch in arches {
            let [own, expected] =
                [&own, &expected].map(|p| Cost::of(p, arch, &conditional, &values));
            for (name_of, cost) in [("Aril's", &own), ("libseccomp's", &expected)] {
                let Cost { mean, most, most_conditional } = cost;
                eprintln!("  {arch}, {name_of}: {mean:.1}, {most}, {most_conditional}");
            }
            assert!(own.mean < expected.mean && own.most <= expected.most, "{name}, {arch}");
            assert!(own.most_conditional <= expected.most_conditional, "{name}, {arch}");
        }
    }
}
