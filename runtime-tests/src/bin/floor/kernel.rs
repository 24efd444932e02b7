//! System calls of the floor that nix does not wrap, one per function. All unsafe code of the program is here.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

type Result<T> = std::result::Result<T, Errno>;

fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

fn owned(ret: libc::c_long) -> Result<OwnedFd> {
    let fd = check(ret)? as RawFd;
    // SAFETY: the call that returned this descriptor created it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// clone3 arguments, as in linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into `cgroup` and the new namespaces of `flags`. Returns 0 in the child, and its pid in the parent.
pub fn clone_into(flags: libc::c_int, cgroup: BorrowedFd) -> Result<libc::pid_t> {
    let args = CloneArgs {
        flags: flags as u64 | 0x2_0000_0000, // CLONE_INTO_CGROUP
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork of a single-threaded process; args outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
    Ok(check(ret)? as libc::pid_t)
}

/// One instruction of eBPF.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

impl Insn {
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        Insn { code, regs: src << 4 | dst, off, imm }
    }
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 3],
}

#[repr(C)]
struct ProgAttach {
    target: u32,
    prog: u32,
    kind: u32,
    flags: u32,
}

/// Loads `program` as a device filter.
pub fn device_filter(program: &[Insn]) -> Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    let attr = ProgLoad {
        prog_type: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..ProgLoad::default()
    };
    // SAFETY: the kernel reads insn_cnt instructions and a C string, both alive during the call.
    owned(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &attr, size_of::<ProgLoad>()) })
}

/// Attaches a device filter to a cgroup. It is removed with the cgroup.
pub fn attach_device_filter(cgroup: BorrowedFd, filter: BorrowedFd) -> Result<()> {
    const PROG_ATTACH: libc::c_long = 8;
    let attr = ProgAttach {
        target: cgroup.as_raw_fd() as u32,
        prog: filter.as_raw_fd() as u32,
        kind: 6,  // BPF_CGROUP_DEVICE
        flags: 2, // BPF_F_ALLOW_MULTI
    };
    // SAFETY: attr is a plain struct of the size given.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &attr, size_of::<ProgAttach>()) })?;
    Ok(())
}

/// Creates a detached read-only tmpfs of one inode, which masks a directory.
pub fn empty_tmpfs() -> Result<OwnedFd> {
    const CLOEXEC: libc::c_uint = 1;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    const ATTR_RDONLY: libc::c_uint = 1;
    // SAFETY: every pointer is a C string literal; the others are flags.
    unsafe {
        let fs = owned(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC))?;
        let fd = fs.as_raw_fd();
        let (key, value) = (c"nr_inodes".as_ptr(), c"1".as_ptr());
        check(libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, key, value, 0))?;
        let none = ptr::null::<libc::c_char>();
        check(libc::syscall(libc::SYS_fsconfig, fd, CREATE, none, none, 0))?;
        owned(libc::syscall(libc::SYS_fsmount, fd, CLOEXEC, ATTR_RDONLY))
    }
}

const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH as libc::c_uint;

/// Creates a detached copy of the mount at `dir`/`path`.
pub fn clone_mount(dir: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    let flags = 1 | libc::O_CLOEXEC as libc::c_uint | EMPTY_PATH; // OPEN_TREE_CLONE
    // SAFETY: path is a C string.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches the mount `mount` at `target`.
pub fn attach_mount(mount: BorrowedFd, target: BorrowedFd) -> Result<()> {
    const FROM_AND_TO_EMPTY_PATH: libc::c_uint = 0x4 | 0x40;
    let (from, to, empty) = (mount.as_raw_fd(), target.as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths are the empty C string.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, from, empty, to, empty, FROM_AND_TO_EMPTY_PATH)
    })?;
    Ok(())
}

/// Brings up the loopback interface of the caller's network namespace.
pub fn loopback_up() -> Result<()> {
    // SAFETY: ifreq is plain data, for which zeroes are valid; the ioctl reads it only.
    unsafe {
        let socket =
            owned(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request).into())?;
    }
    Ok(())
}

pub fn set_hostname(name: &CStr) -> Result<()> {
    // SAFETY: pointer and length are of the same string.
    check(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }.into())?;
    Ok(())
}

pub fn drop_from_bounding_set(capability: libc::c_ulong) -> Result<()> {
    // SAFETY: no pointer among the arguments.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into())?;
    Ok(())
}

pub fn no_new_privileges() -> Result<()> {
    // SAFETY: no pointer among the arguments.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    Ok(())
}

/// Sets effective and permitted to the capabilities of `set` (all below 32), inheritable to none.
pub fn set_capabilities(set: u32) -> Result<()> {
    let header = [0x2008_0522_u32, 0];
    let data = [set, set, 0, 0, 0, 0];
    // SAFETY: version 3 of the ABI reads a header of two words and two sets of three.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

pub fn close_on_exec_from(first: libc::c_uint) -> Result<()> {
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks descriptors only; nothing is closed before an exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOEXEC) })?;
    Ok(())
}

/// Maps `count` cells that a forked child shares with its parent.
pub fn shared_cells(count: usize) -> Result<&'static [AtomicU64]> {
    let (size, prot) = (count * size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh zeroed mapping of the size of `count` cells that is never unmapped; zero is a
    // valid AtomicU64, and two processes may share one.
    unsafe {
        let at =
            libc::mmap(ptr::null_mut(), size, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(std::slice::from_raw_parts(at.cast(), count))
    }
}
