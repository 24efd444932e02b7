//! How the program starts: without std's own start-up, which costs every call of every engine some
//! 40 µs and a dozen system calls (a poll, an alternate stack, handlers for faults) that a program
//! of a few milliseconds has no use for.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Defines the C `main` of a binary, which calls the given function with the words of the command
/// line, the program's own name first.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the binary is built with `no_main`, so that there is no other `main` to clash with;
        // the C runtime calls it with the arguments that it is declared with.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: ::core::ffi::c_int,
            words: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            // SAFETY: these are the arguments of the C `main`.
            unsafe { $crate::sys::entry::start(count, words, $main) }
        }
    };
}

/// Runs `main`, for [`entry!`].
///
/// # Safety
///
/// `count` and `words` are those that the C runtime passes to `main`.
pub unsafe fn start(
    count: libc::c_int,
    words: *const *const libc::c_char,
    main: fn(Vec<OsString>) -> u8,
) -> libc::c_int {
    // A reader that has gone shall be an error of the write, not the end of us.
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let words = (0..count as usize)
        .map(|n| {
            // SAFETY: the C runtime passes `count` pointers to NUL-terminated strings that live as
            // long as the process.
            let word = unsafe { CStr::from_ptr(*words.add(n)) };
            OsStr::from_bytes(word.to_bytes()).to_owned()
        })
        .collect();
    main(words).into()
}

/// musl's own allocator asks the kernel a hundred times for what this one asks five times.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
