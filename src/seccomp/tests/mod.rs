mod docker;
mod libseccomp;
mod random;

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::plan::{Facts, Plan, compile};
use super::reference::{Data, check, run};
use super::{Arch, Listener};

const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x5_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Profile with about the size and shape of those of engines.
const ENGINE: &str = include_str!("../testdata/engine.json");

fn spec(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).unwrap()
}

const X86_64: Facts = Facts { native: Arch::X86_64, flag_supported: |_| true };

fn plan(profile: Value) -> Plan {
    let plan = compile(&spec(profile), &X86_64).unwrap();
    check(&plan.filter.program);
    plan
}

fn refused(profile: Value) -> String {
    compile(&spec(profile), &X86_64).unwrap_err().to_string()
}

impl Plan {
    fn answer(&self, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
        run(&self.filter.program, &Data { nr: number, arch: arch.audit(), args })
    }

    /// Number of a system call of x86_64.
    fn native(&self, number: u32, args: [u64; 6]) -> u32 {
        self.answer(Arch::X86_64, number, args)
    }
}

fn rule(name: &str, action: &str, args: Value) -> Value {
    json!({"names": [name], "action": action, "args": args})
}

fn arg(index: usize, op: &str, value: u64) -> Value {
    json!({"index": index, "value": value, "op": op})
}

fn denying(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
}

#[test]
fn an_engines_profile() {
    let p = plan(serde_json::from_str(ENGINE).unwrap());
    let line = p.filter.to_string();
    assert!(line.starts_with("seccomp: default ERRNO(1), 299 syscalls, "), "{line}");
    assert!(line.contains("archs x86_64 x86 x32, "), "{line}");
    assert!(p.filter.program.len() < 450, "{line}");
    assert_eq!(p.unknown.as_deref(), Some("no_such_call"));
    assert_eq!(p.listener, None);

    assert_eq!(p.native(0, [0; 6]), ALLOW, "read");
    assert_eq!(p.native(165, [0; 6]), EPERM, "mount");
    assert_eq!(p.native(435, [0; 6]), ENOSYS, "clone3");
    assert_eq!(p.native(5000, [0; 6]), ENOSYS);
    let first = |value| [value, 0, 0, 0, 0, 0];
    assert_eq!(p.native(135, first(0x20008)), ALLOW, "personality");
    assert_eq!(p.native(135, first(0x20009)), EPERM);
    assert_eq!(p.native(135, first(1 << 32)), EPERM, "all 64 bits count");
    assert_eq!(p.native(56, first(17)), ALLOW, "clone");
    assert_eq!(p.native(56, first(0x1000_0000)), EPERM, "clone with CLONE_NEWUSER");
    assert_eq!(p.native(41, first(2)), ALLOW, "socket");
    assert_eq!(p.native(41, first(40)), EPERM, "socket of AF_VSOCK");
    assert_eq!(p.answer(Arch::X86, 359, first(40)), EPERM, "its number on i386");
    assert_eq!(p.answer(Arch::X86, 102, first(1)), ALLOW, "and through socketcall");
    assert_eq!(p.answer(Arch::X32, 0x4000_0000 + 520, [0; 6]), ALLOW, "execve");
    assert_eq!(p.answer(Arch::Aarch64, 0, [0; 6]), KILL_THREAD);
}

#[test]
fn numbers_beyond_the_profile_do_not_exist() {
    let p = plan(denying(json!([rule("openat", "SCMP_ACT_ALLOW", json!([]))])));
    assert_eq!(p.native(257, [0; 6]), ALLOW, "openat");
    assert_eq!(p.native(256, [0; 6]), EPERM);
    assert_eq!(p.native(435, [0; 6]), ENOSYS, "clone3");
    let named = plan(denying(json!([
        rule("openat", "SCMP_ACT_ALLOW", json!([])),
        rule("close_range", "SCMP_ACT_ERRNO", json!([])),
    ])));
    assert_eq!(named.native(435, [0; 6]), EPERM, "a name counts even where its rule is void");
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let rules = json!([rule("openat", "SCMP_ACT_ERRNO", json!([]))]);
        let p = plan(json!({"defaultAction": default, "syscalls": rules}));
        assert_eq!(p.native(435, [0; 6]), p.native(0, [0; 6]), "{default}");
    }
}

