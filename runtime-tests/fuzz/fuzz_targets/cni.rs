//! The configuration that `aril-cni` gets: read or refused; what becomes a part of a path is one part.
#![no_main]

use aril::cni::config::{Call, Command, Environment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (args, input) = text.split_once('\n').unwrap_or(("", &text));
    let environment = Environment {
        command: "ADD".into(),
        container: "c".into(),
        namespace: "/run/netns/n".into(),
        interface: "eth0".into(),
        args: args.into(),
        path: "/opt/cni/bin".into(),
    };
    for command in [Command::Add, Command::Del, Command::Check, Command::Gc] {
        let Ok(call) = Call::parse(command, &environment, input.as_bytes()) else { continue };
        for name in [Some(&call.wanted.name), call.ipam.as_ref()].into_iter().flatten() {
            assert!(!name.contains('/') && name != ".." && name != "." && !name.is_empty());
        }
    }
});
