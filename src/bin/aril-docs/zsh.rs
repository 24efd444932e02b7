//! Completions for zsh(1).

use std::fmt::Write as _;

use super::{Command, Flag, Operand};

const HEAD: &str = r#"#compdef aril
# Completion of aril for zsh. Made by aril-docs from the table of its commands.

_aril_containers() {
    local -a ids
    ids=(${(f)"$(aril list --quiet 2>/dev/null)"})
    compadd -a ids
}

_aril_commands() {
    local -a commands
    commands=(
"#;

const MIDDLE: &str = r#"    )
    _describe command commands
}

_aril() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C -A '-*' \
"#;

const TURN: &str = r#"        '1:command:_aril_commands' \
        '*::argument:->rest'
    [[ $state == rest ]] || return
    case $words[1] in
"#;

const TAIL: &str = "    esac\n}\n\n_aril \"$@\"\n";

/// Completion script for zsh.
pub fn text(globals: &[Flag], commands: &[Command]) -> String {
    let mut text = HEAD.to_owned();
    for Command { name, about, .. } in commands {
        let _ = writeln!(text, "        '{name}:{}'", escaped(about));
    }
    text.push_str(MIDDLE);
    for flag in globals {
        line(&mut text, "        ", flag);
    }
    text.push_str(TURN);
    for command in commands {
        let _ = writeln!(text, "        {}) _arguments -A '-*' \\", command.name);
        for flag in &command.flags {
            line(&mut text, "            ", flag);
        }
        let operand = match command.operand {
            Operand::Container => "1:container:_aril_containers",
            Operand::Command => "1:command:_aril_commands",
            Operand::Directory => "1:bundle:_directories",
            Operand::Other => "1:container: ",
            Operand::None => "1: : ",
        };
        let _ = writeln!(text, "            '{operand}' '*:argument:_files' ;;");
    }
    text.push_str(TAIL);
    text
}

/// Appends a flag in each spelling. `*`: the flag may be repeated.
fn line(text: &mut String, indent: &str, flag: &Flag) {
    let help = escaped(&flag.help);
    let value = |equals: &str| match &flag.value {
        None => String::new(),
        Some(value) if value.optional => String::new(),
        Some(value) => format!("{equals}:{}:_files", escaped(&value.name)),
    };
    let spelling = |name: String, equals: &str| {
        let sign = if value("").is_empty() { "" } else { equals };
        format!("'*{name}{sign}[{help}]{}'", value(""))
    };
    let _ = writeln!(text, "{indent}{} \\", spelling(format!("--{}", flag.long), "="));
    if let Some(short) = flag.short {
        let _ = writeln!(text, "{indent}{} \\", spelling(format!("-{short}"), ""));
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, '[' | ']' | ':' | '\\') {
            escaped.push('\\');
        }
        match c {
            '\'' => escaped.push_str("'\\''"),
            c => escaped.push(c),
        }
    }
    escaped
}
