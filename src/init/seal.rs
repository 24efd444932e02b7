//! Running from a copy of our own binary that no container can write (CVE-2019-5736).
//!
//! A container's first program may be `/proc/self/exe`, as a path, an interpreter or a loader: at
//! that moment this still names the runtime, and who holds it open can write to it once no runtime
//! runs. So whatever puts a process into a container first executes itself again from a detached,
//! read-only clone of the mount that its binary is on. Nothing can make that clone writable: its
//! only descriptor closes with the exec, and with it the kernel takes it out of every mount
//! namespace.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};

use crate::error::{Context, Error, OsContext, Result};
use crate::sys::Errno;
use crate::sys::mount::{Attributes, Extent, mount_setattr, open_tree};
use crate::sys::process::{Vector, execute_descriptor, raise_open_files, restore_soft_limits};

const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Returns once this process runs from a protected binary. The first call in a process does not
/// return: it executes the program again.
pub fn seal(command_line: &[OsString]) -> Result<()> {
    let flags = statvfs(OWN).os("statvfs", "/proc/self/exe")?.flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let clone = match read_only_clone() {
        Err(Errno::EMFILE) => {
            raise_open_files();
            read_only_clone()
        }
        other => other,
    };
    let binary = match clone {
        Ok(clone) => clone,
        // Without CAP_SYS_ADMIN over this mount namespace, or Linux before 5.12.
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => {
            if is_sealed_copy()? {
                return Ok(());
            }
            sealed_copy()?
        }
        Err(errno) => return Err(Error::os("open_tree", "/proc/self/exe", errno)),
    };
    execute(&binary, command_line)
}

fn read_only_clone() -> std::result::Result<OwnedFd, Errno> {
    let clone = open_tree(None, OWN, Extent::One)?;
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount_setattr(clone.as_fd(), Extent::One, read_only)?;
    // If it were not, the next incarnation would come here again, for ever.
    match fstatvfs(&clone)?.flags().contains(FsFlags::ST_RDONLY) {
        true => Ok(clone),
        false => Err(Errno::EINVAL),
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn is_sealed_copy() -> Result<bool> {
    let own = std::fs::File::open("/proc/self/exe").os("open", "/proc/self/exe")?;
    // Any other file system answers EINVAL.
    Ok(fcntl(&own, FcntlArg::F_GET_SEALS)
        .is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(seals())))
}

/// A program to execute that is not a copy of its own in memory: for a process that stays, and that no
/// container can reach.
pub fn unsealed() -> Result<CString> {
    let own = std::fs::read_link("/proc/self/exe").os("readlink", "/proc/self/exe")?;
    // The name of the copy is where it was made from.
    let own = own.into_os_string().into_vec();
    let path = own.strip_prefix(b"/memfd:").and_then(|rest| rest.strip_suffix(b" (deleted)"));
    Ok(path.and_then(|path| CString::new(path).ok()).unwrap_or_else(|| OWN.to_owned()))
}

fn sealed_copy() -> Result<OwnedFd> {
    let what = || "copy the runtime's binary".to_owned();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let path = std::fs::read_link("/proc/self/exe").os("readlink", "/proc/self/exe")?;
    let name = CString::new(path.into_os_string().into_vec()).unwrap_or_default();
    // A name of more than 249 bytes is refused.
    let copy = memfd_create(name.as_c_str(), flags).or_else(|_| memfd_create(c"aril", flags));
    let copy = copy.os("memfd_create", "aril").context(what)?;
    let mut source = std::fs::File::open("/proc/self/exe").os("open", "/proc/self/exe")?;
    let mut target = std::fs::File::from(copy);
    std::io::copy(&mut source, &mut target).os("write", "memfd").context(what)?;
    fcntl(&target, FcntlArg::F_ADD_SEALS(seals())).os("fcntl", "F_ADD_SEALS").context(what)?;
    // A descriptor that may write would keep execve away (ETXTBSY).
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    std::fs::File::open(&path).os("open", &path).map(OwnedFd::from)
}

fn execute(binary: &OwnedFd, command_line: &[OsString]) -> Result<()> {
    // What came from the kernel has no NUL inside.
    let words = |text: OsString| CString::new(text.into_vec()).ok();
    let arguments: Vec<_> = command_line.iter().cloned().filter_map(words).collect();
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            words(name)
        })
        .collect();
    restore_soft_limits(|_| false);
    let errno =
        execute_descriptor(binary.as_fd(), &Vector::new(&arguments), &Vector::new(&environment));
    Err(Error::os("execveat", "the runtime's own binary", errno))
}
