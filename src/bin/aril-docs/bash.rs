//! bash(1), with or without bash-completion.

use std::fmt::Write as _;

use super::{Command, Flag, Operand};

/// `=` breaks words in bash, so that `--root=/r` comes as three of them.
const SCRIPT: &str = r#"# Completion of aril for bash. Made by aril-docs from the table of its commands.

_aril() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command= flags=@globals@ values=@values@ operand=command i word
    local -a root=()
    COMPREPLY=()
    [[ $cur == = ]] && cur=
    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ " $values " == *" $word "* ]]; then
            ((i++))
            [[ ${COMP_WORDS[i]} == = ]] && ((i++))
            [[ $word == --root ]] && ((i < COMP_CWORD)) && root=(--root "${COMP_WORDS[i]}")
        elif [[ $word != -* ]]; then
            command=$word
            break
        fi
    done
    case $command in
@cases@    esac
    if [[ " $values " == *" $prev "* ]]; then
        case $prev in
            --format|-f) mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$cur") ;;
            --log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur") ;;
            --bundle|-b|--root|--cwd) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
            *) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ $operand == command ]]; then
        mapfile -t COMPREPLY < <(compgen -W '@commands@' -- "$cur")
    elif [[ $operand == container ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null)" -- "$cur")
    elif [[ $operand == directory ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    fi
}

complete -o filenames -o bashdefault -F _aril aril
"#;

pub fn text(globals: &[Flag], commands: &[Command]) -> String {
    let mut cases = String::new();
    for command in commands {
        let operand = match command.operand {
            Operand::Container => "container",
            Operand::Command => "command",
            Operand::Directory => "directory",
            Operand::Other | Operand::None => "none",
        };
        let (flags, values) = (words(&command.flags, |_| true), with_value(&command.flags));
        let name = command.name;
        let _ =
            writeln!(cases, "        {name}) flags={flags} values={values} operand={operand} ;;");
    }
    let names: Vec<_> = commands.iter().map(|command| command.name).collect();
    SCRIPT
        .replace("@globals@", &words(globals, |_| true))
        .replace("@values@", &with_value(globals))
        .replace("@cases@", &cases)
        .replace("@commands@", &names.join(" "))
}

fn with_value(flags: &[Flag]) -> String {
    words(flags, |flag| flag.value.as_ref().is_some_and(|value| !value.optional))
}

/// Quoted, with both spellings of each.
fn words(flags: &[Flag], wanted: impl Fn(&Flag) -> bool) -> String {
    let mut words = Vec::new();
    for flag in flags.iter().filter(|flag| wanted(flag)) {
        words.push(format!("--{}", flag.long));
        words.extend(flag.short.map(|short| format!("-{short}")));
    }
    format!("'{}'", words.join(" "))
}
