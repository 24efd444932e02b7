//! Hooks: order, place, input, failure.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, in_each_view, on_the_host, skip};
use serde_json::{Value, json};

/// All hooks append a line to one file, which those in the container reach as `/hooks/log`.
fn with_hooks(c: Container) -> Container {
    let dir = c.directory("hooks");
    let script = "#!/bin/sh\n\
        cd_was=$(pwd); state=$(cat)\n\
        mounts=$(readlink /proc/self/ns/mnt); user=$(id -u)\n\
        if [ -e $2 ]; then sees=host; else sees=container; fi\n\
        echo \"$3 cwd=$cd_was env=$MARKED $mounts $sees $user state=$(echo $state)\" >> $1\n";
    for directory in [dir.clone(), c.rootfs()] {
        let file = directory.join("hook");
        fs::write(&file, script).expect("a hook");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    fs::write(dir.join("log"), "").expect("a log");
    fs::set_permissions(dir.join("log"), fs::Permissions::from_mode(0o666)).expect("chmod");
    let host = c.path("config.json");
    let outside = |name: &str| {
        let (hook, log) = (dir.join("hook"), dir.join("log"));
        json!([{"path": hook, "args": ["hook", log, host, name], "env": [format!("MARKED={name}"), "PATH=/bin:/usr/bin"]}])
    };
    let inside = |name: &str| json!([{"path": "/hook", "args": ["hook", "/hooks/log", host, name], "env": [format!("MARKED={name}"), "PATH=/bin"]}]);
    let hooks = json!({
        "prestart": outside("prestart"),
        "createRuntime": outside("createRuntime"),
        "createContainer": outside("createContainer"),
        "startContainer": inside("startContainer"),
        "poststart": outside("poststart"),
        "poststop": outside("poststop"),
    });
    c.mounting(runtime_tests::spec::bind(&dir, "/hooks", &[])).edit(|spec| {
        spec["hooks"] = hooks;
        spec["annotations"] = json!({"key": "value"});
    })
}

struct Ran {
    name: String,
    cwd: String,
    env: String,
    /// The mount namespace, whose root it has, and as whom it runs.
    mounts: String,
    sees: String,
    user: String,
    state: Value,
}

fn ran(c: &Container) -> Vec<Ran> {
    let text = fs::read_to_string(c.path("hooks/log")).expect("the log");
    let parse = |line: &str| {
        let (head, state) = line.split_once(" state=").expect("a state");
        let mut words = head.split(' ');
        let mut next = || words.next().expect("a word").to_owned();
        Ran {
            name: next(),
            cwd: next(),
            env: next(),
            mounts: next(),
            sees: next(),
            user: next(),
            state: serde_json::from_str(state).unwrap_or_else(|e| panic!("{e}: {line}")),
        }
    };
    text.lines().map(parse).collect()
}

fn names(c: &Container) -> Vec<String> {
    ran(c).into_iter().map(|hook| hook.name).collect()
}

#[test]
fn hooks_run_in_their_namespaces_in_order() {
    in_each_view(|view| {
        let c = with_hooks(Container::new(view)).args([
            "sh",
            "-c",
            "echo program >> /hooks/program; sleep 1000",
        ]);
        let c = c.edit(|spec| spec["process"]["user"]["uid"] = 7.into());
        fs::write(c.path("hooks/program"), "").expect("a file");
        fs::set_permissions(c.path("hooks/program"), fs::Permissions::from_mode(0o666))
            .expect("chmod");
        c.create();
        let before = ["prestart", "createRuntime", "createContainer"];
        let mut expected: Vec<&str> = before.into();
        if !c.runtime.is_aril() {
            expected.push("poststart"); // at the end of create, as of runc 1.1.5
        }
        assert_eq!(names(&c), expected);
        let pid = c.pid();
        c.start();
        wait_until("the program", || {
            fs::read_to_string(c.path("hooks/program")).is_ok_and(|text| !text.is_empty())
        });
        let namespace = |pid: &str| {
            let link = fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a namespace");
            link.display().to_string()
        };
        let inside = namespace(&pid.to_string());
        // As long as it is open, no later namespace gets its number.
        let kept = fs::File::open(format!("/proc/{pid}/ns/mnt")).expect("a namespace");
        let after = names(&c);
        assert!(after.contains(&"startContainer".into()) && after.contains(&"poststart".into()));
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.delete().silent();
        drop(kept);
        let all = ran(&c);
        assert_eq!(all.last().expect("hooks").name, "poststop");
        assert_eq!(all.len(), 6, "{:?}", names(&c));
        for hook in &all {
            assert_eq!(hook.env, format!("env={}", hook.name), "the hook's own environment");
            assert_eq!(hook.state["id"], c.id);
            assert_eq!(hook.state["bundle"], c.dir.to_str().expect("utf-8"));
            assert_eq!(hook.state["annotations"], json!({"key": "value"}), "{}", hook.name);
            let (status, expected_pid) = match hook.name.as_str() {
                "prestart" | "createRuntime" => ("creating", json!(pid)),
                "createContainer" => ("creating", json!(1)),
                "startContainer" => ("created", json!(1)),
                "poststart" if !c.runtime.is_aril() => ("created", json!(pid)),
                "poststart" => ("running", json!(pid)),
                _ => ("stopped", Value::Null),
            };
            assert_eq!(hook.state["status"], status, "{}", hook.name);
            assert_eq!(hook.state["pid"], expected_pid, "{}", hook.name);
            let cwd = match hook.name.as_str() {
                "createContainer" => c.rootfs().display().to_string(),
                "startContainer" => "/".into(),
                // Deleted from anywhere: the caller's directory, here the bundle.
                _ => c.dir.display().to_string(),
            };
            assert_eq!(hook.cwd, format!("cwd={cwd}"), "{}", hook.name);
            let (in_container, sees, user) = match hook.name.as_str() {
                "createContainer" => (true, "host", "0"),
                "startContainer" => (true, "container", "7"),
                _ => (false, "host", "0"),
            };
            assert_eq!(hook.mounts == inside, in_container, "{}", hook.name);
            assert_eq!((&*hook.sees, &*hook.user), (sees, user), "{}", hook.name);
        }
    });
}

fn with_hook(c: Container, kind: &str, hook: &Value) -> Container {
    c.edit(|spec| spec["hooks"] = json!({kind: [hook]}))
}

#[test]
fn failed_hook_fails_the_create() {
    in_each_view(|view| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let hook =
                json!({"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2; exit 7"]});
            let c = with_hook(Container::new(view).sleeper().logging(), kind, &hook);
            let out = c.create_call(&[]).output().exits(1);
            let out = out.says("exit status 7").says("error running ").says("hook #0").says("err");
            assert!(out.stderr.contains(kind) || !c.runtime.is_aril(), "{out:?}");
            c.leaves_nothing();
            c.run_call(&[]).output().exits(1).says("exit status 7");
            c.leaves_nothing();
        }
    });
}

