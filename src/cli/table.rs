//! The table of verbs: names, flags, operands, and how they are read. Help is made from it too.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, value_parser};

use super::argv::{self, Order};
use super::command::{
    Command, Create, Edits, Exec, ExecProcess, Format, Global, Handover, Rootless, Run, Target,
};
use super::given::{Given, operand, usage};
use super::{Failure, help, log, network, options, resources, root, value};
use crate::error::{Error, Result};

pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// As the usage line shows them.
    pub operands: &'static str,
    pub least: usize,
    pub most: usize,
    pub order: Order,
    pub flags: fn() -> Vec<Arg>,
    read: Read,
}

type Read = fn(&Given, Vec<String>) -> Result<Command>;

/// A verb that asks for a container's id, and nothing more unless it says so.
const fn one_id(name: &'static str, about: &'static str, read: Read) -> Verb {
    Verb { operands: "<container-id>", least: 1, most: 1, ..bare(name, about, read) }
}

/// A verb that asks for nothing.
const fn bare(name: &'static str, about: &'static str, read: Read) -> Verb {
    let (operands, order) = ("", Order::Mixed);
    Verb { name, about, operands, least: 0, most: 0, order, flags: Vec::new, read }
}

const REST: usize = usize::MAX;

/// Of a verb that makes a container.
const MAKES: &str = "<container-id> [-- command [arguments]]";

