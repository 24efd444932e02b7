//! How the program starts: without std's own start-up, which costs every call of every engine some
//! 40 µs and a dozen system calls (a poll, an alternate stack, handlers for faults) that a program
//! of a few milliseconds has no use for.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Where the kernel finds what /proc/PID/cmdline shows, and how many bytes it is, with the last NUL.
static COMMAND_LINE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static COMMAND_LINE_LENGTH: AtomicUsize = AtomicUsize::new(0);

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
    settle();
    let words: Vec<&CStr> = (0..count as usize)
        .map(|n| {
            // SAFETY: the C runtime passes `count` pointers to NUL-terminated strings that live as
            // long as the process.
            unsafe { CStr::from_ptr(*words.add(n)) }
        })
        .collect();
    if let Some(first) = words.first() {
        COMMAND_LINE.store(first.as_ptr().cast_mut().cast(), Relaxed);
        // The kernel writes them one behind the other.
        let length = words.iter().map(|word| word.to_bytes_with_nul().len()).sum();
        COMMAND_LINE_LENGTH.store(length, Relaxed);
    }
    main(words.iter().map(|word| OsStr::from_bytes(word.to_bytes()).to_owned()).collect()).into()
}

/// Makes up for what a caller may have left: signals, a small stack, closed standard descriptors.
fn settle() {
    // A reader that has gone, and the caller's limits of file size and CPU time, shall be errors of
    // calls, not the end of this process. The status of children is wanted, whatever the caller ignores.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGXCPU] {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    super::signal::default(libc::SIGCHLD);
    super::process::raise_stack();
    let poll = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut standard = [poll(0), poll(1), poll(2)];
    // SAFETY: three pollfds that live across the call.
    unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    if standard.iter().any(|fd| fd.revents & libc::POLLNVAL != 0) {
        open_standard();
    }
}

/// The next files that are opened would become standard input, output and error, of the container too.
#[cold]
fn open_standard() {
    loop {
        // SAFETY: a NUL-terminated path.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        match fd {
            // Without /dev/null there is no safe way on.
            ..0 => std::process::abort(),
            0..=2 => {}
            _ => {
                // SAFETY: opened above, and used by nobody.
                unsafe { libc::close(fd) };
                return;
            }
        }
    }
}

/// While this lives /proc/PID/cmdline of this process, and for good that of a child cloned meanwhile,
/// shows something else.
#[must_use]
#[derive(Debug)]
pub struct Disguise(Vec<u8>);

/// Whoever sees a pid may read its command line, and ours may hold paths of the host's and values of
/// variables.
pub fn show_as(name: &CStr) -> Disguise {
    let length = COMMAND_LINE_LENGTH.load(Relaxed);
    if name.to_bytes().len() >= length {
        return Disguise(Vec::new());
    }
    let mut shown = name.to_bytes().to_vec();
    shown.resize(length, 0);
    Disguise(replace_command_line(&shown))
}

impl Drop for Disguise {
    fn drop(&mut self) {
        replace_command_line(&self.0);
    }
}

/// What was there. `text` is as long as the command line, or empty.
fn replace_command_line(text: &[u8]) -> Vec<u8> {
    let line = COMMAND_LINE.load(Relaxed);
    if text.is_empty() {
        return Vec::new();
    }
    // SAFETY: `start` found the words there: as many bytes as `text` has, of this process's own stack,
    // to which nobody has a reference any more, for they were copied.
    let line = unsafe { std::slice::from_raw_parts_mut(line, text.len()) };
    let before = line.to_vec();
    line.copy_from_slice(text);
    before
}

/// Overwrites this process's environment, which whoever may look into the process can read.
pub fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the C runtime has set `environ` to a NULL-terminated array of NUL-terminated strings that
    // live as long as the process, on this process's own stack. There is no other thread, and this
    // program never hands out a reference to one of them.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            ptr::write_bytes(*next, 0, libc::strlen(*next));
            next = next.add(1);
        }
    }
}

/// musl's own allocator asks the kernel a hundred times for what this one asks five times.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
