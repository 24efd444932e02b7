//! Table of verbs: names, flags, operands, and the functions that read them. Help is rendered from it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, value_parser};

use super::argv::{self, Order};
use super::command::{
    CgroupManager, Command, Create, Edits, Exec, ExecProcess, Format, Global, Handover, Rootless,
    Run, Target,
};
use super::given::{Given, operand, usage};
use super::{Failure, help, log, network, options, policy, resources, root, suggest, value};
use crate::error::Result;
use crate::lifecycle::mounts::Action;

pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// Operands, as the usage line shows them.
    pub operands: &'static str,
    pub least: usize,
    pub most: usize,
    pub order: Order,
    pub flags: fn() -> Vec<Arg>,
    read: Read,
}

type Read = fn(&Given, Vec<String>) -> Result<Command>;

/// Defines a verb with the container's id as its operand, and no flags.
const fn one_id(name: &'static str, about: &'static str, read: Read) -> Verb {
    Verb { operands: "<container-id>", least: 1, most: 1, ..bare(name, about, read) }
}

/// Defines a verb without operands and flags.
const fn bare(name: &'static str, about: &'static str, read: Read) -> Verb {
    let (operands, order) = ("", Order::Mixed);
    Verb { name, about, operands, least: 0, most: 0, order, flags: Vec::new, read }
}

const REST: usize = usize::MAX;

/// Operands of a verb that creates a container.
const MAKES: &str = "<container-id> [-- command [arguments]]";

