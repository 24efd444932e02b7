//! `containerd-shim-aril-v2`: the process between containerd and a runtime's containers.
//!
//! # Theory of operation
//!
//! containerd runs `start` ([`start`]), which finds or starts the one shim of a pod and prints its address. That shim
//! ([`server`]) has one thread and one event loop. It answers the calls of the task service ([`task`]) over ttrpc
//! ([`ttrpc`], [`wire`]), runs the runtime as a command for each ([`jobs`], [`command`]), reaps all processes of its
//! containers, which it adopts, and reports their ends to containerd in a fixed order ([`exits`], [`publisher`]). It
//! copies only the data of terminals and a few pipes ([`stdio`], [`relay`]). If a shim dies, containerd runs `delete`
//! ([`delete`]). For containerd 2.x the shim may also serve a pod without a container of its own ([`sandbox`],
//! [`pod`], [`membership`], [`anchor`]).
//!
//! ```text
//! containerd -- ttrpc --> server -- starts --> aril create, start, delete ...
//!      ^                    |  ^                  |
//!      +------ events ------+  +---- SIGCHLD -----+-- orphaned init: adopted by the shim
//! ```
//!
//! Data that must survive a killed shim is in the bundle before the effect that it describes: the options by which the
//! runtime is called, and the runtime's pid file.

pub mod anchor;
pub mod bootstrap;
pub mod command;
pub mod console;
pub mod delete;
pub mod exits;
pub mod flags;
pub mod info;
pub mod inside;
pub mod jobs;
pub mod log;
pub mod members;
pub mod membership;
pub mod metrics;
pub mod model;
pub mod options;
pub mod pod;
pub mod publisher;
pub mod relay;
pub mod rootfs;
pub mod sandbox;
pub mod server;
pub mod start;
pub mod status;
pub mod stdio;
pub mod task;
pub mod ttrpc;
pub mod wire;

use std::ffi::OsString;
use std::io::Write;

use flags::{Action, Flags};
use log::Log;
use server::Server;
use status::Status;

use crate::error::OsContext;
use crate::sys::{process, socket};

/// Runs the program. The command line has the program's name first. Returns the exit status.
pub fn main(words: Vec<OsString>) -> u8 {
    match run(&words) {
        Ok(()) => 0,
        Err(Status { message, .. }) => {
            // The error itself is about to be printed.
            let _ = writeln!(std::io::stderr(), "{}: {message}", info::NAME);
            1
        }
    }
}

fn run(words: &[OsString]) -> Result<(), Status> {
    let flags = Flags::parse(&words[1.min(words.len())..])?;
    match flags.action {
        Action::Start => start::start(&flags),
        Action::Delete => delete::delete(&flags),
        Action::Info => info::info(),
        Action::Version => {
            let text = format!("{}:\n  Version: {}\n", info::NAME, env!("CARGO_PKG_VERSION"));
            print(text.as_bytes())
        }
        Action::Anchor => anchor::anchor(words),
        Action::Serve => serve(&flags),
    }
}

/// Runs the server as [`start`] starts it: in the bundle, with the listener as descriptor 3.
#[expect(clippy::disallowed_methods, reason = "parameters that containerd passes")]
fn serve(flags: &Flags) -> Result<(), Status> {
    let listener = socket::inherited(3)
        .map_err(|_| Status::unknown("no action given, and no socket inherited to serve at"))?;
    // Descriptors that the caller left open.
    process::close_range(4, u32::MAX).os("close_range", "")?;
    let bundle = std::env::current_dir().os("getcwd", "")?;
    let log = Log::open(&bundle);
    // containerd removes the bundle before the server ends, perhaps with file systems mounted in it.
    nix::unistd::chdir("/").os("chdir", "/")?;
    nix::sys::prctl::set_child_subreaper(true).os("prctl", "PR_SET_CHILD_SUBREAPER")?;
    if std::env::var_os("SCHED_CORE").is_some() {
        process::create_core_cookie().os("prctl", "PR_SCHED_CORE")?;
    }
    let events = std::env::var_os("TTRPC_ADDRESS").unwrap_or_default();
    let mut server =
        Server::new(&flags.namespace, flags.socket.clone(), listener, events.into(), log, bundle)?;
    let outcome = server.run();
    let _ = std::fs::remove_file(&flags.socket);
    Ok(outcome?)
}

/// Ends the process at once, without the standard library's cleanup.
fn print(bytes: &[u8]) -> Result<(), Status> {
    let mut stdout = std::io::stdout();
    Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).os("write", "stdout")?)
}
