//! Ranges of ids that are chosen for a container, and binds of what it could not reach.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use runtime_tests::{
    Call, Container, Output, View, in_each_view, on_the_host, skip, spec, terminal,
};

/// What /etc/subuid and /etc/subgid of the test's own say.
const GRANTS: &str = "somebody:1:1\ncontainers:3000000:3000\n";

/// A container that asks for its ids by the option.
fn container(view: View) -> Option<Container> {
    let c = Container::new(view);
    c.runtime.only_aril("ranges are its own").then_some(c)
}

/// With the grants in place of the host's.
fn granted(c: &Container, call: Call) -> Call {
    let file = c.file("grants", GRANTS).display().to_string();
    let inner =
        format!("for f in /etc/subuid /etc/subgid; do mount --bind {file} $f; done; exec \"$@\"");
    call.in_shell(&format!("touch {file}; exec unshare -m sh -ec '{inner}' sh \"$@\""))
}

fn run(c: &Container, flags: &[&str]) -> Output {
    granted(c, c.run_call(flags)).output()
}

fn first_uid(c: &Container) -> u32 {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).expect("uid_map");
    map.split_whitespace().nth(1).expect("an id").parse().expect("a number")
}

/// Files of root's are the container's root's, inside and as they are made; nothing is chowned.
#[test]
fn a_range_and_the_rootfs_in_it() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let c = c.script("id -u; stat -c %u /bin /mnt; touch /mnt/new; cat /proc/self/uid_map");
        let c = c.edit(|spec| spec["root"]["readonly"] = false.into());
        let out = run(&c, &["--userns", "auto:1000"]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "0", "0", "3000000", "1000"]);
        assert_eq!(fs::metadata(c.rootfs().join("mnt/new")).expect("made").uid(), 0);
        c.leaves_nothing();
    });
}

/// As crun has it.
#[test]
fn a_user_namespace_without_maps_has_the_callers_ids() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let c = c.namespace(serde_json::json!({"type": "user"}));
        let mut c = c.script("cat /proc/self/uid_map /proc/self/gid_map");
        for mount in c.spec["mounts"].as_array_mut().expect("mounts") {
            // No group of a terminal's is mapped.
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
        let words = |c: &Container, grants: &str| {
            let file = c.file("grants", grants).display().to_string();
            let inner = format!(
                "for f in /etc/subuid /etc/subgid; do touch $f; mount --bind {file} $f; done; \
                 exec \"$@\""
            );
            let script = format!("exec unshare -m sh -ec '{inner}' sh \"$@\"");
            let out = c.run_call(&[]).in_shell(&script).ok().stdout;
            out.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(&c, ""), "0 0 1 0 0 1");
        assert_eq!(words(&c, "root:3000000:3000\n"), "0 0 1 1 3000000 3000 0 0 1 1 3000000 3000");
        c.leaves_nothing();
    });
}

#[test]
fn nobody_elses() {
    on_the_host(|view| {
        let Some(first) = container(view) else { return };
        let mut others: Vec<Container> = (0..3).map(|_| Container::new(view)).collect();
        for other in &mut others {
            other.root.clone_from(&first.root);
        }
        let first = first.sleeper();
        run(&first, &["-d", "--userns", "auto:1000"]).ok();
        let others: Vec<Container> = others.into_iter().map(Container::sleeper).collect();
        run(&others[0], &["-d", "--userns", "auto:1000"]).ok();
        run(&others[1], &["-d", "--userns", "auto:1000"]).ok();
        let mut all = vec![first_uid(&first), first_uid(&others[0]), first_uid(&others[1])];
        all.sort_unstable();
        assert_eq!(all, [3_000_000, 3_001_000, 3_002_000]);
        run(&others[2], &["--userns", "auto:1000"])
            .exits(1)
            .says("/etc/subuid grants 3000 ids to containers, and no 1000 in a row are free");
        // Later verbs know of the namespace, and who is gone gives back.
        others[0].exec(["id", "-u"]).ok().prints("0\n");
        let given_back = first_uid(&others[0]);
        others[0].delete_by_force().ok();
        run(&others[2], &["-d", "--userns", "auto:1000"]).ok();
        assert_eq!(first_uid(&others[2]), given_back);
        for c in [&first, &others[1], &others[2]] {
            c.delete_by_force().ok();
        }
    });
}

#[test]
fn refusals() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        run(&c, &["--userns", "host"]).exits(1).says("want auto or auto:SIZE");
        c.leaves_nothing();
        run(&c, &["--userns", "auto:5000"]).exits(1).says("no 5000 in a row are free");
        c.leaves_nothing();
        let c = c.in_user_namespace(100_000);
        run(&c, &["--userns", "auto"]).exits(1).says("the config has mappings");
        c.leaves_nothing();
    });
}

/// The annotation says what the option does.
#[test]
fn annotation_chooses_a_user_namespace() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let c = c.args(["cat", "/proc/self/gid_map"]).annotated("io.aril.userns", "auto:2000");
        let out = run(&c, &[]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "3000000", "2000"]);
    });
}