#[test]
fn foreign_modes() {
    let rules = json!([rule("read", "SCMP_ACT_ALLOW", json!([]))]);
    let p = plan(denying(rules.clone()));
    assert_eq!(p.answer(Arch::X32, 0x4000_0000, [0; 6]), KILL_THREAD, "x32 is not named");
    assert_eq!(p.native(u32::MAX, [0; 6]), EPERM, "a tracer's skip");
    let mips = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_MIPSEL"],
        "syscalls": rules});
    assert_eq!(plan(mips).native(0, [0; 6]), ALLOW, "the native architecture is implied");
    for (arch, words) in [("SCMP_ARCH_NATIVE", "not a valid arch"), ("SCMP_ARCH_S390X", "endian")] {
        let foreign = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch]});
        assert!(refused(foreign).contains(words), "{arch}");
    }
}

#[test]
fn precedence() {
    let errno = |name, errno: u32, args| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args});
    let first = |value| [value, 0, 0, 0, 0, 0];
    let p = plan(denying(json!([
        errno("read", 5, json!([arg(0, "SCMP_CMP_EQ", 7)])),
        errno("read", 6, json!([])),
        errno("read", 7, json!([])),
        errno("write", 5, json!([arg(0, "SCMP_CMP_GE", 3)])),
        errno("write", 6, json!([arg(0, "SCMP_CMP_GT", 5)])),
        errno("write", 7, json!([arg(0, "SCMP_CMP_EQ", 9)])),
        // Two conditions on one argument are alternatives.
        errno("open", 5, json!([arg(0, "SCMP_CMP_EQ", 1), arg(0, "SCMP_CMP_EQ", 2)])),
        // Conditions on two arguments must both hold.
        errno("close", 5, json!([arg(1, "SCMP_CMP_LT", 4), arg(0, "SCMP_CMP_LE", 4)])),
        // The mask selects no bits.
        errno("stat", 5, json!([arg(0, "SCMP_CMP_MASKED_EQ", 0)])),
    ])));
    assert_eq!(p.native(0, first(7)), ERRNO | 6, "a rule without conditions, the earliest");
    for (value, expected) in [(9, 7), (6, 6), (4, 5), (2, 1)] {
        assert_eq!(p.native(1, first(value)), ERRNO | expected, "{value}");
    }
    for (value, expected) in [(1, 5), (2, 5), (3, 1)] {
        assert_eq!(p.native(2, first(value)), ERRNO | expected, "{value}");
    }
    for (args, expected) in [([4, 3], 5), ([5, 3], 1), ([4, 4], 1)] {
        assert_eq!(p.native(3, [args[0], args[1], 0, 0, 0, 0]), ERRNO | expected, "{args:?}");
    }
    assert_eq!(p.native(4, first(1)), ERRNO | 5);
}

#[test]
fn actions_and_their_data() {
    let p = plan(json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 0x1_0002},
        {"names": ["write"], "action": "SCMP_ACT_TRACE"},
        {"names": ["open"], "action": "SCMP_ACT_TRAP"},
        {"names": ["close"], "action": "SCMP_ACT_LOG"},
        {"names": ["stat"], "action": "SCMP_ACT_KILL"},
        {"names": ["lstat"], "action": "SCMP_ACT_KILL_PROCESS"},
    ]}));
    for (number, expected) in
        [(0, 0x7ff0_0002), (1, 0x7ff0_0001), (2, 0x3_0000), (3, 0x7ffc_0000), (4, 0)]
    {
        assert_eq!(p.native(number, [0; 6]), expected, "{number}");
    }
    assert_eq!(p.native(6, [0; 6]), 0x8000_0000);
}

#[test]
fn a_number_that_an_action_does_not_have() {
    let refused = |profile: Value| {
        let facts = Facts { native: Arch::X86_64, flag_supported: |_| true };
        compile(&spec(profile), &facts).unwrap_err().to_string()
    };
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})),
        "seccomp defaultErrnoRet is set for SCMP_ACT_ALLOW, which has none"
    );
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sync"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]})),
        "seccomp errnoRet is set for SCMP_ACT_KILL, which has none"
    );
    let facts = Facts { native: Arch::X86_64, flag_supported: |_| true };
    let zero = json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 0, "syscalls": [
        {"names": ["sync"], "action": "SCMP_ACT_KILL", "errnoRet": 0}]});
    assert!(compile(&spec(zero), &facts).is_ok());
}

#[test]
fn flags_are_those_asked_for() {
    let flags = |flags: Value, supported: fn(u32) -> bool| {
        let spec = spec(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}));
        compile(&spec, &Facts { native: Arch::X86_64, flag_supported: supported })
            .map(|p| p.filter.flags)
            .map_err(|e| e.to_string())
    };
    assert_eq!(flags(json!(null), |_| true), Ok(4));
    assert_eq!(flags(json!(null), |_| false), Ok(0));
    assert_eq!(flags(json!([]), |_| panic!("not needed")), Ok(0));
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), |_| panic!("not needed")), Ok(0));
    let both = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(flags(both, |_| true), Ok(6));
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_LOG"]), |_| false).unwrap_err(),
        "seccomp flag SECCOMP_FILTER_FLAG_LOG is not supported by the kernel"
    );
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), |_| true).unwrap_err(),
        "seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
    );
}

