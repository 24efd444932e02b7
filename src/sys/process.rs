//! A process's own attributes: credentials(7), capabilities(7), keyrings(7), sched(7), its working
//! directory and descriptors, and the image it becomes.
//!
//! Credentials go through the raw calls: libc's wrappers signal every thread of the process to
//! follow, and what runs after clone has only one.

use std::ffi::{CStr, CString};
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_char, c_int, c_long, c_ulong};

use super::{Errno, Result, check};

/// A system call whose arguments are all numbers.
fn plain(number: c_long, args: [c_ulong; 5]) -> Result<c_long> {
    let [a, b, c, d, e] = args;
    // SAFETY: the callers below pass only calls that read and write no memory of ours.
    check(unsafe { libc::syscall(number, a, b, c, d, e) })
}

fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> Result<c_long> {
    plain(libc::SYS_prctl, [option as c_ulong, a, b, 0, 0])
}

// Credentials.

pub fn set_groups(gids: &[libc::gid_t]) -> Result<()> {
    // SAFETY: the kernel reads `len` gids from the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) })?;
    Ok(())
}

/// Real, effective, saved (and with them the file system's) gid.
pub fn set_gid(gid: libc::gid_t) -> Result<()> {
    let gid = c_ulong::from(gid);
    plain(libc::SYS_setresgid, [gid, gid, gid, 0, 0]).map(drop)
}

/// Real, effective, saved (and with them the file system's) uid.
pub fn set_uid(uid: libc::uid_t) -> Result<()> {
    let uid = c_ulong::from(uid);
    plain(libc::SYS_setresuid, [uid, uid, uid, 0, 0]).map(drop)
}

pub fn umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// Gives the file behind `fd` to `uid` unless it has that owner or is the device `except`. A pipe gets the
/// group `gid`, too; the group of a file or a terminal may be there for others.
pub fn give_file(
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits per set, in two halves.
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

pub fn capget() -> Result<CapabilitySets> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut halves = [CapabilityHalf::default(); 2];
    // SAFETY: version 3 makes the kernel write exactly two halves, which `halves` has.
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

pub fn capset(sets: &CapabilitySets) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // The cast cuts off the other half.
    let half = |shift: u32| CapabilityHalf {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 makes the kernel read exactly two halves, which `halves` has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
    Ok(())
}

pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, capability.into()).map(drop)
}

pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0).map(drop)
}

pub fn set_keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

pub fn set_parent_death_signal(signal: c_int) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong, 0).map(drop)
}

/// From now on only processes with the same cookie, which children inherit, share a core's threads
/// (Linux 5.14).
pub fn share_core_with_own_only() -> Result<()> {
    const PR_SCHED_CORE: c_int = 62;
    const PR_SCHED_CORE_CREATE: c_ulong = 1;
    const THREAD_GROUP: c_ulong = 1;
    plain(libc::SYS_prctl, [PR_SCHED_CORE as c_ulong, PR_SCHED_CORE_CREATE, 0, THREAD_GROUP, 0])
        .map(drop)
}

// Keyrings.

/// Joins the session keyring of that name, made if there is none. Returns its serial number.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    // SAFETY: the kernel reads a NUL-terminated string, which a `CStr` is.
    let serial = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    // Serial numbers are positive `int32_t`s.
    Ok(serial as i32)
}

/// Reads a key's description, `type;uid;gid;permissions;name`, into `buffer`. The kernel copies all of
/// it or nothing: `ERANGE`.
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

pub fn set_key_permissions(serial: i32, permissions: u32) -> Result<()> {
    let option = c_ulong::from(libc::KEYCTL_SETPERM);
    plain(libc::SYS_keyctl, [option, serial as c_ulong, permissions.into(), 0, 0]).map(drop)
}

// Limits and scheduling.

pub fn prlimit(pid: libc::pid_t, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads one rlimit64, and writes none back to a null pointer.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, old) })?;
    Ok(())
}

/// Soft limits that were raised: resource, soft and hard limit as the caller set
/// them; the resource is -1 where it did not.
static RAISED: [[AtomicU64; 3]; 2] = [const { [const { AtomicU64::new(u64::MAX) }; 3] }; 2];

/// As the kernel numbers them: C libraries differ on the type.
const RLIMIT_STACK: u32 = 3;
const RLIMIT_NOFILE: u32 = 7;

/// Room on this process's stack. What it executes gets the caller's limit by [`restore_soft_limits`].
pub fn raise_stack() {
    raise(RLIMIT_STACK, 1 << 20, 8 << 20, &RAISED[0]);
}

/// The same for descriptors, of which a container needs one for each mount that is prepared.
pub fn raise_open_files() {
    raise(RLIMIT_NOFILE, u64::MAX, u64::MAX, &RAISED[1]);
}

