//! Starts the program without std's start-up code.
//!
//! std's start-up costs every call about 40 µs and a dozen system calls (a poll, an alternate signal stack, handlers
//! for faults), which a program that runs for a few milliseconds does not need. This module also hides the command line
//! and the environment of the process, and defines the allocator.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::clone::SingleThread;

/// Address of the memory that /proc/PID/cmdline shows.
static COMMAND_LINE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// Length of that memory in bytes, with the last NUL.
static COMMAND_LINE_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Defines the C `main` of a binary, which calls the given function with the words of the command line. The first word
/// is the program's name.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the binary is built with `no_main`, so no other `main` exists. The C runtime calls it with the
        // arguments that are declared here.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: ::core::ffi::c_int,
            words: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            // SAFETY: the arguments are those of the C `main`. The binary and its library start no thread: `clippy.toml`
            // forbids the calls that do.
            unsafe { $crate::sys::entry::start(count, words, $main) }
        }
    };
}

/// Runs `main` for [`entry!`].
///
/// # Safety
///
/// `count` and `words` are the arguments that the C runtime passes to `main`, and the program never starts a thread.
pub unsafe fn start(
    count: libc::c_int,
    words: *const *const libc::c_char,
    main: fn(Vec<OsString>) -> u8,
) -> libc::c_int {
    // SAFETY: the caller says so; the C runtime has started no thread before `main`.
    unsafe { SingleThread::promise() };
    prepare();
    let words: Vec<&CStr> = (0..count as usize)
        .map(|n| {
            // SAFETY: the C runtime passes `count` pointers to NUL-terminated strings that live as long as the process.
            unsafe { CStr::from_ptr(*words.add(n)) }
        })
        .collect();
    if let Some(first) = words.first() {
        COMMAND_LINE.store(first.as_ptr().cast_mut().cast(), Relaxed);
        // The kernel stores the words one after the other.
        let length = words.iter().map(|word| word.to_bytes_with_nul().len()).sum();
        COMMAND_LINE_LENGTH.store(length, Relaxed);
    }
    main(words.iter().map(|word| OsStr::from_bytes(word.to_bytes()).to_owned()).collect()).into()
}

/// Replaces inherited settings that the program cannot run with: signals, a small stack, closed standard descriptors.
fn prepare() {
    // A closed pipe and the caller's limits of file size and CPU time must be errors of system calls, and not end this
    // process. The status of children is needed even if the caller ignores SIGCHLD.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGXCPU] {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    super::signal::default(libc::SIGCHLD);
    super::process::raise_stack();
    let poll = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut standard = [poll(0), poll(1), poll(2)];
    // SAFETY: the three pollfds live across the call.
    unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    if standard.iter().any(|fd| fd.revents & libc::POLLNVAL != 0) {
        open_standard();
    }
}

/// Opens /dev/null as each closed standard descriptor. Otherwise the next opened files would become standard
/// descriptors, also of the container.
#[cold]
fn open_standard() {
    loop {
        // SAFETY: the path is NUL terminated.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        match fd {
            // Without /dev/null the program cannot continue safely.
            ..0 => std::process::abort(),
            0..=2 => {}
            _ => {
                // SAFETY: the descriptor was opened above, and has no other user.
                unsafe { libc::close(fd) };
                return;
            }
        }
    }
}

/// Replaced command line of this process in /proc/PID/cmdline, which drop restores. A child that was cloned before the
/// drop keeps the replaced one.
#[must_use]
#[derive(Debug)]
pub struct ReplacedCommandLine {
    original: Vec<u8>,
    proof: SingleThread,
}

/// Replaces the command line, which may contain paths of the host and values of variables: other processes can read it
/// in /proc/PID/cmdline. Does nothing if `name` is longer than the command line.
pub fn hide_command_line(proof: SingleThread, name: &CStr) -> ReplacedCommandLine {
    let length = COMMAND_LINE_LENGTH.load(Relaxed);
    if name.to_bytes().len() >= length {
        return ReplacedCommandLine { original: Vec::new(), proof };
    }
    let mut shown = name.to_bytes().to_vec();
    shown.resize(length, 0);
    ReplacedCommandLine { original: replace_command_line(proof, &shown), proof }
}

impl Drop for ReplacedCommandLine {
    fn drop(&mut self) {
        replace_command_line(self.proof, &self.original);
    }
}

/// Writes `text` to the memory of the command line, and returns the old content. `text` has the same length, or is
/// empty.
fn replace_command_line(_proof: SingleThread, text: &[u8]) -> Vec<u8> {
    let line = COMMAND_LINE.load(Relaxed);
    if text.is_empty() {
        return Vec::new();
    }
    // SAFETY: `start` found the words at this address, on the stack of this process. They have as many bytes as `text`,
    // and no reference to them exists, because they were copied. No other thread writes them.
    let line = unsafe { std::slice::from_raw_parts_mut(line, text.len()) };
    let before = line.to_vec();
    line.copy_from_slice(text);
    before
}

/// Overwrites the environment of this process with zeros, so that other processes cannot read it in /proc/PID/environ.
pub fn clear_environment(_proof: SingleThread) {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the C runtime has set `environ` to a NULL-terminated array of NUL-terminated strings, which live on the
    // stack as long as the process. No other thread exists, and the program never keeps a reference to one of them.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            ptr::write_bytes(*next, 0, libc::strlen(*next));
            next = next.add(1);
        }
    }
}

/// Allocator that needs about five system calls where musl's needs a hundred.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
