//! fish(1).

use std::fmt::Write as _;

use super::{Command, Flag, Operand};

pub fn text(globals: &[Flag], commands: &[Command]) -> String {
    let mut text = String::from(
        "# Completion of aril for fish. Made by aril-docs from the table of its commands.\n\n\
         complete -c aril -f\n",
    );
    for flag in globals {
        line(&mut text, "__fish_use_subcommand", flag);
    }
    for Command { name, about, flags, operand, .. } in commands {
        let about = quoted(about);
        let _ = writeln!(text, "complete -c aril -n __fish_use_subcommand -a {name} -d {about}");
        let here = format!("__fish_seen_subcommand_from {name}");
        for flag in flags {
            line(&mut text, &here, flag);
        }
        let words = match operand {
            Operand::Container => "-a '(aril list --quiet 2>/dev/null)'".to_owned(),
            Operand::Directory => "-a '(__fish_complete_directories)'".to_owned(),
            Operand::Command => {
                let names: Vec<_> = commands.iter().map(|command| command.name).collect();
                format!("-a {}", quoted(&names.join(" ")))
            }
            Operand::Other | Operand::None => continue,
        };
        let _ = writeln!(text, "complete -c aril -n {} {words}", quoted(&here));
    }
    text
}

fn line(text: &mut String, condition: &str, flag: &Flag) {
    let _ = write!(text, "complete -c aril -n {} -l {}", quoted(condition), flag.long);
    if let Some(short) = flag.short {
        let _ = write!(text, " -s {short}");
    }
    if flag.value.as_ref().is_some_and(|value| !value.optional) {
        // -F: files, which the first line switched off.
        text.push_str(" -r -F");
    }
    let _ = writeln!(text, " -d {}", quoted(&flag.help));
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
