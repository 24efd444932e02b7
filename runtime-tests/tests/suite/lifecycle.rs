//! The states, the verbs between them, and what callers read of both.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, Runtime, host, in_each_view, on_the_host};
use serde_json::Value;

#[test]
fn run_gives_the_exit_code_and_removes_the_container() {
    in_each_view(|view| {
        let c = Container::new(view).script("echo out; echo err >&2; exit 3");
        let out = c.run().exits(3);
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
        c.leaves_nothing();
    });
}

#[test]
fn a_signalled_process_gives_128_and_the_signal() {
    in_each_view(|view| {
        // The shell is not pid 1 of its namespace, or the kernel would not let it kill itself.
        let c = Container::new(view).without_namespace("pid").script("kill -9 $$");
        c.run().exits(128 + 9);
        let c = Container::new(view).without_namespace("pid").script("kill -SEGV $$");
        c.run().exits(128 + 11);
    });
}

#[test]
fn run_keeps_the_container_when_told() {
    in_each_view(|view| {
        let c = Container::new(view).script("exit 4");
        c.run_call(&["--keep"]).output().exits(4);
        assert_eq!(c.status(), "stopped");
        if c.runtime.is_aril() {
            let state = c.state();
            assert_eq!(state["exitStatus"], 4, "{state}");
            assert!(is_utc_time(state["finished"].as_str().expect("a time")));
            c.call(["list"]).ok().prints("stopped (exit 4)");
        }
        assert!(c.cgroup("memory").is_dir(), "the cgroup is kept for its statistics");
        c.delete().silent();
        c.leaves_nothing();
        let c = Container::new(view).without_namespace("pid").script("kill -9 $$");
        c.run_call(&["--keep"]).output().exits(137);
        assert!(!c.runtime.is_aril() || c.state()["exitStatus"] == 137);
    });
}

#[test]
fn the_states() {
    in_each_view(|view| {
        let c = Container::new(view).args(["sleep", "1000"]);
        c.create_call(&[]).output().silent();
        assert_eq!(c.status(), "created");
        let pid = c.pid();
        assert!(!host::is_gone(pid));
        c.start();
        assert_eq!(c.status(), "running");
        assert_eq!(c.pid(), pid, "the same process becomes the program");
        wait_until("the exec", || comm(pid) == "sleep");
        c.kill("KILL").silent();
        c.wait_for("stopped");
        assert_eq!(c.pid(), 0);
        c.delete().silent();
        c.verb("state").exits(1).says("container does not exist");
        c.leaves_nothing();
    });
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[test]
fn the_state_document() {
    in_each_view(|view| {
        let c = Container::new(view)
            .sleeper()
            .edit(|spec| spec["annotations"] = serde_json::json!({"a.b/c": "x=y", "d": ""}));
        c.create();
        let out = c.verb("state").ok();
        assert!(out.stdout.starts_with("{\n  \"ociVersion\": \""), "two blanks: {}", out.stdout);
        assert!(!out.stdout.ends_with('\n'), "no newline at the end");
        let state: Value = serde_json::from_str(&out.stdout).expect("json");
        let keys =
            ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations"];
        let mut at = 0;
        for key in keys.iter().chain(&["owner"]) {
            let here = out.stdout.find(&format!("\n  \"{key}\"")).expect(key);
            assert!(here > at, "{key} is out of order");
            at = here;
        }
        assert_eq!(state["id"], c.id);
        assert_eq!(state["bundle"], c.dir.to_str().expect("utf-8"));
        assert_eq!(state["rootfs"], c.rootfs().to_str().expect("utf-8"));
        assert_eq!(state["annotations"], serde_json::json!({"a.b/c": "x=y", "d": ""}));
        assert!(is_utc_time(state["created"].as_str().expect("created")));
        assert!(out.stderr.is_empty());
    });
}

/// RFC 3339 in UTC, as Go's `time.RFC3339Nano` has it.
fn is_utc_time(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shaped: String = text.chars().map(shape).collect();
    let rest = shaped.strip_prefix("0000-00-00T00:00:00");
    let fraction = rest.and_then(|rest| rest.strip_suffix('Z'));
    fraction
        .is_some_and(|f| f.is_empty() || f[1..].bytes().all(|b| b == b'0') && f.starts_with('.'))
}

#[test]
fn start_twice() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        c.start();
        c.verb("start").exits(1).says("cannot start an already running container");
        c.kill("9").silent();
        c.wait_for("stopped");
        c.verb("start").exits(1).says("cannot start a container that has stopped");
    });
}

