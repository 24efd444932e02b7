//! What a child, which is not trusted any more once it is a container, may write to its parent.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aril::init::check_frame(bytes));
