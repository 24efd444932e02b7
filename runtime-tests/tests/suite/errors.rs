//! Bad input and refusing hosts: one clear error, the right exit code, one record in the log,
//! nothing left behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use runtime_tests::spec::bind;
use runtime_tests::{Call, Container, Output, Runtime, in_each_view, on_the_host};
use serde_json::{Value, json};

/// Asserts all that an engine relies on when a call fails, and that nothing is left.
#[track_caller]
fn refused(c: &Container, call: Call, text: &str) -> Output {
    let out = refused_in_words(c, call, text);
    c.leaves_nothing();
    out
}

#[track_caller]
fn refused_in_words(c: &Container, call: Call, text: &str) -> Output {
    refused_by(1, c, call, text)
}

#[track_caller]
fn refused_by(code: i32, c: &Container, call: Call, text: &str) -> Output {
    let before = c.log().len();
    let out = call.output().exits(code);
    let records = &c.log()[before..];
    let errors: Vec<&Value> = records.iter().filter(|r| r["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "one error in {records:#?}");
    // podman takes the whole file for one record; runc warns besides in places.
    assert!(records.len() == 1 || !c.runtime.is_aril(), "one record, not {records:#?}");
    let message = errors[0]["msg"].as_str().expect("a message");
    let time = errors[0]["time"].as_str().expect("a time");
    assert!(time.contains('T') && (time.ends_with('Z') || time.contains('+')), "{time}");
    // The peer's help goes to stdout on errors of usage.
    assert!(out.stderr.contains(message.trim_end()), "the record {message:?} is not in {out:#?}");
    let mut lines = out.stderr.lines().filter(|line| !line.starts_with("hint:"));
    assert!(lines.next().is_some(), "silent: {out:#?}");
    assert_eq!(lines.next(), None, "more than one error in {out:#?}");
    let last = out.stderr.lines().last().unwrap_or_default();
    assert!(!last.starts_with("hint:"), "the reason is not the last line of {out:#?}");
    assert!(!message.contains("os error"), "errno in Rust's words: {message}");
    out.says(text)
}

fn is_refused(text: &str, make: impl Fn(Container) -> Container) {
    is_refused_by(1, text, make);
}

/// `run` exits with `code`.
fn is_refused_by(code: i32, text: &str, make: impl Fn(Container) -> Container) {
    in_each_view(|view| {
        let c = make(Container::new(view).logging());
        let code = if c.runtime.is_aril() { code } else { 1 };
        let calls = [(c.create_call(&[]), 1), (c.run_call(&[]), code), (c.run_call(&["-d"]), code)];
        for (call, code) in calls {
            refused_by(code, &c, call, text);
            c.leaves_nothing();
        }
    });
}

/// The same of a `config.json` that is not made from a spec.
fn config_is_refused(config: &[u8], text: &str) {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        for verb in ["create", "run"] {
            fs::write(c.path("config.json"), config).expect("config.json");
            let call = c.call([verb, "-b", c.dir.to_str().expect("utf-8"), &c.id]);
            refused(&c, call, text);
        }
    });
}

#[test]
fn empty_config() {
    let text = if Runtime::under_test().is_aril() { "config.json" } else { "EOF" };
    config_is_refused(b"", text);
}

#[test]
fn truncated_config() {
    config_is_refused(br#"{"ociVersion": "1.0.0", "process": {"args": ["#, "EOF");
}

#[test]
fn config_that_is_not_json() {
    config_is_refused(b"\x7fELF\x02\x01\x01", "invalid");
}

#[test]
fn config_of_another_type() {
    config_is_refused(br#"{"process": {"args": "sh"}}"#, "");
}

#[test]
fn config_of_null() {
    if Runtime::under_test().only_aril("runc 1.1.5 panics") {
        config_is_refused(b"null", "");
    }
}

#[test]
fn no_config() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        let call = c.call(["create", "-b", c.dir.to_str().expect("utf-8"), &c.id]);
        refused(&c, call, "JSON specification file config.json not found");
    });
}

#[test]
fn no_bundle() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        let call = c.call(["create", "-b", "/no/such/bundle", &c.id]);
        refused(&c, call, "/no/such/bundle");
    });
}

#[test]
fn versions_to_come_are_accepted() {
    on_the_host(|view| {
        for version in ["1.0.0", "1.9.0", "1.3.0+dev"] {
            let c = Container::new(view).edit(|spec| spec["ociVersion"] = version.into());
            c.run().ok();
        }
    });
}

