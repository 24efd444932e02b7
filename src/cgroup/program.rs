//! Compiles a device filter to an eBPF program; its result 1 permits.
//!
//! The program is a decision tree (kind, then major, then minor) and not a list of rules, because the kernel's
//! verifier follows every path at load time: a tree has as many paths as leaves, and loads in a fraction of the time.
//! A jump leads to a match, and the path without a jump to the next test, so the verifier's knowledge is the same at
//! each visit of a test.

use std::collections::BTreeMap;

use super::devices::{ALL, Kind, Node};
use crate::sys::bpf::Insn;

/// `BPF_DEVCG_DEV_BLOCK`; all other requests are for character devices.
const BLOCK: u32 = 1;

/// Compiles the program. `allow` is the verdict if no exception matches.
pub fn compile(allow: bool, exceptions: &BTreeMap<Node, u8>) -> Vec<Insn> {
    let of = |kind| -> Vec<(Node, u8)> {
        exceptions.iter().filter(|(n, _)| n.kind == kind).map(|(n, a)| (*n, *a)).collect()
    };
    let mut program = Program::default();
    if exceptions.is_empty() {
        program.verdict(allow);
        return program.finish();
    }
    program.head();
    let (blocks, matched) = (program.label(), program.label());
    program.jump(if_equal(Register::Kind, BLOCK), blocks);
    program.section(allow, &of(Kind::Char), matched);
    program.place(blocks);
    program.section(allow, &of(Kind::Block), matched);
    program.place(matched);
    program.verdict(!allow);
    program.finish()
}

#[derive(Clone, Copy)]
enum Register {
    /// Register r0, which also returns the verdict.
    Scratch = 0,
    Context = 1,
    Kind = 2,
    Access = 3,
    Major = 4,
    Minor = 5,
}

/// Index into `Program::labels`.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Program {
    insns: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    /// Instruction of each label; all jumps lead forward.
    labels: Vec<usize>,
}

impl Program {
    fn head(&mut self) {
        self.insns.extend([
            load(Register::Kind, 0),
            copy(Register::Access, Register::Kind),
            and(Register::Kind, 0xffff),
            shift_right(Register::Access, 16),
            load(Register::Major, 4),
            load(Register::Minor, 8),
        ]);
    }

    /// Emits all exceptions of one kind of device. They are sorted: any number comes first.
    fn section(&mut self, allow: bool, exceptions: &[(Node, u8)], matched: Label) {
        let (any, numbered): (Vec<_>, Vec<_>) =
            exceptions.iter().partition(|(node, _)| node.major.is_none());
        if self.tests(allow, &any, matched) {
            return;
        }
        let groups: Vec<&[(Node, u8)]> = numbered.chunk_by(|a, b| a.0.major == b.0.major).collect();
        let labels: Vec<Label> = groups.iter().map(|_| self.label()).collect();
        for (group, label) in groups.iter().zip(&labels) {
            let major = group.iter().find_map(|(node, _)| node.major).unwrap_or_default();
            self.jump(if_equal(Register::Major, major), *label);
        }
        self.verdict(allow);
        for (group, label) in groups.iter().zip(&labels) {
            self.place(*label);
            if !self.tests(allow, group, matched) {
                self.verdict(allow);
            }
        }
    }

    /// Returns true if one of them always matches: the verifier rejects instructions after it, which cannot be
    /// reached.
    fn tests(&mut self, allow: bool, exceptions: &[(Node, u8)], matched: Label) -> bool {
        for (node, access) in exceptions {
            let next = self.label();
            if *access != ALL {
                self.insns.push(copy(Register::Scratch, Register::Access));
                if allow {
                    // Any part of the access is denied.
                    self.insns.push(and(Register::Scratch, (*access).into()));
                    self.jump(if_equal(Register::Scratch, 0), next);
                } else {
                    // All of the access is permitted.
                    self.insns.push(and(Register::Scratch, (!access & ALL).into()));
                    self.jump(unless_equal(Register::Scratch, 0), next);
                }
            }
            match node.minor {
                Some(minor) => self.jump(if_equal(Register::Minor, minor), matched),
                None => self.jump(always(), matched),
            }
            if *access == ALL && node.minor.is_none() {
                return true;
            }
            self.place(next);
        }
        false
    }

    fn verdict(&mut self, permit: bool) {
        self.insns.push(insn(0xb4, Register::Scratch, 0, 0, permit.into()));
        self.insns.push(insn(0x95, Register::Scratch, 0, 0, 0));
    }

    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = self.insns.len();
    }

    fn jump(&mut self, insn: Insn, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.insns.push(insn);
    }

    fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            self.insns[at].offset = (self.labels[label.0] - at - 1) as i16;
        }
        self.insns
    }
}

fn insn(code: u8, to: Register, from: u8, offset: i16, immediate: u32) -> Insn {
    Insn { code, registers: from << 4 | to as u8, offset, immediate: immediate as i32 }
}

/// Loads a 32-bit member of `struct bpf_cgroup_dev_ctx`.
fn load(to: Register, offset: i16) -> Insn {
    insn(0x61, to, Register::Context as u8, offset, 0)
}

fn copy(to: Register, from: Register) -> Insn {
    insn(0xbc, to, from as u8, 0, 0)
}

fn and(to: Register, mask: u32) -> Insn {
    insn(0x54, to, 0, 0, mask)
}

fn shift_right(to: Register, bits: u32) -> Insn {
    insn(0x74, to, 0, 0, bits)
}

fn always() -> Insn {
    insn(0x05, Register::Scratch, 0, 0, 0)
}

/// Compares 32 bits: device numbers are unsigned.
fn if_equal(what: Register, value: u32) -> Insn {
    insn(0x16, what, 0, 0, value)
}

fn unless_equal(what: Register, value: u32) -> Insn {
    insn(0x56, what, 0, 0, value)
}
