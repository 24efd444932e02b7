//! A further process in a container.

use std::fs;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, Output, View, host, in_each_view, on_the_host};
use serde_json::{Value, json};

fn running(view: View) -> Container {
    let c = Container::new(view).sleeper();
    c.run_detached();
    c
}

fn exec_with(c: &Container, flags: &[&str], args: &[&str]) -> Output {
    c.call([&["exec"], flags, &[c.id.as_str()], args].concat()).output()
}

fn exec_of(c: &Container, process: &Value) -> Output {
    let file = c.file("process.json", &process.to_string()).display().to_string();
    c.call(["exec", "--process", &file, &c.id]).output()
}

#[test]
fn exit_codes() {
    in_each_view(|view| {
        let c = running(view);
        c.exec(["true"]).silent();
        c.exec(["sh", "-c", "exit 5"]).exits(5);
        c.exec(["sh", "-c", "kill -9 $$"]).exits(128 + 9);
        c.exec(["sh", "-c", "kill -TERM $$"]).exits(128 + 15);
    });
}

#[test]
fn errors_before_the_process_exit_with_255() {
    on_the_host(|view| {
        let c = running(view);
        let text = "exec: \"no-such-program\": executable file not found in $PATH";
        c.exec(["no-such-program"]).exits(255).says(text).says("exec failed: ");
        c.exec(["/no/such/program"]).exits(255).says("no such file or directory");
        c.exec(["/etc/passwd"]).exits(255).says("permission denied");
        exec_with(&c, &["--cwd", "/no/such/directory"], &["true"])
            .exits(255)
            .says("no such file or directory");
        exec_with(&c, &["--process", "/no/such/file"], &[]).exits(255);
        c.call(["exec", "no-such-container", "true"])
            .output()
            .exits(255)
            .says("container does not exist");
    });
}

#[test]
fn arguments_are_not_flags() {
    on_the_host(|view| {
        let c = running(view);
        c.exec(["echo", "-d", "--tty", "--", "-x"]).ok().prints("-d --tty -- -x\n");
    });
}

#[test]
fn a_stopped_container_takes_none() {
    in_each_view(|view| {
        let c = Container::new(view);
        c.run_detached();
        c.wait_for("stopped");
        c.exec(["true"]).exits(255).says("cannot exec in a stopped container");
    });
}

#[test]
fn a_created_container_takes_one() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        c.exec(["echo", "hello"]).ok().prints("hello\n");
        assert_eq!(c.status(), "created");
    });
}

#[test]
fn flags_of_the_process() {
    on_the_host(|view| {
        let c = running(view);
        exec_with(&c, &["--cwd", "/etc"], &["sh", "-c", "pwd"]).ok().prints("/etc\n");
        let out = exec_with(&c, &["-e", "A=1,2", "-e", "B=x y"], &["env"]).ok();
        assert!(out.stdout.contains("\nA=1,2\n") && out.stdout.contains("\nB=x y\n"), "{out:?}");
        assert!(out.stdout.contains("TERM=xterm"), "the container's are kept: {out:?}");
        exec_with(&c, &["-u", "8"], &["id", "-u"]).ok().prints("8\n");
        exec_with(&c, &["--user", "8:9"], &["id", "-g"]).ok().prints("9\n");
        let groups = "grep Groups /proc/self/status";
        exec_with(
            &c,
            &["--additional-gids", "20", "--additional-gids", "30"],
            &["sh", "-c", groups],
        )
        .ok()
        .prints("20 30");
        let nnp = "grep NoNewPrivs /proc/self/status";
        exec_with(&c, &["--no-new-privs"], &["sh", "-c", nnp]).ok().prints("NoNewPrivs:\t1");
        let caps = "grep -E 'CapEff|CapBnd' /proc/self/status";
        let out = exec_with(&c, &["-c", "CAP_CHOWN"], &["sh", "-c", caps]).ok();
        assert!(out.stdout.contains("CapEff:\t0000000020000421"), "{out:?}");
        exec_with(&c, &["-g", "1,2"], &["true"]).exits(1);
        if c.runtime.is_aril() {
            exec_with(&c, &["-u", "nobody-here"], &["true"]).exits(255).says("nobody-here");
        } else {
            exec_with(&c, &["-u", "root"], &["true"]).exits(255);
        }
    });
}

