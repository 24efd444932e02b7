//! Architectures that a filter can distinguish.

use std::fmt;

use oci_spec::runtime::Arch as SpecArch;

use super::clause::Width;

/// Architecture with a table of system calls. The order is that of the columns of [`super::syscalls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

impl Arch {
    pub const COUNT: usize = Self::ALL.len();
    pub const ALL: [Self; 6] =
        [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm, Self::Riscv64];

    /// Returns the architecture that this program was built for.
    pub const fn native() -> Self {
        if cfg!(target_arch = "x86_64") {
            Self::X86_64
        } else if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else if cfg!(target_arch = "riscv64") {
            Self::Riscv64
        } else {
            panic!("no system call table for this architecture")
        }
    }

    /// Converts an architecture of the specification. `None` if Aril has no table of it: a filter never sees its calls,
    /// because no kernel that Aril runs on supports it.
    pub fn from_spec(arch: SpecArch, native: Self) -> Option<Self> {
        Some(match arch {
            SpecArch::ScmpArchNative => native,
            SpecArch::ScmpArchX86_64 => Self::X86_64,
            SpecArch::ScmpArchX86 => Self::X86,
            SpecArch::ScmpArchX32 => Self::X32,
            SpecArch::ScmpArchAarch64 => Self::Aarch64,
            SpecArch::ScmpArchArm => Self::Arm,
            SpecArch::ScmpArchRiscv64 => Self::Riscv64,
            _ => return None,
        })
    }

    /// Returns `AUDIT_ARCH_*` of linux/audit.h, the value of `seccomp_data.arch`.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Bit in the numbers of x32, which has the same `AUDIT_ARCH_*` as x86_64.
    pub const X32_BIT: u32 = 0x4000_0000;

    pub fn first_number(self) -> u32 {
        if self == Self::X32 { Self::X32_BIT } else { 0 }
    }

    /// Returns the width of arguments. libseccomp compares 32 bits if pointers have 32 bits.
    pub fn width(self) -> Width {
        match self {
            Self::X86_64 | Self::Aarch64 | Self::Riscv64 => Width::Bits64,
            Self::X86 | Self::X32 | Self::Arm => Width::Bits32,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
            Self::Riscv64 => "riscv64",
        })
    }
}
