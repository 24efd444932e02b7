//! The rules of the house, checked as an ordinary test. Each rule is a function of text, with a
//! sample that it must refuse.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/errors.rs"]
mod errors;
#[path = "tidy/makefile.rs"]
mod makefile;
#[path = "tidy/mutants.rs"]
mod mutants;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/words.rs"]
mod words;

const LONGEST: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Files below a directory of the workspace, by their path in it.
fn files(under: &str, extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(under)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() && !["target", ".git", "rootfs"].contains(&name.as_str()) {
                directories.push(path);
            } else if kind.is_file() && extensions.iter().any(|e| name.ends_with(e)) {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let path = path.strip_prefix(root()).expect("within").to_owned();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files in {under}");
    found
}

#[track_caller]
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// A layer's place and whether its modules may name each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layer {
    height: usize,
    aloof: bool,
}

/// The table in the documentation of `src/lib.rs`.
fn layers(lib: &str) -> BTreeMap<String, Layer> {
    let mut layers = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! | L")) {
        let mut columns = line.split('|').map(str::trim);
        let mut next = || columns.next().unwrap_or_default();
        let (height, modules, may_name) = (next(), next(), next());
        let height = height.parse().unwrap_or_else(|_| panic!("no layer: {line}"));
        let aloof = may_name.contains("never each other");
        for name in modules.split('`').skip(1).step_by(2) {
            layers.insert(name.to_owned(), Layer { height, aloof });
        }
    }
    layers
}

/// Code without comments and the contents of literals, line by line as it was.
fn code(text: &str) -> String {
    let mut out = String::new();
    for (is_code, part) in parts(text) {
        if is_code {
            out.push_str(part);
        } else {
            out.extend(part.chars().filter(|c| *c == '\n'));
            out.push(' ');
        }
    }
    out
}

/// Splits source text into code (`true`), and comments and literals (`false`).
fn parts(text: &str) -> Vec<(bool, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if c == '"' {
            string_length(rest)
        } else {
            character_length(rest).unwrap_or_default()
        };
        if skipped == 0 {
            at += c.len_utf8();
        } else {
            found.extend([(true, &text[begin..at]), (false, &rest[..skipped])]);
            at += skipped;
            begin = at;
        }
    }
    found.push((true, &text[begin..]));
    found
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Of a character literal; a lifetime is none.
fn character_length(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let skipped = escape.chars().next()?.len_utf8();
        return escape[skipped..].find('\'').map(|end| 2 + skipped + end + 1);
    }
    let c = inner.chars().next()?;
    inner[c.len_utf8()..].starts_with('\'').then(|| c.len_utf8() + 2)
}

