//! What several targets need: choices made by the fuzzer's bytes, and a host to plan for.

use std::path::PathBuf;
use std::sync::OnceLock;

use aril::id::ContainerId;
use aril::identity::descriptors::Passed;
use aril::plan::compile::{self, Options};
use aril::plan::facts::HostFacts;
use oci_spec::runtime::Spec;

/// Bytes as choices. Once they are used up every choice is the first.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let wide = bound > 256;
        let high = if wide { usize::from(self.byte()) << 8 } else { 0 };
        (high | usize::from(self.byte())) % bound.max(1)
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Plans a container of the spec, as `aril plan` does, and prints the plan or the error.
pub fn plan(spec: &Spec) {
    static HOST: OnceLock<(Options, HostFacts)> = OnceLock::new();
    let (options, facts) = HOST.get_or_init(host);
    let id = ContainerId::parse("fuzzed").expect("an id");
    match compile::container(&id, spec, options, facts) {
        Ok(plan) => assert!(!plan.to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn host() -> (Options, HostFacts) {
    let bundle = std::env::temp_dir().canonicalize().expect("a temporary directory");
    let bundle = bundle.join("aril-fuzz");
    std::fs::create_dir_all(bundle.join("rootfs")).expect("a bundle");
    let minimal = br#"{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}},"linux":{}}"#;
    let config = aril::spec::parse(minimal.to_vec()).expect("a spec");
    let facts = HostFacts::gather(&config.spec, &bundle, None).expect("facts");
    (options(bundle), facts)
}

fn options(bundle: PathBuf) -> Options {
    Options {
        bundle,
        state_directory: "/run/aril/fuzzed".into(),
        fill: Vec::new(),
        no_pivot: false,
        new_keyring: true,
        rootless_cgroups: false,
        detach: false,
        console_socket: None,
        passed: Passed::default(),
        notify_directory: None,
    }
}
