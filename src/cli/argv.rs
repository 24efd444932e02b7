//! Converts a command line in the syntax of Go's flag packages into words that clap reads the same way.
//!
//! Engines speak to this command line as Go's flag packages define it, where `-name` and `--name` are
//! the same flag, `--switch=false` is legal, and a flag takes the next word whatever it looks like.
//! [`split`] turns that into `--name=value` words for clap, and the operands (id, signal, command).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction};

use super::{suggest, value};
use crate::error::{Error, Kind, Result};

/// Position of flags on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Flags end at the first operand: the words after it belong to another program.
    FlagsFirst,
    /// Flags stand before, between and after the operands.
    Mixed,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Flags as `--name=value`, or `--name` for a switch that is on.
    pub flags: Vec<OsString>,
    pub operands: Vec<OsString>,
}

/// Kind of value of a flag.
enum Takes {
    /// No value, or `=true` and `=false`. False is the same as absent.
    Switch,
    /// No value, or `=true` and `=false`. False differs from absent.
    Choice,
    /// A value: the rest of the word, or the next word.
    Value,
}

/// Splits words into flags and operands. Flags become canonical words (`--name=value`).
///
/// # Errors
///
/// A flag is unknown, lacks its value, or has one that it does not take.
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
        let Some((long, takes)) = find(table, name) else {
            let rest = cluster(table, &word, &mut split.flags).ok_or_else(|| {
                let advice = suggest::for_flag(&String::from_utf8_lossy(name), table);
                let flag = spelled(&word, attached);
                refuse(format!("flag provided but not defined: {flag}{advice}"))
            })?;
            if let Cluster::Needs(long) = rest {
                let value = words.next().ok_or_else(|| {
                    refuse(format!("flag needs an argument: {}", word.to_string_lossy()))
                })?;
                split.flags.push(canonical(long, &value));
            }
            continue;
        };
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
                turn(&mut split.flags, long, &takes, on);
            }
        }
    }
    Ok(split)
}

/// Sets a switch or choice. The last word about a flag counts.
fn turn(flags: &mut Vec<OsString>, long: &str, takes: &Takes, on: bool) {
    flags.retain(|flag| !is(flag, long));
    match (takes, on) {
        (Takes::Switch, true) => flags.push(format!("--{long}").into()),
        (Takes::Switch, false) => {}
        _ => flags.push(format!("--{long}={on}").into()),
    }
}

/// Rest of a word of several letters.
enum Cluster<'a> {
    Complete,
    /// The flag of the last letter takes the next word.
    Needs(&'a str),
}

/// Reads a word such as `-it` or `-itw` as several flags of one letter. The last one may take a value. `None` if the
/// word has another form.
fn cluster<'a>(
    table: &'a clap::Command,
    word: &OsStr,
    flags: &mut Vec<OsString>,
) -> Option<Cluster<'a>> {
    let letters = word.as_bytes().strip_prefix(b"-").filter(|letters| letters.len() > 1)?;
    let found: Vec<_> = letters
        .chunks(1)
        .map(|letter| letter[0].is_ascii_alphanumeric().then(|| find(table, letter)).flatten())
        .collect::<Option<_>>()?;
    let (last, switches) = found.split_last()?;
    if switches.iter().any(|(_, takes)| matches!(takes, Takes::Value)) {
        return None;
    }
    switches.iter().for_each(|(long, takes)| turn(flags, long, takes, true));
    if matches!(last.1, Takes::Value) {
        return Some(Cluster::Needs(last.0));
    }
    turn(flags, last.0, &last.1, true);
    Some(Cluster::Complete)
}

/// Returns the name and the attached value of a flag. `-` alone is an operand.
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

/// Finds a flag by one of its long names or letters, with one dash or two.
fn find<'a>(table: &'a clap::Command, name: &[u8]) -> Option<(&'a str, Takes)> {
    let named = |arg: &&Arg| match name {
        [letter] => {
            arg.get_short_and_visible_aliases().into_iter().flatten().any(|c| *letter == c as u8)
        }
        _ => {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long().into_iter().chain(aliases).any(|long| name == long.as_bytes())
        }
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

/// Returns the flag as it was typed, without its value.
fn spelled(word: &OsStr, attached: Option<&OsStr>) -> String {
    let end = word.len() - attached.map_or(0, |value| value.len() + 1);
    String::from_utf8_lossy(&word.as_bytes()[..end]).into_owned()
}

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
    fn letters_share_a_dash() {
        assert_eq!(flags(&["-dt"]), ["--debug", "--tty=true"]);
        assert_eq!(flags(&["-tdb", "/b"]), ["--tty=true", "--debug", "--bundle=/b"]);
        assert_eq!(refusal(&["-db"]), "flag needs an argument: -db");
        // A long name comes first.
        assert_eq!(flags(&["-tty", "-d"]), ["--tty=true", "--debug"]);
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
        let undefined = |word: &str| {
            refusal(&[word]).starts_with(&format!(
                "flag provided but not defined: {}: ",
                word.split('=').next().unwrap()
            ))
        };
        assert!(
            undefined("--nope=1") && undefined("-bd") && undefined("-dx") && undefined("-dt=x")
        );
        assert!(refusal(&["--budnle", "x"]).contains("did you mean --bundle? `aril t --help`"));
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