#[test]
fn an_id_is_taken_once() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        c.create_call(&[]).output().exits(1).says("container with given ID already exists");
        c.run_call(&["-d"]).output().exits(1).says("container with given ID already exists");
        assert_eq!(c.status(), "created", "the first is not harmed");
        c.start();
    });
}

#[test]
fn kill_in_created() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        let pid = c.pid();
        c.kill("0").silent();
        c.kill("SIGKILL").silent();
        wait_until("its death", || host::is_gone(pid));
        c.wait_for("stopped");
        c.verb("start").exits(1).says("cannot start a container that has stopped");
        c.delete().silent();
        c.leaves_nothing();
    });
}

/// The init process of a pid namespace is protected from signals without a handler.
#[test]
fn signals_end_a_created_container() {
    in_each_view(|view| {
        for signal in ["TERM", "INT", "HUP", "QUIT"] {
            for shared in [false, true] {
                let c = Container::new(view).sleeper();
                let c = if shared { c.without_namespace("pid") } else { c };
                c.create();
                let pid = c.pid();
                c.kill(signal).silent();
                wait_until(signal, || host::is_gone(pid));
                c.wait_for("stopped");
                c.delete().silent();
                c.leaves_nothing();
            }
        }
    });
}

#[test]
fn delete_of_created_needs_no_force() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        let pid = c.pid();
        c.delete().silent();
        assert!(host::is_gone(pid));
        c.leaves_nothing();
    });
}

#[test]
fn delete_of_running_needs_force() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let text = format!("cannot delete container {} that is not stopped: running", c.id);
        c.delete().exits(1).says(&text);
        assert_eq!(c.status(), "running");
        c.delete_by_force().silent();
        c.leaves_nothing();
    });
}

#[test]
fn delete_of_nothing() {
    on_the_host(|view| {
        let c = Container::new(view);
        c.delete().exits(1).says("container does not exist");
        c.delete_by_force().silent();
        c.delete_by_force().silent();
        assert!(c.left_in_root().is_empty());
    });
}

#[test]
fn delete_clears_a_state_directory_without_a_record() {
    on_the_host(|view| {
        let c = Container::new(view);
        for force in [true, false] {
            fs::create_dir_all(c.root.join(&c.id)).expect("a state directory");
            match force {
                true => drop(c.delete_by_force().silent()),
                false => drop(c.delete().exits(1).says("container does not exist")),
            }
            assert!(c.left_in_root().is_empty(), "cleared, force {force}");
        }
    });
}

#[test]
fn delete_without_bundle_and_cgroup() {
    in_each_view(|view| {
        let c = Container::new(view).args(["true"]);
        c.run_detached();
        c.wait_for("stopped");
        fs::remove_file(c.path("config.json")).expect("config.json");
        fs::remove_dir_all(c.rootfs()).expect("rootfs");
        host::scrub(&c.mark);
        c.delete().silent();
        c.leaves_nothing();
    });
}

#[test]
fn kill_of_stopped_and_unknown() {
    in_each_view(|view| {
        let c = Container::new(view).args(["true"]);
        c.kill("TERM").exits(1).says("container does not exist");
        c.run_detached();
        c.wait_for("stopped");
        c.kill("TERM").exits(1).says("container not running");
        c.call(["kill", "--all", &c.id, "KILL"]).output().silent();
        c.call(["kill", "-a", &c.id, "9"]).output().silent();
    });
}

#[test]
fn kill_takes_signals_by_any_name() {
    in_each_view(|view| {
        let c = Container::new(view).script(
            "trap 'echo USR1' USR1; trap 'echo HUP' HUP; trap 'echo TERM; exit 9' TERM; \
             trap 'echo RT' 37; echo ready; while :; do sleep 0.02; done",
        );
        let run = c.run_call(&[]).spawn();
        wait_until("the traps", || run.stdout().contains("ready"));
        // The C library calls them so, and runc takes their numbers alone.
        if c.runtime.is_aril() {
            c.kill("SIGRTMIN+3").silent();
            wait_until("SIGRTMIN+3", || run.stdout().contains("RT"));
        }
        for (name, seen) in [
            ("SIGUSR1", "USR1"),
            ("usr1", "USR1"),
            ("10", "USR1"),
            ("HUP", "HUP"),
            ("sighup", "HUP"),
        ] {
            let before = run.stdout().matches(seen).count();
            c.kill(name).silent();
            wait_until(name, || run.stdout().matches(seen).count() > before);
        }
        c.kill("NONSENSE").exits(1).says("unknown signal \"NONSENSE\"");
        c.call(["kill", &c.id]).output().silent();
        run.wait().exits(9).prints("TERM");
    });
}

