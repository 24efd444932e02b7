//! man(7).

use std::fmt::Write as _;

use aril::cli::version::VERSION;

use super::{Command, Flag};

pub fn overview(globals: &[Flag], commands: &[Command]) -> String {
    let mut page = head("aril", "a container runtime: runs OCI bundles");
    section(&mut page, "SYNOPSIS");
    line(&mut page, "aril [flags] <command> [command flags] [arguments]");
    section(&mut page, "DESCRIPTION");
    line(
        &mut page,
        "Runs containers that are described by the OCI runtime specification, with the command line \
         of runc. Engines call it; people may too.",
    );
    section(&mut page, "FLAGS");
    flags(&mut page, globals);
    section(&mut page, "COMMANDS");
    for Command { name, about, .. } in commands {
        let _ = writeln!(page, ".TP\n.BR aril\\-{} (1)\n{}", escaped(name), escaped(about));
    }
    section(&mut page, "FILES");
    for (file, what) in [
        ("config.json", "in the bundle: what the container is"),
        ("/run/aril/ID/state.json", "what there is of a container, for root"),
        ("$XDG_RUNTIME_DIR/aril", "in its place for an ordinary user"),
    ] {
        let _ = writeln!(page, ".TP\n.I {}\n{}", escaped(file), escaped(what));
    }
    section(&mut page, "ENVIRONMENT");
    line(
        &mut page,
        "XDG_RUNTIME_DIR, NOTIFY_SOCKET, LISTEN_FDS and LISTEN_PID, as other runtimes have them.",
    );
    section(&mut page, "EXIT STATUS");
    exit_status(&mut page);
    page
}

pub fn of(command: &Command) -> String {
    let mut page = head(&format!("aril-{}", command.name), command.about);
    section(&mut page, "SYNOPSIS");
    line(&mut page, &command.usage);
    section(&mut page, "FLAGS");
    flags(&mut page, &command.flags);
    section(&mut page, "EXIT STATUS");
    exit_status(&mut page);
    section(&mut page, "SEE ALSO");
    page.push_str(".BR aril (1)\n");
    page
}

fn head(name: &str, about: &str) -> String {
    let title = escaped(&name.to_ascii_uppercase());
    format!(
        ".\\\" Made by aril-docs from the table of commands.\n.TH \"{title}\" 1 \"\" \"aril {}\" \
         \"\"\n.SH NAME\n{} \\- {}\n",
        escaped(VERSION),
        escaped(name),
        escaped(about)
    )
}

fn section(page: &mut String, title: &str) {
    let _ = writeln!(page, ".SH {title}");
}

fn line(page: &mut String, text: &str) {
    page.push_str(&escaped(text));
    page.push('\n');
}

fn exit_status(page: &mut String) {
    line(
        page,
        "0 for success, 1 for an error. Where the program of a container was waited for, its own: its \
         code, or 128 and the number of the signal that ended it, and so for wait; exec has 255 for an \
         error before it ran.",
    );
}

fn flags(page: &mut String, flags: &[Flag]) {
    for flag in flags {
        let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        let value = match &flag.value {
            None => String::new(),
            Some(value) if value.optional => format!("[={}]", value.name),
            Some(value) => format!(" {}", value.name),
        };
        let spelling = escaped(&format!("{short}--{}{value}", flag.long));
        let _ = writeln!(page, ".TP\n.B {spelling}\n{}", escaped(&flag.help));
    }
}

/// A hyphen that is typed, and nothing at the beginning of a line that troff would take for its own.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