/// The top-level modules that a file names by `crate::`.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let after = &code[at + "crate::".len()..];
        match after.strip_prefix('{') {
            Some(group) => names.extend(members(group)),
            None => names.push(identifier(after)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each member of a `{...}` group, whose brace is already gone.
fn members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![identifier(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(identifier(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// What is wrong with a module naming these others.
fn layering(module: &str, code: &str, layers: &BTreeMap<String, Layer>) -> Vec<String> {
    let Some(own) = layers.get(module) else {
        return vec![format!("{module} is not in the table of src/lib.rs")];
    };
    let mut wrong = Vec::new();
    for name in named(code) {
        // A name that is no module is an item of the crate's own root.
        let Some(other) = layers.get(&name).filter(|_| name != module) else { continue };
        if other.height > own.height {
            wrong.push(format!(
                "{module} (L{}) names {name} (L{}) above it",
                own.height, other.height
            ));
        } else if other.height == own.height && own.aloof {
            wrong.push(format!("{module} names its sibling {name}"));
        }
    }
    wrong
}

/// `src/NAME.rs` and everything in `src/NAME/` is the module NAME.
fn module_of(path: &Path) -> Option<String> {
    let rest = path.strip_prefix("src").ok()?;
    let first = rest.components().next()?.as_os_str().to_string_lossy().into_owned();
    let name = first.strip_suffix(".rs").unwrap_or(&first);
    (!["lib", "bin"].contains(&name)).then(|| name.to_owned())
}

#[test]
fn modules_name_only_lower_layers() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let layers = layers(&lib);
    assert!(layers.len() > 15, "the table is not read: {layers:?}");
    let mut wrong = Vec::new();
    for (path, text) in files("src", &[".rs"]) {
        if let Some(module) = module_of(&path) {
            let found = layering(&module, &code(&text), &layers);
            wrong.extend(found.iter().map(|what| format!("{}: {what}", path.display())));
        }
    }
    none(&wrong);
}

#[test]
fn layering_is_violated_by() {
    let table = "//! | L0 | [`sys`] | nothing of ours |\n\
                 //! | L3 | [`console`] [`hook`] | L0 to L2, never each other |\n\
                 //! | L5 | [`init`], [`state`] | L0 to L4 |\n";
    let layers = layers(table);
    assert_eq!(layers["hook"], Layer { height: 3, aloof: true });
    let wrong = |module: &str, text: &str| layering(module, &code(text), &layers).len();
    assert_eq!(wrong("hook", "use crate::sys;"), 0);
    assert_eq!(wrong("hook", "use crate::hook::plan; use crate::Thing;"), 0);
    assert_eq!(wrong("init", "use crate::state::Record;"), 0);
    assert_eq!(wrong("hook", "use crate::console;"), 1);
    assert_eq!(wrong("hook", "use crate::{sys, console::{self, Plan}, init};"), 2);
    assert_eq!(wrong("hook", "fn f() { crate::state::g() }"), 1);
    assert_eq!(wrong("hook", "// crate::state\nlet s = \"crate::state\";"), 0);
    assert_eq!(wrong("sys", "pub(crate) use crate::{\n    hook::Plan,\n};"), 1);
    assert_eq!(wrong("elsewhere", ""), 1);
}

/// Calls that act by a path in the process's own view. Code that runs in the child, after the clone, has only prepared
/// data and descriptors (CVE-2021-30465, CVE-2024-21626): tests aside, it makes none of these. `clippy.toml` forbids the
/// environment and other programs everywhere in `src/` but in marked places.
const AMBIENT: [&str; 7] = [
    "std::fs",
    "File::open",
    "File::create",
    "OpenOptions",
    "std::env",
    "canonicalize(",
    ".exists()",
];

/// Lines before the tests of a file that have one of the words.
fn ambient(text: &str, words: &[&str]) -> Vec<usize> {
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    lines_with(&code(&text[..end]), words)
}

/// The child's part of a concern, and the child itself.
fn runs_in_the_child(path: &str) -> bool {
    let tests = path.ends_with("tests.rs");
    !tests && path.starts_with("src/") && (path.ends_with("/child.rs") || path.contains("/child/"))
}

#[test]
fn the_child_looks_up_nothing_by_itself() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in files("src", &[".rs"]) {
        let path = path.display().to_string();
        if runs_in_the_child(&path) {
            seen += 1;
            let lines = ambient(&text, &AMBIENT);
            wrong.extend(lines.iter().map(|line| format!("{path}:{line}: an ambient call")));
        }
    }
    assert!(seen > 8, "{seen} files of the child's");
    none(&wrong);
}

/// Only they speak for the operator: nothing else makes a policy, or what a container is granted.
#[test]
fn grants_are_made_by_those_who_face_the_operator() {
    let faces = ["src/cli/", "src/shim/", "src/spec/grant", "src/spec/extensions.rs"];
    // Of records that older versions wrote.
    let record = "src/state/record.rs";
    let mut wrong = Vec::new();
    for (path, text) in files("src", &[".rs"]) {
        let path = path.display().to_string();
        let is_test = path.ends_with("tests.rs") || path == record;
        if !is_test && !faces.iter().any(|place| path.starts_with(place)) {
            let lines = makes_grants(&text);
            wrong.extend(lines.iter().map(|n| format!("{path}:{n}: speaks for the operator")));
        }
    }
    none(&wrong);
}

/// A literal makes one; a pattern, which ends in `.. }`, takes one apart.
fn makes_grants(text: &str) -> Vec<usize> {
    let words =
        ["Policy::new", "Rules::default", "OperatorGrant::of", "= Extensions {", "(Extensions {"];
    let mut lines = ambient(text, &words);
    lines.retain(|n| !text.lines().nth(n - 1).is_some_and(|line| line.contains(".. }")));
    lines
}

#[test]
fn grants_are_found() {
    let text = "let Extensions { network, .. } = all;\nf(Extensions { network })\nPolicy::new()";
    assert_eq!(makes_grants(text), [2, 3]);
}

#[test]
fn ambient_calls_are_found() {
    let text = "let x = std::fs::read(p);\n// std::env\n#[cfg(test)]\nstd::fs::read(p)";
    assert_eq!(ambient(text, &AMBIENT), [1]);
    assert!(runs_in_the_child("src/rootfs/child/bind.rs"));
    assert!(runs_in_the_child("src/init/child.rs"));
    assert!(!runs_in_the_child("src/rootfs/child/tests.rs"));
    assert!(!runs_in_the_child("src/rootfs/parent.rs"));
}

/// Places of `unsafe` that are not allowed or not explained.
fn unsafety(in_sys: bool, text: &str) -> Vec<usize> {
    let code = code(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words.clone().any(|word| word == "unsafe") && !(in_sys && explained(&lines, number)) {
            wrong.push(number + 1);
        }
    }
    wrong
}

/// A `SAFETY:` comment stands on the line or above the statement that holds it.
fn explained(lines: &[&str], number: usize) -> bool {
    // A contract, not a use: documented under `# Safety`. A foreign block declares only.
    let declares = ["unsafe fn", "unsafe extern"].iter().any(|word| lines[number].contains(word));
    let word = if declares { "Safety" } else { "SAFETY:" };
    let from = number.saturating_sub(12);
    lines[from..=number].iter().any(|line| line.contains(word))
        || (declares && lines[from..=number].iter().any(|line| line.contains("SAFETY:")))
}

#[test]
fn unsafe_is_in_sys_and_explained() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", &[".rs"]) {
        let in_sys = path.starts_with("src/sys");
        let lines = unsafety(in_sys, &text);
        wrong.extend(lines.iter().map(|line| format!("{}:{line}: unsafe", path.display())));
    }
    for (path, text) in files("runtime-tests", &[".rs"]) {
        let lines = unsafety(true, &text);
        wrong.extend(lines.iter().map(|line| format!("{}:{line}: unsafe", path.display())));
    }
    none(&wrong);
}

#[test]
fn unsafety_is_found() {
    let keyword = concat!("uns", "afe");
    let explained = format!("// SAFETY: it is.\nlet x = {keyword} {{ f() }};");
    assert!(unsafety(true, &explained).is_empty());
    assert_eq!(unsafety(false, &explained), [2]);
    assert_eq!(unsafety(true, &format!("let x =\n    {keyword} {{ f() }};")), [2]);
    assert!(unsafety(false, &format!("#![deny({keyword}_code)]\n// {keyword}")).is_empty());
    assert_eq!(unsafety(true, &format!("{keyword} fn f() {{}}")), [1]);
}

/// What nobody commits. Put together so that this list does not find itself.
const UNFINISHED: [&str; 2] = [concat!("#[ig", "nore"), concat!("TO", "DO")];

/// Where the code was written, if anywhere at all.
const MACHINES: [&str; 1] = [concat!("/wo", "rk/")];

fn lines_with(text: &str, words: &[&str]) -> Vec<usize> {
    let has = |line: &str| words.iter().any(|word| line.contains(word));
    (1..).zip(text.lines()).filter(|(_, line)| has(line)).map(|(number, _)| number).collect()
}

#[test]
fn nothing_is_unfinished() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", &[".rs"]).into_iter().chain(files("runtime-tests", &[".rs"])) {
        let lines = lines_with(&text, &UNFINISHED);
        wrong.extend(lines.iter().map(|line| format!("{}:{line}: unfinished", path.display())));
    }
    none(&wrong);
}

