//! `state.json`: what was read is written the same.
#![no_main]

use aril::state::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return };
    let written = serde_json::to_vec(&record).expect("written");
    let again: Record = serde_json::from_slice(&written).expect("read again");
    assert_eq!(again, record);
});
