#![expect(clippy::disallowed_types, reason = "a test runs the shells")]

use std::process::Command as Process;

use runtime_tests::skip;

use super::*;

fn file(name: &str) -> String {
    files().into_iter().find(|(path, _)| path.ends_with(name)).expect(name).1
}

#[test]
fn every_command_and_every_flag_is_everywhere() {
    let completions = [file("completions/aril"), file("_aril"), file("aril.fish")];
    let overview = file("/aril.1");
    for verb in VERBS {
        let command = command(verb);
        let page = file(&format!("/aril-{}.1", verb.name));
        assert!(overview.contains(&format!("aril\\-{} (1)", verb.name)), "{}", verb.name);
        for text in &completions {
            assert!(text.contains(verb.name), "{}", verb.name);
        }
        for flag in &command.flags {
            let typed = format!("\\-\\-{}", flag.long.replace('-', "\\-"));
            assert!(page.contains(&typed), "{} --{}", verb.name, flag.long);
            assert!(completions[0].contains(&format!("--{}", flag.long)));
            assert!(completions[1].contains(&format!("*--{}", flag.long)));
            assert!(completions[2].contains(&format!("-l {}", flag.long)));
        }
        let hidden = (verb.flags)().into_iter().filter(clap::Arg::is_hide_set);
        for flag in hidden.filter_map(|arg| arg.get_long().map(str::to_owned)) {
            assert!(!page.contains(&format!("\\-\\-{flag}\n")), "{flag} is hidden");
        }
    }
    for flag in flags(&global_flags()) {
        assert!(overview.contains(&format!("\\-\\-{}", flag.long.replace('-', "\\-"))));
    }
}

/// Completions that bash offers for a command line whose last word is incomplete.
fn completed(words: &[&str]) -> Vec<String> {
    let script = format!(
        "{}\naril() {{ [ \"$*\" = '--root /r list --quiet' ] && echo one two; }}\n\
         COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _aril; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file("completions/aril")
    );
    let out = Process::new("bash").args(["--norc", "-c", &script, "bash"]).args(words).output();
    let out = out.expect("bash");
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    assert_eq!(completed(&["aril", "ev"]), ["events"]);
    assert_eq!(completed(&["aril", "--log", "x", "--root", "=", "/r", "ki"]), ["kill"]);
    assert_eq!(
        completed(&["aril", "create", "--pid"]),
        ["--pidfd-socket", "--pid-file", "--pids-limit"]
    );
    assert_eq!(completed(&["aril", "--root", "/r", "delete", "--force", "t"]), ["two"]);
    assert_eq!(completed(&["aril", "list", "--format", "j"]), ["json"]);
    assert_eq!(completed(&["aril", "list", "--format", "=", "t"]), ["table"]);
    assert_eq!(completed(&["aril", "run", "--bundle", "/us"]), ["/usr"]);
    assert_eq!(completed(&["aril", "help", "pl"]), ["plan"]);
    assert_eq!(completed(&["aril", "--debug", "--vers"]), ["--version"]);
    let commands = completed(&["aril", ""]);
    assert!(VERBS.iter().all(|verb| commands.contains(&verb.name.to_owned())), "{commands:?}");
}

/// Checks rules of man(7): known requests, a title first, a name section.
#[test]
fn man_pages_are_well_formed() {
    for (path, page) in files().into_iter().filter(|(path, _)| path.contains("/man1/")) {
        let mut lines = page.lines().filter(|line| !line.starts_with(".\\\""));
        assert!(lines.next().is_some_and(|line| line.starts_with(".TH \"ARIL")), "{path}");
        assert_eq!(lines.next(), Some(".SH NAME"), "{path}");
        assert!(lines.next().is_some_and(|line| line.contains(" \\- ")), "{path}");
        let mut after_tag = false;
        for line in lines {
            let request = line.starts_with('.').then(|| line.split(' ').next().unwrap_or(line));
            let known = [".SH", ".TP", ".B", ".BR", ".I"];
            assert!(request.is_none_or(|r| known.contains(&r)), "{path}: {line}");
            assert!(!line.is_empty() && !line.starts_with('\''), "{path}: {line:?}");
            assert!(
                !after_tag || request.is_some_and(|r| r != ".TP" && r != ".SH"),
                "{path}: {line}"
            );
            after_tag = line == ".TP";
        }
    }
}

#[test]
fn shells_accept_their_completions() {
    let directory = std::env::temp_dir().join(format!("aril-docs-{}", std::process::id()));
    write(&directory).expect("written");
    for (shell, name) in [
        (skip::tool("zsh", "zsh"), "share/zsh/site-functions/_aril"),
        (skip::tool("fish", "fish"), "share/fish/vendor_completions.d/aril.fish"),
        (Some("bash".into()), "share/bash-completion/completions/aril"),
    ] {
        let Some(shell) = shell else { continue };
        let out = Process::new(&shell).arg("-n").arg(directory.join(name)).output().expect("runs");
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{}: {}",
            shell.display(),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    std::fs::remove_dir_all(directory).expect("removed");
}