/// A process that no list of the container's processes shows, in one v1 hierarchy alone, keeps the cgroup.
#[test]
fn a_failed_create_keeps_the_state_of_a_cgroup_that_it_cannot_remove() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !Path::new("/sys/fs/cgroup/cpuacct").exists() {
            return skip::inapplicable("no hierarchy of cgroup v1");
        }
        if !c.runtime.only_aril("other runtimes leave the cgroup without a record") {
            return;
        }
        let (cgroup, pid_file) = (c.cgroup("cpuacct"), c.path("pid"));
        let script = format!(
            "sleep 1000 > /dev/null 2>&1 & echo $! > {}/cgroup.procs && echo $! > {}; exit 1",
            cgroup.display(),
            pid_file.display()
        );
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        let c = with_hook(c, "createRuntime", &hook);
        let out = c.create_call(&[]).output();
        let sleeper = fs::read_to_string(&pid_file).expect("the sleeper's pid");
        let sleeper = Pid::from_raw(sleeper.trim().parse().expect("a number"));
        let kept = c.root.join(&c.id).is_dir();
        kill(sleeper, Signal::SIGKILL).expect("the sleeper still runs");
        out.exits(1)
            .says("undo what create did: unable to remove container's cgroup")
            .says("hook #0");
        assert!(kept, "the state directory is gone, and with it the record of the cgroup");
        wait_until("the sleeper's end", || !Path::new(&format!("/proc/{sleeper}")).exists());
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

#[test]
fn missing_hook_is_refused() {
    on_the_host(|view| {
        let hook = json!({"path": "/no/such/hook"});
        let c = with_hook(Container::new(view), "createRuntime", &hook);
        c.run().exits(1).says("no such file or directory");
        c.leaves_nothing();
    });
}

#[test]
fn start_container_hook_that_fails() {
    in_each_view(|view| {
        let hook = json!({"path": "/bin/false"});
        let c = with_hook(Container::new(view).script("echo program"), "startContainer", &hook);
        let out = c.run().exits(1);
        assert!(!out.stdout.contains("program"), "{out:?}");
        c.leaves_nothing();
    });
}

/// The hook is under the program's filter, and how it ended is said as runc says it.
#[test]
fn a_start_container_hook_that_the_filter_kills() {
    on_the_host(|view| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/made"]});
        let c = with_hook(Container::new(view).script("echo program"), "startContainer", &hook);
        let c = c.edit(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
        });
        let out = c.run().exits(1);
        assert!(!out.stdout.contains("program"), "{out:?}");
        out.says("error running startContainer hook").says("bad system call");
        c.leaves_nothing();
    });
}

