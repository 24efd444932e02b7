//! Mutants are in step with the sources: the text that each replaces stands once in its file, and its tests exist.

use std::fs;

use super::{files, none, root};

/// What is wrong with a mutant, line by line.
fn faults(mutant: &str, source: impl Fn(&str) -> String, tests: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut file, mut old) = ("", None::<String>);
    for line in mutant.lines() {
        match (line, &mut old) {
            ("<<<<", _) => old = Some(String::new()),
            ("====", Some(text)) => {
                let times = source(file).matches(text.trim_end_matches('\n')).count();
                if times != 1 {
                    found.push(format!("{file} has {times} of the text to replace: {text}"));
                }
                old = None;
            }
            (line, Some(text)) => *text += &format!("{line}\n"),
            (line, None) => match line.split_once(": ") {
                Some(("file", name)) => file = name,
                Some(("test" | "shim", name)) => {
                    let function = name.rsplit("::").next().unwrap_or_default();
                    if !tests.contains(&format!("fn {function}(")) {
                        found.push(format!("there is no test {name}"));
                    }
                }
                _ => {}
            },
        }
    }
    found
}

#[test]
fn mutants_are_in_step_with_the_sources() {
    let tests: String =
        files("runtime-tests/tests", &[".rs"]).into_iter().map(|(_, t)| t).collect();
    let source = |file: &str| fs::read_to_string(root().join(file)).unwrap_or_default();
    let mut wrong = Vec::new();
    for (path, text) in files("runtime-tests/mutants", &[""]) {
        let found = faults(&text, source, &tests);
        wrong.extend(found.into_iter().map(|fault| format!("{}: {fault}", path.display())));
    }
    none(&wrong);
}

#[test]
fn mutants_out_of_step_are_found() {
    let mutant =
        "test: a::holds\nshim: gone\nfile: x\n<<<<\none\n====\ntwo\n>>>>\n<<<<\nmore\n====\n>>>>\n";
    let found = faults(mutant, |_| "one\nmore more\n".to_owned(), "fn holds() {}");
    let expected = ["there is no test gone", "x has 2 of the text to replace: more\n"];
    assert_eq!(found, expected);
}
