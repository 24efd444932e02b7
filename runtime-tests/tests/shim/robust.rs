//! What dies, hangs or is away.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, View, host};

use crate::place::{Streams, place_for};
use crate::wire::{Client, In};

#[test]
fn a_shim_that_was_killed_is_cleaned_up_after() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    let pid = shim.run(&Streams::default());
    kill(Pid::from_raw(shim.pid), Signal::SIGKILL).expect("kill");
    wait_until("the shim's end", || host::is_gone(shim.pid));
    let (id, dir) = (place.container.id.clone(), place.container.dir.clone());
    let bundle = dir.display().to_string();
    let delete = ["-bundle", &bundle, "delete"];
    place.action(&id, &dir, &delete).ok();
    let response = In::parse(&place.printed(&["delete"]));
    assert_eq!(response.number(1) as i32, pid);
    wait_until("the container's end", || host::is_gone(pid));
    if place.is_aril() {
        // With nothing left it succeeds as well.
        place.action(&id, &dir, &delete).ok();
        assert!(!shim.socket.exists(), "a socket without a shim");
    } else {
        let _ = std::fs::remove_file(&shim.socket);
    }
    place.container.leaves_nothing();
}

/// Before anybody has connected to it: nobody will ever ask to clean up after that one.
#[test]
fn a_socket_without_a_shim_is_swept() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable("containerd's shim leaves its socket");
    }
    let lost = place.start();
    kill(Pid::from_raw(lost.pid), Signal::SIGKILL).expect("kill");
    wait_until("the shim's end", || host::is_gone(lost.pid));
    let mut other = place.start_in("other", &place.another_bundle("other"));
    assert!(lost.socket.exists() && lost.socket != other.socket);
    let dir = place.container.path("gone");
    std::fs::create_dir(&dir).expect("a bundle");
    place.action("gone", &dir, &["delete"]).ok();
    assert!(!lost.socket.exists(), "a socket without a shim");
    other.client.ok("Connect", crate::wire::out());
    assert!(other.socket.exists(), "a shim without a socket");
    other.client.send("Shutdown", crate::wire::out());
    wait_until("the shim's end", || host::is_gone(other.pid));
}

#[test]
fn a_socket_without_a_shim_is_replaced() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let first = place.start();
    kill(Pid::from_raw(first.pid), Signal::SIGKILL).expect("kill");
    wait_until("the shim's end", || host::is_gone(first.pid));
    let mut second = place.start();
    assert_eq!(first.socket, second.socket);
    second.run(&Streams::default());
    second.finish();
}

/// The runtime for one container never comes back.
#[test]
fn a_command_that_hangs_holds_up_nobody_else() {
    let edit = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = "pod".into();
    };
    let Some(place) = place_for(Container::new(View::Host).sleeper().edit(edit)) else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable("containerd 1.6 has one runtime for each shim");
    }
    let mut shim = place.start();
    shim.run(&Streams::default());
    const HANGS: &str = "#!/bin/sh\ncase \"$*\" in *create*) ;; *) exit 0 ;; esac\n\
                         echo $$ > stuck.pid\nexec sleep 1000\n";
    let stuck = place.container.file("stuck", HANGS);
    std::fs::set_permissions(&stuck, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let bundle = place.another_bundle("second");
    let options = place.options_with(&stuck);
    let create = shim.request_for("second", &bundle, &Streams::default(), options);
    let mut other = Client::connect(&shim.socket);
    other.send("Create", create);
    let pid_file = bundle.join("stuck.pid");
    let pid = || std::fs::read_to_string(&pid_file).unwrap_or_default().trim().parse::<i32>();
    wait_until("the command", || pid().is_ok());

    assert_eq!(shim.status(""), "running");
    shim.add("e", &["true"], &Streams::default());
    let exec = shim.exec("e");
    shim.client.ok("Start", exec);
    assert_eq!(shim.wait("e"), 0);

    kill(Pid::from_raw(pid().expect("a pid")), Signal::SIGKILL).expect("kill");
    let text = other.receive().expect_err("killed").text;
    assert!(text.contains("OCI runtime create failed"), "{text}");
    shim.finish();
}

#[test]
fn events_wait_for_a_daemon_that_is_away() {
    let Some(place) = place_for(Container::new(View::Host).script("exit 3")) else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable("containerd's shim gives up after five seconds");
    }
    place.be_away();
    let mut shim = place.start();
    shim.run(&Streams::default());
    assert_eq!(shim.wait(""), 3);
    assert!(place.topics().is_empty());
    place.listen();
    place.wait_for_events(&["create", "start", "exit"]);
    shim.finish();
}

/// A process that asked for an end and went away is no reason not to tell the others.
#[test]
fn waiters_come_and_go() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let mut waiting: Vec<Client> = (0..6).map(|_| Client::connect(&shim.socket)).collect();
    for client in &mut waiting {
        client.send("Wait", shim.init());
    }
    waiting.drain(..3);
    shim.kill("", 15);
    // A pid namespace's init ignores what it does not handle.
    shim.kill("", 9);
    for client in &mut waiting {
        assert_eq!(client.receive().expect("an end").number(1), 137);
    }
    shim.finish();
}

/// CVE-2020-15257: in the abstract namespace a container with the host's network could have connected.
#[test]
fn nothing_listens_but_at_a_path_that_is_closed() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", shim.pid)).expect("its files");
    let targets = descriptors.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let own: Vec<String> = targets.map(|target| target.display().to_string()).collect();
    let table = std::fs::read_to_string(format!("/proc/{}/net/unix", shim.pid)).expect("sockets");
    let mut listening = 0;
    for line in table.lines().skip(1) {
        // Number, references, protocol, flags, type, state, inode, path.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [.., flags, _, _, inode, path] = fields[..] else { continue };
        if flags != "00010000" || !own.contains(&format!("socket:[{inode}]")) {
            continue;
        }
        listening += 1;
        assert!(path.starts_with('/'), "{line}");
        let mode = std::fs::metadata(path).expect("a socket").permissions().mode();
        assert!(mode & 0o077 == 0 || !place.is_aril(), "{path}: {mode:o}");
    }
    assert!(listening > 0, "{own:?}\n{table}");
    shim.finish();
}