#[test]
fn poststart_hook_that_fails() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        let told = c.path("poststop");
        let c = c.edit(|spec| {
            spec["hooks"] =
                json!({"poststart": [{"path": "/bin/false"}], "poststop": [telling(&told)]});
        });
        if !c.runtime.only_aril("runc 1.1.5 runs poststart at the end of create") {
            return;
        }
        c.create();
        c.verb("start").exits(1).says("poststart");
        c.leaves_nothing();
        let state = fs::read_to_string(told).expect("what the poststop hook was told");
        assert!(state.contains("stopped"), "{state}");
    });
}

#[test]
fn poststop_hook_that_fails_leaves_nothing() {
    on_the_host(|view| {
        let hook = json!({"path": "/bin/false"});
        let c = with_hook(Container::new(view).script("exit 3"), "poststop", &hook);
        c.run().exits(3);
        c.leaves_nothing();
    });
}

/// That writes what it is told.
fn telling(file: &Path) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", file.display())]})
}

/// The container is gone all the same, and those that follow run.
#[test]
fn poststop_hook_that_fails_is_a_warning() {
    in_each_view(|view| {
        let c = Container::new(view).script("exit 0");
        let told = c.path("told");
        let hooks = json!({"poststop": [{"path": "/bin/false"}, telling(&told)]});
        let c = c.edit(|spec| spec["hooks"] = hooks);
        c.create();
        c.start();
        c.wait_for("stopped");
        let out = c.delete().ok().says("hook #0").says("exit status 1");
        if c.runtime.is_aril() {
            out.says("level=warning").says("error running poststop hook #0");
            let state: Value =
                serde_json::from_slice(&fs::read(&told).expect("told")).expect("json");
            assert_eq!(state["status"], "stopped");
        }
        c.leaves_nothing();
    });
}

/// What earlier hooks set up can be taken down.
#[test]
fn poststop_hooks_follow_a_create_that_fails() {
    in_each_view(|view| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let c = Container::new(view).sleeper();
            if c.runtime.name == "crun" {
                return skip::inapplicable("crun runs no poststop hook then");
            }
            let told = c.path("told");
            let hooks = json!({kind: [{"path": "/bin/false"}], "poststop": [telling(&told)]});
            let c = c.edit(|spec| spec["hooks"] = hooks);
            for verb in [c.create_call(&[]), c.run_call(&[])] {
                verb.output().exits(1).says("exit status 1");
                let state = fs::read(&told).unwrap_or_else(|e| panic!("{kind}: {e}"));
                let state: Value = serde_json::from_slice(&state).expect("json");
                assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &Value::Null));
                fs::remove_file(&told).expect("told");
                c.leaves_nothing();
            }
        }
    });
}

/// Killed while a hook is at work: `delete --force` runs the poststop hooks.
#[test]
fn poststop_hooks_follow_a_create_that_is_killed() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc has written nothing down by then") {
            return;
        }
        let (begun, told) = (c.path("begun"), c.path("told"));
        let script = format!("echo $$ > {}; exec sleep 1000", begun.display());
        let slow = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        let hooks = json!({"createRuntime": [slow], "poststop": [telling(&told)]});
        let c = c.edit(|spec| spec["hooks"] = hooks);
        let creating = c.create_call(&[]).spawn();
        let read = || fs::read_to_string(&begun).unwrap_or_default();
        wait_until("the hook", || read().ends_with('\n'));
        creating.signal(Signal::SIGKILL);
        creating.wait();
        kill(Pid::from_raw(read().trim().parse().expect("a pid")), Signal::SIGKILL).expect("kill");
        assert!(!told.exists());
        c.delete_by_force().ok();
        assert!(told.exists());
        c.leaves_nothing();
    });
}

#[test]
fn hook_that_exceeds_its_timeout_is_killed() {
    on_the_host(|view| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let hook = json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1});
            let c = with_hook(Container::new(view), kind, &hook);
            c.run().exits(1).says("hook ran past specified timeout of 1");
            c.leaves_nothing();
        }
    });
}

/// By then the program has run, or is about to: it does not, but the code is its own after poststop.
#[test]
fn late_ones_that_hang_are_ended() {
    on_the_host(|view| {
        for (kind, code, program) in
            [("startContainer", 1, false), ("poststart", 1, true), ("poststop", 3, true)]
        {
            let hook = json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1});
            let c = Container::new(view).script("echo program; exit 3");
            if kind == "poststart" && !c.runtime.is_aril() {
                continue; // at the end of create, as of runc 1.1.5
            }
            let c = with_hook(c, kind, &hook);
            let out = c.run().exits(code);
            assert!(program || !out.stdout.contains("program"), "{kind}: {out:?}");
            if c.runtime.is_aril() {
                out.says("hook ran past specified timeout of 1").says(kind);
            }
            c.leaves_nothing();
        }
    });
}

