//! `/proc/self/mountinfo`, and after an empty line `/proc/self/cgroup`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    aril::rootfs::child::check_table(bytes);
    let text = String::from_utf8_lossy(bytes);
    let (mountinfo, membership) = text.split_once("\n\n").unwrap_or((&text, "0::/"));
    aril::cgroup::layout::check_files(mountinfo, membership);
});