#[test]
fn unknown_fields_and_nulls_are_accepted() {
    on_the_host(|view| {
        let c = Container::new(view).edit(|spec| {
            spec["surprise"] = json!({"a": [1, 2]});
            spec["process"]["surprise"] = true.into();
            spec["linux"]["surprise"] = Value::Null;
            spec["linux"]["seccomp"] = Value::Null;
            spec["hooks"] = Value::Null;
            spec["annotations"] = Value::Null;
            spec["process"]["rlimits"] = Value::Null;
            spec["linux"]["sysctl"] = Value::Null;
            spec["linux"]["devices"] = Value::Null;
        });
        c.run().ok();
    });
}

#[test]
fn parts_that_must_be_there() {
    let without = |pointer: &'static [&'static str]| {
        move |c: Container| {
            c.edit(|spec| {
                let (last, path) = pointer.split_last().expect("a path");
                let parent = path.iter().fold(spec, |value, key| &mut value[*key]);
                parent.as_object_mut().expect("an object").remove(*last);
            })
        }
    };
    is_refused("process property must not be empty", without(&["process"]));
    is_refused("Cwd property must not be empty", without(&["process", "cwd"]));
    is_refused("args must not be empty", without(&["process", "args"]));
    is_refused("", without(&["root"]));
}

#[test]
fn two_domain_names() {
    is_refused("domainname", |c| {
        c.edit(|spec| {
            spec["domainname"] = "one".into();
            spec["linux"]["sysctl"] = json!({"kernel.domainname": "other"});
        })
    });
    on_the_host(|view| {
        let c = Container::new(view).script("cat /proc/sys/kernel/domainname").edit(|spec| {
            spec["domainname"] = "one".into();
            spec["linux"]["sysctl"] = json!({"kernel.domainname": "one"});
        });
        assert_eq!(c.run().ok().stdout, "one\n");
    });
}

/// The kernel has one errno for all of them.
#[test]
fn parameters_of_a_deadline() {
    for (scheduler, why) in [
        (json!({"deadline": 20_000_000}), "`SCHED_DEADLINE` requires `runtime`"),
        (json!({"runtime": 10_000_000}), "`SCHED_DEADLINE` requires `deadline`"),
        (
            json!({"runtime": 30_000_000, "deadline": 20_000_000}),
            "runtime (30000000) must be <= deadline (20000000)",
        ),
    ] {
        let mut scheduler = scheduler;
        scheduler["policy"] = "SCHED_DEADLINE".into();
        is_refused(if Runtime::under_test().is_aril() { why } else { "" }, |c| {
            c.edit(|spec| spec["process"]["scheduler"] = scheduler.clone())
        });
    }
}

#[test]
fn relative_working_directory() {
    is_refused("Cwd must be an absolute path", |c| {
        c.edit(|spec| spec["process"]["cwd"] = "tmp".into())
    });
}

#[test]
fn missing_rootfs() {
    is_refused("no such file or directory", |c| {
        c.edit(|spec| spec["root"]["path"] = "nothing-here".into())
    });
}

#[test]
fn rootfs_behind_a_link() {
    is_refused("not an absolute path, or a symlink", |c| {
        symlink("rootfs", c.path("link")).expect("a link");
        c.edit(|spec| spec["root"]["path"] = "link".into())
    });
}

#[test]
fn rootfs_is_the_hosts() {
    on_the_host(|view| {
        let c = Container::new(view).logging().edit(|spec| spec["root"]["path"] = "/".into());
        let only = "runc 1.1.5 starts such a container, and mounts over the host's own directories";
        if c.runtime.only_aril(only) {
            refused(&c, c.create_call(&[]), "/");
        }
    });
}

#[test]
fn missing_program() {
    let text = "exec: \"no-such-program\": executable file not found in $PATH";
    is_refused_by(127, text, |c| c.args(["no-such-program"]));
    is_refused_by(127, "no such file or directory", |c| c.args(["/no/such/program"]));
}

#[test]
fn program_that_is_not_executable() {
    is_refused_by(126, "permission denied", |c| c.args(["/etc/passwd"]));
    is_refused_by(127, "exec: \"passwd\": executable file not found in $PATH", |c| {
        c.args(["passwd"]).edit(|spec| spec["process"]["env"] = json!(["PATH=/etc"]))
    });
}

