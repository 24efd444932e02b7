//! Mount options, with commas between: each is known or handed to the file system as it is, and an
//! attribute is not both set and cleared.
#![no_main]

use aril::rootfs::options::Options;
use libfuzzer_sys::fuzz_target;

/// `MOUNT_ATTR__ATIME`: a field, cleared as a whole to be set.
const ATIME: u64 = 0x70;

fuzz_target!(|text: &str| {
    let given: Vec<&str> = text.split(',').collect();
    let read = Options::parse(given.iter().copied());
    assert!(read.data.iter().all(|data| given.contains(&data.as_str()) && !data.is_empty()));
    assert_eq!(read.flags & read.cleared, 0);
    assert_eq!(read.recursive.set & read.recursive.clear & !ATIME, 0);
    if let Some(change) = read.change() {
        assert_eq!(change.set & change.clear & !ATIME, 0);
    }
    // Later ones win: said twice is said once.
    let twice = Options::parse(given.iter().chain(&given).copied());
    assert_eq!(twice.flags, read.flags);
    assert_eq!(
        (twice.recursive.set, twice.recursive.clear),
        (read.recursive.set, read.recursive.clear)
    );
});
