//! bpf(2) for device filters of cgroups and guards of bridges.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Result, check};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// `union bpf_attr` of BPF_PROG_LOAD, up to the last member that is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
    tail: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    tail: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
///
/// Every pointer that `attr` contains as an integer must be valid for the access that `command` makes.
unsafe fn bpf<A>(command: libc::c_long, attr: &mut A) -> Result<libc::c_long> {
    // SAFETY: `attr` is a live, initialised `repr(C)` value of exactly the size passed. The caller guarantees the
    // pointers in it.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut A, size_of::<A>()) })
}

/// Takes ownership of a new descriptor.
///
/// # Safety
///
/// `fd` must be the return value of a call that creates a descriptor, without another owner.
unsafe fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the caller guarantees it. Descriptors of the kernel fit `RawFd`.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Loads a device filter, which the kernel verifies and compiles. The kernel sets close-on-exec.
///
/// # Errors
///
/// `EACCES` or `EINVAL` if the verifier rejects the program, `EPERM` without privileges, or another error of bpf(2).
pub fn load_device_filter(program: &[Insn]) -> Result<OwnedFd> {
    load(program, *b"aril_devices\0\0\0\0", PROG_TYPE_CGROUP_DEVICE, CGROUP_DEVICE)
}

/// Loads a classifier of packets, for tc-bpf(8).
///
/// # Errors
///
/// The errors of [`load_device_filter`].
pub fn load_classifier(program: &[Insn]) -> Result<OwnedFd> {
    load(program, *b"aril_guard\0\0\0\0\0\0", PROG_TYPE_SCHED_CLS, 0)
}

fn load(program: &[Insn], name: [u8; 16], prog_type: u32, attach_type: u32) -> Result<OwnedFd> {
    let mut attr = Load {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: name,
        expected_attach_type: attach_type,
        ..Load::default()
    };
    // SAFETY: `insns` points to `insn_cnt` instructions that `program` keeps alive, `license` to a static C string. The
    // kernel only reads both. There is no log buffer.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor.
    Ok(unsafe { own(fd) })
}

/// Attaches a device filter to a cgroup, in addition to the existing ones or instead of `replaced`.
///
/// # Errors
///
/// An error of bpf(2).
pub fn attach_device_filter(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    replaced: Option<BorrowedFd>,
) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if replaced.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, |fd| fd.as_raw_fd()),
        tail: 0,
    };
    // SAFETY: the command takes no pointer.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Returns the device filter that is attached to the cgroup itself. `None` if there is none, or more than one.
///
/// # Errors
///
/// An error of bpf(2).
pub fn sole_device_filter(cgroup: BorrowedFd) -> Result<Option<OwnedFd>> {
    let mut ids = [0_u32; 2];
    let mut attr = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: `prog_ids` points to `prog_cnt` numbers of `ids`, which outlives the call and has no other reference.
    let answer = unsafe { bpf(PROG_QUERY, &mut attr) };
    match answer {
        Ok(_) if attr.prog_cnt == 1 => {
            let mut attr = ById { id: ids[0], ..ById::default() };
            // SAFETY: the command takes no pointer.
            let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
            // SAFETY: BPF_PROG_GET_FD_BY_ID returned a new descriptor.
            Ok(Some(unsafe { own(fd) }))
        }
        // ENOSPC means that there are more ids than `ids` has room for, so more than one.
        Ok(_) | Err(super::Errno::ENOSPC) => Ok(None),
        Err(errno) => Err(errno),
    }
}