#[test]
fn program_that_is_a_directory() {
    on_the_host(|view| {
        let c = Container::new(view).logging().args(["/etc"]);
        // Go 1.20 changed the answer.
        let text = if c.runtime.is_aril() { "is a directory" } else { "permission denied" };
        refused(&c, c.create_call(&[]), text);
    });
}

/// As shells and Docker tell a program that is missing from one that cannot be executed.
#[test]
fn a_program_that_cannot_run_has_an_exit_code_of_its_own() {
    if !Runtime::under_test().only_aril("runc exits with 1") {
        return;
    }
    on_the_host(|view| {
        for (program, code) in [
            ("no-such-program", 127),
            ("/no/such/program", 127),
            ("/etc/passwd/x", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
        ] {
            let c = Container::new(view).args([program]);
            for flags in [&[][..], &["-d"]] {
                c.run_call(flags).output().exits(code);
                c.leaves_nothing();
            }
            c.create_call(&[]).output().exits(1);
            c.leaves_nothing();
        }
    });
}

#[test]
fn program_of_no_format() {
    on_the_host(|view| {
        for (text, error, code) in [
            ("neither ELF nor script", "exec format error", 126),
            ("#!/no/such/shell\n", "no such file or directory", 127),
        ] {
            let c = Container::new(view).args(["/tmp/text"]);
            let file = c.rootfs().join("tmp/text");
            fs::write(&file, text).expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
            // Only execve knows, and by then the container has been started.
            let code = if c.runtime.is_aril() { code } else { 1 };
            let out = c.run().exits(code);
            // runc's callers compare the line.
            assert!(
                out.stderr == format!("exec /tmp/text: {error}\n") || !c.runtime.is_aril(),
                "{out:#?}"
            );
            c.leaves_nothing();
        }
    });
}

#[test]
fn bad_ids() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        for id in ["a/b", "../x", "a b", "a:b", "ä", "a\n", ".", "..", "/", ".hidden"] {
            if id == ".hidden" && !c.runtime.is_aril() {
                continue;
            }
            for call in [
                c.call(["create", "-b", bundle, id]),
                c.call(["run", "-b", bundle, id]),
                c.call(["state", id]),
                c.call(["delete", "--force", id]),
            ] {
                // 1.1.5 forgives a few of them when only looking one up.
                if call.argv().iter().any(|a| a == "--force") && !c.runtime.is_aril() {
                    continue;
                }
                refused(&c, call, "");
            }
        }
        refused(
            &c,
            c.call(["create", "-b", bundle, "a/b"]),
            "invalid container ID format: \"a/b\"",
        );
        refused(&c, c.call(["create", "-b", bundle, ""]), "container id cannot be empty");
    });
}

#[test]
fn unusual_ids() {
    on_the_host(|view| {
        for id in ["a-b_c.d+e".to_owned(), "0".repeat(64), "A".into(), "x".repeat(255)] {
            let mut c = Container::new(view);
            c.id = id;
            c.run().ok();
        }
    });
}

#[test]
fn id_in_use() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper().logging();
        c.create();
        refused_in_words(&c, c.create_call(&[]), "container with given ID already exists");
        assert_eq!(c.status(), "created");
    });
}

#[test]
fn unknown_capability_is_a_warning() {
    on_the_host(|view| {
        let c = Container::new(view).logging().script("grep CapEff /proc/self/status");
        let list = json!(["CAP_KILL", "CAP_TO_COME"]);
        let c = c.edit(|spec| {
            spec["process"]["capabilities"] =
                json!({"bounding": list, "effective": list, "permitted": list});
        });
        c.run().ok().prints("0000000000000020");
        let log = c.log();
        let warning = log.iter().find(|r| r["level"] == "warning").expect("a warning");
        assert!(warning["msg"].as_str().expect("text").contains("CAP_TO_COME"), "{warning}");
    });
}

#[test]
fn unknown_rlimit() {
    is_refused("RLIMIT_NONSENSE", |c| {
        c.edit(|spec| {
            spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]);
        })
    });
}

#[test]
fn missing_mount_source() {
    is_refused("no such file or directory", |c| {
        c.mounting(bind(std::path::Path::new("/no/such/source"), "/mnt", &[]))
    });
}

#[test]
fn unknown_file_system() {
    is_refused("no such device", |c| {
        c.mounting(json!({"destination": "/mnt", "type": "nonsensefs", "source": "none"}))
    });
}

#[test]
fn unknown_mount_option() {
    is_refused("invalid argument", |c| {
        c.mounting(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                          "options": ["nonsense=1"]}))
    });
}

