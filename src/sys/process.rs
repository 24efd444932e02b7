//! Attributes of the calling process: credentials(7), capabilities(7), keyrings(7), sched(7), its working directory and
//! descriptors, and execve(2).
//!
//! Credentials are set with raw system calls: libc's wrappers signal every thread of the process to do the same, and a
//! process after clone has only one.

use std::ffi::{CStr, CString};
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_char, c_int, c_long, c_ulong};

use super::{Errno, Result, check};

/// Makes a system call whose arguments are all integers.
fn plain(number: c_long, args: [c_ulong; 5]) -> Result<c_long> {
    let [a, b, c, d, e] = args;
    // SAFETY: the callers below pass only calls that access no memory of this process.
    check(unsafe { libc::syscall(number, a, b, c, d, e) })
}

fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> Result<c_long> {
    plain(libc::SYS_prctl, [option as c_ulong, a, b, 0, 0])
}

// Credentials.

/// Sets the supplementary groups.
///
/// # Errors
///
/// An error of setgroups(2).
pub fn set_groups(gids: &[libc::gid_t]) -> Result<()> {
    // SAFETY: the kernel reads `len` gids from the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) })?;
    Ok(())
}

/// Sets the real, effective and saved gid, and with them the file system gid.
///
/// # Errors
///
/// An error of setresgid(2).
pub fn set_gid(gid: libc::gid_t) -> Result<()> {
    let gid = c_ulong::from(gid);
    plain(libc::SYS_setresgid, [gid, gid, gid, 0, 0]).map(drop)
}

/// Sets the real, effective and saved uid, and with them the file system uid.
///
/// # Errors
///
/// An error of setresuid(2).
pub fn set_uid(uid: libc::uid_t) -> Result<()> {
    let uid = c_ulong::from(uid);
    plain(libc::SYS_setresuid, [uid, uid, uid, 0, 0]).map(drop)
}

pub fn umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// Changes the owner of the file of `fd` to `uid`, unless `uid` owns it or it is the device `except`.
///
/// The group changes to `gid` only for a pipe: other users may need the group of a file or a terminal.
///
/// # Errors
///
/// An error of fstat(2) or fchown(2).
pub fn change_owner(
    fd: BorrowedFd,
    uid: libc::uid_t,
    gid: libc::gid_t,
    except: libc::dev_t,
) -> Result<()> {
    let stat = nix::sys::stat::fstat(fd)?;
    let is_pipe = stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
    let group = is_pipe.then_some(gid).filter(|gid| stat.st_gid != *gid);
    if stat.st_rdev == except || (stat.st_uid == uid && group.is_none()) {
        return Ok(());
    }
    nix::unistd::fchown(fd, Some(uid.into()), group.map(Into::into))
}

// Capabilities.

/// Capability sets as bit masks: bit n is capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`, with 64 bits per set in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Reads the capability sets of the calling thread.
///
/// # Errors
///
/// An error of capget(2).
pub fn capget() -> Result<CapabilitySets> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut halves = [CapabilityHalf::default(); 2];
    // SAFETY: with version 3 the kernel writes exactly two halves, which `halves` has.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) })?;
    let whole = |half: fn(&CapabilityHalf) -> u32| {
        u64::from(half(&halves[0])) | u64::from(half(&halves[1])) << 32
    };
    Ok(CapabilitySets {
        effective: whole(|h| h.effective),
        permitted: whole(|h| h.permitted),
        inheritable: whole(|h| h.inheritable),
    })
}

/// Sets the capability sets of the calling thread.
///
/// # Errors
///
/// An error of capset(2).
pub fn capset(sets: &CapabilitySets) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // The cast drops the other half.
    let half = |shift: u32| CapabilityHalf {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: with version 3 the kernel reads exactly two halves, which `halves` has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
    Ok(())
}

/// Removes a capability from the bounding set.
///
/// # Errors
///
/// `EINVAL` if the kernel does not know the capability, or another error of prctl(2).
pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Adds a capability to the ambient set.
///
/// # Errors
///
/// `EPERM` if the capability is not permitted and inheritable, or another error of prctl(2).
pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, capability.into()).map(drop)
}

/// Clears the ambient set.
///
/// # Errors
///
/// An error of prctl(2).
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0).map(drop)
}

/// Sets or clears the flag that keeps the permitted set when all uids change from 0 to others.
///
/// # Errors
///
/// An error of prctl(2).
pub fn set_keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// Sets no_new_privs: execve(2) no longer grants privileges.
///
/// # Errors
///
/// An error of prctl(2).
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Sets the dumpable attribute, without which only privileged users can access the process.
///
/// # Errors
///
/// An error of prctl(2).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

/// Sets the signal that the process gets when its parent ends.
///
/// # Errors
///
/// An error of prctl(2).
pub fn set_parent_death_signal(signal: c_int) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong, 0).map(drop)
}

