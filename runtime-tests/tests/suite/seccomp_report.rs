//! `run --seccomp-report`: what a profile refuses is refused as without it, and counted.

use runtime_tests::{Container, View, on_the_host};
use serde_json::json;

/// Refuses a few calls, each with an errno of its own.
fn container(view: View) -> Option<Container> {
    let c = Container::new(view);
    c.runtime.only_aril("its option").then(|| {
        c.edit(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
                {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78,
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                // Which the runtime makes itself, and does without.
                {"names": ["faccessat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
        })
    })
}

fn call(number: i64, first: i64) -> String {
    format!("probe --call native {number} {first}")
}

#[test]
fn rejected_calls_are_counted() {
    on_the_host(|view| {
        for locked in [true, false] {
            let Some(c) = container(view) else { return };
            let script = [
                call(libc::SYS_getsid, 0),
                call(libc::SYS_getsid, 0),
                call(libc::SYS_getpgid, 1),
                call(libc::SYS_getpgid, 0),
                "mkdir /tmp/x".to_owned(),
                "exit 7".to_owned(),
            ];
            let c = c.script(&script.join("; ")).edit(|spec| {
                spec["process"]["noNewPrivileges"] = locked.into();
            });
            let plain = c.run();
            let out = c.run_call(&["--seccomp-report"]).output().exits(7);
            let answers: Vec<_> = out.stdout.lines().collect();
            assert_eq!(answers[..3], ["-77", "-77", "-78"], "{out:?}");
            assert!(!answers[3].starts_with('-'), "{out:?}");
            assert_eq!((plain.code, plain.stdout.lines().count()), (Some(7), 4), "{plain:?}");
            let row = |line: &&str| line.split_whitespace().take(2).eq(["2", "getsid"]);
            assert!(out.stderr.lines().any(|line| row(&line)), "{out:?}");
            for part in ["1  getpgid ", "mkdir", "permission denied", "SYSTEM CALL"] {
                assert!(out.stderr.contains(part), "{part}: {out:?}");
            }
            c.leaves_nothing();
        }
    });
}

#[test]
fn many_at_once_and_nothing_at_all() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let one = call(libc::SYS_getsid, 0);
        let c = c.script(&format!("for i in 1 2 3 4 5 6 7 8; do {one} & done; wait"));
        let out = c.run_call(&["--seccomp-report"]).ok();
        assert_eq!(out.stdout.matches("-77").count(), 8, "{out:?}");
        assert!(out.stderr.contains("8  getsid"), "{out:?}");
        let Some(c) = container(view) else { return };
        let c = c.edit(|spec| {
            let rules = spec["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
            rules.retain(|rule| rule["names"][0] == "getsid");
        });
        let out = c.run_call(&["--seccomp-report"]).ok();
        assert_eq!(out.stderr, "seccomp: no system call was refused\n");
    });
}

#[test]
fn unavailable_report_is_an_error() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        c.run_call(&["-d", "--seccomp-report"]).output().exits(1).says("cannot be used together");
        let c = c.edit(|spec| {
            spec["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["write"]);
        });
        c.run_call(&["--seccomp-report"]).output().exits(1).says("the profile denies write");
        let c = c.edit(|spec| {
            spec["linux"].as_object_mut().expect("linux").remove("seccomp");
        });
        let out = c.run_call(&["--seccomp-report"]).output().exits(1);
        out.says("the config has no seccomp profile");
        c.leaves_nothing();
    });
}