/// Verbs in the order of a container's life, then those that are not about one container.
pub const VERBS: &[Verb] = &[
    Verb {
        operands: MAKES,
        most: REST,
        flags: create_flags,
        ..one_id("create", "Create a container but do not start it", |given, operands| {
            Ok(Command::Create(create(given, operands)?))
        })
    },
    one_id("start", "Start a created container", |_, operands| {
        Ok(Command::Start { id: id(operands) })
    }),
    Verb {
        operands: MAKES,
        most: REST,
        flags: run_flags,
        ..one_id("run", "Create and start a container, and wait for it to end", run)
    },
    one_id("wait", "Wait for a container to end, and print its exit status", |_, operands| {
        Ok(Command::Wait { id: id(operands) })
    }),
    one_id("state", "Print a container's state as JSON", |_, operands| {
        Ok(Command::State { id: id(operands) })
    }),
    Verb {
        flags: || vec![format_flag(), switch("quiet", "Print container ids only").short('q')],
        ..bare("list", "List containers", |given, _| {
            Ok(Command::List { format: format(given)?, quiet: given.switch("quiet") })
        })
    },
    Verb {
        operands: "<container-id> [ps options]",
        most: REST,
        order: Order::FlagsFirst,
        flags: || vec![format_flag()],
        ..one_id("ps", "List the processes of a container with the host's ps", ps)
    },
    Verb {
        operands: "<container-id> <command> [arguments]",
        most: REST,
        order: Order::FlagsFirst,
        flags: exec_flags,
        ..one_id("exec", "Run a command in a running container", exec)
    },
    Verb {
        operands: "<container-id> [signal]",
        most: 2,
        order: Order::FlagsFirst,
        // Hidden: its only effect today is that a stopped container is not an error.
        flags: || {
            vec![
                switch("all", "").short('a').hide(true),
                value("signal", "SIGNAL", "The signal, by name or number").short('s'),
                regex_flag(),
            ]
        },
        ..one_id("kill", "Send a signal (TERM by default) to a container's init process", kill)
    },
    Verb {
        flags: || {
            vec![
                switch("force", "Kill it first; succeed if it does not exist").short('f'),
                regex_flag(),
            ]
        },
        ..one_id("delete", "Delete a container and its resources", |given, operands| {
            let (regex, force) = (given.switch("regex"), given.switch("force"));
            Ok(Command::Delete { id: id(operands), regex, force })
        })
    },
    one_id("pause", "Pause all processes of a container", |_, operands| {
        Ok(Command::Pause { id: id(operands) })
    }),
    one_id("resume", "Resume a paused container", |_, operands| {
        Ok(Command::Resume { id: id(operands) })
    }),
    Verb {
        flags: resources::flags,
        ..one_id("update", "Update the resource limits of a container", |given, operands| {
            Ok(Command::Update { id: id(operands), resources: resources::read(given)? })
        })
    },
    Verb {
        operands: "<add|remove> <container-id> <file>",
        least: 3,
        most: 3,
        ..bare("mounts", "Add mounts to a running container, or remove them", mounts)
    },
    Verb {
        flags: || {
            vec![
                value("interval", "TIME", "Interval between statistics [5s]"),
                switch("stats", "Print statistics once"),
            ]
        },
        ..one_id("events", "Stream statistics and OOM events of a container as JSON", events)
    },
    Verb {
        operands: "[container-id...]",
        most: REST,
        flags: || {
            vec![
                format_flag(),
                value("interval", "TIME", "Interval between samples [1s]"),
                switch("no-stream", "Print one sample"),
            ]
        },
        ..bare(
            "stats",
            "Show resource usage of containers: CPU, memory, disks, processes, pressure",
            stats,
        )
    },
    Verb {
        flags: || vec![format_flag()],
        ..one_id("diff", "List files that a container changed in its layers", |given, operands| {
            Ok(Command::Diff { id: id(operands), format: format(given)? })
        })
    },
    Verb {
        operands: "<container-id> <directory | file.tar | ->",
        least: 2,
        most: 2,
        flags: || vec![pause_flag()],
        ..one_id("commit", "Write the changes of a container as a layer", commit)
    },
    Verb {
        operands: "<container-id> [file]",
        most: 2,
        flags: || vec![pause_flag()],
        ..one_id("export", "Write a container's file system to a tar archive", export)
    },
    Verb {
        flags: || vec![format_flag(), switch("dry-run", "Only print what would be removed")],
        ..bare("reconcile", "Find and remove resources leaked by killed runtimes", |given, _| {
            Ok(Command::Reconcile { dry_run: given.switch("dry-run"), format: format(given)? })
        })
    },
    Verb {
        flags: || vec![bundle_flag(), switch("rootless", "Write it for a rootless container")],
        ..bare("spec", "Write a default config.json", |given, _| {
            Ok(Command::Spec { bundle: given.bundle()?, rootless: given.switch("rootless") })
        })
    },
    Verb {
        operands: "[bundle]",
        most: 1,
        flags: || vec![bundle_flag()],
        ..bare("plan", "Print what create would do, without doing it", plan)
    },
    Verb {
        operands: "[bundle]",
        most: 1,
        flags: || vec![bundle_flag(), format_flag()],
        ..bare(
            "explain",
            "Explain what a container may do to its host, with a grade",
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
        ..bare("volume", "List, create, remove and inspect named volumes", |given, words| {
            Ok(Command::Volume { words, format: format(given)? })
        })
    },
    Verb {
        operands: "create|ls|inspect|rm [name...]",
        least: 1,
        most: REST,
        flags: network::flags,
        ..bare("network", "Create, list, inspect and remove container networks", network::read)
    },
    bare("features", "Print the runtime's features as JSON", |_, _| Ok(Command::Features)),
    Verb {
        operands: "[command [action]]",
        most: 2,
        ..bare("help", "Print this help, or the help of a command", |_, operands| {
            let [name, action @ ..] = operands.as_slice() else {
                return Ok(Command::Help(help::overview()));
            };
            let verb = find(name)?;
            match action.iter().find(|action| !verb.has_action(action)) {
                Some(action) => Err(usage(format!("aril {name} has no action {action:?}"))),
                None => Ok(Command::Help(help::of(verb))),
            }
        })
    },
    bare("version", "Print the version", |_, _| Ok(Command::Version)),
];

fn is_verb(name: &str) -> bool {
    VERBS.iter().any(|verb| verb.name == name)
}

/// Finds a verb by its name.
///
/// # Errors
///
/// No verb has the name; the hint names a similar one.
pub fn find(name: &str) -> Result<&'static Verb> {
    VERBS
        .iter()
        .find(|verb| verb.name == name)
        .ok_or_else(|| usage(format!("unknown command {name:?}{}", suggest::for_command(name))))
}