#[test]
fn nothing_names_the_machine() {
    let kinds = [".rs", ".md", ".toml", ".json", ".sh", "Makefile", "run", ".yml", ".yaml", ".svg"];
    let mut wrong = Vec::new();
    for (path, text) in files(".", &kinds) {
        let lines = lines_with(&text, &MACHINES);
        wrong.extend(
            lines.iter().map(|line| format!("{}:{line}: a machine's path", path.display())),
        );
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let sources = lock.lines().filter(|line| line.starts_with("source ="));
    let foreign = sources.filter(|line| !line.contains("//github.com/rust-lang/crates.io-index"));
    wrong.extend(foreign.map(|line| format!("Cargo.lock: {line}")));
    none(&wrong);
}

#[test]
fn words_are_found() {
    let text = format!("fine\nlet x = {})", UNFINISHED[0]);
    assert_eq!(lines_with(&text, &UNFINISHED), [2]);
    assert_eq!(lines_with(&format!("see {}main", MACHINES[0]), &MACHINES), [1]);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", &[".rs"]).into_iter().chain(files("runtime-tests", &[".rs"])) {
        let length = text.lines().count();
        if length > LONGEST {
            wrong.push(format!("{}: {length} lines", path.display()));
        }
    }
    none(&wrong);
}

/// Whether the text has the name as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
    text.match_indices(name).any(|(at, _)| {
        boundary(text[..at].chars().next_back()) && boundary(text[at + name.len()..].chars().next())
    })
}

#[test]
fn the_map_names_every_folder() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("the map");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("src")).expect("src").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir()
            && !mentions(&map, &format!("{name}/"))
            && !mentions(&map, &format!("`{name}`"))
        {
            wrong.push(format!("docs/architecture.md does not name src/{name}/"));
        }
    }
    none(&wrong);
}

#[test]
fn a_folder_is_named_as_a_word() {
    assert!(mentions("see `init` there", "`init`"));
    assert!(mentions("src/init/ holds", "init/"));
    assert!(!mentions("src/reinit/ holds", "init/"));
}

#[test]
fn code_is_told_from_text() {
    let text = "a /* b */ 'c' \"d\\\"e\" r#\"f\"# '\\'' 'g <'h>(i) // j\nk";
    let words: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "'g", "<'h>(i)", "k"]);
    assert_eq!(code("\"a\nb\"\nc").lines().count(), 3, "lines keep their numbers");
}
