//! `/proc/PID/uid_map`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| aril::namespace::parent::check_map(text));
