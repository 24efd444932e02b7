//! The calls of the task service, and the order of events.

use runtime_tests::container::wait_until;
use runtime_tests::{Container, View};

use crate::place::{Streams, place, place_for};
use crate::wire::{ALREADY_EXISTS, Client, NOT_FOUND, UNIMPLEMENTED, out};

#[test]
fn a_container_from_create_to_delete() {
    let Some(place) = place_for(Container::new(View::Host).script("exit 7")) else { return };
    let mut shim = place.start();
    let pid = shim.create(&Streams::default());
    assert_eq!(shim.status(""), "created");
    let init = shim.init();
    shim.client.ok("Start", init.clone());
    assert_eq!(shim.wait(""), 7);
    let state = shim.client.ok("State", init.clone());
    assert_eq!((state.number(3) as i32, state.number(4), state.number(9)), (pid, 3, 7));
    assert!(state.message(10).number(1) > 1_600_000_000, "the time of its end");
    let kill = shim.init().number(3, 9);
    assert_eq!(shim.client.refused("Kill", kill).code, NOT_FOUND);
    // What it used can be asked for until it is deleted.
    let stats = shim.client.ok("Stats", init.clone()).message(1);
    assert!(stats.text(1).starts_with("io.containerd.cgroups.v"), "{stats:?}");
    let deleted = shim.client.ok("Delete", init.clone());
    assert_eq!((deleted.number(1) as i32, deleted.number(2)), (pid, 7));
    assert_eq!(shim.client.refused("State", init.clone()).code, NOT_FOUND);
    shim.client.send("Shutdown", init);
    place.wait_for_events(&["create", "start", "exit", "delete"]);
    let events = place.events.lock().expect("events");
    let exit = &events[2].1;
    assert_eq!(exit.text(1), exit.text(2), "init has the container's id");
    assert_eq!((exit.number(3) as i32, exit.number(4)), (pid, 7));
    wait_until("the shim's end", || {
        runtime_tests::host::is_gone(shim.pid) && !shim.socket.exists()
    });
}

#[test]
fn a_container_that_is_never_started() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.create(&Streams::default());
    shim.kill("", 9);
    assert_eq!(shim.wait(""), 137);
    shim.finish();
    let topics = place.topics();
    assert_eq!(topics[..2], ["create", "exit"], "{topics:?}");
}

#[test]
fn execs_in_flight_end_before_init() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let names: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
    let mut clients: Vec<Client> = names.iter().map(|_| Client::connect(&shim.socket)).collect();
    for (n, name) in names.iter().enumerate() {
        let script = format!("exit {n}");
        let args: &[&str] = if n < 4 { &["sh", "-c", &script] } else { &["sleep", "1000"] };
        shim.add(name, args, &Streams::default());
    }
    for (name, client) in names.iter().zip(&mut clients) {
        client.send("Start", shim.exec(name));
    }
    for client in &mut clients {
        assert!(client.receive().expect("started").number(1) > 0);
    }
    for (n, name) in names[..4].iter().enumerate() {
        assert_eq!(shim.wait(name), n as u64);
    }
    let duplicate = shim.exec("e7").any(7, "x", b"{}");
    assert_eq!(shim.client.refused("Exec", duplicate).code, ALREADY_EXISTS);
    shim.kill("e4", 15);
    assert_eq!(shim.wait("e4"), 143);
    // A real-time signal has no name, but a number.
    shim.kill("e6", 40);
    assert_eq!(shim.wait("e6"), 168);
    let running = shim.exec("e5");
    assert!(shim.client.refused("Delete", running).text.contains("running"));
    let ended = shim.exec("e4");
    assert_eq!(shim.client.ok("Delete", ended).number(2), 143);
    shim.kill("", 9);
    assert_eq!(shim.wait(""), 137);
    let late = shim.exec("late").any(7, "x", b"{}");
    let refused = shim.client.call("Exec", late).and_then(|_| {
        let late = shim.exec("late");
        shim.client.call("Start", late)
    });
    let text = refused.expect_err("init has ended").text;
    let texts = ["init process is not running", "stopped state"];
    assert!(texts.iter().any(|t| text.contains(t)), "{text}");
    shim.finish();
    let events = place.events.lock().expect("events");
    let exits: Vec<String> =
        events.iter().filter(|(topic, _)| topic == "/tasks/exit").map(|(_, e)| e.text(2)).collect();
    assert_eq!(exits.len(), 9, "once each: {exits:?}");
    assert_eq!(exits.last(), Some(&place.container.id), "{exits:?}");
    for name in &names {
        let of = |topic: &str, field| {
            events.iter().position(|(t, e)| t == topic && e.text(field) == *name).expect(topic)
        };
        assert!(of("/tasks/exec-added", 2) < of("/tasks/exec-started", 2));
        assert!(of("/tasks/exec-started", 2) < of("/tasks/exit", 2), "{name}");
    }
}

