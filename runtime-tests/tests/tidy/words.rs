//! Plain words in README.md, CHANGELOG.md, CONTRIBUTING.md, SECURITY.md and docs/, and in comments and literals of the
//! sources that [`PLAIN_SOURCES`] lists: CONTRIBUTING.md has the rules, docs/glossary.md the terms.
//! Links between pages resolve, docs/README.md lists every page, and each page says what it is for before its options.

use std::path::Path;

use super::{files, none, parts};

/// Words that hide the actor, or stand for a term of the field, with what to write instead. In a code span (the user
/// `nobody`) and in a fenced block every word is allowed.
const WORDS: [(&str, &str); 22] = [
    ("who", "the actor: the caller, another container, a user"),
    ("whoever", "the actor: the caller, a process that ..."),
    ("whom", "the actor"),
    ("somebody", "the actor"),
    ("someone", "the actor"),
    ("anybody", "any user, any process"),
    ("everybody", "every user, every container"),
    ("nobody", "no user, no process"),
    ("folder", "directory"),
    ("folders", "directories"),
    ("we", "Aril"),
    ("our", "Aril's"),
    ("ours", "Aril's"),
    ("not to be had", "unavailable, not supported"),
    ("meanwhile", "in the meantime, or nothing"),
    ("let go", "released"),
    ("lets go", "releases"),
    ("by then", "then"),
    ("take away", "remove"),
    ("takes away", "removes"),
    ("taken away", "removed"),
    ("born", "created, cloned"),
];

/// Lines of a page outside of fenced blocks, without code spans and the targets of links.
fn prose(page: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if !fence && !fenced {
            let spoken: Vec<_> = line.split('`').step_by(2).collect();
            found.push((number, without_targets(&spoken.join(" "))));
        }
    }
    found
}

/// `[text](target)` is `[text`.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or("", |(_, rest)| rest))
}

/// Words of the list, with the line that each begins in.
fn unplain(page: &str) -> Vec<(usize, &'static str, &'static str)> {
    let lines = prose(page);
    let words: Vec<(usize, String)> = lines
        .iter()
        .flat_map(|(number, line)| {
            let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            words.map(|word| (*number, word.to_lowercase()))
        })
        .collect();
    let mut found = Vec::new();
    for at in 0..words.len() {
        for (phrase, instead) in WORDS {
            let mut rest = words[at..].iter().map(|(_, word)| word.as_str());
            if phrase.split(' ').all(|word| rest.next() == Some(word)) {
                found.push((words[at].0, phrase, instead));
            }
        }
    }
    found
}

fn pages() -> Vec<(String, String)> {
    let all =
        files(".", &[".md"]).into_iter().map(|(path, text)| (path.display().to_string(), text));
    all.filter(|(path, _)| !path.contains('/') || path.starts_with("docs/")).collect()
}

#[test]
fn pages_use_plain_words() {
    let mut wrong = Vec::new();
    for (path, text) in &pages() {
        wrong.extend(unplain(text).iter().map(|(line, word, instead)| {
            format!("{path}:{line}: {word:?}: write {instead}; the rules are in CONTRIBUTING.md")
        }));
    }
    none(&wrong);
}

/// Sources whose comments and literals use plain words.
const PLAIN_SOURCES: [&str; 2] = ["src", "runtime-tests/src"];

/// Comments and literals of a source, line by line, without code.
fn texts(source: &str) -> String {
    let mut out = String::new();
    for (is_code, part) in parts(source) {
        if is_code {
            out.extend(part.chars().filter(|c| *c == '\n'));
        } else {
            out.push_str(part.trim_start_matches(['/', '!', ' ']));
            out.push(' ');
        }
    }
    out
}

#[test]
fn sources_use_plain_words() {
    let mut wrong = Vec::new();
    for place in PLAIN_SOURCES {
        assert!(super::root().join(place).exists(), "{place} of PLAIN_SOURCES does not exist");
    }
    let all = files("src", &[".rs"]).into_iter().chain(files("runtime-tests/src", &[".rs"]));
    for (path, text) in all.filter(|(path, _)| PLAIN_SOURCES.iter().any(|p| path.starts_with(p))) {
        wrong.extend(unplain(&texts(&text)).iter().map(|(line, word, instead)| {
            let path = path.display();
            format!("{path}:{line}: {word:?}: write {instead}; the rules are in CONTRIBUTING.md")
        }));
    }
    none(&wrong);
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    without_targets(heading)
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

fn anchors(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) {
            found.push(anchor(heading.trim_start_matches('#')));
        }
    }
    found
}