/// Creates a core scheduling cookie, which children inherit: only processes with the same cookie share the threads of a
/// core from now on (Linux 5.14).
///
/// # Errors
///
/// An error of prctl(2).
pub fn create_core_cookie() -> Result<()> {
    const PR_SCHED_CORE: c_int = 62;
    const PR_SCHED_CORE_CREATE: c_ulong = 1;
    const THREAD_GROUP: c_ulong = 1;
    plain(libc::SYS_prctl, [PR_SCHED_CORE as c_ulong, PR_SCHED_CORE_CREATE, 0, THREAD_GROUP, 0])
        .map(drop)
}

// Keyrings.

/// Joins the session keyring `name`, which is created if it does not exist. Returns its serial number.
///
/// # Errors
///
/// An error of keyctl(2).
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    // SAFETY: the kernel reads a NUL-terminated string, which a `CStr` is.
    let serial = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    // Serial numbers are positive `int32_t`s.
    Ok(serial as i32)
}

/// Reads the description of a key, `type;uid;gid;permissions;name`, into `buffer`.
///
/// # Errors
///
/// `ERANGE` if the buffer is too small, of which nothing is written then, or another error of keyctl(2).
pub fn describe_key(serial: i32, buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `len` bytes to the buffer.
    let length = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_DESCRIBE,
            serial,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })?;
    buffer.get(..length as usize).ok_or(Errno::ERANGE)
}

/// Sets the permissions of a key.
///
/// # Errors
///
/// An error of keyctl(2).
pub fn set_key_permissions(serial: i32, permissions: u32) -> Result<()> {
    let option = c_ulong::from(libc::KEYCTL_SETPERM);
    plain(libc::SYS_keyctl, [option, serial as c_ulong, permissions.into(), 0, 0]).map(drop)
}

// Limits and scheduling.

/// Sets a resource limit of the process `pid`. 0 is the calling process.
///
/// # Errors
///
/// `EPERM` if a hard limit is raised without CAP_SYS_RESOURCE, or another error of prlimit(2).
pub fn prlimit(pid: libc::pid_t, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads one rlimit64, and writes none to a null pointer.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, old) })?;
    Ok(())
}

/// Raised soft limits: resource, and the soft and hard limit that the caller set. A resource of -1 marks an unused
/// entry.
static RAISED: [[AtomicU64; 3]; 2] = [const { [const { AtomicU64::new(u64::MAX) }; 3] }; 2];

/// Resource numbers of the kernel, for which C libraries have different types.
const RLIMIT_STACK: u32 = 3;
const RLIMIT_NOFILE: u32 = 7;

/// Raises the soft limit of the stack. [`restore_soft_limits`] sets the caller's limit again before an execve(2).
pub fn raise_stack() {
    raise(RLIMIT_STACK, 1 << 20, 8 << 20, &RAISED[0]);
}

/// Raises the soft limit of open files. A container needs one descriptor for each prepared mount.
pub fn raise_open_files() {
    raise(RLIMIT_NOFILE, u64::MAX, u64::MAX, &RAISED[1]);
}

/// Raises a soft limit that is below `enough` to at most `most`, as far as the hard limit allows.
fn raise(resource: u32, enough: u64, most: u64, kept: &[AtomicU64; 3]) {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes one rlimit64, and reads none from a null pointer.
    let read = check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut old) });
    if read.is_err() || old.rlim_cur >= old.rlim_max.min(enough) {
        return;
    }
    if prlimit(0, resource, old.rlim_max.min(most), old.rlim_max).is_ok() {
        kept[1].store(old.rlim_cur, Relaxed);
        kept[2].store(old.rlim_max, Relaxed);
        kept[0].store(u64::from(resource), Relaxed);
    }
}

/// Sets the caller's soft limits again, except for resources for which `other` returns true, whose limits are set
/// elsewhere.
///
/// Called once, before execve(2).
pub fn restore_soft_limits(other: impl Fn(u32) -> bool) {
    for [resource, soft, hard] in &RAISED {
        let Ok(resource) = u32::try_from(resource.swap(u64::MAX, Relaxed)) else { continue };
        if !other(resource) {
            // A soft limit can always be lowered.
            let _ = prlimit(0, resource, soft.load(Relaxed), hard.load(Relaxed));
        }
    }
}

/// `struct sched_attr` in the size of its first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling policy and attributes of the calling thread.
///
/// # Errors
///
/// An error of sched_setattr(2).
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes, which is the size of the struct.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(())
}

/// Sets the CPU affinity of the process `pid`; 0 is the caller. `cpus` is a bit mask, of which the kernel ignores bits
/// without a CPU.
///
/// # Errors
///
/// `EINVAL` if no CPU of the mask is allowed, or another error of sched_setaffinity(2).
pub fn sched_setaffinity(pid: libc::pid_t, cpus: &[c_ulong]) -> Result<()> {
    // SAFETY: the kernel reads that many bytes from the slice.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(cpus), cpus.as_ptr())
    })?;
    Ok(())
}

/// Sets the I/O priority of the calling process.
///
/// # Errors
///
/// An error of ioprio_set(2).
pub fn ioprio_set(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: c_ulong = 1;
    plain(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, value.into(), 0, 0]).map(drop)
}