/// In the order of a container's life, then what is not about one container.
pub const VERBS: &[Verb] = &[
    Verb {
        operands: MAKES,
        most: REST,
        flags: create_flags,
        ..one_id("create", "make a container that waits for start", |given, operands| {
            Ok(Command::Create(create(given, operands)?))
        })
    },
    one_id("start", "start the process of a created container", |_, operands| {
        Ok(Command::Start { id: id(operands) })
    }),
    Verb {
        operands: MAKES,
        most: REST,
        flags: run_flags,
        ..one_id("run", "create, start and wait, in one", run)
    },
    one_id("state", "print the state of a container, as JSON", |_, operands| {
        Ok(Command::State { id: id(operands) })
    }),
    Verb {
        flags: || vec![format_flag(), switch("quiet", "print the ids only").short('q')],
        ..bare("list", "list the containers below the state root", |given, _| {
            Ok(Command::List { format: format(given)?, quiet: given.switch("quiet") })
        })
    },
    Verb {
        operands: "<container-id> [ps options]",
        most: REST,
        order: Order::FlagsFirst,
        flags: || vec![format_flag()],
        ..one_id("ps", "list the processes of a container, by the host's ps", ps)
    },
    Verb {
        operands: "<container-id> <command> [arguments]",
        most: REST,
        order: Order::FlagsFirst,
        flags: exec_flags,
        ..one_id("exec", "run one more process in a container", exec)
    },
    Verb {
        operands: "<container-id> [signal]",
        most: 2,
        order: Order::FlagsFirst,
        // Hidden: its one effect left is that a stopped container is no error.
        flags: || vec![switch("all", "").short('a').hide(true)],
        ..one_id("kill", "send a signal (by default TERM) to a container's first process", kill)
    },
    Verb {
        flags: || vec![switch("force", "kill it first; no error if there is none").short('f')],
        ..one_id("delete", "remove a container and all that was made for it", |given, operands| {
            Ok(Command::Delete { id: id(operands), force: given.switch("force") })
        })
    },
    one_id("pause", "freeze the processes of a container", |_, operands| {
        Ok(Command::Pause { id: id(operands) })
    }),
    one_id("resume", "let them go on", |_, operands| Ok(Command::Resume { id: id(operands) })),
    Verb {
        flags: resources::flags,
        ..one_id("update", "change the limits of a container", |given, operands| {
            Ok(Command::Update { id: id(operands), resources: resources::read(given)? })
        })
    },
    Verb {
        flags: || {
            vec![
                value("interval", "TIME", "how often to print what it uses [5s]"),
                switch("stats", "print what it uses now, and end"),
            ]
        },
        ..one_id("events", "print what a container uses, and when memory runs out, as JSON", events)
    },
    Verb {
        operands: "[container-id...]",
        most: REST,
        flags: || {
            vec![
                format_flag(),
                value("interval", "TIME", "how often to look [1s]"),
                switch("no-stream", "look once"),
            ]
        },
        ..bare("stats", "watch what containers use: CPU, memory, disks, processes, pressure", stats)
    },
    Verb {
        flags: || vec![format_flag()],
        ..one_id("diff", "list what a container changed in its layers", |given, operands| {
            Ok(Command::Diff { id: id(operands), format: format(given)? })
        })
    },
    Verb {
        operands: "<container-id> <directory | file.tar | ->",
        least: 2,
        most: 2,
        flags: || vec![pause_flag()],
        ..one_id("commit", "keep what a container changed, as a layer", commit)
    },
    Verb {
        operands: "<container-id> [file]",
        most: 2,
        flags: || vec![pause_flag()],
        ..one_id("export", "write all files of a container to an archive (tar)", export)
    },
    Verb {
        flags: || vec![format_flag(), switch("dry-run", "only say what would be removed")],
        ..bare("reconcile", "remove what runtimes that were killed left", |given, _| {
            Ok(Command::Reconcile { dry_run: given.switch("dry-run"), format: format(given)? })
        })
    },
    Verb {
        flags: || {
            vec![bundle_flag(), switch("rootless", "for a container without root privileges")]
        },
        ..bare("spec", "write a config.json to start from", |given, _| {
            Ok(Command::Spec { bundle: given.bundle()?, rootless: given.switch("rootless") })
        })
    },
    Verb {
        operands: "[bundle]",
        most: 1,
        flags: || vec![bundle_flag()],
        ..bare("plan", "print what create would do, without doing it", plan)
    },
    Verb {
        operands: "[bundle]",
        most: 1,
        flags: || vec![bundle_flag(), format_flag()],
        ..bare(
            "explain",
            "say what a container may do to its host, with a grade",
            |given, words| {
                Ok(Command::Explain { bundle: bundle(given, words)?, format: format(given)? })
            },
        )
    },
    Verb {
        operands: "<ls|create|rm|inspect> [name...]",
        least: 1,
        most: REST,
        flags: || vec![format_flag()],
        ..bare("volume", "list, make, remove and show named volumes", |given, words| {
            Ok(Command::Volume { words, format: format(given)? })
        })
    },
    Verb {
        operands: "create|ls|inspect|rm [name...]",
        least: 1,
        most: REST,
        flags: network::flags,
        ..bare("network", "make, list, show or remove networks of containers", network::read)
    },
    bare("features", "print what this runtime can do, as JSON", |_, _| Ok(Command::Features)),
    Verb {
        operands: "[command]",
        most: 1,
        ..bare("help", "print this, or the help of a command", |_, operands| {
            let verb = operands.first().map(|name| find(name)).transpose()?;
            Ok(Command::Help(verb.map_or_else(help::overview, help::of)))
        })
    },
    bare("version", "print the version", |_, _| Ok(Command::Version)),
];

pub fn find(name: &str) -> Result<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name).ok_or_else(|| {
        usage(format!("unknown command {name:?}")).hint("aril --help lists the commands")
    })
}

/// The flags before the verb, and the words from the verb on.
pub fn globals(words: Vec<OsString>) -> std::result::Result<(Global, Vec<OsString>), Failure> {
    let table = plain("aril").args(global_flags());
    let split = argv::split(words, &table, Order::FlagsFirst)
        .map_err(|error| misused(error, help::overview()))?;
    let given = Given::new(table, split.flags)?;
    let global = Global {
        root: root::choose(given.raw("root").map(|r| r.as_os_str()), &root::Caller::current())?,
        log: given.path("log")?,
        log_format: log_format(&given)?,
        debug: given.switch("debug"),
        systemd_cgroup: given.switch("systemd-cgroup"),
        rootless: rootless(&given)?,
    };
    // They are verbs too, so that there is one way to say each.
    let rest = match () {
        () if given.switch("help") => vec!["help".into()],
        () if given.switch("version") => vec!["version".into()],
        () if split.operands.is_empty() => vec!["help".into()],
        () => split.operands,
    };
    Ok((global, rest))
}