/// Reads the flags before the verb. Returns the words from the verb on, too.
///
/// # Errors
///
/// A flag is unknown, or has an invalid value.
pub fn globals(words: Vec<OsString>) -> std::result::Result<(Global, Vec<OsString>), Failure> {
    let table = plain("aril").args(global_flags());
    let split = argv::split(words, &table, Order::FlagsFirst)?;
    let given = Given::new(table, split.flags)?;
    let global = Global {
        root: root::choose(given.raw("root").map(|r| r.as_os_str()), &root::Caller::current())?,
        log: given.path("log")?,
        log_format: log_format(&given)?,
        level: log_level(&given)?,
        cgroup_manager: cgroup_manager(&given)?,
        rootless: rootless(&given)?,
        host_mounts: given.switch("allow-host-mounts"),
        annotations: policy::read(&given)?,
    };
    // Help and version are verbs, too.
    let rest = match () {
        () if given.switch("help") => vec!["help".into()],
        () if given.switch("version") => vec!["version".into()],
        () if split.operands.is_empty() => vec!["help".into()],
        () => split.operands,
    };
    Ok((global, rest))
}

/// Returns true for a verb that starts a process of this program in a container.
pub fn enters_container(verb: &OsStr) -> bool {
    ["create", "run", "exec", "mounts"].iter().any(|name| verb == *name)
}

/// Reads the verb, its flags and its operands. Builds the table of that verb alone.
///
/// # Errors
///
/// The verb is unknown, or its words are invalid.
pub fn command(words: &[OsString]) -> std::result::Result<Command, Failure> {
    let (name, words) = words.split_first().ok_or_else(|| usage("no command given"))?;
    let name = name.to_string_lossy();
    if !is_verb(&name) && words.iter().any(|word| word == "-h" || word == "--help") {
        // runc's words.
        return Err(usage(format!("No help topic for '{name}'")).into());
    }
    let verb = find(&name)?;
    let table = verb.table();
    let split = argv::split(words.iter().cloned(), &table, verb.order)?;
    let given = Given::new(table, split.flags)?;
    if given.switch("help") {
        return Ok(Command::Help(help::of(verb)));
    }
    verb.count(split.operands.len())?;
    let operands = split.operands.into_iter().map(operand).collect::<Result<_>>()?;
    Ok((verb.read)(&given, operands)?)
}

impl Verb {
    /// True for `create` of `network`: an alternative of the first operand.
    fn has_action(&self, word: &str) -> bool {
        let first = self.operands.split(' ').next().unwrap_or_default();
        first.contains('|')
            && first.trim_matches(['<', '>']).split('|').any(|action| action == word)
    }

    pub fn table(&self) -> clap::Command {
        plain(self.name).about(self.about).args((self.flags)()).arg(help_flag())
    }

    pub fn usage(&self) -> String {
        format!("aril {} [flags] {}", self.name, self.operands).trim_end().to_owned()
    }

    /// Returns advice for a wrong number of operands, as in `docker ps`.
    fn advice(&self, given: usize) -> &'static str {
        match (self.name, given) {
            ("ps", 0) => " (`aril list` lists the containers)",
            _ => "",
        }
    }

    fn count(&self, given: usize) -> Result<()> {
        let (rule, n) = match (self.least, self.most) {
            (least, most) if (least..=most).contains(&given) => return Ok(()),
            (least, most) if least == most => ("exactly", least),
            (least, _) if given < least => ("a minimum of", least),
            (_, most) => ("a maximum of", most),
        };
        let message = format!("aril: {:?} requires {rule} {n} argument(s)", self.name);
        Err(usage(format!("{message}: {}{}", self.usage(), self.advice(given))))
    }
}

