//! A profile: its program is one that the kernel would take, and answers as the rules read one by
//! one.
#![no_main]

use aril::seccomp::Arch;
use aril::seccomp::plan::{Facts, compile};
use aril::seccomp::reference::{Data, answer, check, run};
use aril_fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

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
    "mseal",
    "_llseek",
    "cacheflush",
    "no_such_call",
    "map_shadow_stack",
];
const ACTIONS: &[&str] =
    &["ALLOW", "ERRNO", "TRAP", "LOG", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRACE", "NOTIFY"];
const OPS: &[&str] = &["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHES: &[&str] = &["X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "MIPS", "S390X"];

fn number(choices: &mut Choices) -> u64 {
    let near = u64::from(choices.byte() % 4);
    let base =
        [0, 1 << 31, 1 << 32, 1 << 63, 0xff, u64::MAX - 1, 0x1234_5678_9abc_def0][choices.below(7)];
    base + near.min(1)
}

fn profile(choices: &mut Choices) -> Value {
    let action = |choices: &mut Choices| format!("SCMP_ACT_{}", choices.of(ACTIONS));
    let default = action(choices);
    let arches: Vec<_> =
        (0..choices.below(5)).map(|_| format!("SCMP_ARCH_{}", choices.of(ARCHES))).collect();
    let mut rules = Vec::new();
    for _ in 0..choices.below(24) {
        let args: Vec<_> = (0..choices.below(4))
            .map(|_| {
                json!({"index": choices.below(6), "op": format!("SCMP_CMP_{}", choices.of(OPS)),
                    "value": number(choices), "valueTwo": number(choices)})
            })
            .collect();
        let names: Vec<_> = (0..=choices.below(4)).map(|_| choices.of(NAMES)).collect();
        let action = action(choices);
        let errno = matches!(&*action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE").then(|| choices.byte());
        rules.push(json!({"names": names, "action": action, "errnoRet": errno, "args": args}));
    }
    json!({"defaultAction": default, "architectures": arches, "listenerPath": "/run/agent",
        "syscalls": rules})
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let profile: LinuxSeccomp = serde_json::from_value(profile(&mut choices)).expect("a profile");
    let native = choices.of(&[Arch::X86_64, Arch::Aarch64, Arch::Riscv64]);
    let facts = Facts { native, flag_supported: |_| true };
    let Ok(plan) = compile(&profile, &facts) else { return };
    check(&plan.filter.program);
    let probe = |nr: u32, arch: u32, args: [u64; 6]| {
        let data = Data { nr, arch, args };
        assert_eq!(run(&plan.filter.program, &data), answer(&profile, native, &data), "{data:x?}");
    };
    let args: [[u64; 6]; 3] =
        std::array::from_fn(|_| std::array::from_fn(|_| number(&mut choices)));
    for arch in Arch::ALL {
        let low = (choices.below(600) as u32).saturating_sub(4);
        for nr in (low..low + 8).chain([0xf_0005, 0x7fff_ffff, 1 << 31, 3 << 30, u32::MAX]) {
            args.iter().for_each(|args| probe(nr | arch.first_number(), arch.audit(), *args));
        }
        for name in NAMES {
            let Some(nr) = aril::seccomp::reference::number(name, arch) else { continue };
            args.iter().for_each(|args| probe(nr, arch.audit(), *args));
        }
    }
    probe(0, 8, args[0]);
});