/// Whether the verb puts a process of this program into a container.
pub fn enters_container(verb: &OsStr) -> bool {
    ["create", "run", "exec"].iter().any(|name| verb == *name)
}

/// The verb, its flags and its operands. Only the verb's own table is built.
pub fn command(words: &[OsString]) -> std::result::Result<Command, Failure> {
    let (name, words) = words.split_first().ok_or_else(|| usage("no command given"))?;
    let verb = find(&name.to_string_lossy())?;
    let table = verb.table();
    let split = argv::split(words.iter().cloned(), &table, verb.order)
        .map_err(|error| misused(error, help::of(verb)))?;
    let given = Given::new(table, split.flags)?;
    if given.switch("help") {
        return Ok(Command::Help(help::of(verb)));
    }
    verb.count(split.operands.len()).map_err(|error| misused(error, help::of(verb)))?;
    let operands = split.operands.into_iter().map(operand).collect::<Result<_>>()?;
    Ok((verb.read)(&given, operands)?)
}

fn misused(error: Error, help: String) -> Failure {
    Failure { help: Some(help), ..error.into() }
}

impl Verb {
    pub fn table(&self) -> clap::Command {
        plain(self.name).about(self.about).args((self.flags)()).arg(help_flag())
    }

    pub fn usage(&self) -> String {
        format!("aril {} [flags] {}", self.name, self.operands).trim_end().to_owned()
    }

    fn count(&self, given: usize) -> Result<()> {
        let (rule, n) = match (self.least, self.most) {
            (least, most) if (least..=most).contains(&given) => return Ok(()),
            (least, most) if least == most => ("exactly", least),
            (least, _) if given < least => ("a minimum of", least),
            (_, most) => ("a maximum of", most),
        };
        let message = format!("aril: {:?} requires {rule} {n} argument(s)", self.name);
        Err(usage(message))
    }
}

