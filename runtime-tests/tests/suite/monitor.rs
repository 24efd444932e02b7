//! The monitor of a detached container, how its end is recorded, and `wait`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, Output, View, host, in_each_view, on_the_host, skip};
use serde_json::Value;

fn image(view: View) -> Option<Container> {
    let c = Container::new(view);
    c.runtime.only_aril("runc leaves a detached container to its caller").then_some(c)
}

/// `run -d --rootfs` with these options.
fn detached(c: &Container, options: &[&str], command: &[&str]) -> Call {
    let rootfs = c.rootfs();
    c.call(["run", "-d", "--rootfs", rootfs.to_str().expect("utf-8")])
        .args(options)
        .args([c.id.as_str(), "--"])
        .args(command)
}

#[track_caller]
fn run(c: &Container, options: &[&str], script: &str) {
    detached(c, options, &["sh", "-c", script]).ok();
}

fn wait(c: &Container) -> Output {
    c.call(["wait", &c.id]).output()
}

/// The status of the container in the table of `list`.
#[track_caller]
fn listed(c: &Container) -> String {
    let out = c.call(["list"]).ok().stdout;
    let mut lines = out.lines();
    let head = lines.next().expect("a head");
    let (from, to) = (head.find("STATUS").expect("STATUS"), head.find("BUNDLE").expect("BUNDLE"));
    let mut line = lines.filter(|line| line.split_whitespace().next() == Some(&c.id));
    line.next().unwrap_or_else(|| panic!("not in the list: {out}"))[from..to].trim().to_owned()
}

fn words(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The monitors of this container.
fn monitors(c: &Container) -> Vec<i32> {
    let root = c.root.display().to_string();
    let is_own = |pid: &i32| {
        let words = words(*pid);
        words.len() > 3 && words[0] == "aril-monitor" && words[1] == root && words[2] == c.id
    };
    host::processes(&c.mark).into_iter().filter(is_own).collect()
}

#[track_caller]
fn monitor(c: &Container) -> i32 {
    wait_until("a monitor", || monitors(c).len() == 1);
    monitors(c)[0]
}

fn status_field(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn exit_statuses_and_signals() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        run(&c, &[], "exit 3");
        assert_eq!(wait(&c).exits(3).stdout, "3\n");
        assert_eq!(wait(&c).exits(3).stdout, "3\n", "and again");
        let state = c.state();
        assert_eq!((&state["status"], &state["pid"]), (&"stopped".into(), &0.into()), "{state}");
        assert_eq!((&state["exitStatus"], &state["oomKilled"]), (&3.into(), &false.into()));
        assert_eq!(state["exitSignal"], Value::Null, "{state}");
        let time = |key: &str| state[key].as_str().expect("a time").to_owned();
        assert!(time("created") <= time("started"), "{state}");
        assert!(time("started") <= time("finished") && time("finished").ends_with('Z'), "{state}");
        assert_eq!(listed(&c), "stopped (exit 3)");
        let list = c.call(["list", "--format", "json"]).ok().stdout;
        let list: Value = serde_json::from_str(&list).expect("json");
        assert_eq!(list[0]["exitStatus"], 3, "{list}");
        c.delete().silent();
        c.leaves_nothing();
        run(&c, &[], "trap 'exit 5' TERM; while :; do sleep 0.05; done");
        assert_eq!(listed(&c), "running");
        wait_until("the trap", || {
            drop(c.kill("TERM"));
            c.status() == "stopped"
        });
        wait(&c).exits(5);
        c.delete().silent();
        run(&c, &[], "exec sleep 1000");
        c.kill("KILL").silent();
        assert_eq!(wait(&c).exits(137).stdout, "137\n");
        let state = c.state();
        assert_eq!((&state["exitStatus"], &state["exitSignal"]), (&137.into(), &9.into()));
        assert_eq!(state["oomKilled"], false, "{state}");
        c.delete().silent();
        c.leaves_nothing();
    });
}

