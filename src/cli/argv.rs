//! Go's reading of a command line, rewritten into the one form that clap reads without surprises.
//!
//! Engines speak to this command line as Go's flag packages define it, where `-name` and `--name` are
//! the same flag, `--switch=false` is legal, and a flag takes the next word whatever it looks like.
//! [`split`] turns that into `--name=value` words for clap, and the operands (id, signal, command).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction};

use super::value;
use crate::error::{Error, Kind, Result};

/// Where flags may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first operand ends them: what follows belongs to somebody else.
    FlagsFirst,
    /// Before, between and after the operands.
    Mixed,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// `--name=value`, or `--name` for a switch that is on.
    pub flags: Vec<OsString>,
    pub operands: Vec<OsString>,
}

/// What a flag takes.
enum Takes {
    /// Nothing, or `=true` and `=false`; off is the same as absent.
    Switch,
    /// The same, but off is not the same as absent.
    Choice,
    /// The rest of its word, or the next word.
    Value,
}

pub fn split(
    words: impl IntoIterator<Item = OsString>,
    table: &clap::Command,
    order: Order,
) -> Result<Split> {
    let mut words = words.into_iter();
    let mut split = Split::default();
    while let Some(word) = words.next() {
        if word == "--" {
            split.operands.extend(words);
            break;
        }
        let Some((name, attached)) = flag(&word)? else {
            split.operands.push(word);
            if order == Order::FlagsFirst {
                split.operands.extend(words);
                break;
            }
            continue;
        };
        let (long, takes) = find(table, name).ok_or_else(|| {
            let text = format!("flag provided but not defined: {}", spelled(&word, attached));
            match FROM_ELSEWHERE.iter().find(|(theirs, _)| name == theirs.as_bytes()) {
                Some((_, ours)) => refuse(text).hint(*ours),
                None => refuse(text),
            }
        })?;
        match takes {
            Takes::Value => {
                let value = attached.map(OsStr::to_owned).or_else(|| words.next());
                let value = value.ok_or_else(|| {
                    refuse(format!("flag needs an argument: {}", spelled(&word, attached)))
                })?;
                split.flags.push(canonical(long, &value));
            }
            Takes::Switch | Takes::Choice => {
                let on = attached.map_or(Ok(true), |v| boolean(v, &word))?;
                split.flags.retain(|flag| !is(flag, long));
                match (takes, on) {
                    (Takes::Switch, true) => split.flags.push(format!("--{long}").into()),
                    (Takes::Switch, false) => {}
                    _ => split.flags.push(format!("--{long}={on}").into()),
                }
            }
        }
    }
    Ok(split)
}

/// Name and attached value of a word that is a flag. A lone `-` is an operand.
fn flag(word: &OsStr) -> Result<Option<(&[u8], Option<&OsStr>)>> {
    let bytes = word.as_bytes();
    let Some(name) = bytes.strip_prefix(b"-").filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    let name = name.strip_prefix(b"-").unwrap_or(name);
    if name.first().is_none_or(|b| matches!(b, b'-' | b'=')) {
        return Err(refuse(format!("bad flag syntax: {}", word.to_string_lossy())));
    }
    Ok(Some(match name.iter().position(|b| *b == b'=') {
        Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]))),
        None => (name, None),
    }))
}

/// A flag is known by its long name and by its letter, with either number of dashes.
fn find<'a>(table: &'a clap::Command, name: &[u8]) -> Option<(&'a str, Takes)> {
    let named = |arg: &&Arg| {
        let letter = arg.get_short().is_some_and(|c| name == [c as u8]);
        letter || arg.get_long().is_some_and(|long| name == long.as_bytes())
    };
    let arg = table.get_arguments().find(named)?;
    let takes = match arg.get_action() {
        ArgAction::SetTrue => Takes::Switch,
        _ if arg.get_num_args().is_some_and(|n| n.min_values() == 0) => Takes::Choice,
        _ => Takes::Value,
    };
    Some((arg.get_long()?, takes))
}

fn canonical(long: &str, value: &OsStr) -> OsString {
    let mut word = format!("--{long}=").into_bytes();
    word.extend_from_slice(value.as_bytes());
    OsString::from_vec(word)
}

fn is(flag: &OsStr, long: &str) -> bool {
    let rest = flag.as_bytes().strip_prefix(b"--").and_then(|r| r.strip_prefix(long.as_bytes()));
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'=')
}

fn boolean(text: &OsStr, word: &OsStr) -> Result<bool> {
    text.to_str().and_then(value::boolean).ok_or_else(|| {
        let flag = spelled(word, Some(text));
        refuse(format!("invalid boolean value {text:?} for {flag}: want true or false"))
    })
}

/// The flag as it was typed, without its value.
fn spelled(word: &OsStr, attached: Option<&OsStr>) -> String {
    let end = word.len() - attached.map_or(0, |value| value.len() + 1);
    String::from_utf8_lossy(&word.as_bytes()[..end]).into_owned()
}

/// What fingers know that are used to engines, and what it is here.
const FROM_ELSEWHERE: [(&str, &str); 6] = [
    ("i", "standard input is always the program's"),
    ("it", "-t gives a terminal; standard input is always the program's"),
    ("rm", "`run` deletes the container when its program ends, unless --keep says otherwise"),
    ("name", "the name is a word by itself: aril run --rootfs DIR NAME -- COMMAND"),
    ("entrypoint", "the command is what follows --"),
    ("privileged", "--cap-add ALL, and a config.json for the rest"),
];