/// Sets the execution domain.
///
/// # Errors
///
/// An error of personality(2).
pub fn personality(persona: u32) -> Result<()> {
    plain(libc::SYS_personality, [persona.into(), 0, 0, 0, 0]).map(drop)
}

/// Sets the memory policy of the calling thread. `nodes` is a bit mask.
///
/// # Errors
///
/// An error of set_mempolicy(2).
pub fn set_mempolicy(mode: u32, nodes: &[c_ulong]) -> Result<()> {
    let (mask, bits) = if nodes.is_empty() {
        (ptr::null(), 0)
    } else {
        // The kernel subtracts one before it rounds up to whole words.
        (nodes.as_ptr(), size_of_val(nodes) * 8 + 1)
    };
    // SAFETY: the kernel reads `bits - 1` bits, which is the length of the slice, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

// Executable files and descriptors.

/// Checks that the effective ids may execute `path`, by faccessat2(2) without libc's emulation.
///
/// # Errors
///
/// `EACCES` if they may not, or another error of faccessat2(2).
pub fn may_execute(path: &CStr) -> Result<()> {
    let (mode, flags) = (libc::X_OK, libc::AT_EACCESS);
    // SAFETY: path is NUL-terminated.
    check(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, flags)
    })?;
    Ok(())
}

/// Returns the working directory as the raw system call reports it: `(unreachable)...` where libc returns `ENOENT`.
///
/// # Errors
///
/// An error of getcwd(2).
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `len` bytes to the buffer.
    let length =
        check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    // The length includes the NUL byte.
    Ok(&buffer[..(length as usize).saturating_sub(1)])
}

/// Closes all descriptors from `first` to `last`, both included.
///
/// # Errors
///
/// An error of close_range(2).
pub fn close_range(first: u32, last: u32) -> Result<()> {
    plain(libc::SYS_close_range, [first.into(), last.into(), 0, 0, 0]).map(drop)
}

/// Marks all descriptors from `first` on as close-on-exec.
///
/// # Errors
///
/// An error of close_range(2).
pub fn cloexec_from(first: u32) -> Result<()> {
    let flag = c_ulong::from(libc::CLOSE_RANGE_CLOEXEC);
    plain(libc::SYS_close_range, [first.into(), u32::MAX.into(), flag, 0, 0]).map(drop)
}

/// Returns true if execve(2) would close `fd`.
///
/// # Errors
///
/// `EBADF` if `fd` is not open.
pub fn is_cloexec(fd: RawFd) -> Result<bool> {
    let flags = plain(libc::SYS_fcntl, [fd as c_ulong, libc::F_GETFD as c_ulong, 0, 0, 0])?;
    Ok(flags & c_long::from(libc::FD_CLOEXEC) != 0)
}

/// Fills every free descriptor number up to `last` with an unused close-on-exec descriptor, until this process executes
/// another program.
///
/// # Errors
///
/// An error of eventfd2(2): `EMFILE` if the limit of open files is too low.
pub fn occupy(last: RawFd) -> Result<()> {
    loop {
        let args = [0, libc::EFD_CLOEXEC as c_ulong, 0, 0, 0];
        // The kernel returns the lowest free number.
        let fd = plain(libc::SYS_eventfd2, args)? as RawFd;
        if fd > last {
            return nix::unistd::close(fd);
        }
    }
}

/// Makes `number` a copy of `fd`, which execve(2) keeps. An open descriptor `number` is closed, so no value of this
/// process may own it.
///
/// # Errors
///
/// An error of dup2(2).
pub fn replace(number: RawFd, fd: impl AsFd) -> Result<()> {
    // SAFETY: the arguments are integers, and the standard descriptors have no owner.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }.into()).map(drop)
}

/// Sets `O_NONBLOCK` on the open file of `fd`. All processes that share the open file are affected.
///
/// # Errors
///
/// An error of fcntl(2).
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

// Execution of another program.

/// NULL-terminated vector of C strings, which execve(2) requires.
pub struct Vector<'a> {
    pointers: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a [CString]>,
}

impl<'a> Vector<'a> {
    pub fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }
}

/// Executes the program at `path`. Returns only on an error.
pub fn execve(path: &CStr, argv: &Vector, env: &Vector) -> Errno {
    // SAFETY: a Vector borrows the strings that it points to, and ends with NULL.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::last()
}

/// Executes an open file as the program. Returns only on an error.
pub fn execute_descriptor(file: BorrowedFd, argv: &Vector, env: &Vector) -> Errno {
    // SAFETY: the same. The empty path is a NUL-terminated string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_survive_the_split_into_halves() {
        // Setting the current values is always allowed, and changes nothing.
        let sets = capget().unwrap();
        capset(&sets).unwrap();
        assert_eq!(capget().unwrap(), sets);
    }

    #[test]
    fn a_closed_descriptor_is_told_from_an_open_one() {
        assert!(is_cloexec(0).is_ok());
        assert_eq!(is_cloexec(1 << 20), Err(Errno::EBADF));
    }

    #[test]
    fn getcwd_is_absolute() {
        let mut buffer = [0; libc::PATH_MAX as usize];
        assert!(getcwd(&mut buffer).unwrap().starts_with(b"/"));
    }
}