#[test]
fn notification() {
    let profile = |name, path: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": null,
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}]})
    };
    let p = plan(profile("mkdir", json!("/run/agent")));
    assert_eq!(p.filter.flags, 0x28);
    assert!(p.filter.notifies());
    let path = Path::new("/run/agent").to_owned();
    assert_eq!(p.listener, Some(Listener { path, metadata: None }));
    assert_eq!(p.native(83, [0; 6]), 0x7fc0_0000);

    assert_eq!(refused(profile("mkdir", json!(null))), "seccomp listenerPath is not set");
    assert_eq!(
        refused(profile("write", json!("/run/agent"))),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall"
    );
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent"})),
        "SCMP_ACT_NOTIFY cannot be used as default action"
    );
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"})),
        "seccomp listenerMetadata is set but listenerPath is not"
    );
    let idle = plan(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"}));
    assert_eq!(idle.listener, None, "a path that no rule needs");
}

#[test]
fn refusals_name_the_rule() {
    assert_eq!(
        refused(denying(json!([rule(
            "read",
            "SCMP_ACT_ALLOW",
            json!([arg(6, "SCMP_CMP_EQ", 0)])
        )]))),
        "error creating seccomp syscall condition for syscall read: \
         syscalls have arguments 0 to 5, not 6"
    );
    let same = json!([arg(0, "SCMP_CMP_EQ", 0)]);
    assert_eq!(
        refused(denying(json!([
            rule("read", "SCMP_ACT_ALLOW", same.clone()),
            rule("read", "SCMP_ACT_TRAP", same)
        ]))),
        "error adding seccomp filter rule for syscall read: \
         rules with the same conditions have different actions, ALLOW and TRAP"
    );
    assert_eq!(
        refused(denying(json!([rule("", "SCMP_ACT_ALLOW", json!([]))]))),
        "empty string is not a valid syscall"
    );
}

/// Values of an argument cost one comparison each, in any order.
#[test]
fn one_of_many_values() {
    let values = [0xffff_ffff, 8, 0, 0x20000, 0x1_0000_0008, 0x20008];
    let args: Vec<_> = values.iter().map(|v| arg(0, "SCMP_CMP_EQ", *v)).collect();
    let p = plan(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [rule("personality", "SCMP_ACT_ALLOW", json!(args)),
            {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [arg(1, "SCMP_CMP_EQ", 3)]},
            {"names": ["keyctl"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, "SCMP_CMP_EQ", 2)]}]}));
    let first = |value| [value, 0, 0, 0, 0, 0];
    for value in values {
        assert_eq!(p.native(135, first(value)), ALLOW, "{value:x}");
        assert_eq!(p.answer(Arch::X86, 136, first(value)), ALLOW, "{value:x}");
        // On i386 only the low half counts.
        assert_eq!(p.answer(Arch::X86, 136, first(value | 5 << 32)), ALLOW, "{value:x}");
        let other = [value ^ 1, value | 2 << 32, value << 32 | 1];
        for other in other.into_iter().filter(|other| !values.contains(other)) {
            assert_eq!(p.native(135, first(other)), EPERM, "{other:x}");
        }
    }
    assert_eq!(p.native(250, [0, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(p.native(250, [0, 3, 0, 0, 0, 0]), ERRNO | 7);
    assert_eq!(p.native(250, [2, 4, 0, 0, 0, 0]), EPERM);
    let data = Data { nr: 135, arch: Arch::X86_64.audit(), args: first(0x20009) };
    let (_, most) = super::reference::run_counting(&p.filter.program, &data);
    assert!(most <= 16, "{most} instructions");
}

#[test]
fn a_program_has_at_most_4096_instructions() {
    let rules = |count: u64| {
        // Neither half alone distinguishes the value from the others.
        let args: Vec<_> = (0..count).map(|v| arg(0, "SCMP_CMP_EQ", v << 32 | 1)).collect();
        denying(json!([rule("read", "SCMP_ACT_ALLOW", json!(args))]))
    };
    // The jumps are long: over a branch of the search, and over a whole architecture.
    let p = plan(rules(500));
    assert_eq!(p.native(0, [499 << 32 | 1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(p.native(0, [500 << 32 | 1, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(p.native(1, [0; 6]), ENOSYS);
    assert_eq!(p.answer(Arch::X86, 1, [0; 6]), KILL_THREAD);
    let message = refused(rules(2000));
    assert!(message.ends_with("instructions, the kernel takes 4096"), "{message}");
}
