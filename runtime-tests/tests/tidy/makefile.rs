//! Rules of the Makefile: `PACKAGES`, which `make test` installs before the first test, has every package that a skip
//! names; `make install` builds nothing.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::{files, none, root};

/// Packages that tests call without a skip: a Debian machine that is not a bare container has them.
const WITHOUT_SKIP: [(&str, &str); 4] = [
    ("mount", "mount(8), in the scripts that make hosts for tests of networks"),
    ("procps", "ps(1), which `aril ps` calls too"),
    ("crun", "a peer of suite::resources and of the benchmarks"),
    ("uidmap", "newuidmap(1), which suite::rootless calls where it is found"),
];

/// The words of a variable of the Makefile.
fn list(makefile: &str, variable: &str) -> BTreeSet<String> {
    let joined = makefile.replace("\\\n", " ");
    let mut lines = joined.lines();
    let found = lines.find_map(|line| line.strip_prefix(variable)?.trim_start().strip_prefix(":="));
    found.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn is_package(word: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    word.len() > 1
        && word.chars().all(letter)
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Packages after `apt-get install`, in messages, scripts and pages alike.
fn installed(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, command) in text.match_indices("apt-get install ") {
        let line = text[at + command.len()..].lines().next().unwrap_or_default();
        let words = line.split([' ', '"', '\'', '`']).filter(|word| !word.starts_with('-'));
        found.extend(words.take_while(|word| is_package(word)).map(str::to_owned));
    }
    found
}

/// The string literals of a call's arguments or of a tuple, up to its closing parenthesis.
fn literals(arguments: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut depth = 0;
    for (number, part) in arguments.split('"').enumerate() {
        if number % 2 == 1 {
            found.push(part);
            continue;
        }
        for c in part.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth < 0 {
                return found;
            }
        }
    }
    found
}

/// Packages in the calls of `skip::tool`, and in the lists of pairs (tool, package) of the engines' tests.
fn skipped(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, call) in text.match_indices("skip::tool(") {
        found.extend(literals(&text[at + call.len()..]).last().map(ToString::to_string));
    }
    for (at, _) in text.match_indices("(\"") {
        let before = text[..at].trim_end().chars().next_back();
        let pair = literals(&text[at + 1..]);
        if matches!(before, Some('[' | ',')) && pair.len() == 2 && text.contains("TOOLS: &[(") {
            found.insert(pair[1].to_owned());
        }
    }
    found.retain(|word| is_package(word));
    found
}

/// Packages of a script that installs what is missing: `install_missing COMMAND=PACKAGE...`.
fn missing(script: &str) -> BTreeSet<String> {
    let lines = script.lines().filter_map(|line| line.trim().strip_prefix("install_missing "));
    let pairs = lines.flat_map(|line| line.split(' ').filter_map(|word| word.split_once('=')));
    pairs.map(|(_, package)| package.to_owned()).collect()
}

#[test]
fn every_package_that_a_skip_names_is_installed_before() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let list = list(&makefile, "PACKAGES");
    let mut named = BTreeSet::new();
    let mut wrong = Vec::new();
    let own = "runtime-tests/tests/tidy/makefile.rs";
    let kinds = [".rs", ".sh", ".md"];
    let texts = ["src", "runtime-tests", "docs"].iter().flat_map(|under| files(under, &kinds));
    for (path, text) in texts.filter(|(path, _)| !path.ends_with(own)) {
        let found = [installed(&text), skipped(&text), missing(&text)];
        let packages: BTreeSet<_> = found.into_iter().flatten().collect();
        let unlisted = packages.difference(&list).map(|package| {
            format!("{} names {package}, which is not in PACKAGES of the Makefile", path.display())
        });
        wrong.extend(unlisted);
        named.extend(packages);
    }
    let explained = |package: &String| WITHOUT_SKIP.iter().any(|(name, _)| name == package);
    let unnamed = list.difference(&named).filter(|package| !explained(package));
    wrong.extend(unnamed.map(|package| format!("PACKAGES has {package}, which no skip names")));
    assert!(named.len() > 20, "skips are not read: {named:?}");
    none(&wrong);
}

/// It may run as another user than the one who built, who need not have Rust.
#[test]
fn install_builds_nothing() {
    let mut make = Command::new("make");
    make.args(["--dry-run", "install", "DESTDIR=/nonexistent"]).current_dir(root());
    // The variables of a `make test` that runs this would make this one its child.
    let out = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make");
    let commands = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && commands.contains("install -v"), "{out:?}");
    for builder in ["cargo", "rustc", "apt-get"] {
        assert!(!commands.contains(builder), "make install runs {builder}: {commands}");
    }
}

#[test]
fn packages_are_found() {
    let words = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(words(list("A := x\nPACKAGES := b \\\n\ta\nC := d\n", "PACKAGES")), "a b");
    assert_eq!(words(installed("x: apt-get install -y g++ curl: now")), "g++");
    assert_eq!(words(installed("(`apt-get install nftables passt`)")), "nftables passt");
    assert_eq!(words(installed("apt-get install {package}")), "");
    assert_eq!(words(skipped("skip::tool(\"ip\", \"iproute2\")")), "iproute2");
    assert_eq!(words(skipped("skip::tool(path(\"x\"),\n \"attr\",\n)?.call(\"y\")")), "attr");
    assert_eq!(words(skipped("skip::tool(tool, package)")), "");
    let pairs = "const TOOLS: &[(&str, &str)] = &[(\"ctr\", \"containerd\"), (\"a\", \"b-c\")];";
    assert_eq!(words(skipped(pairs)), "b-c containerd");
    assert_eq!(words(missing("    install_missing xz=xz-utils jq=jq\n")), "jq xz-utils");
}
