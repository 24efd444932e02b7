//! `reconcile`: what killed runtimes left goes, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, Output, View, host, in_each_view, on_the_host, skip};
use serde_json::Value;

fn sleeper(view: View) -> Option<Container> {
    let c = Container::new(view).sleeper();
    c.runtime.only_aril("reconcile is a command of its own").then_some(c)
}

#[track_caller]
fn findings(c: &Container, flags: &[&str]) -> Vec<(String, String)> {
    let args = [&["reconcile", "--format", "json"], flags].concat();
    let out = c.call(args).ok();
    let list: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let word = |finding: &Value, key: &str| finding[key].as_str().expect("a word").to_owned();
    let list = list.as_array().expect("a list");
    list.iter().map(|f| (word(f, "action"), word(f, "name"))).collect()
}

#[track_caller]
fn reconcile(c: &Container) -> Output {
    c.call(["reconcile"]).ok()
}

#[test]
fn the_living_and_the_kept_stay() {
    in_each_view(|view| {
        let Some(c) = sleeper(view) else { return };
        reconcile(&c).silent();
        c.create();
        reconcile(&c).silent();
        assert_eq!(c.status(), "created");
        c.start();
        reconcile(&c).silent();
        assert_eq!(c.status(), "running");
        c.verb("pause").ok();
        reconcile(&c).silent();
        c.verb("resume").ok();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        let kept = format!("kept container {}: it has ended, and was kept", c.id);
        reconcile(&c).prints(&kept);
        assert_eq!(findings(&c, &[]), [("kept".to_owned(), c.id.clone())]);
        assert_eq!(c.status(), "stopped");
        c.delete().ok();
        assert!(findings(&c, &[]).is_empty());
    });
}

#[test]
fn a_run_that_was_killed() {
    in_each_view(|view| {
        let Some(c) = sleeper(view) else { return };
        let run = c.run_call(&[]).spawn();
        wait_until("a container", || c.verb("state").stdout.contains("running"));
        run.signal(Signal::SIGKILL);
        drop(run.wait());
        reconcile(&c).silent();
        assert_eq!(c.status(), "running", "its program goes on");
        c.kill("KILL").ok();
        c.wait_for("stopped");
        assert_eq!(findings(&c, &["--dry-run"]), [("would-remove".to_owned(), c.id.clone())]);
        assert_eq!(c.status(), "stopped", "nothing was done");
        reconcile(&c).prints("and the process that would have deleted it was killed\n");
        c.leaves_nothing();
    });
}

#[test]
fn an_earlier_boot() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        c.run_detached();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        let path = c.root.join(&c.id).join("state.json");
        let text = fs::read_to_string(&path).expect("a record");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
        assert!(text.contains(boot.trim()), "{text}");
        // As a boot leaves it: the record, and nothing else.
        c.delete().ok();
        let directory = c.root.join(&c.id);
        fs::create_dir(&directory).expect("a directory");
        fs::write(path, text.replace(boot.trim(), "11111111-2222-3333-4444-555555555555"))
            .expect("write");
        fs::write(directory.join("config.json"), c.spec.to_string()).expect("write");
        assert_eq!(findings(&c, &[]), [("removed".to_owned(), c.id.clone())]);
        c.leaves_nothing();
    });
}

#[test]
fn unreadable_records_are_reported() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        fs::create_dir_all(c.root.join("empty")).expect("a directory");
        fs::create_dir_all(c.root.join("broken")).expect("a directory");
        fs::write(c.root.join("broken/state.json"), "{").expect("a file");
        let found = findings(&c, &[]);
        let expected = [("kept", "broken"), ("removed", "empty")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        c.call(["delete", "--force", "broken"]).ok();
        c.leaves_nothing();
    });
}

/// Every call that aril makes for these words, as its name and how often it was made before.
fn calls(c: &Container, strace: &std::path::Path, verb: &[&str]) -> Vec<(String, usize)> {
    let file = c.path("trace");
    traced(c, strace, &["-o", file.to_str().expect("utf-8")], verb).ok();
    c.delete_by_force().ok();
    let mut counts = BTreeMap::<String, usize>::new();
    let trace = fs::read_to_string(file).expect("a trace");
    let names = trace.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    names
        .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .map(|name| {
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            (name.to_owned(), *count)
        })
        .collect()
}

fn traced(
    c: &Container,
    strace: &std::path::Path,
    flags: &[&str],
    verb: &[&str],
) -> runtime_tests::Call {
    c.write_config();
    c.bare(strace, "strace")
        .args(["-qq", "-e", "signal=none"])
        .args(flags)
        .arg(&c.runtime.path)
        .arg("--root")
        .arg(&c.root)
        .args(c.globals())
        .args(verb)
        .args(["-b", c.dir.to_str().expect("utf-8"), &c.id])
}