/// Targets of links in this repository, with their lines.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        fenced ^= line.trim_start().starts_with("```");
        let targets = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        let local = targets.filter(|target| !fenced && !target.contains("://"));
        found.extend(local.map(|target| (number, target.to_owned())));
    }
    found
}

/// `docs/a.md` and `../b.md#c`: `b.md`.
fn resolved(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    if !target.is_empty() {
        parts.pop();
    }
    for part in target.split('/').filter(|part| !part.is_empty()) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn links_between_pages_resolve() {
    let all = pages();
    let mut wrong = Vec::new();
    for (path, text) in &all {
        for (line, link) in links(text) {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = resolved(path, target);
            let page = all.iter().find(|(path, _)| *path == target);
            let found = match page {
                Some((_, text)) => anchor.is_empty() || anchors(text).iter().any(|a| a == anchor),
                None => anchor.is_empty() && super::root().join(&target).exists(),
            };
            if !found {
                wrong.push(format!("{path}:{line}: {link} leads nowhere"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_index_lists_every_page() {
    let all = pages();
    let (index, text) = all.iter().find(|(path, _)| path == "docs/README.md").expect("the index");
    let listed: Vec<_> = links(text).iter().map(|(_, link)| resolved(index, link)).collect();
    let unlisted = all.iter().filter(|(path, _)| {
        Path::new(path).starts_with("docs") && path != index && !listed.contains(path)
    });
    none(&unlisted.map(|(path, _)| format!("{index} does not list {path}")).collect::<Vec<_>>());
}

/// Whether a page begins with a paragraph, and shows an example or a table before its second section.
fn begins_with_purpose(page: &str) -> bool {
    let mut lines = page.lines().skip(1).filter(|line| !line.is_empty());
    let paragraph = lines
        .next()
        .is_some_and(|line| line.starts_with(char::is_alphanumeric) || line.starts_with('`'));
    let mut sections = 0;
    paragraph
        && lines
            .take_while(|line| {
                sections += usize::from(line.starts_with("## "));
                sections < 2
            })
            .any(|line| ["```", "    ", "| "].iter().any(|begin| line.starts_with(begin)))
}

#[test]
fn pages_begin_with_their_purpose_and_an_example() {
    let wrong = pages().into_iter().filter(|(path, text)| {
        let is_page = path.strip_prefix("docs/").is_some_and(|name| !name.contains('/'));
        is_page && !begins_with_purpose(text)
    });
    let order = "begin with what the page is for, then an example or a table";
    none(&wrong.map(|(path, _)| format!("{path}: {order}")).collect::<Vec<_>>());
}

#[test]
fn pages_without_purpose_or_example_are_found() {
    assert!(begins_with_purpose("# A\n\n`a` does.\n\n```sh\na\n```\n## B\n## C\n"));
    assert!(!begins_with_purpose("# A\n\n## B\n\n```sh\na\n```\n"));
    assert!(!begins_with_purpose("# A\n\nIt does.\n\n## B\n\nB.\n\n## C\n\n```sh\na\n```\n"));
}

#[test]
fn words_of_the_list_are_found() {
    let page = "Whoever asks `nobody`,\n```sh\nwho\n```\nis not to\nbe had: [see](folder.md).\n";
    let found: Vec<_> = unplain(page).iter().map(|(line, word, _)| (*line, *word)).collect();
    assert_eq!(found, [(1, "whoever"), (5, "not to be had")]);
}

#[test]
fn words_are_found_in_comments_and_literals_alone() {
    let source =
        "//! ```\n//! who\n//! ```\nfn who() {} // our `who`\nlet folder = \"a\nnobody {}\";\n";
    let found: Vec<_> =
        unplain(&texts(source)).iter().map(|(line, word, _)| (*line, *word)).collect();
    assert_eq!(found, [(4, "our"), (6, "nobody")]);
}

#[test]
fn links_and_anchors_are_read() {
    let page = "# A `b`: c, [d](e.md)\n```text\n# no\n[x](y)\n```\n[1](../f.md#g), [2](http://h), [3](#i)\n";
    assert_eq!(anchors(page), ["a-b-c-d"]);
    let targets: Vec<_> = links(page).into_iter().map(|(_, link)| link).collect();
    assert_eq!(targets, ["e.md", "../f.md#g", "#i"]);
    assert_eq!(resolved("docs/a.md", "../f.md"), "f.md");
    assert_eq!(resolved("docs/a.md", "b/c.md"), "docs/b/c.md");
    assert_eq!(resolved("docs/a.md", ""), "docs/a.md");
}
