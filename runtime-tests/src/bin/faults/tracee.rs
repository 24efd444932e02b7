//! Registers and memory of a stopped process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// Beginning of `struct ptrace_syscall_info` (ptrace(2)).
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    padding: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    number: u64,
    arguments: [u64; 6],
    more: [u64; 4],
}

const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u8 = 1;
const EXIT: u8 = 2;

/// Which stop of a call it is.
#[derive(Debug)]
pub enum Stop {
    Entry { number: i64, arguments: [u64; 6] },
    Exit,
    Other,
}

pub fn stop(pid: Pid) -> Result<Stop> {
    let mut info = SyscallInfo::default();
    // SAFETY: the kernel writes at most the given size to `info`, which outlives the call.
    let length = unsafe {
        libc::ptrace(GET_SYSCALL_INFO as _, pid.as_raw(), size_of::<SyscallInfo>(), &raw mut info)
    };
    Errno::result(length).context("PTRACE_GET_SYSCALL_INFO")?;
    Ok(match info.op {
        ENTRY => Stop::Entry { number: info.number.cast_signed(), arguments: info.arguments },
        EXIT => Stop::Exit,
        _ => Stop::Other,
    })
}

/// Makes the kernel skip the call at whose entry the process is.
#[cfg(target_arch = "x86_64")]
pub fn skip_call(pid: Pid) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers)
}

/// Sets the result of the call at whose exit the process is.
#[cfg(target_arch = "x86_64")]
pub fn set_error(pid: Pid, errno: Errno) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = i64::from(-(errno as i32)).cast_unsigned();
    ptrace::setregs(pid, registers)
}

/// Reads a string that ends in NUL.
pub fn string(pid: Pid, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; 256];
    let length = memory.read_at(&mut bytes, address).ok()?;
    let text = bytes[..length].split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).replace(['\t', '\n'], " "))
}

/// Path or kind of an open file.
pub fn file(pid: Pid, descriptor: u64) -> Option<String> {
    let link = format!("/proc/{pid}/fd/{}", descriptor as u32);
    Some(std::fs::read_link(link).ok()?.to_string_lossy().into_owned())
}