#[test]
fn mount_inside_proc() {
    let text = "cannot be mounted because it is inside /proc";
    is_refused(text, |c| {
        let file = c.file("file", "text");
        c.mounting(bind(&file, "/proc/sys/kernel/hostname", &[]))
    });
    if Runtime::under_test().only_aril("runc 1.1.5 looks at bind mounts only") {
        is_refused(text, |c| {
            c.mounting(json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}))
        });
    }
}

#[test]
fn proc_on_a_link() {
    is_refused("must be mounted on ordinary directory", |c| {
        fs::remove_dir(c.rootfs().join("proc")).expect("rmdir");
        symlink("/etc", c.rootfs().join("proc")).expect("a link");
        c
    });
}

#[test]
fn unknown_namespace() {
    is_refused("nonsense", |c| c.namespace(json!({"type": "nonsense"})));
}

#[test]
fn namespace_named_twice() {
    is_refused("malformed spec file: duplicated ns", |c| {
        c.edit(|spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.push(json!({"type": "pid"}));
        })
    });
}

#[test]
fn missing_namespace_path() {
    is_refused("no such file or directory", |c| {
        c.namespace(json!({"type": "network", "path": "/no/such/namespace"}))
    });
}

#[test]
fn namespace_path_of_another_kind() {
    is_refused("", |c| c.namespace(json!({"type": "network", "path": "/etc/passwd"})));
}

#[test]
fn hostname_of_the_host() {
    is_refused("unable to set hostname without a private UTS namespace", |c| {
        c.without_namespace("uts")
    });
}

#[test]
fn sysctl_of_the_host() {
    is_refused(
        "sysctl \"kernel.hung_task_timeout_secs\" is not in a separate kernel namespace",
        |c| c.edit(|spec| spec["linux"]["sysctl"] = json!({"kernel.hung_task_timeout_secs": "1"})),
    );
}

#[test]
fn sysctl_of_the_hosts_network() {
    is_refused("sysctl \"net.ipv4.ip_forward\" ", |c| {
        c.without_namespace("network")
            .edit(|spec| spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}))
    });
}

#[test]
fn unknown_propagation() {
    is_refused("rootfsPropagation=sideways is not supported", |c| {
        c.edit(|spec| spec["linux"]["rootfsPropagation"] = "sideways".into())
    });
}

#[test]
fn negative_user() {
    is_refused("", |c| c.edit(|spec| spec["process"]["user"]["uid"] = json!(-1)));
}

#[test]
fn user_beyond_32_bits() {
    is_refused("", |c| c.edit(|spec| spec["process"]["user"]["uid"] = json!(4_294_967_296_u64)));
}

#[test]
fn unknown_device_type() {
    is_refused("", |c| {
        c.edit(|spec| {
            spec["linux"]["devices"] =
                json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 1}]);
        })
    });
}

#[test]
fn unknown_seccomp_action() {
    is_refused("SCMP_ACT_NONSENSE", |c| {
        c.edit(|spec| spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NONSENSE"}))
    });
}

#[test]
fn unknown_seccomp_architecture() {
    is_refused("SCMP_ARCH_NONSENSE", |c| {
        c.edit(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO",
                                              "architectures": ["SCMP_ARCH_NONSENSE"]});
        })
    });
}

#[test]
fn limits_that_the_kernel_refuses() {
    in_each_view(|view| {
        if !view.controls("cpuset") {
            return;
        }
        let c = Container::new(view).logging().edit(|spec| {
            spec["linux"]["resources"]["cpu"] = json!({"cpus": "4000"});
        });
        refused(&c, c.create_call(&[]), "cpuset.cpus");
    });
}

#[test]
fn a_limit_without_its_controller() {
    in_each_view(|view| {
        if view.controls("memory") {
            return;
        }
        let c = Container::new(view).logging().edit(|spec| {
            spec["linux"]["resources"]["memory"] = json!({"limit": 100_000_000});
        });
        refused(&c, c.create_call(&[]), "memory");
    });
}

#[test]
fn read_only_state_directory() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        let root = c.directory("state").display().to_string();
        refused(&c, c.create_call(&[]).stage(["ro", &root]), "read-only file system");
        refused(&c, c.run_call(&[]).stage(["ro", &root]), "read-only file system");
    });
}

