//! Every fenced block of README.md and docs/ names its language, so that `suite::pages` knows which ones to paste.

use super::{files, none};

/// Languages, and what the second word of `sh` may be. Other languages have any: the tests of engines find blocks by it.
const LANGUAGES: [&str; 5] = ["text", "json", "toml", "yaml", "sh"];
const NEEDS: [&str; 7] = ["make", "source", "user", "containerd", "docker", "podman", "hosts"];

/// Lines of opening fences without a known language.
fn unnamed(page: &str) -> Vec<(usize, String)> {
    let fences = (1..).zip(page.lines()).filter(|(_, line)| line.trim_start().starts_with("```"));
    let opening =
        fences.step_by(2).map(|(number, line)| (number, line.trim_start()[3..].to_owned()));
    let known = |info: &str| {
        let (language, more) = info.split_once(' ').unwrap_or((info, ""));
        let needs = language != "sh" || more.is_empty() || NEEDS.contains(&more);
        LANGUAGES.contains(&language) && needs
    };
    opening.filter(|(_, info)| !known(info)).collect()
}

#[test]
fn blocks_name_their_language() {
    let mut wrong = Vec::new();
    for (path, text) in files(".", &[".md"]) {
        let found = unnamed(&text);
        wrong.extend(found.iter().map(|(line, info)| {
            format!("{}:{line}: a block of {info:?}: see suite/pages.rs", path.display())
        }));
    }
    none(&wrong);
}

#[test]
fn unnamed_blocks_are_found() {
    assert_eq!(unnamed("```sh\na\n```\n```sh user\n```\n"), []);
    assert_eq!(unnamed("x\n```\na\n```\n```sh x\n```\n").len(), 2);
}
