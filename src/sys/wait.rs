//! waitid(2) for a process that waits for a long time, with almost none of its program in memory.
//!
//! Code is mapped from the program's file. An access to one page loads its neighbors too: 64 KB, or as much as the page
//! cache holds in one piece. So the function that waits turns its own pages into a separate mapping (the kernel does
//! not merge mappings with different advice), and drops all others. It calls the kernel without the C library, whose
//! function would load the library's pages again.

use std::ffi::c_int;
use std::ptr;

use super::pidfd::Ended;
use super::{Errno, Result};

/// Reaps the next child that ends.
///
/// # Errors
///
/// `ECHILD` if there are no children.
pub fn next_child() -> Result<(libc::pid_t, Ended)> {
    let mut image = Image { start: 0, end: 0 };
    // SAFETY: `find` gets the Image that it expects, and never unwinds.
    unsafe { libc::dl_iterate_phdr(Some(find), (&raw mut image).cast()) };
    loop {
        // SAFETY: siginfo_t is plain data, for which zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        match wait(&image, &mut info) {
            Ok(()) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        // SAFETY: waitid filled the SIGCHLD members.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok(match info.si_code {
            libc::CLD_EXITED => (pid, Ended::Exited(status)),
            _ => (pid, Ended::Signaled(status)),
        });
    }
}

/// Segment of the program's file that contains this code: whole pages, not writable.
struct Image {
    start: usize,
    end: usize,
}

const PAGE: usize = 4096;

/// Fills an [`Image`]. It is the callback of dl_iterate_phdr(3).
///
/// # Safety
///
/// `object` describes a loaded object, and `image` is an [`Image`] without another user.
unsafe extern "C" fn find(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    image: *mut libc::c_void,
) -> c_int {
    // SAFETY: the caller guarantees it. The headers live as long as the object is loaded.
    let (base, headers, image) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr as usize, headers, &mut *image.cast::<Image>())
    };
    let code = wait as *const () as usize;
    for header in headers {
        let start = base + header.p_vaddr as usize;
        let end = start + header.p_memsz as usize;
        let read_only = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
        if read_only && (start..end).contains(&code) {
            *image = Image { start: start.next_multiple_of(PAGE), end: end & !(PAGE - 1) };
        }
    }
    0
}

/// Drops all pages of the image except those of this function, and waits.
#[inline(never)]
fn wait(image: &Image, info: &mut libc::siginfo_t) -> Result<()> {
    let own = wait as *const () as usize & !(PAGE - 1);
    let length = 2 * PAGE;
    let image_length = image.end.saturating_sub(image.start);
    // SAFETY: the first two calls name pages that are mapped from the program's file and are not writable. They change
    // how the kernel reads them ahead, and drop pages that the kernel reads again when needed. With another page size
    // than `PAGE` they fail, which changes nothing. The third call writes `info`.
    let ended = unsafe {
        call(libc::SYS_madvise, [own, length, libc::MADV_RANDOM as usize, 0, 0]);
        call(libc::SYS_madvise, [image.start, image_length, libc::MADV_DONTNEED as usize, 0, 0]);
        let info = ptr::from_mut(info) as usize;
        call(libc::SYS_waitid, [libc::P_ALL as usize, 0, info, libc::WEXITED as usize, 0])
    };
    if ended < 0 { Err(Errno::from_raw(-ended as i32)) } else { Ok(()) }
}

/// Makes a system call without the C library, and returns the kernel's value.
///
/// # Safety
///
/// The safety requirements of the system call itself.
#[inline(always)]
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result: isize;
    // SAFETY: this is the kernel's calling convention. The registers that it changes are named, and no stack is used.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    // SAFETY: the same.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        std::arch::asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") a => result,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e,
            options(nostack),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    {
        // SAFETY: the caller guarantees it.
        let value = unsafe { libc::syscall(number, a, b, c, d, e) };
        result = if value < 0 { -(Errno::last_raw() as isize) } else { value as isize };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::{SingleThread, clone3};
    use crate::sys::spawn::in_child;

    #[test]
    fn a_child_that_ends_is_reaped() {
        let ended = in_child(|| {
            let child =
                clone3(SingleThread::proof(), 0, None, || crate::sys::clone::exit_now(7)).unwrap();
            assert_eq!(next_child().unwrap(), (child.pid, Ended::Exited(7)));
            assert_eq!(next_child().unwrap_err(), Errno::ECHILD);
        });
        assert_eq!(ended, Ended::Exited(0));
    }
}