#[test]
fn the_path_is_not_the_first_argument() {
    on_the_host(|view| {
        // A magic link, as dockerd uses it: to be executed as it is.
        let path = format!("/proc/{}/root/bin/busybox", std::process::id());
        let c = Container::new(view);
        let file = c.path("said");
        let args =
            json!(["sh", "-c", format!("echo \"$0 $1\" > {}", file.display()), "zero", "one"]);
        let c = with_hook(c, "createRuntime", &json!({"path": path, "args": args}));
        c.run().ok();
        assert_eq!(fs::read_to_string(file).expect("said"), "zero one\n");
    });
}

/// The runtime's own outside, none before the pivot, the program's after it.
#[test]
fn environment_that_is_not_given() {
    on_the_host(|view| {
        let c = Container::new(view);
        let dir = c.directory("said");
        let hook = |kind: &str, dir: &str| {
            let script = format!("PATH=/bin:/usr/bin; env > {dir}/{kind}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        let mut hooks = json!({"startContainer": hook("startContainer", "/said")});
        for kind in kinds {
            hooks[kind] = hook(kind, dir.to_str().expect("utf-8"));
        }
        let c = c.mounting(runtime_tests::spec::bind(&dir, "/said", &[])).edit(|spec| {
            spec["hooks"] = hooks;
            let env = spec["process"]["env"].as_array_mut().expect("env");
            env.push("OF_THE_PROGRAM=yes".into());
        });
        c.run_call(&[]).env("OF_THE_CALLER", "yes").ok();
        for kind in kinds.into_iter().chain(["startContainer"]) {
            let said = fs::read_to_string(dir.join(kind)).expect(kind);
            let has = ["OF_THE_CALLER=yes", "OF_THE_PROGRAM=yes"].map(|line| said.contains(line));
            let expected = match kind {
                "createContainer" if !c.runtime.is_aril() => continue, // runc 1.1.5: the program's
                "createContainer" => [false, false],
                "startContainer" => [false, true],
                _ => [true, false],
            };
            assert_eq!(has, expected, "{kind}: {said}");
        }
    });
}

/// An empty one is not one that is missing.
#[test]
fn environment_that_is_empty() {
    in_each_view(|view| {
        let c = Container::new(view);
        let dir = c.directory("said");
        let hook = |kind: &str, dir: &str| {
            let script = format!("read -r all < /proc/self/environ; echo \"$all\" > {dir}/{kind}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": []}])
        };
        let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        let mut hooks = json!({"startContainer": hook("startContainer", "/said")});
        for kind in kinds {
            hooks[kind] = hook(kind, dir.to_str().expect("utf-8"));
        }
        let c = c.mounting(runtime_tests::spec::bind(&dir, "/said", &[]));
        let c = c.edit(|spec| spec["hooks"] = hooks);
        c.run_call(&[]).env("OF_THE_CALLER", "yes").ok();
        for kind in kinds.into_iter().chain(["startContainer"]) {
            let said = fs::read_to_string(dir.join(kind)).expect(kind);
            assert_eq!(said, "\n", "{kind}");
        }
    });
}

/// What a hook makes is for others to write only where the caller would have it so; in the container,
/// where the process would.
#[test]
fn umasks() {
    on_the_host(|view| {
        let c = Container::new(view);
        let dir = c.directory("said");
        let hook = |kind: &str, dir: &str| {
            let script = format!("umask > {dir}/{kind}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        let mut hooks = json!({"startContainer": hook("startContainer", "/said")});
        for kind in kinds {
            hooks[kind] = hook(kind, dir.to_str().expect("utf-8"));
        }
        let c = c.mounting(runtime_tests::spec::bind(&dir, "/said", &[]));
        let c = c.edit(|spec| {
            spec["hooks"] = hooks;
            spec["process"]["user"]["umask"] = 0o7.into();
        });
        c.run_call(&[]).in_shell("umask 027; exec \"$@\"").ok();
        for kind in kinds.into_iter().chain(["startContainer"]) {
            let said = fs::read_to_string(dir.join(kind)).expect(kind);
            let expected = if kind == "startContainer" { "0007\n" } else { "0027\n" };
            assert_eq!(said, expected, "{kind}");
        }
    });
}

#[test]
fn several_run_in_order() {
    on_the_host(|view| {
        let c = Container::new(view);
        let file = c.path("said");
        let hook = |word: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> {}", file.display())]});
        let hooks =
            json!({"createRuntime": [hook("one"), hook("two")], "prestart": [hook("zero")]});
        let c = c.edit(|spec| spec["hooks"] = hooks);
        c.run().ok();
        assert_eq!(fs::read_to_string(&file).expect("said"), "zero\none\ntwo\n");
    });
}