#[test]
fn end_of_a_detached_container_releases_ids() {
    in_each_view(|view| {
        let Some(c) = container(view) else { return };
        let rootfs = c.rootfs().display().to_string();
        let words = ["run", "-d", "--userns", "auto:1000", "--rootfs", &rootfs, &c.id, "--"];
        granted(&c, c.call(words).args(["sh", "-c", "exit 8"])).ok();
        assert_eq!(c.call(["wait", &c.id]).output().exits(8).stdout, "8\n");
        c.delete().silent();
        c.leaves_nothing();
    });
}

/// Of the host's network namespace a user namespace cannot mount a sysfs: crun's answer, too.
#[test]
fn user_namespace_with_the_hosts_network() {
    on_the_host(|view| {
        let c = Container::new(view).in_user_namespace(100_000).without_namespace("network");
        if c.runtime.name == "runc" {
            return skip::inapplicable("runc leaves the change to engines");
        }
        let c = c.script("grep ' /sys ' /proc/self/mountinfo; ls /sys/class/net; touch /sys/x");
        let out = c.run().exits(1);
        let mut lines = out.stdout.lines();
        let mount = lines.next().unwrap_or_default();
        assert!(
            mount.contains(" / /sys ro,nosuid,nodev,noexec") && mount.contains("sysfs"),
            "{mount}"
        );
        assert!(lines.any(|name| name == "lo"), "{out:?}");
        c.leaves_nothing();
    });
}

/// The kernel refuses a new sysfs while the host covers a part of its own: crun's answer, too.
#[test]
fn user_namespace_where_the_host_covers_sysfs() {
    on_the_host(|view| {
        let c = Container::new(view).in_user_namespace(100_000);
        if !c.runtime.only_aril("runc fails") {
            return;
        }
        let c = c.script(
            "grep ' / /sys ' /proc/self/mountinfo; ls /sys/firmware; touch /sys/x 2> /dev/null",
        );
        let inner = "mount --make-rprivate /; mount -t tmpfs t /sys/firmware; exec \"$@\"";
        let call = c.run_call(&[]).in_shell(&format!("exec unshare -m sh -ec '{inner}' sh \"$@\""));
        let out = call.output().exits(1);
        assert!(out.stdout.contains(" / /sys ro,nosuid,nodev,noexec"), "{out:?}");
        assert_eq!(out.stdout.lines().count(), 1, "what is covered stays so: {out:?}");
    });
}

/// The host's side opens what is behind a directory that the container's ids may not pass.
#[test]
fn a_source_that_the_container_cannot_reach() {
    on_the_host(|view| {
        let c = Container::new(view);
        let old = c.runtime.name == "crun" && c.runtime.version.contains(" 1.8");
        if old {
            return skip::inapplicable("crun 1.8 opens sources inside");
        }
        let private = c.directory("private");
        let source = c.directory("private/deep");
        c.file("private/deep/file", "reached");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
        let c = c
            .in_user_namespace(100_000)
            .mounting(spec::bind(&source, "/mnt", &["ro"]))
            .args(["cat", "/mnt/file"]);
        c.run().ok().prints("reached");
    });
}

/// The owner of the caller's pipe has no ID in the namespace. An exec may be another user's.
#[test]
fn pipes_can_be_opened_as_dev_stdout() {
    in_each_view(|view| {
        for uid in [0, 7] {
            let look = "echo out >/dev/stdout; echo err >/dev/stderr";
            let mut c = Container::new(view).script(look).in_user_namespace(100_000);
            c.spec["process"]["user"]["uid"] = uid.into();
            let piped = |call: Call| call.in_shell("\"$@\" 2>&1 | cat").output().ok().stdout;
            assert_eq!(piped(c.run_call(&[])), "out\nerr\n");
            let c = c.sleeper();
            c.run_detached();
            assert_eq!(piped(c.call(["exec", &c.id, "sh", "-c", look])), "out\nerr\n");
            if c.runtime.is_aril() {
                for user in ["0", "7", "8:9"] {
                    let exec = c.call(["exec", "-u", user, &c.id, "sh", "-c", look]);
                    assert_eq!(piped(exec), "out\nerr\n", "exec by {user}");
                }
            }
        }
    });
}

/// Writes to what was inherited, then opens it anew.
const REOPEN: &str = "for f in stdout stderr; do echo inherited $f; \
                      if true >>/dev/$f; then echo opened $f; else echo refused $f; fi; done 2>&1";

fn of_uid(c: Container, uid: u32) -> Container {
    c.script(REOPEN).in_user_namespace(100_000).edit(|spec| {
        spec["process"]["user"]["uid"] = uid.into();
    })
}

fn answers(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.contains("denied")).collect()
}

