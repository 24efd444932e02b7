//! Generates a BPF program from decisions.
//!
//! The numbers of each architecture are divided into ranges with one decision. The program first checks the
//! architecture, then finds the range by binary search. The kernel evaluates the part that depends only on the number
//! once per number, and caches numbers that are always allowed. So the goals are few instructions and a short time to
//! generate them. If an argument may have one of several values, such as that of `personality` in profiles of engines,
//! each half of it is loaded once.

use libc::sock_filter;
use seccompiler::{BackendError, BpfProgram, SeccompRule};

use super::Action;
use super::clause::{Clause, Width};

/// `BPF_MAXINSNS` of the kernel.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Decision for a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Always(Action),
    /// The first clause that matches decides.
    ByArguments {
        clauses: Vec<Clause>,
        width: Width,
        otherwise: Action,
    },
}

/// Decisions for ranges of numbers. A range begins at `.0` and ends at the next one.
#[derive(Debug, Default)]
pub struct Ranges(Vec<(u32, Decision)>);

impl Ranges {
    /// Adds a range. `first` must increase. The first range of an `AUDIT_ARCH_*` begins at 0.
    pub fn push(&mut self, first: u32, decision: Decision) {
        match self.0.last_mut() {
            Some((_, last)) if *last == decision => {}
            _ => self.0.push((first, decision)),
        }
    }

    pub fn append(&mut self, higher: Self) {
        for (first, decision) in higher.0 {
            self.push(first, decision);
        }
    }
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Returns the offsets of the two halves of an argument, the low one first: all supported architectures are
/// little-endian.
fn halves(index: u8) -> (u32, u32) {
    let low = ARGUMENTS + 8 * u32::from(index);
    (low, low + 4)
}

/// Maximum distance of a conditional jump, minus two instructions for a jump or a return that the other target of the
/// same instruction may need.
const REACH: usize = u8::MAX as usize - 2;

/// Generates the program. `branches` are `AUDIT_ARCH_*` with their ranges; calls of another architecture kill the
/// thread.
///
/// # Errors
///
/// seccompiler rejects a rule.
pub fn assemble(branches: &[(u32, Ranges)]) -> Result<Vec<sock_filter>, BackendError> {
    let mut program = Assembler { reversed: Vec::with_capacity(512), returns: Vec::new() };
    let mut entries = Vec::with_capacity(branches.len());
    for (audit, ranges) in branches.iter().rev() {
        let search = program.search(&ranges.0)?;
        entries.push((*audit, program.load(NR, search)));
    }
    let mut dispatch = Target::Return(Action::KILL_THREAD);
    for (audit, entry) in entries {
        dispatch = program.branch(IF_EQUAL, audit, entry, dispatch);
    }
    program.load(ARCH, dispatch);
    program.reversed.reverse();
    Ok(program.reversed)
}

/// Program that is generated from its end. Jumps only go forward, so the target of a jump is known when the jump is
/// generated, and return instructions can be shared.
struct Assembler {
    reversed: Vec<sock_filter>,
    /// Last generated return instruction of each action.
    returns: Vec<(Action, Label)>,
}

/// Instruction, as its distance from the end of the program.
type Label = usize;

#[derive(Clone, Copy)]
enum Target {
    Return(Action),
    Code(Label),
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len()
    }

    fn push_return(&mut self, action: Action) -> Label {
        let label = self.push(RETURN, 0, 0, action.code());
        match self.returns.iter_mut().find(|(known, _)| *known == action) {
            Some((_, latest)) => *latest = label,
            None => self.returns.push((action, label)),
        }
        label
    }