#[test]
fn pausing_updating_and_looking() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    let pid = shim.create(&Streams::default());
    let init = shim.init();
    assert!(shim.client.refused("Pause", init.clone()).text.contains("created"));
    shim.client.ok("Start", init.clone());
    shim.client.ok("Pause", init.clone());
    assert_eq!(shim.status(""), "paused");
    shim.client.ok("Resume", init.clone());
    assert_eq!(shim.status(""), "running");

    shim.add("e", &["sleep", "1000"], &Streams::default());
    let exec = shim.exec("e");
    let exec = shim.client.ok("Start", exec).number(1);
    let processes = shim.client.ok("Pids", init.clone()).all(1);
    let find = |pid: u64| processes.iter().find(|p| p.number(1) == pid).expect("a process");
    assert_eq!(find(pid as u64).bytes(2), b"");
    let details = find(exec).message(2);
    assert_eq!(details.text(1), "containerd.runc.v1.ProcessDetails");
    assert_eq!(details.message(2).text(1), "e");

    let resources = br#"{"pids":{"limit":77}}"#;
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let update = shim.init().any(2, kind, resources);
    shim.client.ok("Update", update);
    let metrics = shim.client.ok("Stats", init.clone()).message(1);
    let pids = match metrics.text(1).contains("v2") {
        true => metrics.message(2).message(1),
        false => metrics.message(2).message(2),
    };
    assert_eq!((pids.number(1), pids.number(2)), (2, 77));
    shim.finish();
    assert_eq!(place.topics()[2..4], ["paused", "resumed"]);
}

/// containerd 1.7 deletes a shim that has no process, without asking it for the exit status.
#[test]
fn pids_of_an_ended_container() {
    let Some(place) = place_for(Container::new(View::Host).args(["true"])) else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable("containerd's shim answers with no process");
    }
    let mut shim = place.start();
    let pid = shim.run(&Streams::default());
    let init = shim.init();
    shim.client.ok("Wait", init);
    let init = shim.init();
    let processes = shim.client.ok("Pids", init).all(1);
    assert_eq!(processes.iter().map(|p| p.number(1)).collect::<Vec<_>>(), [pid as u64]);
    shim.finish();
}

#[test]
fn what_is_not_there() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    let none = || out().bytes(1, "none");
    for method in ["Start", "State", "Delete", "Kill", "Wait", "Pids", "Pause", "Stats"] {
        assert_eq!(shim.client.refused(method, none()).code, NOT_FOUND, "{method}");
    }
    assert_eq!(shim.client.refused("Nonsense", none()).code, UNIMPLEMENTED);
    shim.client.service = "containerd.other.v1.Service";
    assert_eq!(shim.client.refused("State", none()).code, UNIMPLEMENTED);
    shim.client.service = "containerd.task.v2.Task";
    if place.is_aril() {
        shim.client.service = "containerd.task.v3.Task";
    }
    shim.run(&Streams::default());
    if place.is_aril() {
        let init = shim.init().bytes(2, "/checkpoint");
        assert_eq!(shim.client.refused("Checkpoint", init).code, UNIMPLEMENTED);
    }
    let none = shim.exec("none");
    assert_eq!(shim.client.refused("State", none).code, NOT_FOUND);
    // Ignored as long as there is a container.
    let init = shim.init();
    shim.client.ok("Shutdown", init);
    assert_eq!(shim.status(""), "running");
    shim.finish();
}