/// A file stays its owner's: the container is not to read, or make executable for others, what it may only
/// write to. If the owner has an ID in the container, that can open it as any other file of theirs.
#[test]
fn files_as_dev_stdout() {
    in_each_view(|view| {
        for (uid, owner) in [(0, 0), (7, 0), (0, 100_000), (7, 100_007)] {
            let word = if owner == 0 { "refused" } else { "opened" };
            let mut expected = Vec::new();
            for name in ["stdout", "stderr"] {
                expected.extend([format!("inherited {name}"), format!("{word} {name}")]);
            }
            let c = of_uid(Container::new(view), uid);
            let file = c.file("output", "");
            std::os::unix::fs::chown(&file, Some(owner), None).expect("chown");
            let shell = format!("\"$@\" >>{} 2>&1", file.display());
            let text = || {
                let text = fs::read_to_string(&file).expect("the output");
                fs::write(&file, "").expect("truncate");
                text
            };
            let owner_of = || fs::metadata(&file).expect("stat").uid();
            c.run_call(&[]).in_shell(&shell).output();
            assert_eq!(answers(&text()), expected, "{uid} {owner}");
            assert_eq!(owner_of(), owner);
            let c = c.sleeper();
            c.run_detached();
            let id = uid.to_string();
            let exec = c.call(["exec", "-u", &id, &c.id, "sh", "-c", REOPEN]);
            exec.in_shell(&shell).output();
            assert_eq!(answers(&text()), expected, "exec, {uid} {owner}");
            assert_eq!(owner_of(), owner);
            c.delete_by_force().ok();
        }
    });
}

/// The container's own terminal can be opened; that of the caller stays the caller's.
#[test]
fn terminals_as_dev_stdout() {
    on_the_host(|view| {
        for uid in [0, 7] {
            let c = of_uid(Container::new(view), uid);
            for own in [true, false] {
                let c = of_uid(Container::new(view), uid);
                let c = c.edit(|spec| spec["process"]["terminal"] = own.into());
                let (master, slave) = terminal::open(24, 80);
                let running = c.run_call(&[]).on_terminal(&slave).spawn();
                let owner = || nix::sys::stat::fstat(&slave).expect("fstat").st_uid;
                let shown = terminal::read_until(&master, "ed stderr\r\n");
                running.wait();
                let word = if own { "opened" } else { "refused" };
                let expected = ["inherited stdout", "inherited stderr"];
                let seen = answers(&shown);
                assert!(expected.iter().all(|line| seen.contains(line)), "{shown}");
                assert!(seen.contains(&&*format!("{word} stdout")), "{uid} {own}: {shown}");
                assert_eq!(owner(), 0);
            }
            let c = c.sleeper();
            c.run_detached();
            let id = uid.to_string();
            for (flags, word) in [(&["-t"][..], "opened"), (&[], "refused")] {
                let (master, slave) = terminal::open(24, 80);
                let words = [&["exec"], flags, &["-u", &id, &c.id, "sh", "-c", REOPEN]].concat();
                let running = c.call(words).on_terminal(&slave).spawn();
                let shown = terminal::read_until(&master, "ed stderr\r\n");
                running.wait();
                let line = format!("{word} stdout");
                assert!(answers(&shown).contains(&&*line), "{uid} {flags:?}: {shown}");
            }
            c.delete_by_force().ok();
        }
    });
}

/// No kernel opens a socket by a path, in whatever namespace.
#[test]
fn sockets_as_dev_stdout() {
    on_the_host(|view| {
        let Some(python) = skip::tool("python3", "python3") else { return };
        let between = "import socket, subprocess, sys\n\
            ours, theirs = socket.socketpair()\n\
            child = subprocess.Popen(sys.argv[1:], stdout=theirs, stderr=theirs)\n\
            theirs.close()\n\
            text = b''.join(iter(lambda: ours.recv(4096), b''))\n\
            sys.stdout.write(text.decode()); sys.exit(child.wait())";
        for user_namespace in [true, false] {
            let c = Container::new(view).script(REOPEN);
            let c = if user_namespace { c.in_user_namespace(100_000) } else { c };
            let script = c.file("between.py", between);
            let shell = format!("exec {} {} \"$@\"", python.display(), script.display());
            let out = c.run_call(&[]).in_shell(&shell).output();
            let seen: Vec<_> = out.stdout.lines().filter(|line| !line.contains("/dev/")).collect();
            let lines =
                ["inherited stdout", "refused stdout", "inherited stderr", "refused stderr"];
            assert_eq!(seen, lines, "{out:#?}");
        }
    });
}

/// Bundles whose user namespace was taken out, with the mappings left in, run with the host's IDs.
#[test]
fn mappings_without_a_user_namespace_are_ignored() {
    on_the_host(|view| {
        let mut c = Container::new(view).script("cat /proc/self/uid_map");
        let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        c.spec["linux"]["uidMappings"] = map.clone();
        c.spec["linux"]["gidMappings"] = map;
        let out = c.run().ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "4294967295"]);
    });
}