#[test]
fn foreground_run_forwards_signals() {
    in_each_view(|view| {
        let c = Container::new(view)
            .script("trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.02; done");
        let run = c.run_call(&[]).spawn();
        wait_until("the trap", || run.stdout().contains("ready"));
        run.signal(Signal::SIGTERM);
        run.wait().exits(7).prints("got it");
        c.leaves_nothing();
    });
}

#[test]
fn shared_pid_namespace_is_killed_whole() {
    in_each_view(|view| {
        let c = Container::new(view)
            .without_namespace("pid")
            .script("sleep 1000 & sleep 1000 & echo ready; exec sleep 1000");
        c.run_detached();
        wait_until("three processes", || processes_of(&c).len() == 3);
        let pids = processes_of(&c);
        // Since runc 1.2 the signal alone is enough; the peer needs to be told.
        match c.runtime.is_aril() {
            true => c.kill("KILL").silent(),
            false => c.call(["kill", "--all", &c.id, "KILL"]).output().silent(),
        };
        wait_until("all deaths", || pids.iter().all(|pid| host::is_gone(*pid)));
        c.delete().silent();
        c.leaves_nothing();
    });
}

#[test]
fn orphans_of_a_shared_pid_namespace_go() {
    in_each_view(|view| {
        for words in [&["delete", "--force"][..], &["delete"], &["kill"], &["kill", "--all"]] {
            let c = Container::new(view).without_namespace("pid").script("sleep 1000 & exit 0");
            c.run_detached();
            c.wait_for("stopped");
            let orphan = match processes_of(&c)[..] {
                [orphan] => orphan,
                ref other => panic!("not one orphan: {other:?}"),
            };
            if words[0] == "kill" {
                if words.len() == 1 && !c.runtime.is_aril() {
                    // Since runc 1.2.
                    continue;
                }
                c.kill("TERM").exits(1).says("container not running");
                assert!(!host::is_gone(orphan), "TERM goes to the init process alone");
                c.call(words).args([&c.id, "KILL"]).output().silent();
                wait_until("the death of the orphan", || host::is_gone(orphan));
                if c.runtime.is_aril() {
                    c.kill("KILL").exits(1).says("container not running");
                }
                c.delete().silent();
            } else {
                let deleted = c.call(words).arg(&c.id).output().ok();
                // runc tells of its failed attempts.
                assert!(deleted.stderr.is_empty() || !c.runtime.is_aril(), "{deleted:?}");
            }
            assert!(host::is_gone(orphan));
            c.leaves_nothing();
        }
    });
}

/// Without a cgroup there is its init process at least.
#[test]
fn kill_reaches_init_where_there_is_no_cgroup() {
    if !Runtime::under_test().only_aril("--cgroup-manager is Aril's and crun's") {
        return;
    }
    on_the_host(|view| {
        let c = Container::new(view).without_namespace("pid").sleeper();
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        c.call(["--cgroup-manager=disabled", "run", "-d", "-b", bundle, &c.id]).ok();
        let pid = c.pid();
        assert!(!c.cgroup("memory").exists());
        c.kill("KILL").silent();
        wait_until("its death", || host::is_gone(pid));
        c.delete().silent();
        c.leaves_nothing();
    });
}

#[test]
fn delete_and_kill_of_what_matches_an_expression() {
    on_the_host(|view| {
        let first = Container::new(view).sleeper();
        if !first.runtime.only_aril("--regex is crun's") {
            return;
        }
        let mut all: Vec<_> = (0..3).map(|_| Container::new(view).sleeper()).collect();
        for (c, id) in all.iter_mut().zip(["web-1", "web-2", "db-1"]) {
            c.root.clone_from(&first.root);
            c.id = id.into();
            c.run_detached();
        }
        let listed = || first.call(["list", "-q"]).ok().stdout;
        first.call(["delete", "--regex", "web-"]).output().exits(1).says("not stopped: running");
        assert_eq!(listed(), "db-1\nweb-1\nweb-2\n", "all are tried, none is harmed");
        first.call(["kill", "--regex", "^web-1$", "KILL"]).output().silent();
        all[0].wait_for("stopped");
        assert_eq!(all[1].status(), "running");
        first.call(["delete", "-r", "nothing"]).output().silent();
        first.call(["delete", "-f", "--regex", "^web-[0-9]$"]).output().silent();
        assert_eq!(listed(), "db-1\n");
        let bad = first.call(["delete", "--regex", "("]).output();
        bad.exits(1).says("invalid regular expression \"(\"");
        all[2].delete_by_force().silent();
    });
}