#[test]
fn a_process_from_a_file() {
    on_the_host(|view| {
        let c = running(view);
        let mut process = json!({
            "user": {"uid": 8, "gid": 8, "additionalGids": [20]},
            "args": ["sh", "-c", "pwd; env; id -u; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; ulimit -n"],
            "env": ["PATH=/bin", "ONLY=this"],
            "cwd": "/tmp",
        });
        let out = exec_of(&c, &process).ok();
        let lines: Vec<&str> = out.stdout.lines().collect();
        assert_eq!(lines[0], "/tmp");
        for line in ["PATH=/bin", "ONLY=this", "8", "NoNewPrivs:\t0"] {
            assert!(lines.contains(&line), "{line}: {out:?}");
        }
        assert!(lines.contains(&"CapBnd:\t0000000020000420"), "the container's: {out:?}");
        // runc 1.1.5 gives the caller's limits here, later ones the container's.
        assert!(lines.contains(&"1024") || !c.runtime.is_aril(), "the container's limit: {out:?}");
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]);
        process["capabilities"] = json!({});
        let out = exec_of(&c, &process).ok();
        assert!(out.stdout.lines().any(|line| line == "77"), "{out:?}");
        assert!(out.stdout.contains("CapBnd:\t0000000000000000"), "{out:?}");
        process["args"] = json!([]);
        exec_of(&c, &process).exits(255);
    });
}

#[test]
fn detached() {
    in_each_view(|view| {
        let c = running(view);
        let file = c.path("pid").display().to_string();
        exec_with(&c, &["-d", "--pid-file", &file], &["sleep", "1000"]).silent();
        let pid: i32 = fs::read_to_string(&file).expect("a pid file").parse().expect("a pid");
        assert!(!host::is_gone(pid));
        c.kill("KILL").ok();
        wait_until("its death with the container's", || host::is_gone(pid));
    });
}

#[test]
fn exec_enters_the_containers_cgroup() {
    in_each_view(|view| {
        let c = running(view);
        let file = c.path("pid").display().to_string();
        exec_with(&c, &["-d", "--pid-file", &file], &["sleep", "1000"]).ok();
        let own = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
        let exec = own(&fs::read_to_string(&file).expect("a pid file"));
        assert_eq!(exec, own(&c.pid().to_string()));
        assert!(exec.contains(&c.cgroups_path()), "{exec}");
    });
}

#[test]
fn forwards_signals() {
    on_the_host(|view| {
        let c = running(view);
        let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
        let exec = c.call(["exec", &c.id, "sh", "-c", script]).spawn();
        wait_until("the trap", || exec.stdout().contains("ready"));
        exec.signal(Signal::SIGTERM);
        exec.wait().exits(7).prints("got it");
    });
}

#[test]
fn standard_input_arrives() {
    on_the_host(|view| {
        let c = running(view);
        let input = fs::File::open(c.file("input", "one\ntwo\n")).expect("input");
        let out = c.call(["exec", &c.id, "wc", "-l"]).stdin(input).ok();
        assert_eq!(out.stdout, "2\n");
    });
}

#[test]
fn many_at_once() {
    in_each_view(|view| {
        let c = running(view);
        let calls: Vec<_> = (0..12)
            .map(|n| c.call(["exec", &c.id, "sh", "-c", &format!("exit {n}")]).spawn())
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            call.wait().exits(n.try_into().expect("small"));
        }
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn affinity_of_its_own() {
    on_the_host(|view| {
        let affinity = json!({"initial": "0", "final": "0"});
        let c = Container::new(view).sleeper().edit(|spec| {
            spec["process"]["execCPUAffinity"] = affinity;
        });
        if !c.runtime.only_aril("execCPUAffinity came with runc 1.3") {
            return;
        }
        c.run_detached();
        let allowed = ["grep", "Cpus_allowed_list", "/proc/self/status"];
        c.exec(allowed).ok().prints("Cpus_allowed_list:\t0\n");
        let init = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
        let own = fs::read_to_string("/proc/self/status").expect("status");
        let line = |text: &str| {
            text.lines().find(|l| l.starts_with("Cpus_allowed_list")).map(str::to_owned)
        };
        assert_eq!(line(&init), line(&own), "init is not meant");
        // A process of one's own says what it wants.
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
                             "args": allowed, "execCPUAffinity": {"final": "0"}});
        exec_of(&c, &process).ok().prints("Cpus_allowed_list:\t0\n");
    });
}

