//! Executes Aril again from a sealed binary, which no container can write (CVE-2019-5736).
//!
//! A container's first program may be `/proc/self/exe`, as a path, an interpreter or a loader. At that moment the
//! link still names the runtime. A container that keeps it open could write to it once no runtime runs. So every
//! command that starts a process in a container first executes itself again, from a detached read-only clone of
//! the mount that holds its binary. No process can make that clone writable: execve closes its only descriptor,
//! and the mount is in no mount namespace. Where the mount cannot be cloned, a sealed copy in memory
//! (memfd_create(2)) takes its place.

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

/// Ensures that this process runs from a sealed binary. If it does not yet, executes the program again and does
/// not return.
///
/// # Errors
/// If the binary can be neither cloned nor copied, or execveat(2) fails.
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
    // A writable clone would make the program execute itself forever.
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
    // The kernel fails with EINVAL for a file on any other file system.
    Ok(fcntl(&own, FcntlArg::F_GET_SEALS)
        .is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(seals())))
}

/// Returns a path of Aril's binary that is not a sealed copy in memory. For a resident process that no container
/// can access: a copy would cost its memory.
///
/// # Errors
/// If `/proc/self/exe` cannot be read.
pub fn unsealed() -> Result<CString> {
    let own = std::fs::read_link("/proc/self/exe").os("readlink", "/proc/self/exe")?;
    // The name of a sealed copy is the path of its source.
    let own = own.into_os_string().into_vec();
    let path = own.strip_prefix(b"/memfd:").and_then(|rest| rest.strip_suffix(b" (deleted)"));
    Ok(path.and_then(|path| CString::new(path).ok()).unwrap_or_else(|| OWN.to_owned()))
}

fn sealed_copy() -> Result<OwnedFd> {
    let what = || "copy the runtime's binary to memory".to_owned();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let path = std::fs::read_link("/proc/self/exe").os("readlink", "/proc/self/exe")?;
    let name = CString::new(path.into_os_string().into_vec()).unwrap_or_default();
    // The kernel rejects a name of more than 249 bytes.
    let copy = memfd_create(name.as_c_str(), flags).or_else(|_| memfd_create(c"aril", flags));
    let copy = copy.os("memfd_create", "aril").context(what)?;
    let mut source = std::fs::File::open("/proc/self/exe").os("open", "/proc/self/exe")?;
    let mut target = std::fs::File::from(copy);
    std::io::copy(&mut source, &mut target).os("write", "memfd").context(what)?;
    fcntl(&target, FcntlArg::F_ADD_SEALS(seals())).os("fcntl", "F_ADD_SEALS").context(what)?;
    // execve(2) fails with ETXTBSY while a descriptor can write.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    std::fs::File::open(&path).os("open", &path).map(OwnedFd::from)
}

#[expect(clippy::disallowed_methods, reason = "the same command again, from a sealed binary")]
fn execute(binary: &OwnedFd, command_line: &[OsString]) -> Result<()> {
    // Words from the kernel contain no NUL byte.
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