/// As `ps --format json` has them.
fn processes_of(c: &Container) -> Vec<i32> {
    let out = c.call(["ps", "--format", "json", &c.id]).output().ok();
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
}

#[test]
fn ps() {
    in_each_view(|view| {
        let c = Container::new(view).script("sleep 1000 & exec sleep 1000");
        c.run_detached();
        let pid = c.pid();
        wait_until("both processes", || processes_of(&c).len() == 2);
        assert!(processes_of(&c).contains(&pid), "pids are the host's");
        let table = c.call(["ps", &c.id]).output().ok().stdout;
        let mut lines = table.lines();
        assert!(lines.next().expect("a header").contains("PID"), "{table}");
        assert_eq!(lines.count(), 2, "{table}");
        let table = c.call(["ps", &c.id, "-o", "pid,comm"]).output().ok().stdout;
        assert!(table.lines().nth(1).expect("a line").contains("sleep"), "{table}");
    });
}

#[test]
fn list() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        fs::create_dir_all(&c.root).expect("a root");
        assert_eq!(c.call(["list", "-f", "json"]).ok().stdout.trim(), "null");
        assert_eq!(c.call(["list", "-q"]).ok().stdout, "");
        c.run_detached();
        let pid = c.pid();
        let json = c.call(["list", "--format", "json"]).ok().stdout;
        assert!(json.ends_with("]\n") && json.lines().count() == 1, "one line: {json}");
        let json: Value = serde_json::from_str(&json).expect("json");
        assert_eq!(json[0]["id"], c.id);
        assert_eq!(json[0]["pid"], pid);
        assert_eq!(json[0]["status"], "running");
        assert_eq!(json[0]["owner"], "root");
        assert_eq!(c.call(["list", "--quiet"]).ok().stdout, format!("{}\n", c.id));
        let table = c.call(["list"]).ok().stdout;
        let header = table.lines().next().expect("a header");
        let words: Vec<&str> = header.split_whitespace().collect();
        assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
        let pid = pid.to_string();
        assert_eq!(row[..4], [c.id.as_str(), &pid, "running", c.dir.to_str().expect("utf-8")]);
        assert_eq!(row[5], "root");
        // The columns of Go's tabwriter: at least twelve wide, three blanks between.
        assert_eq!(header.find("PID"), Some(12), "{header:?}");
    });
}

#[test]
fn the_pid_file_holds_the_pid_and_nothing_else() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        // Relative to the caller's directory, not to the bundle.
        let elsewhere = c.directory("elsewhere");
        c.create_call(&["--pid-file", "pid"]).dir(&elsewhere).output().silent();
        let text = fs::read_to_string(elsewhere.join("pid")).expect("the pid file");
        assert_eq!(text, c.pid().to_string());
        let names: Vec<_> = fs::read_dir(&elsewhere).expect("a directory").flatten().collect();
        assert_eq!(names.len(), 1, "nothing beside it: {names:?}");
        let file = c.path("exec-pid");
        c.call(["exec", "-d", "--pid-file", file.to_str().expect("utf-8"), &c.id, "sleep", "1000"])
            .output()
            .silent();
        let pid: i32 =
            fs::read_to_string(file).expect("the pid file").parse().expect("only digits");
        // A detached exec need not wait for the execve.
        wait_until("the exec", || comm(pid) == "sleep");
    });
}

#[test]
fn a_subreaper_gets_the_init_of_create_and_start() {
    in_each_view(|view| {
        let c = Container::new(view).script("sleep 0.1; exit 42");
        let pid_file = c.path("pid").display().to_string();
        let script = format!(
            "\"$@\" && {runtime} --root {root} start {id}",
            runtime = c.runtime.path.display(),
            root = c.root.display(),
            id = c.id
        );
        c.create_call(&["--pid-file", &pid_file])
            .in_shell(&script)
            .stage(["subreaper", &c.path("reaped").display().to_string()])
            .ok();
        assert_reaped(&c, "42");
    });
}

