//! The blocks of the pages in `docs/` that people paste.

use std::path::Path;
use std::process::Command;

use runtime_tests::skip;

/// The first block of this kind.
pub fn block(page: &str, kind: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs");
    let text = std::fs::read_to_string(docs.join(page)).expect("the page");
    let found = text.split_once(&format!("\n```{kind}\n")).and_then(|(_, rest)| {
        let (block, _) = rest.split_once("\n```")?;
        Some(format!("{block}\n"))
    });
    found.unwrap_or_else(|| panic!("{page}: no block of {kind}"))
}

/// The lines of the `sh` block, without their first word, each with the line of the `text` block
/// that it prints.
pub fn commands(page: &str, program: &str) -> Vec<(String, String)> {
    let engine = page.trim_end_matches(".md");
    let (typed, printed) = (block(page, &format!("sh {engine}")), block(page, "text"));
    let word = |line: &str| {
        let rest = line.strip_prefix(program);
        rest.unwrap_or_else(|| panic!("{page}: {line}")).to_owned()
    };
    assert_eq!(typed.lines().count(), printed.lines().count(), "{page}");
    typed.lines().map(word).zip(printed.lines().map(str::to_owned)).collect()
}

/// CRI-O itself is in no package.
#[test]
fn cri_o_would_read_its_block() {
    const KEYS: [&str; 9] = [
        "runtime_path",
        "runtime_type",
        "runtime_root",
        "runtime_config_path",
        "monitor_path",
        "monitor_cgroup",
        "monitor_env",
        "allowed_annotations",
        "privileged_without_host_devices",
    ];
    let Some(python) = skip::tool("python3", "python3") else { return };
    let script = "import json, sys, tomllib; print(json.dumps(tomllib.loads(sys.argv[1])))";
    let block = block("cri-o.md", "toml");
    let out = Command::new(python).args(["-c", script, &block]).output().expect("python3");
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("No module named 'tomllib'") {
        return skip::inapplicable("python3 is its smallest package here, which has no tomllib");
    }
    assert!(out.status.success(), "{said}");
    let config: serde_json::Value = serde_json::from_slice(&out.stdout).expect("json");
    let aril = config["crio"]["runtime"]["runtimes"]["aril"].as_object().expect("the runtime");
    for (key, value) in aril {
        assert!(KEYS.contains(&key.as_str()), "{key}");
        let path = key.ends_with("_path") || key.ends_with("_root");
        assert!(!path || value.as_str().expect("a path").starts_with('/'), "{key}");
    }
    assert_eq!(aril["runtime_type"], "oci");
}
