//! Public functions that can fail have a section `# Errors`, which says when they do.

use super::{files, none};

/// Types of results that can be errors.
const RESULTS: [&str; 3] = ["Result", "ChildResult", "Outcome"];

/// Return type of the function that begins in the first line.
fn return_type(lines: &[&str]) -> String {
    let end = lines.iter().position(|line| line.contains(['{', ';'])).unwrap_or(0);
    let signature = lines[..=end].join(" ");
    let result = signature.rsplit_once("->").map(|(_, result)| result).unwrap_or_default();
    // The result of a parameter's function is followed by the end of the parameters.
    let is_own = result.matches('(').count() == result.matches(')').count();
    if is_own { result.to_owned() } else { String::new() }
}

fn can_fail(lines: &[&str]) -> bool {
    let words = return_type(lines);
    let mut words = words.split(|c: char| !c.is_alphanumeric());
    words.any(|word| RESULTS.contains(&word))
}

/// Names of public functions that can fail and whose comment does not say when.
fn undocumented(source: &str) -> Vec<&str> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        let function = ["pub fn ", "pub unsafe fn ", "pub const fn "]
            .iter()
            .find_map(|words| line.strip_prefix(words));
        let Some(function) = function.filter(|_| can_fail(&lines[n..])) else { continue };
        let above = lines[..n].iter().rev().map(|line| line.trim_start());
        let mut comment =
            above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
        if !comment.any(|line| line == "/// # Errors") {
            found.push(function.split(['(', '<']).next().unwrap_or(function));
        }
    }
    found
}

#[test]
fn functions_that_can_fail_say_when() {
    let sources = files("src", &[".rs"]).into_iter();
    let wrong = sources.flat_map(|(path, text)| {
        let path = path.display().to_string();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        undocumented(code)
            .into_iter()
            .map(|name| format!("{path}: {name}: add a section `# Errors` to its comment"))
            .collect::<Vec<_>>()
    });
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn a_missing_section_is_found() {
    let source = "/// Reads.\n///\n/// # Errors\n///\n/// It fails.\npub fn a() -> Result<u8> {\n}\n\
        /// Reads.\n#[cold]\npub fn b(\n    x: u8,\n) -> sys::Result<u8> {\n}\n\
        pub fn c() -> u8 {\n}\npub fn d(f: impl Fn() -> Result<()>) {\n}\n";
    assert_eq!(undocumented(source), ["b"]);
}