#[test]
fn a_kept_foreground_container_shows_the_same() {
    in_each_view(|view| {
        let c = Container::new(view).script("exit 4");
        if !c.runtime.only_aril("runc records no exit status") {
            return;
        }
        c.run_call(&["--keep"]).output().exits(4);
        assert_eq!(listed(&c), "stopped (exit 4)");
        assert_eq!(c.state()["exitStatus"], 4);
        wait(&c).exits(4);
        c.delete().silent();
        c.leaves_nothing();
    });
}

#[test]
fn killed_for_want_of_memory() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        if !view.controls("memory") {
            return skip::inapplicable("no memory controller in this view");
        }
        let eat = "head -c 200m /dev/zero | tail >/dev/null; exit $?";
        run(&c, &["--memory", "20m", "--memory-swap", "20m"], eat);
        // A child of init's was killed.
        wait(&c).exits(137);
        assert_eq!(c.state()["oomKilled"], true);
        assert_eq!(listed(&c), "stopped (exit 137)");
        c.delete().silent();
        let eat = ["tail", "/dev/zero"];
        detached(&c, &["--memory", "20m", "--memory-swap", "20m"], &eat).ok();
        wait(&c).exits(137);
        assert_eq!(listed(&c), "stopped (exit 137, out of memory)");
        c.delete().silent();
        c.leaves_nothing();
    });
}

/// What stays: small, alone, with nothing of its caller's.
#[test]
fn the_monitor_is_small_and_out_of_reach() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let secret = "SECRET_OF_THE_CALLER";
        detached(&c, &["--pid-file", "pid"], &["sleep", "1000"]).env(secret, "x").ok();
        let monitor = monitor(&c);
        let init: i32 = fs::read_to_string(c.path("pid")).expect("a pid").parse().expect("a pid");
        assert_eq!(status_field(init, "PPid"), monitor.to_string());
        let rollup = fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).expect("smaps");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
        let kb: u32 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        eprintln!("the monitor's PSS: {kb} kB");
        assert!(kb <= 300, "{rollup}");
        assert_eq!(status_field(monitor, "Threads"), "1");
        let link = |name: &str| fs::read_link(format!("/proc/{monitor}/{name}")).expect(name);
        let mut open: Vec<String> = fs::read_dir(format!("/proc/{monitor}/fd"))
            .expect("descriptors")
            .map(|fd| fs::read_link(fd.expect("fd").path()).expect("fd").display().to_string())
            .collect();
        open.sort();
        open.dedup();
        let exit = c.root.join(&c.id).join("exit.json").display().to_string();
        assert_eq!(open, ["/dev/null".to_owned(), exit]);
        assert_eq!(link("cwd"), Path::new("/"));
        let environment = fs::read(format!("/proc/{monitor}/environ")).expect("environ");
        assert!(!String::from_utf8_lossy(&environment).contains(secret));
        // A session of its own; the container's cgroups are not its.
        assert_eq!(nix::unistd::getsid(Some(Pid::from_raw(monitor))), Ok(Pid::from_raw(monitor)));
        let cgroups = fs::read_to_string(format!("/proc/{monitor}/cgroup")).expect("cgroup");
        assert!(!cgroups.contains(&format!("/{}", c.id)), "{cgroups}");
        // Not dumpable: its memory and its descriptors are root's of the host alone.
        let owner = fs::metadata(format!("/proc/{monitor}/mem")).expect("mem").uid();
        assert_eq!(owner, 0);
        for signal in
            [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGPIPE]
        {
            kill(Pid::from_raw(monitor), signal).expect("kill");
        }
        let seen = c.exec(["sh", "-c", "cat /proc/[0-9]*/comm"]).ok().stdout;
        assert!(seen.contains("sleep") && !seen.contains("monitor"), "{seen}");
        assert_eq!(monitors(&c), [monitor]);
        c.kill("KILL").silent();
        wait(&c).exits(137);
        wait_until("the monitor's end", || host::is_gone(monitor));
        c.delete().silent();
        c.leaves_nothing();
    });
}

