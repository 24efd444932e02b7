//! `syscalls FILE` writes the rows of the table in src/seccomp/syscalls.rs.
//!
//! Most numbers come from the `syscalls` crate, which has the kernel's tables. This file adds what the crate lacks: x32,
//! ARM's private calls, and calls of newer kernels. A new version of the crate, or a row below, and one run of this
//! program bring the table up to date; the test below fails until then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// Columns in the order of `Arch` in src/seccomp/arch.rs: x86_64, i386, x32, aarch64, arm, riscv64.
const COLUMNS: usize = 6;
const X86_64: usize = 0;
const X32: usize = 2;
const AARCH64: usize = 3;
const ARM: usize = 4;

type Row = [Option<u32>; COLUMNS];

/// Calls that are newer than the crate. From 424 on, a call has the same number on every architecture
/// (scripts/syscall.tbl of Linux 7.0).
const NEWER: [(&str, u32); 3] = [("file_setattr", 469), ("listns", 470), ("rseq_slice_yield", 471)];

/// Calls with a number of their own on x32 (arch/x86/entry/syscalls/syscall_64.tbl). The list is complete: the kernel adds
/// no further ones.
const ONLY_X32: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// Calls of x86_64 that x32 lacks.
const NOT_X32: [&str; 11] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// Private calls of 32-bit ARM (asm/unistd.h), which src/seccomp/syscalls.rs stores from 0xf000 on.
const ARM_PRIVATE: [(&str, u32); 6] = [
    ("breakpoint", 0xf001),
    ("cacheflush", 0xf002),
    ("get_tls", 0xf006),
    ("set_tls", 0xf005),
    ("usr26", 0xf003),
    ("usr32", 0xf004),
];

/// Calls of m68k, which the crate lacks. libseccomp and profiles of engines name them.
const OTHER: [&str; 3] = ["atomic_barrier", "atomic_cmpxchg_32", "getpagesize"];

/// Names in the crate that no kernel has: placeholders, and calls by another name than in profiles.
fn is_misnamed(name: &str) -> bool {
    name.starts_with("reserved") || name.starts_with("unused") || name == "llseek"
}

/// Numbers of all calls, by name.
fn table() -> BTreeMap<String, Row> {
    let mut table = BTreeMap::<String, Row>::new();
    macro_rules! column {
        ($column:expr, $arch:ident) => {
            for call in syscalls::$arch::Sysno::iter() {
                let name = call.name().trim_start_matches("r#").to_owned();
                table.entry(name).or_default()[$column] = Some(call.id() as u32);
            }
        };
    }
    column!(X86_64, x86_64);
    column!(1, x86);
    column!(AARCH64, aarch64);
    column!(ARM, arm);
    column!(5, riscv64);
    // 64-bit calls of times are for 32-bit architectures. The crate has them on aarch64, too, by mistake.
    for (name, row) in &mut table {
        if name.ends_with("time64") {
            row[AARCH64] = None;
        }
    }
    // The crate's name of newfstatat on aarch64.
    if let Some(row) = table.remove("fstatat") {
        table.entry("newfstatat".to_owned()).or_default()[AARCH64] = row[AARCH64];
    }
    for (name, number) in NEWER {
        table.insert(name.to_owned(), [Some(number); COLUMNS]);
    }
    for (name, row) in &mut table {
        row[X32] = row[X86_64].filter(|_| !NOT_X32.contains(&name.as_str()));
    }
    for (column, calls) in [(X32, &ONLY_X32[..]), (ARM, &ARM_PRIVATE)] {
        for (name, number) in calls {
            table.entry((*name).to_owned()).or_default()[column] = Some(*number);
        }
    }
    for name in elsewhere() {
        table.entry(name).or_default();
    }
    table
}

/// Names on other architectures that engines' profiles mention.
fn elsewhere() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = OTHER.iter().map(ToString::to_string).collect();
    macro_rules! names {
        ($($arch:ident)*) => {
            $(names.extend(syscalls::$arch::Sysno::iter().map(|call| call.name().to_owned()));)*
        };
    }
    names!(mips mips64 powerpc powerpc64 s390x);
    names.retain(|name| !is_misnamed(name) && !name.starts_with("r#"));
    names
}

/// Rows as Rust text.
fn rows() -> String {
    let line = |(name, row): (&String, &Row)| {
        let number = |number: &Option<u32>| match number {
            None => "NO".to_owned(),
            Some(private @ 0xf000..) => format!("{private:#x}"),
            Some(number) => number.to_string(),
        };
        format!("    s({name:?}, [{}]),\n", row.each_ref().map(number).join(", "))
    };
    table().iter().map(line).collect()
}

/// Splits the source around the rows.
fn split(source: &str) -> Option<(&str, &str, &str)> {
    let begin = source.find("static TABLE: [Syscall; ")?;
    let begin = begin + source[begin..].find("\n")? + 1;
    let end = begin + source[begin..].find("];\n")?;
    Some((&source[..begin], &source[begin..end], &source[end..]))
}

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: syscalls FILE")?;
    let path = Path::new(&path);
    let source = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, old, after) = split(&source).context("no table of system calls in the file")?;
    let count = |rows: &str| format!("[Syscall; {}]", rows.lines().count());
    let rows = rows();
    let text = format!("{before}{rows}{after}").replace(&count(old), &count(&rows));
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_current() {
        let source = include_str!("../../../src/seccomp/syscalls.rs");
        let (_, current, _) = split(source).unwrap();
        let rows = rows();
        assert!(rows.lines().count() > 400);
        for (row, found) in rows.lines().zip(current.lines()) {
            assert_eq!(found, row, "run this program");
        }
        assert_eq!(current.len(), rows.len());
    }
}
