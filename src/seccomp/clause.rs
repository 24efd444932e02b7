//! Conditions on arguments, and the order that decides if several match.

use std::cmp::{Ordering, Reverse};

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Op};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

use super::Action;

/// Action with conditions, which must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    pub conditions: Vec<Condition>,
    pub action: Action,
}

/// Comparison of one argument. `mask` selects bits for MASKED_EQ, and all bits for other operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    index: u8,
    op: Op,
    mask: u64,
    value: u64,
}

/// Number of bits of an argument that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Bits32,
    Bits64,
}

impl Width {
    fn mask(self) -> u64 {
        match self {
            Self::Bits32 => u64::from(u32::MAX),
            Self::Bits64 => u64::MAX,
        }
    }
}

/// Number of arguments of a system call.
pub const ARGUMENTS: usize = 6;

impl Condition {
    /// Converts a condition of the specification. The caller has checked that the index is below [`ARGUMENTS`].
    pub fn from_spec(arg: &LinuxSeccompArg) -> Self {
        let index = arg.index() as u8;
        match arg.op() {
            Op::ScmpCmpMaskedEq => {
                let (mask, value) = (arg.value(), arg.value_two().unwrap_or(0));
                Self { index, op: Op::ScmpCmpMaskedEq, mask, value: value & mask }
            }
            op => Self { index, op, mask: u64::MAX, value: arg.value() },
        }
    }

    /// Returns the condition that an argument equals `value`.
    pub fn equals(index: u8, value: u64) -> Self {
        Self { index, op: Op::ScmpCmpEq, mask: u64::MAX, value }
    }

    pub fn index(&self) -> u8 {
        self.index
    }

    /// Returns the condition as an architecture compares it. `None` if it always holds.
    fn narrow(self, width: Width) -> Option<Self> {
        let bits = width.mask();
        let narrowed = Self { mask: self.mask & bits, value: self.value & bits, ..self };
        (narrowed.mask != 0).then_some(narrowed)
    }

    /// Converts the condition for seccompiler.
    ///
    /// # Errors
    ///
    /// seccompiler rejects the condition.
    pub fn to_bpf(self, width: Width) -> Result<SeccompCondition, seccompiler::BackendError> {
        let length = match width {
            Width::Bits32 => SeccompCmpArgLen::Dword,
            Width::Bits64 => SeccompCmpArgLen::Qword,
        };
        let op = match self.op {
            Op::ScmpCmpNe => SeccompCmpOp::Ne,
            Op::ScmpCmpLt => SeccompCmpOp::Lt,
            Op::ScmpCmpLe => SeccompCmpOp::Le,
            Op::ScmpCmpEq => SeccompCmpOp::Eq,
            Op::ScmpCmpGe => SeccompCmpOp::Ge,
            Op::ScmpCmpGt => SeccompCmpOp::Gt,
            Op::ScmpCmpMaskedEq => SeccompCmpOp::MaskedEq(self.mask),
        };
        SeccompCondition::new(self.index, length, op, self.value)
    }

    /// Returns true if the condition holds for `args`.
    #[cfg(any(test, fuzzing))]
    pub fn holds(&self, args: &[u64; ARGUMENTS], width: Width) -> bool {
        let Some(c) = self.narrow(width) else { return true };
        let arg = args[usize::from(c.index)] & width.mask();
        match c.op {
            Op::ScmpCmpNe => arg != c.value,
            Op::ScmpCmpLt => arg < c.value,
            Op::ScmpCmpLe => arg <= c.value,
            Op::ScmpCmpEq => arg == c.value,
            Op::ScmpCmpGe => arg >= c.value,
            Op::ScmpCmpGt => arg > c.value,
            Op::ScmpCmpMaskedEq => arg & c.mask == c.value,
        }
    }

    /// Orders conditions: the more specific one first, like libseccomp's order of the nodes of one level of its tree.
    fn precedence(&self, other: &Self) -> Ordering {
        let class = |op| match op {
            Op::ScmpCmpEq | Op::ScmpCmpNe | Op::ScmpCmpMaskedEq => 0,
            Op::ScmpCmpLt | Op::ScmpCmpLe => 1,
            Op::ScmpCmpGt | Op::ScmpCmpGe => 2,
        };
        (Reverse(self.index), class(self.op))
            .cmp(&(Reverse(other.index), class(other.op)))
            .then_with(|| match self.op {
                Op::ScmpCmpLt | Op::ScmpCmpLe => self.value.cmp(&other.value),
                _ => other.value.cmp(&self.value),
            })
    }
}

impl Clause {
    /// Returns the argument and its value if the clause consists of one EQ condition.
    pub fn equals(&self) -> Option<(u8, u64)> {
        match self.conditions[..] {
            [Condition { index, op: Op::ScmpCmpEq, value, .. }] => Some((index, value)),
            _ => None,
        }
    }

    /// Returns the clause as an architecture compares it.
    pub fn narrow(&self, width: Width) -> Self {
        let conditions = self.conditions.iter().filter_map(|c| c.narrow(width)).collect();
        Self { conditions, action: self.action }
    }

    /// Orders clauses. If two match, the lesser decides.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.conditions
            .iter()
            .zip(&other.conditions)
            .map(|(a, b)| a.precedence(b))
            .find(|o| o.is_ne())
            .unwrap_or_else(|| self.conditions.len().cmp(&other.conditions.len()))
    }
}
