//! Everything that a process inherits by fork and execve, and what of it the first program of a
//! container and one of `exec` find, whose caller had it all: descriptors, keys, signals, timers, umask,
//! death signal, environment. A caller without any of it must make the same container.

use std::collections::BTreeSet;

use runtime_tests::{Call, Container, Output, View, in_each_view, on_the_host};

/// What a caller has and a container must not.
fn marked(call: Call) -> Call {
    call.stage(["marked"]).env("ARIL_TEST_LEAK", "secret")
}

fn sleeper(view: View) -> Container {
    let c = Container::new(view).sleeper();
    marked(c.run_call(&["-d"])).ok();
    c
}

/// Facts of these topics, with the container's own names replaced.
fn facts(c: &Container, out: &Output) -> BTreeSet<String> {
    let topics = ["env", "fd", "keyring", "timer", "process", "limit", "identity", "schedule"];
    let own = format!("_ses.{}", c.id);
    let lines = out
        .stdout
        .lines()
        .filter(|line| line.split_once(' ').is_some_and(|(topic, _)| topics.contains(&topic)));
    lines.map(|line| line.replace(&own, "_ses.ID").replace(&c.mark, "MARK")).collect()
}

#[test]
fn a_program_finds_what_the_config_says_and_no_more() {
    in_each_view(|view| {
        let c = Container::new(view).args(["probe"]);
        let with = marked(c.run_call(&[])).ok();
        let d = Container::new(view).args(["probe"]);
        let without = d.run_call(&[]).ok();
        let (with, without) = (facts(&c, &with), facts(&d, &without));
        let differ: Vec<_> = with.symmetric_difference(&without).collect();
        assert!(differ.is_empty(), "of a caller's: {differ:#?}");
        expected(&with);

        let c = sleeper(view);
        let out = marked(c.call(["exec", &c.id, "probe"])).ok();
        expected(&facts(&c, &out));
    });
}

/// The whole list of what can be inherited.
#[track_caller]
fn expected(facts: &BTreeSet<String>) {
    let of = |topic: &str| {
        let prefix = format!("{topic} ");
        facts.iter().filter_map(|line| line.strip_prefix(&prefix)).collect::<Vec<_>>()
    };
    let descriptors: Vec<_> =
        of("fd").iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(descriptors, ["0", "1", "2"], "{facts:#?}");
    let keyrings = of("keyring");
    let [process, held, session, thread] = keyrings[..] else { panic!("{keyrings:#?}") };
    assert_eq!(process, "process refused with errno 126", "ENOKEY");
    assert_eq!(thread, "thread refused with errno 126", "ENOKEY");
    assert!(session.starts_with("session keyring;") && session.ends_with(";_ses.ID"), "{session}");
    assert_eq!(held, "session holds 0 keys");
    assert_eq!(of("timer"), ["/proc/self/timers: ", "prof none", "real none", "virtual none"]);
    for line in ["parent-death-signal 0", "subreaper 0", "keepcaps 0", "securebits 0", "dumpable 1"]
    {
        assert!(of("process").contains(&line), "{line}: {facts:#?}");
    }
    assert!(!facts.iter().any(|line| line.contains("ARIL_TEST")), "{facts:#?}");
}

/// By a program that changes none of its own, where the caller ignores what nohup and scripts' shells do.
#[test]
fn signals_are_as_if_nobody_had_touched_them() {
    const BACKGROUND: &str = "trap '' HUP INT QUIT TERM ALRM TSTP TTIN TTOU USR1 USR2 VTALRM PROF XCPU \
         XFSZ URG IO PWR SYS; exec \"$@\"";
    on_the_host(|view| {
        let look = ["grep", "-E", "^(Sig|Shd)(Pnd|Blk|Ign|Cgt)|^Umask", "/proc/self/status"];
        // Signal 32 is the C library's own, which posix_spawn(3) of the caller's may leave ignored.
        let spawned =
            |text: String| text.replace("SigIgn:\t0000000080000000", "SigIgn:\t0000000000000000");
        let clean = "Umask:\t0022\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n\
                     SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n";
        let c = Container::new(view).args(look);
        assert_eq!(spawned(marked(c.run_call(&[])).in_shell(BACKGROUND).ok().stdout), clean);
        let c = sleeper(view);
        let exec = marked(c.call(["exec", &c.id]).args(look));
        assert_eq!(spawned(exec.in_shell(BACKGROUND).ok().stdout), clean);
    });
}
