//! Random profiles: the program must decide like the rules, read one by one.

use serde_json::{Value, json};

use super::super::Arch;
use super::super::plan::{Facts, compile};
use super::super::reference::{Data, answer, check, run};
use super::super::syscalls::Finder;
use super::spec;

/// xorshift generator, with which a failure can be repeated.
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
            let action = r.of(ACTIONS);
            let errno = matches!(action, "ERRNO" | "TRACE").then(|| r.below(3));
            json!({"names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": errno,
                "args": args})
        })
        .collect();
    let arches: Vec<_> = (0..r.below(4)).map(|_| format!("SCMP_ARCH_{}", r.of(ARCHES))).collect();
    json!({"defaultAction": format!("SCMP_ACT_{}", r.of(ACTIONS)), "architectures": arches,
        "flags": [], "syscalls": rules})
}

#[test]
fn the_program_answers_as_the_rules() {
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let mut compiled = 0;
    for round in 0..250 {
        let json = profile(&mut r);
        let spec = spec(json.clone());
        let native = r.of(&[Arch::X86_64, Arch::Aarch64, Arch::Riscv64]);
        // Contradicting rules are rejected.
        let Ok(plan) = compile(&spec, &Facts { native, flag_supported: |_| true }) else {
            continue;
        };
        compiled += 1;
        check(&plan.filter.program);
        for _ in 0..200 {
            let arch = r.of(&Arch::ALL);
            let named = Finder::default().find(r.of(NAMES)).unwrap().number(arch);
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
                answer(&spec, native, &data),
                "round {round}, native {native}, {data:x?}, {json}"
            );
        }
    }
    assert!(compiled > 125, "{compiled}");
}