/// Without clap's own flags: ours are in the table.
pub fn plain(name: &'static str) -> clap::Command {
    clap::Command::new(name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .next_help_heading("Flags")
}

pub fn global_flags() -> Vec<Arg> {
    vec![
        value("root", "DIR", "keep the state of containers in DIR [/run/aril]"),
        value("log", "FILE", "append errors and warnings to FILE as well"),
        value("log-format", "FORMAT", "text or json [text]"),
        switch("debug", "log debug messages too"),
        switch("systemd-cgroup", "have systemd make the cgroup: cgroupsPath is slice:prefix:name"),
        value("rootless", "WHEN", "go on without a cgroup: true, false or auto [auto]"),
        // Of older runtimes: wrapper scripts still pass it.
        value("criu", "PATH", "").hide(true),
        help_flag(),
        switch("version", "print the version").short('v'),
    ]
}

fn help_flag() -> Arg {
    switch("help", "print this help").short('h')
}

fn bundle_flag() -> Arg {
    value("bundle", "DIR", "the directory with config.json [.]").short('b')
}

pub(super) fn format_flag() -> Arg {
    value("format", "FORMAT", "table or json [table]").short('f')
}

fn pause_flag() -> Arg {
    choice("pause", "freeze the container meanwhile [true]")
}

fn handover_flags() -> [Arg; 4] {
    [
        value("console-socket", "PATH", "send the terminal's master end to this unix socket"),
        value("pidfd-socket", "PATH", "send the process's pidfd to this unix socket"),
        value("pid-file", "FILE", "write the process number to FILE"),
        value("preserve-fds", "N", "pass N more file descriptors, from 3 (or LISTEN_FDS) on [0]"),
    ]
}

fn create_flags() -> Vec<Arg> {
    let mut flags = vec![bundle_flag()];
    flags.extend(handover_flags());
    flags.extend([
        switch(
            "no-pivot",
            "move the root instead of pivot_root: for a host that runs on initramfs",
        ),
        switch("no-new-keyring", "keep the caller's session keyring"),
        switch("timeline", "print where the time went to stderr"),
        value("userns", "auto[:SIZE]", "a user namespace of ids that no other container has"),
    ]);
    flags.extend(options::flags());
    flags.extend(network::run_flags());
    flags
}

fn run_flags() -> Vec<Arg> {
    let mut flags = create_flags();
    flags.extend([
        switch("detach", "do not wait for the process to end").short('d'),
        switch("no-subreaper", "do not adopt the container's orphans"),
        switch("keep", "do not delete the container when it ends"),
        switch("seccomp-report", "at the end, list the system calls that seccomp refused"),
    ]);
    flags
}

fn exec_flags() -> Vec<Arg> {
    let mut flags = vec![
        value("process", "FILE", "take the whole process from this JSON file").short('p'),
        value("cwd", "DIR", "the working directory"),
        values("env", "NAME=VALUE", "add to the environment").short('e'),
        choice("tty", "with a terminal, or without, whatever the config says").short('t'),
        value("user", "UID[:GID]", "the user, in numbers").short('u'),
        values("additional-gids", "GID", "add a group").short('g'),
        value("process-label", "LABEL", "the SELinux label"),
        value("apparmor", "PROFILE", "the AppArmor profile"),
        switch("no-new-privs", "no new privileges through exec"),
        values("cap", "CAP", "add a capability").short('c'),
        values("cgroup", "PATH", "enter this cgroup below the container's ([controller,..:]PATH)"),
        switch("ignore-paused", "allow it in a paused container, where it will hang"),
        switch("detach", "do not wait for the process to end").short('d'),
    ];
    flags.extend(handover_flags());
    flags
}

pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// A switch whose absence says something else than its `false`.
fn choice(name: &'static str, help: &'static str) -> Arg {
    let any = value_parser!(OsString);
    let arg = Arg::new(name).long(name).num_args(0..=1).require_equals(true).value_parser(any);
    arg.value_name("true|false").help(help)
}

/// The last one counts.
pub(super) fn value(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    values(name, shown, help).action(ArgAction::Set).overrides_with(name)
}

/// Each one counts, and none is split.
pub(super) fn values(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    let any = value_parser!(OsString);
    Arg::new(name)
        .long(name)
        .value_name(shown)
        .help(help)
        .value_parser(any)
        .action(ArgAction::Append)
}

fn id(mut operands: Vec<String>) -> String {
    operands.swap_remove(0)
}

fn handover(given: &Given) -> Result<Handover> {
    Ok(Handover {
        console_socket: given.path("console-socket")?,
        pidfd_socket: given.path("pidfd-socket")?,
        pid_file: given.path("pid-file")?,
        preserve_fds: given.number("preserve-fds")?.unwrap_or(0),
    })
}

fn create(given: &Given, mut operands: Vec<String>) -> Result<Create> {
    let args = operands.split_off(1);
    Ok(Create {
        id: id(operands),
        options: Box::new(options::read(given, args)?),
        bundle: given.bundle()?,
        handover: handover(given)?,
        no_pivot: given.switch("no-pivot"),
        no_new_keyring: given.switch("no-new-keyring"),
        timeline: given.switch("timeline"),
        userns: given.text("userns")?,
        annotations: network::annotations(given)?,
    })
}

fn ps(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let options = operands.split_off(1);
    Ok(Command::Ps { id: id(operands), format: format(given)?, options })
}

fn run(given: &Given, operands: Vec<String>) -> Result<Command> {
    let (detach, seccomp_report) = (given.switch("detach"), given.switch("seccomp-report"));
    Ok(Command::Run(Run {
        create: create(given, operands)?,
        detach,
        no_subreaper: given.switch("no-subreaper"),
        keep: given.switch("keep"),
        seccomp_report,
    }))
}

fn exec(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let args = operands.split_off(1);
    Ok(Command::Exec(Exec {
        id: id(operands),
        process: match given.path("process")? {
            Some(file) => ExecProcess::File(file),
            None => ExecProcess::Edited(Box::new(edits(given, args)?)),
        },
        handover: handover(given)?,
        detach: given.switch("detach"),
        cgroups: given.texts("cgroup")?,
        ignore_paused: given.switch("ignore-paused"),
    }))
}

fn edits(given: &Given, args: Vec<String>) -> Result<Edits> {
    if args.is_empty() {
        return Err(
            usage("exec args cannot be empty").hint("name a command after the container id")
        );
    }
    Ok(Edits {
        args,
        cwd: given.text("cwd")?,
        env: given.texts("env")?,
        tty: given.choice("tty")?,
        user: given.text("user")?,
        additional_gids: given.numbers("additional-gids")?,
        process_label: given.text("process-label")?,
        apparmor: given.text("apparmor")?,
        no_new_privs: given.switch("no-new-privs"),
        capabilities: given.texts("cap")?,
    })
}

fn kill(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let name = if operands.len() == 2 { operands.pop() } else { None };
    let signal = match &name {
        Some(name) => {
            value::signal(name).ok_or_else(|| usage(format!("unknown signal {name:?}")))?
        }
        None => libc::SIGTERM,
    };
    Ok(Command::Kill { id: id(operands), signal, all: given.switch("all") })
}

fn events(given: &Given, operands: Vec<String>) -> Result<Command> {
    Ok(Command::Events {
        id: id(operands),
        interval: interval(given, 5)?,
        stats: given.switch("stats"),
    })
}

fn stats(given: &Given, operands: Vec<String>) -> Result<Command> {
    Ok(Command::Stats {
        ids: operands,
        format: format(given)?,
        interval: interval(given, 1)?,
        once: given.switch("no-stream"),
    })
}

fn interval(given: &Given, default: u64) -> Result<Duration> {
    let asked = given.parsed("interval", value::duration, "a time such as 1m30s or 500ms")?;
    match asked.unwrap_or(Duration::from_secs(default)) {
        Duration::ZERO => Err(usage("duration interval must be greater than 0")),
        interval => Ok(interval),
    }
}

fn commit(given: &Given, operands: Vec<String>) -> Result<Command> {
    let to = Target::layer(&operands[1])?;
    Ok(Command::Commit { id: id(operands), to, pause: given.choice("pause")?.unwrap_or(true) })
}

fn export(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let file = if operands.len() == 2 { operands.pop() } else { None };
    let to = Target::archive(file.as_deref().unwrap_or("-"))?;
    Ok(Command::Export { id: id(operands), to, pause: given.choice("pause")?.unwrap_or(true) })
}

fn plan(given: &Given, operands: Vec<String>) -> Result<Command> {
    Ok(Command::Plan { bundle: bundle(given, operands)? })
}

fn bundle(given: &Given, operands: Vec<String>) -> Result<PathBuf> {
    match operands.first() {
        Some(path) => std::path::absolute(path).map_err(|_| usage("a bundle's path is not empty")),
        None => given.bundle(),
    }
}

pub(super) fn format(given: &Given) -> Result<Format> {
    match given.text("format")?.as_deref() {
        None | Some("table") => Ok(Format::Table),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(usage(format!("invalid format option: {other:?}"))
            .hint("the formats are table and json")),
    }
}

fn log_format(given: &Given) -> Result<log::Format> {
    match given.text("log-format")?.as_deref() {
        None | Some("text") => Ok(log::Format::Text),
        Some("json") => Ok(log::Format::Json),
        Some(other) => Err(usage(format!("invalid log-format: {other}"))),
    }
}

fn rootless(given: &Given) -> Result<Rootless> {
    let parse = |text: &str| match text {
        "auto" => Some(Rootless::Auto),
        text => value::boolean(text).map(|yes| if yes { Rootless::Yes } else { Rootless::No }),
    };
    Ok(given.parsed("rootless", parse, "true, false or auto")?.unwrap_or(Rootless::Auto))
}

#[cfg(test)]
mod tests;
