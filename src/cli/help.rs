//! Help, rendered from the table.

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

/// Of the program.
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

pub fn of(verb: &Verb) -> String {
    let (name, Verb { name: command, about, .. }) = (called(), verb);
    let help = verb.table().about(None).override_usage(verb.usage()).render_help();
    format!("NAME:\n   {name} {command} - {about}\n\n{help}")
}

/// Whether this program was called as `runc`: installed in its place, or by a link.
static AS_RUNC: AtomicBool = AtomicBool::new(false);

/// Takes the name by which the program was called.
pub fn called_as(name: Option<&OsString>) {
    let file = name.and_then(|name| Path::new(name).file_name());
    AS_RUNC.store(file.is_some_and(|file| file == "runc"), Relaxed);
}

/// The program's name in help and version: go-runc and runc's tests want theirs where it stands in for
/// runc.
pub fn called() -> &'static str {
    if AS_RUNC.load(Relaxed) { "runc" } else { "aril" }
}
