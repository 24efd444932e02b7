//! The commands that faults happen in.

use crate::shape::Shape::{self, *};

/// A command with what comes before and after it.
///
/// Its words are separated by spaces. `{bundle}`, `{console}`, `{flags}`, `{id}` and `{dir}` are those of the container. A
/// first word `cni` means aril-cni with that command; `stopped` waits for the end of the container; `killed` leaves a `create`
/// that was killed; `again` repeats the command in a new container; others are commands of aril.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    pub shapes: &'static [Shape],
    /// Program of the container.
    pub program: &'static [&'static str],
    /// Commands that lead to the state in which the command is called.
    pub before: &'static [&'static str],
    pub command: &'static str,
    /// Commands that an operator or an engine calls after a fault, until the host is as before.
    pub after: &'static [&'static str],
}

const ALL: &[Shape] = &[Plain, Layers, Volume, FreshVolume, Bridge, UserNamespace, Terminal];
const WITHOUT_TERMINAL: &[Shape] = &[Plain, Layers, Volume, FreshVolume, Bridge, UserNamespace];
const ONE: &[Shape] = &[Plain];

const SLEEPER: &[&str] = &["sleep", "1000"];
const CREATE: &str = "create {bundle} {console} {flags} {id}";
const RUN: &str = "run -d {bundle} {flags} {id}";
const AFTER: &[&str] = &["delete --force {id}", "reconcile"];

const fn of_container(
    name: &'static str,
    shapes: &'static [Shape],
    before: &'static [&'static str],
    command: &'static str,
) -> Verb {
    Verb { name, shapes, program: SLEEPER, before, command, after: AFTER }
}

/// A command that writes what a container changed. What a killed one left is replaced by the next one to the same place.
const fn writing(name: &'static str, command: &'static str) -> Verb {
    let after = &["delete --force {id}", "reconcile", "again"];
    Verb { name, shapes: &[Layers], program: SLEEPER, before: &[RUN], command, after }
}

const fn without_container(
    name: &'static str,
    before: &'static [&'static str],
    command: &'static str,
    after: &'static [&'static str],
) -> Verb {
    Verb { name, shapes: ONE, program: SLEEPER, before, command, after }
}

pub static VERBS: &[Verb] = &[
    of_container("create", ALL, &[], CREATE),
    of_container("start", &[Plain, Bridge, UserNamespace], &[CREATE], "start {id}"),
    Verb {
        name: "run",
        shapes: ALL,
        program: &["true"],
        before: &[],
        command: "run {bundle} {flags} {id}",
        after: AFTER,
    },
    of_container("run-detached", WITHOUT_TERMINAL, &[], RUN),
    of_container("exec", &[Plain, UserNamespace], &[RUN], "exec {id} true"),
    of_container("exec-detached", ONE, &[RUN], "exec -d {id} sleep 1000"),
    of_container("kill", ONE, &[RUN], "kill {id} KILL"),
    of_container("pause", ONE, &[RUN], "pause {id}"),
    of_container("resume", ONE, &[RUN, "pause {id}"], "resume {id}"),
    of_container("update", ONE, &[RUN], "update --memory 64m --pids-limit 50 {id}"),
    of_container("state", ONE, &[RUN], "state {id}"),
    of_container("delete", WITHOUT_TERMINAL, &[RUN, "kill {id} KILL", "stopped"], "delete {id}"),
    of_container("delete-force", WITHOUT_TERMINAL, &[RUN], "delete --force {id}"),
    writing("commit", "commit {id} {dir}/out/layer"),
    writing("export", "export {id} {dir}/out/image.tar"),
    of_container("reconcile", &[Plain, Layers, Bridge], &["killed"], "reconcile"),
    without_container(
        "network-create",
        &[],
        "network create front",
        &["reconcile", "network rm front"],
    ),
    without_container(
        "network-rm",
        &["network create front"],
        "network rm front",
        &["reconcile", "network rm front"],
    ),
    without_container(
        "volume-create",
        &[],
        "volume create fresh",
        &["reconcile", "volume rm fresh"],
    ),
    without_container(
        "volume-rm",
        &["volume create fresh"],
        "volume rm fresh",
        &["reconcile", "volume rm fresh"],
    ),
    without_container("cni-add", &[], "cni ADD", &["cni DEL", "reconcile"]),
    without_container("cni-del", &["cni ADD"], "cni DEL", &["cni DEL", "reconcile"]),
];