    /// Returns the number of instructions between the next one and the label.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label
    }

    /// Returns a label that a conditional jump can reach: the target, another return of the same action, or a jump to
    /// it.
    fn near(&mut self, target: Target) -> Label {
        match target {
            Target::Code(label) if self.distance(label) <= REACH => label,
            Target::Code(label) => {
                let distance = self.distance(label);
                self.push(JUMP, 0, 0, distance as u32)
            }
            Target::Return(action) => {
                let latest = self.returns.iter().find(|(known, _)| *known == action);
                match latest.map(|(_, label)| *label) {
                    Some(label) if self.distance(label) <= REACH => label,
                    _ => self.push_return(action),
                }
            }
        }
    }

    fn branch(&mut self, test: u16, k: u32, holds: Target, fails: Target) -> Target {
        let (holds, fails) = (self.near(holds), self.near(fails));
        let (jt, jf) = (self.distance(holds), self.distance(fails));
        Target::Code(self.push(test, jt as u8, jf as u8, k))
    }

    /// Generates a load of a word, followed by the target.
    fn load(&mut self, offset: u32, target: Target) -> Target {
        match target {
            Target::Return(action) => drop(self.push_return(action)),
            Target::Code(label) if self.distance(label) == 0 => {}
            Target::Code(label) => {
                let distance = self.distance(label);
                self.push(JUMP, 0, 0, distance as u32);
            }
        }
        Target::Code(self.push(LOAD, 0, 0, offset))
    }

    fn search(&mut self, ranges: &[(u32, Decision)]) -> Result<Target, BackendError> {
        match ranges {
            [] => unreachable!("ranges begin at 0"),
            [(_, Decision::Always(action))] => Ok(Target::Return(*action)),
            [(_, Decision::ByArguments { clauses, width, otherwise })] => {
                self.arguments(clauses, *width, *otherwise)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let first = high[0].0;
                let (high, low) = (self.search(high)?, self.search(low)?);
                Ok(self.branch(IF_AT_LEAST, first, high, low))
            }
        }
    }

    fn arguments(
        &mut self,
        clauses: &[Clause],
        width: Width,
        otherwise: Action,
    ) -> Result<Target, BackendError> {
        match alternatives(clauses) {
            Some((index, values)) => Ok(self.one_of(index, &values, width, otherwise)),
            None => self.conditions(clauses, width, otherwise),
        }
    }

    /// Generates a comparison of an argument with `values`, which are in increasing order. Loads each half once.
    fn one_of(
        &mut self,
        index: u8,
        values: &[(u64, Action)],
        width: Width,
        otherwise: Action,
    ) -> Target {
        let (low, high) = halves(index);
        let otherwise = Target::Return(otherwise);
        let mut next = otherwise;
        for same in values.chunk_by(|(a, _), (b, _)| a >> 32 == b >> 32).rev() {
            let mut test = otherwise;
            for (value, action) in same.iter().rev() {
                test = self.branch(IF_EQUAL, *value as u32, Target::Return(*action), test);
            }
            let test = self.load(low, test);
            if width == Width::Bits32 {
                return test;
            }
            next = self.branch(IF_EQUAL, (same[0].0 >> 32) as u32, test, next);
        }
        self.load(high, next)
    }

    /// Generates code for clauses with seccompiler.
    ///
    /// seccompiler's code for a rule continues with the next instruction if the rule matches, and otherwise jumps over
    /// it. It begins with a jump over an unreachable instruction, which is removed: its target may be beyond the end of
    /// the program, and the kernel rejects such a program.
    fn conditions(
        &mut self,
        clauses: &[Clause],
        width: Width,
        otherwise: Action,
    ) -> Result<Target, BackendError> {
        let mut start = self.push_return(otherwise);
        for clause in clauses.iter().rev() {
            let conditions = clause.conditions.iter().map(|c| c.to_bpf(width));
            let rule: BpfProgram = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?.into();
            let entry = rule.first().filter(|i| i.code == JUMP).map_or(0, |i| 1 + i.k as usize);
            self.push_return(clause.action);
            for i in rule[entry..].iter().rev() {
                start = self.push(i.code, i.jt, i.jf, i.k);
            }
        }
        Ok(Target::Code(start))
    }
}

/// Returns the argument and its sorted values if each clause is one value of the same argument.
fn alternatives(clauses: &[Clause]) -> Option<(u8, Vec<(u64, Action)>)> {
    let (index, _) = clauses.first()?.equals()?;
    let value = |clause: &Clause| {
        let (same, value) = clause.equals()?;
        (same == index).then_some((value, clause.action))
    };
    let mut values = clauses.iter().map(value).collect::<Option<Vec<_>>>()?;
    values.sort_unstable_by_key(|(value, _)| *value);
    Some((index, values))
}