/// Creates a command without clap's default flags.
pub fn plain(name: &'static str) -> clap::Command {
    clap::Command::new(name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .next_help_heading("Flags")
}

pub fn global_flags() -> Vec<Arg> {
    let mut flags = vec![
        value("root", "DIR", "State directory [/run/aril]"),
        value("log", "FILE", "Append errors and warnings to FILE"),
        value("log-format", "FORMAT", "Format of the log: text or json [text]"),
        switch("debug", "Log debug messages: each step and its duration"),
        switch("systemd-cgroup", "Let systemd create the cgroup; cgroupsPath is slice:prefix:name"),
        value(
            "cgroup-manager",
            "MANAGER",
            "Cgroup driver: cgroupfs, systemd or disabled [cgroupfs]",
        ),
        value("log-level", "LEVEL", "Least severe level to log: error, warning or debug [warning]"),
        value(
            "rootless",
            "WHEN",
            "Continue without a cgroup if none can be created: true, false or auto [auto]",
        ),
        switch(
            "allow-host-mounts",
            "Let a config.json without a mount namespace mount in the host's",
        ),
        // Older versions of runc had it, and wrapper scripts still pass it.
        value("criu", "PATH", "").hide(true),
    ];
    flags.extend(policy::flags());
    flags.extend([help_flag(), switch("version", "Print the version").short('v')]);
    flags
}

fn mounts(_: &Given, operands: Vec<String>) -> Result<Command> {
    let [action, id, file] = operands.try_into().map_err(|_| usage("three words needed"))?;
    let action = match action.as_str() {
        "add" => Action::Add,
        "remove" => Action::Remove,
        other => return Err(usage(format!("unknown action {other:?}: expected add or remove"))),
    };
    Ok(Command::Mounts { action, id, file: file.into() })
}

fn help_flag() -> Arg {
    switch("help", "Print this help").short('h')
}

fn regex_flag() -> Arg {
    switch("regex", "Treat the id as a regular expression and act on all containers that match")
        .short('r')
}

fn bundle_flag() -> Arg {
    value("bundle", "DIR", "Bundle directory, which holds config.json [.]").short('b')
}

pub(super) fn format_flag() -> Arg {
    value("format", "FORMAT", "Output format: table or json [table]").short('f')
}

fn pause_flag() -> Arg {
    choice("pause", "Pause the container while it is read [true]")
}

fn handover_flags() -> [Arg; 4] {
    [
        value(
            "console-socket",
            "PATH",
            "Send the terminal's master descriptor to this unix socket",
        ),
        value("pidfd-socket", "PATH", "Send a pidfd of the process to this unix socket"),
        value("pid-file", "FILE", "Write the process ID to FILE"),
        value("preserve-fds", "N", "Pass N more file descriptors, from 3 (after LISTEN_FDS) [0]"),
    ]
}

fn create_flags() -> Vec<Arg> {
    let mut flags = vec![
        bundle_flag(),
        value("config", "FILE", "Read FILE instead of the bundle's config.json").short('f'),
    ];
    flags.extend(handover_flags());
    flags.extend([
        switch("no-pivot", "Move the root instead of pivot_root, for a host on initramfs"),
        switch("no-new-keyring", "Keep the caller's session keyring"),
        switch("timeline", "Print the duration of each step to stderr"),
        value("userns", "auto[:SIZE]", "User namespace with ids of no other container"),
    ]);
    flags.extend(options::flags());
    flags.extend(network::run_flags());
    flags
}

fn run_flags() -> Vec<Arg> {
    let mut flags = create_flags();
    flags.extend([
        switch("detach", "Do not wait for the process to end").short('d'),
        switch("interactive", "").short('i').hide(true),
        switch("rm", "Delete the container when it ends; without --detach the default"),
        switch("no-subreaper", "Do not become the reaper of orphaned processes"),
        switch("keep", "Keep the container when it ends"),
        switch("seccomp-report", "At the end, list system calls that seccomp rejected"),
    ]);
    flags
}

fn exec_flags() -> Vec<Arg> {
    let mut flags = vec![
        value("process", "FILE", "Read the whole process from this JSON file").short('p'),
        choice("tty", "Allocate a terminal, or with =false none").short('t'),
        value("user", "USER[:GROUP]", "User, by number or by the container's name").short('u'),
        values("group-add", "GID", "Add a supplementary group").short('g').alias("additional-gids"),
        value("process-label", "LABEL", "SELinux label"),
        value("apparmor", "PROFILE", "AppArmor profile"),
        switch("no-new-privs", "Set no_new_privs"),
        values("cap-add", "CAP", "Add a capability, such as NET_ADMIN").short('c').alias("cap"),
        switch("interactive", "").short('i').hide(true),
        values("cgroup", "PATH", "Enter this cgroup below the container's: [controller,..:]PATH"),
        switch("ignore-paused", "Allow it in a paused container, where it waits for resume"),
        switch("detach", "Do not wait for the process to end").short('d'),
    ];
    flags.extend(options::process_flags());
    flags.extend(handover_flags());
    flags
}

pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Defines a switch for which absent and `false` differ.
fn choice(name: &'static str, help: &'static str) -> Arg {
    let any = value_parser!(OsString);
    let arg = Arg::new(name).long(name).num_args(0..=1).require_equals(true).value_parser(any);
    arg.value_name("true|false").help(help)
}

/// Defines a flag with a value. The last one counts.
pub(super) fn value(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    values(name, shown, help).action(ArgAction::Set).overrides_with(name)
}

/// Defines a flag that can be repeated. Values are not split.
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
        config: given.path("config")?,
        handover: handover(given)?,
        no_pivot: given.switch("no-pivot"),
        no_new_keyring: given.switch("no-new-keyring"),
        init: given.switch("init"),
        timeline: given.switch("timeline"),
    })
}

