//! `aril-docs DIRECTORY`: generates shell completions and man pages from the table of verbs.
//!
//! `make build` runs it for `make install`. It is an example of the package and not a binary, so a build of aril does
//! not include it.

mod bash;
mod fish;
mod man;
mod zsh;

use std::path::Path;

use anyhow::{Context as _, Result};
use aril::cli::table::{VERBS, Verb, global_flags};

/// A flag, as completions and man pages describe it.
struct Flag {
    long: String,
    short: Option<char>,
    value: Option<Value>,
    help: String,
}

struct Value {
    /// Name that help shows: `FILE`.
    name: String,
    /// The flag may be given without a value; a value follows after `=`.
    optional: bool,
}

struct Command {
    name: &'static str,
    about: &'static str,
    usage: String,
    flags: Vec<Flag>,
    operand: Operand,
}

/// Kind of a command's first operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    /// ID of an existing container.
    Container,
    /// ID of a new container, or another operand that cannot be completed.
    Other,
    Command,
    Directory,
    None,
}

fn flag(arg: &clap::Arg) -> Option<Flag> {
    let long = arg.get_long().filter(|_| !arg.is_hide_set())?.to_owned();
    let value = arg.get_action().takes_values().then(|| Value {
        name: arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or_else(|| "VALUE".to_owned(), ToString::to_string),
        optional: arg.get_num_args().is_some_and(|range| range.min_values() == 0),
    });
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    Some(Flag { long, short: arg.get_short(), value, help })
}

fn flags<'a>(args: impl IntoIterator<Item = &'a clap::Arg>) -> Vec<Flag> {
    args.into_iter().filter_map(flag).collect()
}

fn command(verb: &'static Verb) -> Command {
    let operand = match verb.operands {
        "" => Operand::None,
        text if text.starts_with("<container-id>") || text.starts_with("[container-id") => {
            match verb.name {
                "create" | "run" | "restore" => Operand::Other,
                _ => Operand::Container,
            }
        }
        "[command [action]]" => Operand::Command,
        "[bundle]" => Operand::Directory,
        _ => Operand::Other,
    };
    Command {
        name: verb.name,
        about: verb.about,
        usage: verb.usage(),
        flags: flags(verb.table().get_arguments()),
        operand,
    }
}

/// Files to write: the path in the output directory, and the text.
fn files() -> Vec<(String, String)> {
    let globals = flags(&global_flags());
    let commands: Vec<Command> = VERBS.iter().map(command).collect();
    let mut files = vec![
        ("share/bash-completion/completions/aril".to_owned(), bash::text(&globals, &commands)),
        ("share/zsh/site-functions/_aril".to_owned(), zsh::text(&globals, &commands)),
        ("share/fish/vendor_completions.d/aril.fish".to_owned(), fish::text(&globals, &commands)),
        ("share/man/man1/aril.1".to_owned(), man::overview(&globals, &commands)),
    ];
    let page = |c: &Command| (format!("share/man/man1/aril-{}.1", c.name), man::of(c));
    files.extend(commands.iter().map(page));
    files
}

fn write(directory: &Path) -> Result<()> {
    for (path, text) in files() {
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent)
            .with_context(|| format!("create directory {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("usage: aril-docs DIRECTORY")?;
    write(Path::new(&directory))
}

#[cfg(test)]
mod tests;