#[cold]
fn refuse(message: String) -> Error {
    Error::new(Kind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> clap::Command {
        clap::Command::new("t")
            .arg(Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue))
            .arg(Arg::new("debug").long("debug").short('d').action(ArgAction::SetTrue))
            .arg(Arg::new("tty").long("tty").short('t').num_args(0..=1))
            .arg(Arg::new("bundle").long("bundle").short('b').action(ArgAction::Set))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("resources").long("resources").action(ArgAction::Set))
    }

    fn of(words: &[&str], order: Order) -> (Vec<String>, Vec<String>) {
        let split = split(words.iter().map(OsString::from), &table(), order).unwrap();
        let text = |v: Vec<OsString>| v.into_iter().map(|w| w.into_string().unwrap()).collect();
        (text(split.flags), text(split.operands))
    }

    fn flags(words: &[&str]) -> Vec<String> {
        of(words, Order::Mixed).0
    }

    fn refusal(words: &[&str]) -> String {
        split(words.iter().map(OsString::from), &table(), Order::Mixed).unwrap_err().to_string()
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        assert_eq!(flags(&["-no-subreaper", "-debug"]), ["--no-subreaper", "--debug"]);
        assert_eq!(flags(&["-bundle", "/b"]), ["--bundle=/b"]);
        assert_eq!(flags(&["--b", "/b"]), ["--bundle=/b"]);
        assert_eq!(flags(&["-b", "/b"]), ["--bundle=/b"]);
        assert_eq!(flags(&["-b=/b"]), ["--bundle=/b"]);
    }

    #[test]
    fn a_value_is_attached_or_the_next_word() {
        assert_eq!(flags(&["--bundle", "/b"]), ["--bundle=/b"]);
        assert_eq!(flags(&["--bundle=/b=c"]), ["--bundle=/b=c"]);
        assert_eq!(flags(&["--bundle="]), ["--bundle="]);
        assert_eq!(flags(&["--resources=-"]), ["--resources=-"]);
        assert_eq!(flags(&["--resources", "-"]), ["--resources=-"]);
        assert_eq!(flags(&["--bundle", "--debug"]), ["--bundle=--debug"]);
        assert_eq!(flags(&["--bundle", "--"]), ["--bundle=--"]);
    }

    #[test]
    fn switches_may_say_so() {
        for yes in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(flags(&[&format!("--debug={yes}")]), ["--debug"]);
        }
        for no in ["0", "f", "F", "false", "FALSE", "False"] {
            assert!(flags(&["--debug", &format!("--debug={no}")]).is_empty());
        }
        assert_eq!(flags(&["--debug=false", "-d"]), ["--debug"]);
        assert_eq!(
            refusal(&["--debug=maybe"]),
            "invalid boolean value \"maybe\" for --debug: want true or false"
        );
    }

    #[test]
    fn a_choice_keeps_its_no() {
        assert_eq!(flags(&["-t"]), ["--tty=true"]);
        assert_eq!(flags(&["--tty=false"]), ["--tty=false"]);
        assert_eq!(flags(&["--tty=false", "--tty"]), ["--tty=true"]);
        // The next word is not its value.
        assert_eq!(of(&["--tty", "false"], Order::Mixed).1, ["false"]);
    }

    #[test]
    fn repeated_values_stay_whole_and_in_order() {
        assert_eq!(flags(&["-e", "A=1,2", "--env=B= x"]), ["--env=A=1,2", "--env=B= x"]);
    }

    #[test]
    fn the_first_operand_may_end_the_flags() {
        let words = ["--debug", "id", "ls", "-la", "--", "--debug=false"];
        let (flags, operands) = of(&words, Order::FlagsFirst);
        assert_eq!(flags, ["--debug"]);
        assert_eq!(operands, ["id", "ls", "-la", "--", "--debug=false"]);
    }

    #[test]
    fn or_flags_may_follow() {
        assert_eq!(
            of(&["id", "--debug"], Order::Mixed),
            (vec!["--debug".into()], vec!["id".into()])
        );
    }

    #[test]
    fn two_dashes_end_the_flags() {
        assert_eq!(of(&["-d", "--", "-x", "--"], Order::Mixed).1, ["-x", "--"]);
        assert_eq!(of(&["--", "--debug"], Order::FlagsFirst).1, ["--debug"]);
    }

    #[test]
    fn one_dash_alone_is_an_operand() {
        assert_eq!(of(&["-", ""], Order::Mixed).1, ["-", ""]);
    }

    #[test]
    fn texts_that_callers_search_for() {
        assert_eq!(refusal(&["--bundle"]), "flag needs an argument: --bundle");
        assert_eq!(refusal(&["-b"]), "flag needs an argument: -b");
        assert_eq!(refusal(&["--nope=1"]), "flag provided but not defined: --nope");
        assert_eq!(refusal(&["-dt"]), "flag provided but not defined: -dt");
        assert_eq!(refusal(&["---debug"]), "bad flag syntax: ---debug");
        assert_eq!(refusal(&["-=x"]), "bad flag syntax: -=x");
    }

    #[test]
    fn bytes_that_are_not_text_pass() {
        let raw = OsString::from_vec(b"--bundle=/\xff".to_vec());
        let split = split([raw.clone()], &table(), Order::Mixed).unwrap();
        assert_eq!(split.flags, [raw]);
    }
}
