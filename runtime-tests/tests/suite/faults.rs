//! Commands that are killed, and whose system calls fail. `make faults` does that at every call; docs/reliability.md has the results.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, View, in_each_view, on_the_host, skip};

use crate::network::host::{Host, possible};

const OPEN: &str = "inject=open,openat:error=EMFILE";
const STAT: &str = "inject=stat,lstat,newfstatat,statx:error=EIO";

/// A call during which calls on a path of the host fail, or end the command.
fn injecting(mut call: Call, path: &Path, fault: &str) -> Option<Call> {
    let strace = skip::tool("strace", "strace")?;
    let path = path.to_str().expect("utf-8");
    let words = ["-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "signal=none", "-e", fault];
    let words: Vec<_> = words.iter().map(Into::into).collect();
    call = call.before(&words).before(&[strace.into()]);
    Some(call)
}

fn sleeper(view: View) -> Option<Container> {
    let c = Container::new(view).sleeper();
    c.runtime.only_aril("paths and calls of aril").then_some(c)
}

#[test]
fn a_process_that_cannot_be_looked_at_has_not_ended() {
    in_each_view(|view| {
        let Some(c) = sleeper(view) else { return };
        c.run_detached();
        let stat = format!("/proc/{}/stat", c.pid());
        for verb in ["state", "delete", "pause"] {
            let call = c.call([verb, &c.id]);
            let Some(call) = injecting(call, Path::new(&stat), OPEN) else { return };
            call.output().exits(1).says(&format!("{stat}: too many open files"));
        }
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn a_fifo_that_cannot_be_looked_at_is_not_gone() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        c.create();
        let fifo = c.root.join(&c.id).join("exec.fifo");
        let Some(call) = injecting(c.call(["start", &c.id]), &fifo, STAT) else { return };
        call.output().exits(1).says(&format!("stat {}: input/output error", fifo.display()));
        c.start();
    });
}

#[test]
fn an_address_of_a_directory_that_cannot_be_looked_at_stays_leased() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let flags = ["--network", "bridge", "--network-address", "10.213.0.50"];
    let holder = host.sleeper(&flags);
    let other = crate::network::host::sleeper();
    let directory = holder.root.join(&holder.id);
    let Some(call) = injecting(host.run_call(&other, &flags), &directory, STAT) else { return };
    call.output().exits(1).says("10.213.0.50");
    assert!(host.leases().contains("10.213.0.50"), "{}", host.leases());
    host.delete(&holder);
}

#[test]
fn a_volume_whose_users_cannot_be_read_stays() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let volumes = c.path("volumes");
        let call = |words: &[&str]| c.call(words).env("ARIL_VOLUMES", &volumes);
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        call(&["run", "-d", "-b", bundle, "-v", "kept:/mnt", &c.id]).ok();
        let rm = || call(&["volume", "rm", "kept"]);
        for (file, fault) in [
            (volumes.join("kept/users"), STAT),
            (volumes.join("kept/users"), OPEN),
            (c.root.join(&c.id).join("config.json"), OPEN),
        ] {
            let Some(rm) = injecting(rm(), &file, fault) else { return };
            rm.output().exits(1);
            assert!(volumes.join("kept/data").is_dir(), "{}", file.display());
        }
        rm().output().exits(1).says("in use by");
    });
}

#[test]
fn an_upper_directory_whose_user_cannot_be_read_is_in_use() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let upper = c.directory("kept");
        let flag = format!("{}/", upper.display());
        let mut other = sleeper(view).expect("aril");
        other.spec["root"]["path"] = c.rootfs().to_str().expect("utf-8").into();
        c.run_call(&["-d", "--upper", &flag]).ok();
        let claim = fs::read_dir(&upper).expect("the upper directory").flatten();
        let claim = claim.map(|entry| entry.path()).find(|path| path.is_file()).expect("a claim");
        let run = other.run_call(&["-d", "--upper", &flag]);
        let Some(run) = injecting(run, &claim, OPEN) else { return };
        run.output().exits(1).says("too many open files");
        other.run_call(&["-d", "--upper", &flag]).output().exits(1).says("in use by container");
    });
}

/// The parent connects the network while the child enters its cgroup.
#[test]
fn the_error_of_a_child_that_fails_first_is_the_one_to_report() {
    if !possible() {
        return;
    }
    let (host, c) = (Host::new(), crate::network::host::sleeper());
    let tasks = c.cgroup("pids").join("tasks");
    if c.view.is_v2() {
        skip::inapplicable("on cgroup v2 the child is cloned into its cgroup");
        return;
    }
    let fault = "inject=write:error=EIO";
    let run = host.run_call(&c, &["--network", "bridge"]);
    let Some(run) = injecting(run, &tasks, fault) else { return };
    run.output().exits(1).says("input/output error");
    host.has_nothing_left();
}

#[test]
fn a_killed_create_of_a_network_leaves_no_file() {
    if !possible() {
        return;
    }
    let (host, c) = (Host::new(), crate::network::host::sleeper());
    // A temporary file with a name, and the file itself.
    for (name, call) in [(".front.json.new", "write"), ("front.json", "linkat")] {
        let fault = format!("inject={call}:signal=KILL");
        let create = host.network(&c, &["create", "front"]);
        let place = Path::new("/var/lib/aril/networks").join(name);
        let Some(create) = injecting(create, &place, &fault) else { return };
        create.output();
        let left = host.sh("ls -A /var/lib/aril/networks | grep -v '^front.json$' || true");
        assert_eq!(left, "", "killed at {call}");
        host.sh("rm -f /var/lib/aril/networks/front.json");
    }
}

#[test]
fn reconcile_says_why_a_container_cannot_be_looked_at_again() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let run = c.run_call(&[]).spawn();
        wait_until("a container", || c.verb("state").stdout.contains("running"));
        run.signal(Signal::SIGKILL);
        drop(run.wait());
        c.kill("KILL").ok();
        c.wait_for("stopped");
        // The first look finds the container, the second one is under the lock.
        let record = c.root.join(&c.id).join("state.json");
        let second = format!("{OPEN}:when=2");
        let Some(call) = injecting(c.call(["reconcile"]), &record, &second) else { return };
        call.output().exits(1).prints("state.json: too many open files");
        c.call(["reconcile"]).ok();
        c.leaves_nothing();
    });
}