#[test]
fn exec_inherits_no_state_of_the_caller() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper().edit(|spec| {
            spec["process"]["user"]["umask"] = 0o77.into();
            spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 4});
            spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
            spec["process"]["noNewPrivileges"] = true.into();
        });
        if !c.runtime.only_aril("runc 1.1.5 knows neither scheduler nor ioPriority") {
            return;
        }
        c.run_detached();
        let script = "probe | grep ^schedule; grep -E 'Umask|NoNewPrivs' /proc/self/status";
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
                             "args": ["sh", "-c", script]});
        let out = exec_of(&c, &process).ok();
        for line in [
            "schedule policy 3",
            "schedule nice 4",
            "schedule io 24576",
            "Umask:\t0077",
            "NoNewPrivs:\t0",
        ] {
            assert!(out.stdout.lines().any(|l| l == line), "{line}: {out:#?}");
        }
    });
}

#[test]
fn a_paused_container_and_one_more_process() {
    in_each_view(|view| {
        let c = running(view);
        c.verb("pause").silent();
        c.exec(["true"]).exits(255).says("cannot exec in a paused container");
        let exec = c.call(["exec", "--ignore-paused", &c.id, "echo", "thawed"]).spawn();
        c.verb("resume").silent();
        exec.wait().exits(0).prints("thawed");
    });
}

#[test]
fn sub_cgroups() {
    in_each_view(|view| {
        if !view.is_v2() {
            return;
        }
        let c = running(view);
        fs::create_dir(c.cgroup("").join("sub")).expect("a sub-cgroup");
        let out = exec_with(&c, &["--cgroup", "/sub"], &["cat", "/proc/self/cgroup"]).ok();
        assert!(out.stdout.trim_end().ends_with("/sub"), "{out:?}");
        exec_with(&c, &["--cgroup", "../.."], &["true"]).exits(255).says("bad sub cgroup path");
        let missing = exec_with(&c, &["--cgroup", "no-such"], &["true"]).exits(255);
        if c.runtime.is_aril() {
            missing.says("error adding pid to cgroups: open ").says("/no-such");
        }
    });
}

/// As the container's own files have them now, in numbers and by Docker's options.
#[test]
fn users_by_name() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc takes numbers") {
            return;
        }
        c.run_detached();
        let etc = c.rootfs().join("etc");
        fs::write(etc.join("passwd"), "root:x:0:0::/:\nweb:x:8:9::/srv:/bin/sh\n77:x:5:5::/:\n")
            .expect("passwd");
        fs::write(etc.join("group"), "root:x:0:\nstaff:x:50:web\n").expect("group");
        let ids = |user: &str| {
            let out =
                exec_with(&c, &["-u", user], &["sh", "-c", "id -u; id -g; id -G"]).ok().stdout;
            out.replace('\n', ";")
        };
        assert_eq!(ids("web"), "8;9;9 50;");
        assert_eq!(ids("web:staff"), "8;50;50;");
        assert_eq!(ids("root"), "0;0;0;");
        // A number is never a name.
        assert_eq!(ids("77"), "77;0;0;");
        for user in ["none", "web:none", "4294967296", "web:4294967296", "8:9:10", "", "-1"] {
            exec_with(&c, &["-u", user], &["true"]).exits(255);
        }
        // What the container made of its files leads nowhere else.
        fs::remove_file(etc.join("passwd")).expect("unlink");
        std::os::unix::fs::symlink("/proc/1/environ", etc.join("passwd")).expect("symlink");
        exec_with(&c, &["-u", "web"], &["true"]).exits(255);
        fs::remove_file(etc.join("passwd")).expect("unlink");
        let fifo = etc.join("passwd");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        exec_with(&c, &["-u", "web"], &["true"]).exits(255);
    });
}

#[test]
fn variables_of_a_file_and_of_the_caller() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc has no --env-file") {
            return;
        }
        c.run_detached();
        let file = c.file("variables", "# a comment\n\nA=1 2\nMINE\nB=\n");
        let file = file.to_str().expect("utf-8");
        let words = ["exec", "--env-file", file, "-e", "B=3", "-e", "NOT_SET", &c.id, "env"];
        let out = c.call(words).env("MINE", "yes").ok().stdout;
        for line in ["A=1 2", "MINE=yes", "B=3"] {
            assert!(out.lines().any(|l| l == line), "no {line} in {out}");
        }
        assert!(!out.contains("NOT_SET"), "{out}");
    });
}