/// The container goes on; what is lost is said.
#[test]
fn a_monitor_that_is_killed() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            run(&c, &[], "exec sleep 1000");
            let pid = monitor(&c);
            kill(Pid::from_raw(pid), signal).expect("kill");
            wait_until("its end", || host::is_gone(pid));
            assert_eq!(listed(&c), "running");
            c.exec(["true"]).ok();
            let waiting = c.call(["wait", &c.id]).spawn();
            c.kill("KILL").silent();
            let out = waiting.wait().exits(1);
            assert_eq!(out.stdout, "");
            out.says(&format!("the exit status of container {} is not known", c.id));
            c.wait_for("stopped");
            assert_eq!(listed(&c), "stopped (exit status not known)");
            assert_eq!(c.state()["exitStatus"], Value::Null);
            c.delete().silent();
            c.leaves_nothing();
        }
        // One that would have deleted it.
        run(&c, &["--rm"], "exec sleep 1000");
        kill(Pid::from_raw(monitor(&c)), Signal::SIGKILL).expect("kill");
        wait_until("its end", || monitors(&c).is_empty());
        c.kill("KILL").silent();
        c.wait_for("stopped");
        c.call(["reconcile"]).ok().prints("the process that would have deleted it was killed");
        c.leaves_nothing();
    });
}

#[test]
fn deleted_at_its_end_or_while_it_runs() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        run(&c, &["--rm"], "exec sleep 1000");
        let waiting = c.call(["wait", &c.id]).spawn();
        wait_until("a wait", || is_waiting(waiting.pid().as_raw()));
        c.kill("KILL").silent();
        assert_eq!(waiting.wait().exits(137).stdout, "137\n");
        wait_until("no state", || c.left_in_root().is_empty());
        c.leaves_nothing();
        run(&c, &[], "exec sleep 1000");
        let first = monitor(&c);
        let waiting = c.call(["wait", &c.id]).spawn();
        wait_until("a wait", || is_waiting(waiting.pid().as_raw()));
        c.delete_by_force().silent();
        assert_eq!(waiting.wait().exits(137).stdout, "137\n");
        // Another of the same id is not touched by the first one's monitor.
        run(&c, &[], "exec sleep 1000");
        wait_until("the first monitor's end", || host::is_gone(first));
        assert_eq!(c.status(), "running");
        c.delete_by_force().silent();
        c.leaves_nothing();
        for flags in [&["--rm", "--keep"][..], &["-d", "--rm", "-b", "/"]] {
            c.call([&["run"], flags, &[&c.id]].concat()).output().exits(1).says("--rm");
        }
    });
}

/// It waits for a lock, in `wait`.
fn is_waiting(pid: i32) -> bool {
    let waits = |pid: i32| {
        let call = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        call.contains("flock") || call.contains("lock_file") || call.contains("locks")
    };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    waits(pid) || children.split_whitespace().any(|child| is_waiting(child.parse().expect("a pid")))
}

#[test]
fn the_callers_output_is_closed_at_once() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        for shell in ["\"$@\" >&-", "exec \"$@\" <&- >&- 2>&-", "\"$@\" | cat"] {
            detached(&c, &[], &["sh", "-c", "sleep 1; exit 6"]).in_shell(shell).ok();
            wait(&c).exits(6);
            c.delete().silent();
            c.leaves_nothing();
        }
        // A pipe ends while the container runs.
        let out = detached(&c, &[], &["sleep", "1000"]).in_shell("x=$(\"$@\" 2>&1); echo \"<$x>\"");
        assert_eq!(out.ok().stdout, format!("<{}>\n", c.id));
        c.delete_by_force().silent();
        c.leaves_nothing();
    });
}