/// How many moments each verb is killed at; `KILLS=all` takes every call that it makes.
const MOMENTS: usize = 24;

fn kill_at_moments(c: &Container, verb: &[&str], check: impl Fn()) {
    let Some(strace) = skip::tool("strace", "strace") else { return };
    let calls = calls(c, &strace, verb);
    assert!(calls.len() > 50, "{calls:?}");
    let step = match std::env::var("KILLS").is_ok_and(|v| v == "all") {
        true => 1,
        false => calls.len().div_ceil(MOMENTS),
    };
    for (number, (name, count)) in calls.iter().step_by(step).enumerate() {
        let inject = format!("inject={name}:signal=KILL:when={count}");
        let out = traced(c, &strace, &["-o", "/dev/null", "-e", &inject], verb).output();
        let moment = format!("{name} {count}: {out:?}");
        // By turns: either is enough.
        if number % 2 == 0 {
            c.delete_by_force().ok();
        } else {
            // What was to be init holds the lock until it sees that its parent is gone.
            wait_until(&moment, || {
                reconcile(c);
                let living = || ["created", "running"].map(Into::into).contains(&c.status());
                c.left_in_root().is_empty() || living() || is_told_of(c)
            });
            c.delete_by_force().ok();
        }
        eprintln!("{moment}");
        c.leaves_nothing();
        check();
    }
}

/// Killed when all was made and before init was told to go on: to everybody a container that has
/// ended, and those are kept.
fn is_told_of(c: &Container) -> bool {
    let record = fs::read_to_string(c.root.join(&c.id).join("state.json")).unwrap_or_default();
    let record: Value = serde_json::from_str(&record).unwrap_or_default();
    record["phase"] == "created"
        && c.status() == "stopped"
        && findings(c, &[]) == [("kept".to_owned(), c.id.clone())]
}

#[test]
fn create_killed_at_any_moment() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        kill_at_moments(&c, &["create"], || ());
    });
}

#[test]
fn run_killed_at_any_moment() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        kill_at_moments(&c, &["run", "-d"], || ());
    });
}

#[test]
fn a_run_of_layers_killed_at_any_moment() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let c = c.edit(|spec| {
            spec["root"]["readonly"] = false.into();
            spec["process"]["args"] = serde_json::json!([
                "sh",
                "-c",
                "mkdir -p /etc/deep; rm /etc/group; exec sleep 1000"
            ]);
        });
        let c = c.annotated("io.aril.rootfs.upper", "ephemeral");
        let layer = || {
            let look = ["-printf", "%P %i %y %m %U:%G %T@ %C@ %l\n"];
            let list = Command::new("find").arg(c.rootfs()).args(look).output().expect("find");
            // Other tests link the programs, which changes their times.
            let text = String::from_utf8_lossy(&list.stdout).into_owned();
            text.lines()
                .filter(|line| !line.starts_with("bin/"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = layer();
        kill_at_moments(&c, &["run", "-d"], || {
            assert_eq!(layer(), before, "the layer is as it was")
        });
    });
}

/// Of an ephemeral upper nothing is left when the state root is: it is in it.
#[test]
fn a_lost_state_root() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let c = c.annotated("io.aril.rootfs.upper", "ephemeral");
        c.run_detached();
        let pid = c.pid();
        fs::remove_dir_all(&c.root).expect("the state root");
        reconcile(&c).silent();
        assert!(!host::is_gone(pid), "nobody knows that it was ours");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        wait_until("its end", || host::is_gone(pid));
        host::scrub(&c.mark);
        assert!(c.rootfs().join("etc/passwd").exists(), "the layer is as it was");
        c.run_detached();
        c.delete_by_force().ok();
    });
}

#[test]
fn start_killed_after_the_start() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let Some(strace) = skip::tool("strace", "strace") else { return };
        c.create();
        // The fifo is the last that `start` removes.
        c.bare(&strace, "strace")
            .args(["-qq", "-o", "/dev/null", "-e", "inject=unlink,unlinkat:signal=KILL:when=1"])
            .arg(&c.runtime.path)
            .arg("--root")
            .arg(&c.root)
            .args(["start", &c.id])
            .output();
        assert_eq!(c.status(), "created", "the fifo is still there");
        let out = reconcile(&c);
        out.prints(&format!("removed gate {}: its start was killed", c.id));
        assert_eq!(c.status(), "running");
        c.delete_by_force().ok();
    });
}