/// Raises a soft limit below `enough`, as far as the hard limit allows, to `most` at the most.
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

/// Gives this process the caller's limits again, but for those resources that `other` sets otherwise.
/// Once: before another program.
pub fn restore_soft_limits(other: impl Fn(u32) -> bool) {
    for [resource, soft, hard] in &RAISED {
        let Ok(resource) = u32::try_from(resource.swap(u64::MAX, Relaxed)) else { continue };
        if !other(resource) {
            // A soft limit can always be lowered.
            let _ = prlimit(0, resource, soft.load(Relaxed), hard.load(Relaxed));
        }
    }
}

/// `struct sched_attr`, in the size of its first version.
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

pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes, which is the struct's size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(())
}

/// `cpus` is a bit mask; the kernel ignores the bits it has no CPU for. Pid 0 is the caller.
pub fn sched_setaffinity(pid: libc::pid_t, cpus: &[c_ulong]) -> Result<()> {
    // SAFETY: the kernel reads that many bytes from the slice.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(cpus), cpus.as_ptr())
    })?;
    Ok(())
}

pub fn ioprio_set(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: c_ulong = 1;
    plain(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, value.into(), 0, 0]).map(drop)
}

pub fn personality(persona: u32) -> Result<()> {
    plain(libc::SYS_personality, [persona.into(), 0, 0, 0, 0]).map(drop)
}

/// `nodes` is a bit mask.
pub fn set_mempolicy(mode: u32, nodes: &[c_ulong]) -> Result<()> {
    let (mask, bits) = if nodes.is_empty() {
        (ptr::null(), 0)
    } else {
        // The kernel takes one off before it rounds up to whole words.
        (nodes.as_ptr(), size_of_val(nodes) * 8 + 1)
    };
    // SAFETY: the kernel reads `bits - 1` bits, which is the slice's length, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

// Files, as far as a process's start needs them.

/// May the effective ids execute `path`? faccessat2(2), without libc's emulation of it.
pub fn may_execute(path: &CStr) -> Result<()> {
    let (mode, flags) = (libc::X_OK, libc::AT_EACCESS);
    // SAFETY: path is NUL-terminated.
    check(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, flags)
    })?;
    Ok(())
}

/// The raw call's answer: `(unreachable)...` where libc would say ENOENT.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `len` bytes to the buffer.
    let length =
        check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    // The length counts the closing NUL.
    Ok(&buffer[..(length as usize).saturating_sub(1)])
}

/// All descriptors from `first` to `last`, both included.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    plain(libc::SYS_close_range, [first.into(), last.into(), 0, 0, 0]).map(drop)
}

/// Marks all descriptors from `first` on to be closed by execve.
pub fn cloexec_from(first: u32) -> Result<()> {
    let flag = c_ulong::from(libc::CLOSE_RANGE_CLOEXEC);
    plain(libc::SYS_close_range, [first.into(), u32::MAX.into(), flag, 0, 0]).map(drop)
}

/// Whether `fd` is open; if so, whether execve would close it.
pub fn is_cloexec(fd: RawFd) -> Result<bool> {
    let flags = plain(libc::SYS_fcntl, [fd as c_ulong, libc::F_GETFD as c_ulong, 0, 0, 0])?;
    Ok(flags & c_long::from(libc::FD_CLOEXEC) != 0)
}

/// Gives every number up to `last` that is free to a descriptor that is of no use to anybody,
/// and close-on-exec, until this process executes another program.
pub fn occupy(last: RawFd) -> Result<()> {
    loop {
        let args = [0, libc::EFD_CLOEXEC as c_ulong, 0, 0, 0];
        // The kernel takes the lowest number that is free.
        let fd = plain(libc::SYS_eventfd2, args)? as RawFd;
        if fd > last {
            return nix::unistd::close(fd);
        }
    }
}

/// Makes `number` a copy of `fd`, which execve keeps. What was open there is closed: nothing in this
/// process may own it.
pub fn replace(number: RawFd, fd: impl AsFd) -> Result<()> {
    // SAFETY: takes integers only; the standard descriptors have no owner.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }.into()).map(drop)
}

/// Of the open file: whoever shares it does not block either.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

// The next image.

/// A NULL-terminated vector of C strings, as execve(2) wants it.
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

/// Returns only if the kernel refuses.
pub fn execve(path: &CStr, argv: &Vector, env: &Vector) -> Errno {
    // SAFETY: a Vector borrows the strings it points to and ends with NULL.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::last()
}

/// The same for an open file. Returns only if the kernel refuses.
pub fn execute_descriptor(file: BorrowedFd, argv: &Vector, env: &Vector) -> Errno {
    // SAFETY: as above; the empty path is a NUL-terminated string.
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
        // Setting what one has is always allowed, and changes nothing.
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