#[test]
fn full_state_directory() {
    on_the_host(|view| {
        for verb in ["create", "run"] {
            let c = Container::new(view).logging();
            let root = c.directory("state").display().to_string();
            c.write_config();
            let bundle = c.dir.to_str().expect("utf-8");
            // The file system goes with the stage, so what is left in it is looked at there.
            let call = c
                .call([verb, "-b", bundle, &c.id])
                .in_shell(&format!("\"$@\"; code=$?; ls {root} > {bundle}/left; exit $code"))
                .stage(["full", &root]);
            // runc 1.1.5 loses the errno.
            let text = if c.runtime.is_aril() { "no space left on device" } else { "state" };
            refused(&c, call, text);
            assert_eq!(fs::read_to_string(c.path("left")).expect("a listing"), "", "{verb}");
        }
    });
}

#[test]
fn cgroups_that_cannot_be_written() {
    in_each_view(|view| {
        let c = Container::new(view).logging();
        let out = refused(&c, c.create_call(&[]).stage(["cgroup-ro"]), "read-only file system");
        assert!(out.stderr.contains("cgroup"), "says where: {out:?}");
        refused(&c, c.run_call(&[]).stage(["cgroup-ro"]), "read-only file system");
    });
}

#[test]
fn a_cgroup_with_processes_in_it() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc refuses this since 1.2") {
            return;
        }
        c.run_detached();
        let other = Container::new(view).logging().edit(|spec| {
            spec["linux"]["cgroupsPath"] = c.cgroups_path().into();
        });
        refused(&other, other.create_call(&[]), "container's cgroup is not empty");
        assert_eq!(c.status(), "running", "the first is not harmed");
    });
}

#[test]
fn terminals_and_their_sockets() {
    on_the_host(|view| {
        let terminal = |on: bool| {
            Container::new(view).logging().edit(|spec| spec["process"]["terminal"] = on.into())
        };
        let c = terminal(true);
        let name = if c.runtime.is_aril() { "aril" } else { "runc" };
        let text =
            format!("cannot allocate tty if {name} will detach without setting console socket");
        let text = text.as_str();
        refused(&c, c.create_call(&[]), text);
        refused(&c, c.run_call(&["-d"]), text);
        let c = terminal(false);
        let text = format!("cannot use console socket if {name} will not detach or allocate tty");
        let text = text.as_str();
        refused(&c, c.create_call(&["--console-socket", "/no/such/socket"]), text);
        let c = terminal(true);
        let call = c.create_call(&["--console-socket", "/no/such/socket"]);
        refused(&c, call, "no such file or directory");
    });
}

#[test]
fn usage() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        refused(&c, c.call(["state"]), "\"state\" requires exactly 1 argument(s)");
        refused(&c, c.call(["state", "a", "b"]), "\"state\" requires exactly 1 argument(s)");
        refused(&c, c.call(["start"]), "\"start\" requires exactly 1 argument(s)");
        refused(&c, c.call(["kill"]), "\"kill\" requires a minimum of 1 argument(s)");
        refused(&c, c.call(["list", "a"]), "\"list\" requires exactly 0 argument(s)");
        refused(&c, c.call(["state", "--nonsense", "a"]), "nonsense");
        if c.runtime.is_aril() {
            let out = c.call(["run", "--memroy", "1m", "a"]).output().exits(1);
            assert_eq!((out.stdout.as_str(), out.stderr.lines().count()), ("", 1), "{out:#?}");
            out.says("did you mean --memory?");
            c.call(["rm", "a"]).output().exits(1).says("unknown command \"rm\": use `aril delete`");
        }
        c.plain(["--log-format", "nonsense", "list"]).output().exits(1).says("nonsense");
        c.plain(["create", "--bundle"]).output().exits(1).says("flag needs an argument: -");
    });
}

/// crun's option.
#[test]
fn a_config_by_another_name() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("--config is crun's") {
            return;
        }
        let bundle = c.dir.to_str().expect("utf-8").to_owned();
        let mut spec = c.spec.clone();
        spec["process"]["args"] = json!(["echo", "from the other"]);
        let file = c.file("other.json", &spec.to_string());
        fs::write(c.path("config.json"), "nonsense").expect("config.json");
        for flag in ["--config", "-f"] {
            let file = file.to_str().expect("utf-8");
            let out = c.call(["run", "-b", &bundle, flag, file, &c.id]).ok();
            assert_eq!(out.stdout, "from the other\n");
            // Where the caller is, not in the bundle.
            let out = c.call(["run", "-b", &bundle, flag, "other.json", "--hostname=h", &c.id]);
            assert_eq!(out.dir(&c.dir).ok().stdout, "from the other\n");
        }
        let missing = c.call(["run", "-b", &bundle, "--config", "/no/such", &c.id]).output();
        missing.exits(1).says("read /no/such: no such file or directory");
        c.leaves_nothing();
    });
}

