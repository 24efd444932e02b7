//! Random profiles: the program must answer as the rules, read one by one, do.

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};
use serde_json::{Value, json};

use super::super::clause::{Clause, Condition};
use super::super::plan::{Facts, compile};
use super::super::profile::clauses;
use super::super::syscalls::{Finder, Multiplexed, Syscall};
use super::super::{Action, Arch};
use super::interpreter::{Data, check, run};
use super::{KILL_THREAD, spec};

/// xorshift, so that a failure repeats.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "socket",
    "connect",
    "accept",
    "send",
    "shmget",
    "semop",
    "ipc",
    "socketcall",
    "execve",
    "execveat",
    "clone",
    "clone3",
    "openat2",
    "set_tls",
    "ioctl",
    "riscv_hwprobe",
    "personality",
    "getuid32",
    "mmap2",
    "statx",
    "waitpid",
    "readv",
    "writev",
];
const OPS: &[&str] = &["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const VALUES: &[u64] =
    &[0, 1, 2, 3, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];
const ACTIONS: &[&str] = &["ALLOW", "ERRNO", "TRAP", "LOG", "KILL_PROCESS", "TRACE"];
const ARCHES: &[&str] = &["X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64"];

fn profile(r: &mut Random) -> Value {
    let rules: Vec<_> = (0..r.below(30))
        .map(|_| {
            let args: Vec<_> = (0..r.below(4))
                .map(|_| {
                    json!({"index": r.below(6), "value": r.of(VALUES), "valueTwo": r.of(VALUES),
                        "op": format!("SCMP_CMP_{}", r.of(OPS))})
                })
                .collect();
            let names: Vec<_> = (0..=r.below(4)).map(|_| r.of(NAMES)).collect();
            json!({"names": names, "action": format!("SCMP_ACT_{}", r.of(ACTIONS)),
                "errnoRet": r.below(3), "args": args})
        })
        .collect();
    let arches: Vec<_> = (0..r.below(4)).map(|_| format!("SCMP_ARCH_{}", r.of(ARCHES))).collect();
    json!({"defaultAction": format!("SCMP_ACT_{}", r.of(ACTIONS)), "architectures": arches,
        "flags": [], "syscalls": rules})
}

/// The rules, read one by one.
fn naive(spec: &LinuxSeccomp, native: Arch, data: &Data) -> u32 {
    let mut arches: Vec<_> = spec.architectures().iter().flatten().copied().collect();
    arches.push(oci_spec::runtime::Arch::ScmpArchNative);
    let arches: Vec<_> = arches.into_iter().filter_map(|a| Arch::from_spec(a, native)).collect();
    let x32 = data.nr & Arch::X32_BIT != 0;
    let default = Action::from_spec(spec.default_action(), spec.default_errno_ret());
    let Some(arch) = arches.iter().copied().find(|a| {
        a.audit() == data.arch && (data.arch != Arch::X32.audit() || (*a == Arch::X32) == x32)
    }) else {
        let skip = data.nr == u32::MAX && arches.iter().any(|a| a.audit() == data.arch);
        return if skip && arches.contains(&Arch::X86_64) { default.code() } else { KILL_THREAD };
    };

    if arch == Arch::X86_64
        && data.nr >> 31 == 1
        && !arches.contains(&Arch::X32)
        && default.is_permissive()
    {
        return KILL_THREAD;
    }

    let mut highest = None;
    let mut matching: Vec<Clause> = Vec::new();
    for rule in spec.syscalls().iter().flatten() {
        for (number, clause) in rule.names().iter().flat_map(|name| uses(rule, name, arch)) {
            let void = clause.as_ref().is_none_or(|c| c.action == default);
            if let Some(clause) = clause.filter(|_| !void && number == data.nr) {
                let holds = |c: &Condition| c.holds(&data.args, arch.width());
                if clause.conditions.iter().all(holds) {
                    matching.push(clause);
                }
            }
            highest = highest.max(Some(number));
        }
    }
    if highest.is_some_and(|h| data.nr > h) && !default.is_permissive() {
        return Action::ENOSYS.code();
    }
    let unconditional = matching.iter().find(|c| c.conditions.is_empty());
    unconditional
        .or_else(|| matching.iter().min_by(|a, b| a.precedence(b)))
        .map_or(default, |c| c.action)
        .code()
}

fn find(name: &str) -> Option<&'static Syscall> {
    Finder::default().find(name)
}

/// What a rule means for a name: numbers, and a clause for each (None: only named).
fn uses(rule: &LinuxSyscall, name: &str, arch: Arch) -> Vec<(u32, Option<Clause>)> {
    let clauses_of_rule: Vec<_> =
        clauses(rule).unwrap().iter().map(|c| c.narrow(arch.width())).collect();
    let number = find(name).and_then(|s| s.number(arch));
    let mut uses: Vec<_> = number.iter().map(|n| (*n, None)).collect();
    for clause in clauses_of_rule {
        uses.extend(number.map(|n| (n, Some(clause.clone()))));
        if let (Arch::X86, Some(m)) = (arch, Multiplexed::find(name)) {
            let mut conditions = vec![Condition::equals(0, m.first_argument.into())];
            conditions.extend(clause.conditions.iter().filter(|c| c.index() != 0));
            uses.push((m.number, Some(Clause { conditions, action: clause.action })));
        }
    }
    uses
}

#[test]
fn the_program_answers_as_the_rules() {
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let mut compiled = 0;
    for round in 0..250 {
        let json = profile(&mut r);
        let spec = spec(json.clone());
        let native = r.of(&[Arch::X86_64, Arch::Aarch64, Arch::Riscv64]);
        // Contradicting rules are refused.
        let Ok(plan) = compile(&spec, &Facts { native, flag_supported: |_| true }) else {
            continue;
        };
        compiled += 1;
        check(&plan.filter.program);
        for _ in 0..200 {
            let arch = r.of(&Arch::ALL);
            let named = find(r.of(NAMES)).unwrap().number(arch);
            let any = r.below(700) as u32 + if arch == Arch::X32 { Arch::X32_BIT } else { 0 };
            let edge = r.of(&[u32::MAX, 0x8000_0000, 0x4000_0000, 0x3fff_ffff, 0xf_0005]);
            let nr = match r.below(10) {
                0 => edge,
                1..3 => any,
                _ => named.unwrap_or(any),
            };
            let data = Data { nr, arch: arch.audit(), args: std::array::from_fn(|_| r.of(VALUES)) };
            assert_eq!(
                run(&plan.filter.program, &data),
                naive(&spec, native, &data),
                "round {round}, native {native}, {data:x?}, {json}"
            );
        }
    }
    assert!(compiled > 125, "{compiled}");
}
