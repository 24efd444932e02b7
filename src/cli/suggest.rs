//! Suggestions for unknown words: a similar word, or the equivalent of one of Docker's.

use super::table;

/// Returns the candidate that is most similar to `word`, if one is similar enough.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = match word.chars().count() {
        0..=1 => return None,
        2..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    let rated = candidates.map(|candidate| {
        let begins = word.len() >= 3 && candidate.starts_with(word);
        (if begins { 1 } else { distance(word, candidate) }, candidate)
    });
    rated.filter(|(distance, _)| *distance <= tolerated).min().map(|(_, candidate)| candidate)
}

/// Counts insertions, deletions, replacements and transpositions of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Commands of Docker and Podman, with the equivalent of each.
const COMMANDS: &[(&str, &str)] = &[
    ("attach", "a foreground `aril run` is attached; `aril exec -t ID sh` opens a shell"),
    ("build", "Aril runs root file systems and OCI bundles; it does not build images"),
    ("cp", "`aril export ID -` writes the container's files as a tar archive"),
    ("images", "Aril has no image store: `aril run --rootfs DIR` runs an unpacked image"),
    ("import", "unpack the archive to a directory: `aril run --rootfs DIR` runs it"),
    ("info", "use `aril features`"),
    ("inspect", "use `aril state`"),
    ("load", "Aril has no image store: `aril run --rootfs DIR` runs an unpacked image"),
    ("logs", "Aril keeps no output: it goes to the caller's stdout and stderr, or to systemd"),
    ("ls", "use `aril list`"),
    ("port", "`aril network inspect NAME` lists published ports"),
    ("prune", "use `aril reconcile`"),
    ("pull", "Aril has no registry client: skopeo and umoci fetch and unpack an image"),
    ("push", "Aril has no registry client: `aril commit` writes a layer"),
    ("rename", "a container keeps its id: `aril delete` it, and run it by another"),
    ("restart", "use `aril kill`, `aril delete` and `aril run`"),
    ("rm", "use `aril delete`"),
    ("rmi", "Aril has no image store"),
    ("stop", "use `aril kill`"),
    ("top", "use `aril ps`"),
    ("unpause", "use `aril resume`"),
];

/// Returns the end of the message about an unknown command.
pub fn for_command(name: &str) -> String {
    if let Some((_, advice)) = COMMANDS.iter().find(|(theirs, _)| *theirs == name) {
        return format!(": {advice}");
    }
    let verbs = table::VERBS.iter().map(|verb| verb.name);
    match nearest(name, verbs) {
        Some(verb) => format!(": did you mean {verb:?}? `aril --help` lists the commands"),
        None => ": `aril --help` lists the commands".to_owned(),
    }
}

/// Flags of Docker and Podman that a command lacks, with the equivalent of each.
const FLAGS: &[(&str, &[&str], &str)] = &[
    ("name", &["run", "create"], "the name is a word: aril run --rootfs DIR NAME -- COMMAND"),
    ("entrypoint", &["run", "create"], "the command is what follows --"),
    (
        "privileged",
        &["run", "create"],
        "ask for what is needed: --cap-add NAME or ALL, --device PATH, --volume, --sysctl",
    ),
    ("privileged", &["exec"], "--cap-add ALL adds capabilities"),
    ("restart", &["run", "create"], "a unit of systemd restarts it: Restart=always"),
    (
        "log-driver",
        &["run", "create"],
        "output goes to the caller's stdout and stderr, or to systemd",
    ),
    ("platform", &["run", "create"], "--rootfs runs a directory as it is"),
    (
        "pull",
        &["run", "create"],
        "Aril has no registry client: skopeo and umoci fetch and unpack an image",
    ),
    ("mount", &["run", "create"], "use --volume or --tmpfs"),
    ("volumes-from", &["run", "create"], "name the volumes with --volume"),
    ("gpus", &["run", "create"], "--device adds devices of the host"),
    ("init", &["exec"], "`run` and `create` have it"),
    ("a", &["ps"], "`aril list` lists all containers; `aril ps ID` lists the processes of one"),
    (
        "all",
        &["ps", "list"],
        "`aril list` lists all containers; `aril ps ID` lists the processes of one",
    ),
    ("a", &["list"], "`aril list` lists all containers, stopped ones included"),
    (
        "f",
        &["kill"],
        "`aril kill ID KILL` ends it at once; `aril delete --force ID` removes it too",
    ),
];

/// Returns the end of the message about an unknown flag.
pub fn for_flag(name: &str, verb: &clap::Command) -> String {
    let command = verb.get_name();
    let theirs =
        |(flag, commands, _): &&(&str, &[&str], &str)| *flag == name && commands.contains(&command);
    if let Some((_, _, advice)) = FLAGS.iter().find(theirs) {
        return format!(": {advice}");
    }
    let help = if command == "aril" { "aril".to_owned() } else { format!("aril {command}") };
    if command != "aril" && table::global_flags().iter().any(|flag| flag.get_long() == Some(name)) {
        return format!(": it belongs before the command: aril --{name} ... {command}");
    }
    let known = verb.get_arguments().filter(|arg| !arg.is_hide_set());
    match nearest(name, known.filter_map(|arg| arg.get_long())) {
        Some(flag) => format!(": did you mean --{flag}? `{help} --help` lists the flags"),
        None => format!(": `{help} --help` lists the flags"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, n) in [("", "abc", 3), ("abc", "abc", 0), ("memroy", "memory", 1), ("a", "b", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (n, n), "{a} {b}");
        }
    }

    #[test]
    fn typing_errors_are_recognised_and_other_words_are_not() {
        let verbs = || table::VERBS.iter().map(|verb| verb.name);
        for (typed, meant) in [
            ("strat", Some("start")),
            ("dlete", Some("delete")),
            ("statee", Some("state")),
            ("lst", Some("list")),
            ("recon", Some("reconcile")),
            ("checkpoint", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, verbs()), meant, "{typed}");
        }
    }

    #[test]
    fn no_command_of_dockers_is_one_of_arils() {
        for (name, _) in COMMANDS {
            assert!(table::VERBS.iter().all(|verb| verb.name != *name), "{name}");
        }
    }

    #[test]
    fn no_flag_is_explained_where_it_exists() {
        for (flag, commands, _) in FLAGS {
            for command in *commands {
                let verb = table::find(command).unwrap().table();
                let is = |arg: &clap::Arg| {
                    arg.get_long() == Some(flag)
                        || arg.get_short().is_some_and(|c| *flag == c.to_string())
                };
                assert!(!verb.get_arguments().any(is), "{command} --{flag}");
            }
        }
    }
}
