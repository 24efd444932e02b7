//! What an image or a container writes and we read: passwd, group, and the attributes of files that hold ids.
#![no_main]

use aril::identity::{account, environment};
use aril::layer::Ids;
use aril::layer::ids::Range;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    environment::check_passwd(bytes);
    let text = String::from_utf8_lossy(bytes);
    let (passwd, group) = text.split_once("\n\n").unwrap_or((&text, ""));
    account::check_files(passwd, group);

    let range = Range { container: 0, host: 100_000, size: 65_536 };
    let shifted = Ids { users: vec![range], groups: vec![range] };
    for name in [c"security.capability", c"system.posix_acl_access", c"user.x"] {
        let value = shifted.within(name, bytes.to_vec());
        assert!(value.len() <= bytes.len());
        assert_eq!(Ids::default().within(c"user.x", value.clone()), value);
    }
});
