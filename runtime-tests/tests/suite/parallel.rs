//! Many verbs at once: one clear winner, no leak.

use std::sync::atomic::{AtomicUsize, Ordering};

use runtime_tests::{Container, Output, Running, View, host, in_each_view};

const RACERS: usize = 8;

/// How many of the calls, all under way at once, have succeeded.
#[track_caller]
fn winners(calls: Vec<Running>, losers_say: &[&str]) -> usize {
    let outputs: Vec<Output> = calls.into_iter().map(Running::wait).collect();
    for out in outputs.iter().filter(|out| out.code != Some(0)) {
        assert_eq!(out.code, Some(1), "{out:#?}");
        assert!(losers_say.iter().any(|text| out.stderr.contains(text)), "{out:#?}");
    }
    outputs.iter().filter(|out| out.code == Some(0)).count()
}

fn finish(calls: Vec<Running>) {
    for call in calls {
        call.wait();
    }
}

#[test]
fn create_races() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        let calls = (0..RACERS).map(|_| c.call(["create", "-b", bundle, &c.id]).spawn()).collect();
        if !c.runtime.is_aril() {
            // runc 1.1.5 has no lock: losers may take the winner's cgroup with them.
            finish(calls);
            c.delete_by_force();
            host::scrub(&c.mark);
            return;
        }
        assert_eq!(winners(calls, &["container with given ID already exists"]), 1);
        assert_eq!(c.status(), "created", "the losers did it no harm");
        assert!(c.cgroup("memory").is_dir());
        c.start();
    });
}

#[test]
fn start_races() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("of runc 1.1.5 the losers may wait at the fifo for ever") {
            return;
        }
        c.create();
        let calls = (0..RACERS).map(|_| c.call(["start", &c.id]).spawn()).collect();
        assert_eq!(winners(calls, &["cannot start an already running container"]), 1);
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn delete_races() {
    in_each_view(|view| {
        let c = Container::new(view).args(["true"]);
        c.run_detached();
        c.wait_for("stopped");
        let calls = (0..RACERS).map(|_| c.call(["delete", &c.id]).spawn()).collect();
        if c.runtime.is_aril() {
            assert_eq!(winners(calls, &["container does not exist"]), 1);
        } else {
            // runc 1.1.5: several may find it and all may be content.
            finish(calls);
        }
        c.leaves_nothing();
    });
}

#[test]
fn delete_by_force_races() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let calls: Vec<Running> =
            (0..RACERS).map(|_| c.call(["delete", "--force", &c.id]).spawn()).collect();
        for call in calls {
            let out = call.wait();
            assert!(out.code == Some(0) || !c.runtime.is_aril(), "all are content: {out:#?}");
        }
        c.leaves_nothing();
    });
}

#[test]
fn start_and_delete_race() {
    in_each_view(|view| {
        for _ in 0..5 {
            let c = Container::new(view).sleeper();
            c.create();
            let start = c.call(["start", &c.id]).spawn();
            let delete = c.call(["delete", "--force", &c.id]).spawn();
            start.wait();
            delete.wait().ok();
            c.leaves_nothing();
        }
    });
}

#[test]
fn readers_see_whole_states() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        let create = c.create_call(&[]).spawn();
        let mut seen = Vec::new();
        for _ in 0..30 {
            let out = c.verb("state");
            match out.code {
                Some(0) => {
                    let state: serde_json::Value = serde_json::from_str(&out.stdout)
                        .unwrap_or_else(|e| panic!("{e}: {out:?}"));
                    seen.push(state["status"].as_str().expect("a status").to_owned());
                }
                _ => drop(out.exits(1)),
            }
        }
        create.wait().ok();
        let known = ["creating", "created", "stopped"];
        assert!(seen.iter().all(|status| known.contains(&status.as_str())), "{seen:?}");
        assert!(!seen.contains(&"stopped".to_owned()) || !c.runtime.is_aril(), "{seen:?}");
    });
}

/// A hundred in each view.
#[test]
fn two_hundred_containers() {
    in_each_view(|view| {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < 100 {
                        whole_life(view);
                    }
                });
            }
        });
        let own = runtime_tests::container::own_mark();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&own), "{mounts}");
    });
}

fn whole_life(view: View) {
    let c = Container::new(view).script("exit 0");
    c.create();
    c.start();
    c.wait_for("stopped");
    c.delete().ok();
    // Nothing of its own is left: asserted by the fixture.
}
