//! Help, rendered from the table.

use clap::Command;

use super::table::{VERBS, Verb, global_flags, plain};

const EXAMPLES: &str = "\
Examples:
  aril spec                         write a config.json; then unpack a root file system to rootfs/
  aril plan                         see what a run would do
  aril run hello                    run the bundle of this directory, as `hello`
  aril run --timeline -b /b hello   the same for /b, and show where the time went
  aril exec -t hello sh             a shell in it
  aril kill hello KILL              end it
  aril delete hello                 and remove what is left

Containers are described by the OCI runtime specification, https://specs.opencontainers.org";

/// Of the program.
pub fn overview() -> String {
    let line = |verb: &Verb| Command::new(verb.name).about(verb.about);
    plain("aril")
        .about("Aril, a container runtime: runs OCI bundles")
        .override_usage("aril [flags] <command> [command flags] [arguments]")
        .args(global_flags())
        .subcommands(VERBS.iter().map(line))
        .subcommand_help_heading("Commands")
        .after_help(EXAMPLES)
        .render_help()
        .to_string()
}

pub fn of(verb: &Verb) -> String {
    verb.table().override_usage(verb.usage()).render_help().to_string()
}
