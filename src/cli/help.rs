//! Renders help from the table of verbs. Nothing here is built unless help is printed.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Command;

use super::table::{VERBS, Verb, global_flags, plain};

const EXAMPLES: &str = "\
Examples:
  aril run --rootfs DIR web -- sh   Run a program in the root file system DIR, as `web`
  aril spec                         Write a config.json; then unpack a root file system to rootfs/
  aril plan                         Print what a run would do
  aril run hello                    Run the bundle in the current directory, as `hello`
  aril run --timeline -b /b hello   Run the bundle /b and print the duration of each step
  aril exec -it hello sh            Open a shell in the container
  aril kill hello KILL              Kill the container
  aril delete hello                 Delete the container and its resources

Containers are described by the OCI runtime specification, https://specs.opencontainers.org";

/// Options of `create` and `run` by what they are about. All others are options of the runtime.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Process",
        &[
            "user",
            "group-add",
            "env",
            "env-file",
            "workdir",
            "tty",
            "init",
            "hostname",
            "ulimit",
            "sysctl",
        ],
    ),
    (
        "Files",
        &[
            "rootfs",
            "layer",
            "upper",
            "show-rootfs",
            "volume",
            "tmpfs",
            "shm-size",
            "device",
            "read-only",
        ],
    ),
    (
        "Limits",
        &[
            "blkio-weight",
            "cpu-period",
            "cpu-quota",
            "cpu-burst",
            "cpu-shares",
            "cpus",
            "cpu-rt-period",
            "cpu-rt-runtime",
            "cpuset-cpus",
            "cpuset-mems",
            "cpu-idle",
            "memory",
            "memory-reservation",
            "memory-swap",
            "pids-limit",
        ],
    ),
    (
        "Network",
        &[
            "network",
            "publish",
            "publish-over-listener",
            "network-address",
            "network-rate",
            "dns",
            "dns-search",
            "add-host",
        ],
    ),
    ("Security", &["cap-add", "cap-drop", "landlock", "userns", "seccomp-report"]),
];

const RUN_EXAMPLES: &str = "\
Examples:
  aril run web                                   Run the bundle in the current directory, as `web`
  aril run -m 512m --cpus 1.5 -b /b web          Run the bundle /b with limits
  aril run --rootfs DIR -p 8080:80 --network bridge web -- httpd -f
                                                 Run httpd of the root file system DIR on a network";

const NETWORK_EXAMPLES: &str = "\
Examples:
  aril network create front                      Create a bridge network with a free subnet
  aril network create --subnet 10.1.0.0/24 back  Create one with this subnet
  aril network ls                                List networks, with their subnets";

fn examples(verb: &str) -> &'static str {
    match verb {
        "run" | "create" => RUN_EXAMPLES,
        "network" => NETWORK_EXAMPLES,
        _ => "",
    }
}

/// Heading of an option in the help of `create` and `run`.
fn group(option: &str) -> &'static str {
    let found = GROUPS.iter().find(|(_, options)| options.contains(&option));
    found.map_or("Runtime", |(heading, _)| heading)
}

/// Returns the help of the program.
pub fn overview() -> String {
    let line = |verb: &Verb| Command::new(verb.name).about(verb.about);
    let name = called();
    let help = plain("aril")
        .override_usage("aril [flags] <command> [command flags] [arguments]")
        .args(global_flags())
        .subcommands(VERBS.iter().map(line))
        .subcommand_help_heading("Commands")
        .after_help(EXAMPLES)
        .render_help();
    format!("NAME:\n   {name} - Open Container Initiative runtime\n\n{help}")
}

/// Returns the help of a verb.
pub fn of(verb: &Verb) -> String {
    let (name, Verb { name: command, about, .. }) = (called(), verb);
    let mut table = verb.table().about(None).override_usage(verb.usage());
    if matches!(*command, "create" | "run") {
        table = table.mut_args(|arg| {
            let heading = group(arg.get_id().as_str());
            arg.help_heading(heading)
        });
    }
    let help = table.after_help(examples(command)).render_help();
    format!("NAME:\n   {name} {command} - {about}\n\n{help}")
}

/// True if this program was called as `runc`: installed in its place, or by a link.
static AS_RUNC: AtomicBool = AtomicBool::new(false);

/// Stores the name by which the program was called.
pub fn called_as(name: Option<&OsString>) {
    let file = name.and_then(|name| Path::new(name).file_name());
    AS_RUNC.store(file.is_some_and(|file| file == "runc"), Relaxed);
}

/// Returns the program's name for help and version. go-runc and runc's tests expect `runc` where the program replaces it.
pub fn called() -> &'static str {
    if AS_RUNC.load(Relaxed) { "runc" } else { "aril" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(verb: &Verb) -> Vec<clap::Arg> {
        verb.table().get_arguments().filter(|arg| !arg.is_hide_set()).cloned().collect()
    }

    #[test]
    fn help_begins_with_a_capital_letter() {
        let of_verbs = VERBS.iter().flat_map(options);
        for arg in of_verbs.chain(global_flags().into_iter().filter(|arg| !arg.is_hide_set())) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with(char::is_uppercase), "--{}: {help}", arg.get_id());
        }
        for verb in VERBS {
            assert!(verb.about.starts_with(char::is_uppercase), "{}: {}", verb.name, verb.about);
        }
    }

    #[test]
    fn groups_name_options_of_run() {
        let run = options(super::super::table::find("run").unwrap());
        for option in GROUPS.iter().flat_map(|(_, options)| *options) {
            assert!(run.iter().any(|arg| arg.get_id() == *option), "{option}");
        }
        let help = of(super::super::table::find("run").unwrap());
        for heading in
            ["Process:", "Files:", "Limits:", "Network:", "Security:", "Runtime:", "Examples:"]
        {
            assert!(help.contains(heading), "{heading}\n{help}");
        }
    }
}