/// Errors come from the process that made the container, and are its caller's.
#[test]
fn errors_reach_the_caller() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let c = c.logging();
        detached(&c, &[], &["no-such-program"])
            .output()
            .exits(127)
            .says("executable file not found in $PATH");
        assert_eq!(c.log().len(), 1, "{:?}", c.log());
        detached(&c, &["--memory", "x"], &["true"]).output().exits(1);
        c.leaves_nothing();
        run(&c, &[], "exec sleep 1000");
        detached(&c, &[], &["true"]).output().exits(1).says("already exists");
        assert_eq!(monitors(&c).len(), 1);
        c.delete_by_force().silent();
        c.leaves_nothing();
    });
}

/// Until the container runs, its maker ends with its caller, and gets its signals.
#[test]
fn a_caller_that_ends_too_soon() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let volumes = c.directory("volumes");
        c.call(["volume", "create", "v"]).env("ARIL_VOLUMES", &volumes).ok();
        let lock = fs::File::open(volumes.join("v")).expect("the volume");
        lock.lock().expect("flock");
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let call = detached(&c, &["-v", "v:/v"], &["sleep", "1000"]);
            let call = call.env("ARIL_VOLUMES", &volumes).spawn();
            wait_until("a maker", || host::processes(&c.mark).iter().any(|pid| is_waiting(*pid)));
            call.signal(signal);
            let out = call.wait();
            if signal == Signal::SIGTERM {
                out.exits(1).says("was killed by signal 15");
            }
            wait_until("no process", || host::processes(&c.mark).is_empty());
            c.call(["reconcile"]).ok();
            c.leaves_nothing();
        }
        drop(lock);
    });
}

#[test]
fn twenty_at_once() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let ids: Vec<String> = (0..20).map(|n| format!("{}-{n}", c.id)).collect();
        let rootfs = c.rootfs();
        let rootfs = rootfs.to_str().expect("utf-8");
        let calls: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let script = format!("sleep 0.2; exit {n}");
                c.call(["run", "-d", "--rootfs", rootfs, id, "--", "sh", "-c", &script]).spawn()
            })
            .collect();
        for (call, id) in calls.into_iter().zip(&ids) {
            assert_eq!(call.wait().ok().stdout, format!("{id}\n"));
        }
        let waits: Vec<_> = ids.iter().map(|id| c.call(["wait", id]).spawn()).collect();
        for (n, wait) in waits.into_iter().enumerate() {
            assert_eq!(wait.wait().exits(n as i32).stdout, format!("{n}\n"));
        }
        for id in &ids {
            c.call(["delete", id]).output().silent();
        }
        c.leaves_nothing();
    });
}

/// Who waits for the containers of engines, of service managers and of runc's interface is their parent.
#[test]
fn no_monitor_where_another_process_is_the_parent() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let c = c.sleeper();
        c.run_detached();
        assert!(monitors(&c).is_empty());
        c.kill("KILL").silent();
        c.wait_for("stopped");
        assert_eq!(listed(&c), "stopped");
        wait(&c).exits(1).says("is not known: the process that waits for its end is its caller's");
        c.delete().silent();
        c.create();
        assert!(monitors(&c).is_empty());
        c.delete_by_force().silent();
        wait(&c).exits(1).says("container does not exist");
        let socket = c.path("notify");
        let host = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
        host.set_nonblocking(true).expect("a socket");
        let script = "echo ready >/dev/null; exit 0";
        detached(&c, &[], &["sh", "-c", script]).env("NOTIFY_SOCKET", &socket).ok();
        assert!(monitors(&c).is_empty());
        c.wait_for("stopped");
        assert_eq!(c.state()["exitStatus"], Value::Null);
        c.delete().silent();
        detached(&c, &["--rm"], &["true"])
            .env("NOTIFY_SOCKET", &socket)
            .output()
            .exits(1)
            .says("where NOTIFY_SOCKET is set");
        c.leaves_nothing();
    });
}
