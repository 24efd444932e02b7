//! `containerd-shim-aril-v2`: the process between containerd and a runtime's containers.
//!
//! # Theory of operation
//!
//! containerd runs `start` ([`start`]), which finds or makes the one shim of a pod and prints its
//! address. That shim ([`server`]) is one thread in one loop. It answers the calls of the task service
//! ([`task`]) over ttrpc ([`ttrpc`], [`wire`]), runs the runtime as a command for each ([`jobs`],
//! [`command`]), is told of the ends of all processes, for it adopts them, and tells containerd of them
//! in an order that can be relied on ([`exits`], [`publisher`]). It copies nothing but what terminals
//! say ([`stdio`], [`relay`]). When containerd finds that a shim has died it runs `delete` ([`delete`]).
//! For containerd 2.x it may also be the whole of a pod without a container of its own ([`sandbox`],
//! [`pod`], [`membership`], [`anchor`]).
//!
//! What must not be lost when a shim is killed is in the bundle before the effect that it describes:
//! the options by which the runtime is called, and the runtime's own pid file.

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

/// The whole program: the command line, our own name first, to an exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    match run(&words) {
        Ok(()) => 0,
        Err(Status { message, .. }) => {
            // The error itself is about to be told; that nobody listens is no news.
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

/// As [`start`] starts it: in the bundle, with the listener as descriptor 3.
fn serve(flags: &Flags) -> Result<(), Status> {
    let listener = socket::inherited(3)
        .map_err(|_| Status::unknown("no action given, and no socket inherited to serve at"))?;
    // What others forgot to close.
    process::close_range(4, u32::MAX).os("close_range", "")?;
    let bundle = std::env::current_dir().os("getcwd", "")?;
    let log = Log::open(&bundle);
    // The bundle is removed before we end, perhaps with what is mounted in it.
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

/// At once: there is no standard library's own end of the program that would see to it.
fn print(bytes: &[u8]) -> Result<(), Status> {
    let mut stdout = std::io::stdout();
    Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).os("write", "stdout")?)
}
