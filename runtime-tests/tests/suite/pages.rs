//! The pages of docs/ whose commands are run: each `sh` block, and what the `text` block after it says
//! that it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::{Container, on_the_host, skip};

/// A page of docs/.
pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join("docs").join(name)).expect("the page")
}

/// The `sh` blocks of a page, with what they print.
pub fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut fences = page.split("\n```").skip(1);
    while let (Some(block), _after) = (fences.next(), fences.next()) {
        let (kind, text) = block.split_once('\n').expect("a block's kind");
        match (kind, found.last_mut()) {
            ("sh", _) => found.push((text.to_owned(), String::new())),
            ("text", Some((_, printed))) => *printed = format!("{text}\n"),
            _ => {}
        }
    }
    found
}

/// Where it was built; in the virtual machine it is where the tests are run.
fn repository() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    if built.exists() { built.to_owned() } else { std::env::current_dir().expect("getcwd") }
}

/// As `make bundle` makes it, in a copy of `bundles/`.
const PREPARE: &str = "set -e
    mkdir -p bundles/busybox/rootfs
    cd bundles/busybox/rootfs
    mkdir -p bin dev etc proc sys tmp
    cp \"$BUSYBOX\" bin/busybox
    for applet in $(bin/busybox --list); do
        [ \"$applet\" = busybox ] || ln -sf busybox \"bin/$applet\"
    done
    echo 'root:x:0:0:root:/:/bin/sh' > etc/passwd
    echo 'root:x:0:' > etc/group";

/// A copy of `bundles/` in `work`, with its rootfs.
pub fn bundles(work: &Path, busybox: &Path) {
    copy(&repository().join("bundles"), &work.join("bundles"));
    let mut prepare = Command::new("sh");
    let done = prepare.args(["-c", PREPARE]).current_dir(work).env("BUSYBOX", busybox).status();
    assert!(done.expect("sh").success());
}

fn run(name: &str) {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("its own pages") {
            return;
        }
        let Some(busybox) = skip::tool("busybox", "busybox-static") else { return };
        let blocks = blocks(&page(name));
        assert!(!blocks.is_empty() && blocks.iter().all(|(_, printed)| !printed.is_empty()));
        let work = c.directory("page");
        bundles(&work, &busybox);
        let shell = |name: &str, script: &str| {
            c.bare(Path::new("/bin/sh"), name)
                .dir(&work)
                .env("ARIL", &c.runtime.path)
                .env("STATE", &c.root)
                .env("ARIL_VOLUMES", c.path("volumes"))
                .args(["-c", script])
                .output()
        };
        for (number, (script, printed)) in blocks.iter().enumerate() {
            // A function, so that the words are those that people type.
            let script =
                format!("aril() {{ \"$ARIL\" --root \"$STATE\" \"$@\"; }}\nset -e\n{script}");
            let out = shell(&format!("block{number}"), &script).ok();
            assert_eq!(&out.stdout, printed, "{name}: {script}");
        }
        c.leaves_nothing();
    });
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (kind, name) = (entry.file_type().expect("a kind"), entry.file_name());
        // What `make bundle` has made here is made there anew.
        if kind.is_dir() && name != "rootfs" {
            copy(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name)).expect("a copy");
        }
    }
}

#[test]
fn rootfs() {
    run("rootfs.md");
}

#[test]
fn volumes() {
    run("volumes.md");
}

#[test]
fn pods() {
    run("pods.md");
}
