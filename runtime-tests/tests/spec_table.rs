//! `docs/spec.md` against the types of oci-spec and against this repository.
//!
//! The types are read from the crate's source, which cargo knows the place of: what they serialise
//! would leave out every field that is not set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn table() -> Vec<[String; 4]> {
    let text = fs::read_to_string(root().join("docs/spec.md")).expect("docs/spec.md");
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| field"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').skip(1).map(str::trim).collect();
            let cell = |at: usize| cells.get(at).copied().unwrap_or_default().to_owned();
            [cell(0), cell(1), cell(2), cell(3)]
        })
        .collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// `a.{b,c}` is `a.b` and `a.c`.
fn expanded(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (choices, after) = rest.split_once('}').expect("a closing brace");
    choices.split(',').flat_map(|choice| expanded(&format!("{before}{choice}{after}"))).collect()
}

/// Where cargo keeps the source of the oci-spec that is built into aril.
fn oci_spec() -> Option<PathBuf> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output();
    let Some(out) = metadata.ok().filter(|out| out.status.success()) else {
        runtime_tests::skip::inapplicable("there is no cargo to say where oci-spec is");
        return None;
    };
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("metadata");
    let mut packages = metadata["packages"].as_array().expect("packages").iter();
    let package = packages.find(|package| package["name"] == "oci-spec").expect("oci-spec");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    Some(manifest.parent().expect("a directory").join("src/runtime"))
}

/// The fields of a structure: their names in JSON, and their types.
type Fields = Vec<(String, String)>;

fn structures(source: &str) -> BTreeMap<String, Fields> {
    let mut found = BTreeMap::new();
    let mut open: Option<(String, bool, Fields)> = None;
    let mut attributes = String::new();
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some((name, camel, fields)) = &mut open {
            if line == "}" {
                found.insert(std::mem::take(name), std::mem::take(fields));
                open = None;
                attributes.clear();
            } else if let Some((field, kind)) = field(trimmed) {
                let name = renamed(&attributes).unwrap_or_else(|| match camel {
                    true => camel_case(field),
                    false => field.to_owned(),
                });
                fields.push((name, kind.to_owned()));
                attributes.clear();
            } else if !trimmed.starts_with("//") {
                attributes += trimmed;
            }
        } else if let Some(name) =
            trimmed.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {"))
        {
            let camel = attributes.contains("rename_all = \"camelCase\"");
            open = Some((name.to_owned(), camel, Vec::new()));
            attributes.clear();
        } else if trimmed.is_empty() || line == "}" {
            attributes.clear();
        } else if !trimmed.starts_with("//") {
            attributes += trimmed;
        }
    }
    found
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    let name = name.strip_prefix("pub ").unwrap_or(name);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some((name, kind))
}

fn renamed(attributes: &str) -> Option<String> {
    let (_, rest) = attributes.split_once("rename = \"")?;
    rest.split('"').next().map(str::to_owned)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        camel += &word[..1].to_ascii_uppercase();
        camel += &word[1..];
    }
    camel
}

/// Every field that holds no further structure, as the table writes it.
fn leaves(structures: &BTreeMap<String, Fields>, name: &str, path: &str, out: &mut Vec<String>) {
    for (field, kind) in &structures[name] {
        let path = format!("{path}{field}");
        let inner = kind.trim_end_matches('>').rsplit(['<', ' ']).next().unwrap_or_default();
        // Of other platforms the table has the whole.
        let other = ["solaris", "windows", "vm", "zos"].contains(&path.as_str());
        if other || !structures.contains_key(inner) {
            out.push(path);
        } else if kind.contains("Vec<") {
            leaves(structures, inner, &format!("{path}[]."), out);
        } else if kind.contains("HashMap<") {
            leaves(structures, inner, &format!("{path}.*."), out);
        } else {
            leaves(structures, inner, &format!("{path}."), out);
        }
    }
}

fn fields_of_the_types() -> Option<BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(oci_spec()?).expect("the crate's source").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        // What features and state look like is another matter.
        if entry.file_name() != "features.rs" && entry.file_name() != "state.rs" {
            all.append(&mut structures(&text));
        }
    }
    let mut out = Vec::new();
    leaves(&all, "Spec", "", &mut out);
    assert!(out.len() > 150, "the source is not read right: {out:?}");
    Some(out.into_iter().collect())
}

#[test]
fn every_field_is_in_the_table_once() {
    let Some(fields) = fields_of_the_types() else { return };
    let rows = table();
    let listed: Vec<String> =
        rows.iter().flat_map(|row| quoted(&row[0])).flat_map(expanded).collect();
    let known: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(known.len(), listed.len(), "a field is listed twice");
    let missing: Vec<_> = fields.difference(&known).collect();
    assert!(missing.is_empty(), "docs/spec.md says nothing of {missing:#?}");
    let unknown: Vec<_> = known.difference(&fields).collect();
    assert!(unknown.is_empty(), "oci-spec has no such field: {unknown:#?}");
}

#[test]
fn every_row_says_what_where_and_how_it_is_seen() {
    let rows = table();
    assert!(rows.len() > 50, "the table is not read right");
    for [field, what, place, test] in &rows {
        let word = what.split([':', ';', ' ', ',']).next().unwrap_or_default();
        assert!(["acts", "ignored", "refused", "passed"].contains(&word), "{field}: {what}");
        let needless = word == "ignored" && place.is_empty();
        assert!(needless || (!place.is_empty() && !test.is_empty()), "{field}: incomplete");
        for file in quoted(place) {
            assert!(root().join(file).is_file(), "{field}: there is no {file}");
        }
        for test in quoted(test) {
            assert!(exists(test), "{field}: there is no test {test}");
        }
    }
}

/// `file::function`: a function, or a variation of the observer's.
fn exists(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let path = match file.strip_prefix("src/") {
        Some(_) => root().join(file),
        None => root().join(format!("runtime-tests/tests/suite/{file}.rs")),
    };
    let text = fs::read_to_string(path).unwrap_or_default();
    text.contains(&format!("fn {name}()")) || text.contains(&format!("\n    {name}: "))
}

#[test]
fn the_readers_read() {
    assert_eq!(expanded("a.{b,c}[].{d,e}"), ["a.b[].d", "a.b[].e", "a.c[].d", "a.c[].e"]);
    let source = "#[serde(rename_all = \"camelCase\")]\npub struct Outer {\n    \
        #[serde(rename = \"classID\")]\n    /// Text: with, marks,\n    class_id: Option<u32>,\n    \
        long_name: Option<Vec<Inner>>,\n    map: HashMap<String, Inner>,\n}\n\n\
        pub struct Inner {\n    snake_name: u8,\n}\n";
    let mut out = Vec::new();
    leaves(&structures(source), "Outer", "", &mut out);
    assert_eq!(out, ["classID", "longName[].snake_name", "map.*.snake_name"]);
    assert!(exists("must::rlimit_given_twice") && !exists("must::no_such_test"));
    assert!(exists("src/spec/load.rs::broken_documents"));
}
