//! Any bytes as config.json, as process.json's and as the document of `update`: parsed or refused,
//! and what is parsed is planned or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = aril::spec::parse_resources(bytes);
    if let Ok(config) = aril::spec::parse(bytes.to_vec()) {
        for host in aril_fuzz::Host::ALL {
            aril_fuzz::plan(&config.spec, host);
        }
    }
});