#[test]
fn why_it_failed() {
    let Some(place) = place_for(Container::new(View::Host).args(["missing"])) else { return };
    let mut shim = place.start();
    let request = shim.request(&Streams::default());
    let text = shim.client.refused("Create", request).text;
    assert!(text.starts_with("OCI runtime create failed: "), "{text}");
    assert!(text.contains("exec: \"missing\": executable file not found in $PATH"), "{text}");
    let init = shim.init();
    assert_eq!(shim.client.refused("State", init.clone()).code, NOT_FOUND);
    shim.client.send("Shutdown", init);
    wait_until("the shim's end", || {
        runtime_tests::host::is_gone(shim.pid) && !shim.socket.exists()
    });
    assert!(place.topics().is_empty());
}

#[test]
fn a_pod_has_one_shim() {
    let edit = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = "pod".into();
    };
    let Some(place) = place_for(Container::new(View::Host).sleeper().edit(edit)) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let bundle = place.another_bundle("second");
    assert_eq!(place.start_for("second", &bundle), shim.socket);
    let create = shim.request_for("second", &bundle, &Streams::default(), place.options());
    let second = || out().bytes(1, "second");
    shim.client.ok("Create", create);
    shim.client.ok("Start", second());
    shim.client.ok("Kill", second().number(3, 9));
    assert_eq!(shim.client.ok("Wait", second()).number(1), 137);
    shim.client.ok("Delete", second());
    assert_eq!(shim.status(""), "running");
    shim.finish();
}

#[test]
fn what_kind_of_runtime_it_is() {
    let Some(place) = place() else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable("-info came with containerd 2.0");
    }
    let out = place.action("x", &place.container.dir, &["-info"]).ok();
    assert!(out.stdout.contains("io.containerd.aril.v2"), "{out:?}");
    assert!(out.stdout.contains("opencontainers/runtime-spec/1/features/Features"), "{out:?}");
    assert!(out.stdout.contains("\"ociVersionMin\""), "{out:?}");
}

/// Annotations are a pod's author's: what they may do is an option of the runtime, and the daemon's log
/// says what was ignored.
#[test]
fn annotations_act_if_the_options_allow_them() {
    use std::io::Read;

    let confined = |allowed: &str| {
        let edit = |spec: &mut serde_json::Value| {
            spec["annotations"]["io.aril.landlock"] = r#"{"fs":[],"mode":"best-effort"}"#.into();
            spec["annotations"]["io.aril.network"] = "host".into();
        };
        let place = place_for(Container::new(View::Host).args(["true"]).edit(edit))?;
        if !place.is_aril() {
            runtime_tests::skip::inapplicable("options of its own");
            return None;
        }
        let config = place.container.path("config.json");
        let mut shim = place.start();
        let before = std::fs::read(&config).expect("config.json");
        let request = shim.request_with_toml(&Streams::default(), allowed);
        shim.client.ok("Create", request);
        assert_eq!(std::fs::read(&config).expect("config.json"), before, "the engine's stays");
        let init = shim.init();
        shim.client.ok("Start", init);
        let status = shim.wait("");
        shim.finish();
        let mut log = String::new();
        (&place.log).read_to_string(&mut log).expect("the log");
        Some((status, log))
    };
    let Some((status, log)) = confined("") else { return };
    let said =
        "annotations io.aril.landlock, io.aril.network ignored: the operator has not allowed";
    assert!(status == 0 && log.contains(said) && log.contains("level=warning"), "{status} {log}");
    let Some((status, log)) = confined("AllowAnnotations = [\"io.aril.*\"]\n") else { return };
    assert!(status != 0 || log.contains("landlock is not enforced"), "{status} {log}");
    assert!(log.contains("annotation io.aril.network ignored: it affects the host"), "{log}");
    assert!(!log.contains("io.aril.landlock"), "{log}");
}