#[test]
fn go_style_flags() {
    on_the_host(|view| {
        let c = Container::new(view);
        c.run_call(&["-no-subreaper"]).ok();
        c.run_call(&["--no-pivot=false", "-keep=false", "--no-new-keyring=true"]).ok();
        let root = c.root.to_str().expect("utf-8");
        c.plain(["-root", root, "-rootless=false", "--debug=false", "list"]).ok();
        c.plain(["--rootless", "false", &format!("-root={root}"), "list", "-q"]).ok();
        for args in [&["--help"][..], &["-h"], &["create", "--help"], &["exec", "-h"], &["help"]] {
            let out = c.plain(args).ok();
            assert!(!out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
        }
    });
}

#[test]
fn the_log_is_appended_to() {
    on_the_host(|view| {
        let c = Container::new(view).logging();
        for count in 1..=3 {
            c.verb("state").exits(1);
            assert_eq!(c.log().len(), count);
        }
        let text = c.plain(["--root", "/nowhere", "--log", "text.log", "state", "x"]).output();
        text.exits(1).says("container does not exist");
        let text = fs::read_to_string(c.path("text.log")).expect("the log");
        assert!(text.starts_with("time=\"") && text.contains("level=error msg="), "{text}");
    });
}

/// Engines and runc's tests read these lines.
#[test]
fn debug_tells_each_step_of_each_verb() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc has words of its own") {
            return;
        }
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        let log = c.path("debug.log");
        let log = log.to_str().expect("utf-8");
        let id = c.id.as_str();
        let debug = |words: &[&str], json: bool| {
            let _ = fs::remove_file(log);
            let globals: &[&str] = match json {
                true => &["--debug", "--log", log, "--log-format", "json"],
                false => &["--log-level", "debug"],
            };
            let out = c.call([globals, words].concat()).ok();
            let lines: Vec<String> = match json {
                true => {
                    fs::read_to_string(log).expect("a log").lines().map(str::to_owned).collect()
                }
                false => out.stderr.lines().map(str::to_owned).collect(),
            };
            for line in &lines {
                if json {
                    let record: Value = serde_json::from_str(line).expect("a record");
                    assert_eq!(record["level"], "debug");
                    let message = record["msg"].as_str().expect("a message");
                    let timed = message.ends_with(" ms)");
                    assert!(timed || message.starts_with("seccomp filter flags: "), "{line}");
                } else {
                    assert!(line.contains("level=debug msg=\""), "{line}");
                }
            }
            lines.join("\n")
        };
        for json in [false, true] {
            let text = debug(&["create", "-b", bundle, id], json);
            for words in [
                "nsexec container setup",
                "child process in init()",
                "init: mount proc on /proc",
                "init: closing the pipe to signal completion",
                "make the cgroup",
            ] {
                assert!(text.contains(words), "no {words:?} in {text}");
            }
            assert!(debug(&["start", id], json).contains("let the container's program start"));
            let exec = debug(&["exec", id, "true"], json);
            for told in
                ["child process in init()", "setns_init: about to exec", "execute the program"]
            {
                assert!(exec.contains(told), "{told}: {exec}");
            }
            assert!(debug(&["pause", id], json).contains("freeze the cgroup"));
            assert!(debug(&["state", id], json).contains("look at the container: paused"));
            assert!(debug(&["resume", id], json).contains("thaw the cgroup"));
            assert!(
                debug(&["update", "--pids-limit", "50", id], json).contains("write the limits")
            );
            assert!(debug(&["kill", id, "KILL"], json).contains("send signal 9 to init"));
            c.wait_for("stopped");
            assert!(debug(&["delete", id], json).contains("remove the cgroup"));
        }
        c.leaves_nothing();
    });
}

#[test]
fn success_writes_nothing_to_the_log() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper().logging();
        c.create_call(&[]).output().silent();
        c.start();
        c.exec(["true"]).silent();
        c.state();
        c.kill("KILL").silent();
        c.wait_for("stopped");
        c.delete().silent();
        assert!(c.log().is_empty() || !c.runtime.is_aril(), "{:?}", c.log());
    });
}
