//! Reference for tests and fuzzers: an interpreter for the classic BPF instructions of filters, and a function that
//! reads the rules of a profile one by one.

use libc::sock_filter;
use oci_spec::runtime::{Arch as SpecArch, LinuxSeccomp, LinuxSyscall};

use super::clause::{Clause, Condition};
use super::profile::clauses;
use super::syscalls::{Finder, Multiplexed, Syscall};
use super::{Action, Arch};

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0, "unaligned load");
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
            }
            _ => panic!("load at {offset}"),
        }
    }
}

/// Runs a program, and returns its action.
pub fn run(program: &[sock_filter], data: &Data) -> u32 {
    run_counting(program, data).0
}

/// Runs a program, and returns its action and the number of executed instructions.
pub fn run_counting(program: &[sock_filter], data: &Data) -> (u32, usize) {
    let (mut accumulator, mut at) = (0, 0);
    for count in 1.. {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |taken| at += usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = data.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return (k, count),
            _ => panic!("instruction {code:#x}"),
        }
    }
    unreachable!("jumps go forward")
}

/// Checks what the kernel checks: all jumps stay in the program, and it ends with a return.
pub fn check(program: &[sock_filter]) {
    for (i, f) in program.iter().enumerate() {
        let furthest = match f.code {
            0x05 => f.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(f.jt.max(f.jf)),
            _ => 0,
        };
        assert!(i + 1 + furthest < program.len() || f.code == 0x06, "jump at {i}");
    }
    assert_eq!(program.last().unwrap().code, 0x06);
}

/// Decides an action by reading the rules of the profile one by one.
pub fn answer(spec: &LinuxSeccomp, native: Arch, data: &Data) -> u32 {
    let mut arches: Vec<_> = spec.architectures().iter().flatten().copied().collect();
    arches.push(SpecArch::ScmpArchNative);
    let arches: Vec<_> = arches.into_iter().filter_map(|a| Arch::from_spec(a, native)).collect();
    let x32 = data.nr & Arch::X32_BIT != 0;
    let default = Action::from_spec(spec.default_action(), spec.default_errno_ret());
    let Some(arch) = arches.iter().copied().find(|a| {
        a.audit() == data.arch && (data.arch != Arch::X32.audit() || (*a == Arch::X32) == x32)
    }) else {
        let skip = data.nr == u32::MAX && arches.iter().any(|a| a.audit() == data.arch);
        return match skip && arches.contains(&Arch::X86_64) {
            true => default.code(),
            false => Action::KILL_THREAD.code(),
        };
    };

    if arch == Arch::X86_64
        && data.nr >> 31 == 1
        && !arches.contains(&Arch::X32)
        && default.is_permissive()
    {
        return Action::KILL_THREAD.code();
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

/// Returns the numbers that a name stands for, and a clause for each. `None` if the rule only names the call.
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

/// Returns the number of a system call.
#[cfg(fuzzing)]
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    find(name)?.number(arch)
}