#[test]
fn a_subreaper_gets_the_init_of_a_detached_run() {
    in_each_view(|view| {
        let c = Container::new(view).script("sleep 0.1; exit 43");
        let pid_file = c.path("pid").display().to_string();
        c.run_call(&["-d", "--pid-file", &pid_file])
            .stage(["subreaper", &c.path("reaped").display().to_string()])
            .ok();
        assert_reaped(&c, "43");
    });
}

#[test]
fn a_subreaper_gets_a_detached_exec() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let pid_file = c.path("pid").display().to_string();
        c.call(["exec", "-d", "--pid-file", &pid_file, &c.id, "sh", "-c", "sleep 0.1; exit 44"])
            .stage(["subreaper", &c.path("reaped").display().to_string()])
            .ok();
        assert_reaped(&c, "44");
    });
}

/// The pid of the pid file ended with the code, as its reaper saw it.
#[track_caller]
fn assert_reaped(c: &Container, code: &str) {
    let pid = fs::read_to_string(c.path("pid")).expect("the pid file");
    let record = fs::read_to_string(c.path("reaped")).expect("the record");
    let ours: Vec<&str> = record.lines().filter(|l| l.starts_with(&format!("{pid} "))).collect();
    assert_eq!(ours, [format!("{pid} {code}")], "all that was reaped: {record:?}");
}

#[test]
fn a_runtime_killed_at_any_moment_leaves_nothing_that_delete_cannot_remove() {
    in_each_view(|view| {
        // From before the first effect to after the last, on a machine of any speed.
        let whole = {
            let c = Container::new(view).sleeper();
            let start = std::time::Instant::now();
            c.create();
            start.elapsed()
        };
        for step in 0..20 {
            let c = Container::new(view).sleeper();
            let create = c.create_call(&[]).spawn();
            std::thread::sleep(whole * step / 18);
            create.signal(Signal::SIGKILL);
            // In the view the killed process was the stage, which had become the runtime.
            create.wait();
            c.delete_by_force().ok();
            if !c.runtime.is_aril() {
                // runc 1.1.5 forgets the init and the cgroup when it dies before its record.
                host::scrub(&c.mark);
            }
            c.leaves_nothing();
        }
    });
}

#[test]
fn the_container_outlives_its_runtime_and_its_runtimes_parent() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_call(&["-d"]).in_shell("\"$@\"; kill -9 $$").output();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(c.status(), "running");
        assert_eq!(parent_death_signal_hits(&c), 0);
    });
}

/// Executes nothing: the init is a direct child of whoever adopted it, not of a helper of ours.
fn parent_death_signal_hits(c: &Container) -> usize {
    let helpers = host::processes(&c.mark).into_iter().filter(|pid| comm(*pid) != "sleep");
    helpers.count()
}

#[test]
fn verbs_do_not_need_the_flags_of_create() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        c.create_call(&["--no-new-keyring"]).ok();
        for verb in ["state", "start", "state"] {
            c.verb(verb).ok();
        }
    });
}

/// Installed in the place of runc, it is called runc where its callers look for that.
#[test]
fn help_and_version_name_the_program_as_it_was_called() {
    on_the_host(|view| {
        let c = Container::new(view);
        let link = c.path("runc");
        std::os::unix::fs::symlink(&c.runtime.path, &link).expect("a link");
        let says = |words: &[&str]| c.bare(&link, "runc").args(words).ok().stdout;
        assert!(says(&["--version"]).starts_with("runc version "));
        for flag in ["-h", "--help"] {
            let text = says(&[flag]);
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines[0], "NAME:");
            assert!(lines[1].contains("runc - Open Container Initiative runtime"), "{text}");
            for verb in ["create", "delete", "exec", "list", "spec", "update"] {
                let text = says(&[verb, flag]);
                assert!(text.lines().nth(1).expect("a line").contains(&format!("runc {verb}")));
            }
        }
        c.plain(["foo", "-h"]).output().exits(1).says("No help topic for 'foo'");
    });
}

#[test]
fn version() {
    on_the_host(|view| {
        let c = Container::new(view);
        for flag in ["--version", "-v"] {
            let out = c.plain([flag]).ok();
            let first = out.stdout.lines().next().expect("a line");
            assert!(first.starts_with(&format!("{} version ", c.runtime.name)), "{first}");
            assert!(out.stdout.lines().any(|line| line.starts_with("spec: 1.")), "{out:?}");
            assert!(out.stdout.lines().nth(1).expect("a line").starts_with("commit: "), "{out:?}");
        }
    });
}