fn ps(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let options = operands.split_off(1);
    Ok(Command::Ps { id: id(operands), format: format(given)?, options })
}

fn run(given: &Given, operands: Vec<String>) -> Result<Command> {
    let (detach, seccomp_report) = (given.switch("detach"), given.switch("seccomp-report"));
    let (rm, keep) = (given.switch("rm"), given.switch("keep"));
    if rm && keep {
        return Err(usage("--rm cannot be used together with --keep"));
    }
    Ok(Command::Run(Run {
        create: create(given, operands)?,
        detach,
        no_subreaper: given.switch("no-subreaper"),
        keep,
        rm,
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
        cwd: given.text("workdir")?,
        env: options::environment(given)?,
        tty: given.choice("tty")?.unwrap_or(false),
        user: given.text("user")?,
        additional_gids: given.numbers("group-add")?,
        process_label: given.text("process-label")?,
        apparmor: given.text("apparmor")?,
        no_new_privs: given.switch("no-new-privs"),
        capabilities: given.texts("cap-add")?.iter().map(|name| capability(name)).collect(),
    })
}

/// Returns a capability as the specification names it: `CAP_NET_ADMIN` for Docker's `NET_ADMIN`.
fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

fn kill(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let operand = if operands.len() == 2 { operands.pop() } else { None };
    let name = match (operand, given.text("signal")?) {
        (Some(_), Some(_)) => return Err(usage("the signal is given twice")),
        (operand, flag) => operand.or(flag),
    };
    let signal = match &name {
        Some(name) => {
            value::signal(name).ok_or_else(|| usage(format!("unknown signal {name:?}")))?
        }
        None => libc::SIGTERM,
    };
    let (regex, all) = (given.switch("regex"), given.switch("all"));
    Ok(Command::Kill { id: id(operands), regex, signal, all })
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

/// Reads the log level. `--debug` is the same as `--log-level debug`.
fn log_level(given: &Given) -> Result<log::Level> {
    let parse = |text: &str| match text {
        "error" => Some(log::Level::Error),
        "warn" | "warning" | "info" => Some(log::Level::Warning),
        "debug" => Some(log::Level::Debug),
        _ => None,
    };
    let level = given.parsed("log-level", parse, "error, warning or debug")?;
    let debug = given.switch("debug").then_some(log::Level::Debug);
    Ok(debug.or(level).unwrap_or(log::Level::Warning))
}

fn cgroup_manager(given: &Given) -> Result<CgroupManager> {
    let parse = |text: &str| match text {
        "cgroupfs" => Some(CgroupManager::Cgroupfs),
        "systemd" => Some(CgroupManager::Systemd),
        "disabled" => Some(CgroupManager::Disabled),
        _ => None,
    };
    let named = given.parsed("cgroup-manager", parse, "cgroupfs, systemd or disabled")?;
    let by_switch = given.switch("systemd-cgroup").then_some(CgroupManager::Systemd);
    Ok(named.or(by_switch).unwrap_or(CgroupManager::Cgroupfs))
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
