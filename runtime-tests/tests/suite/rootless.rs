//! What an ordinary user can do: one id, no cgroup of theirs, no engine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, View, in_each_view, on_the_host, skip};
use serde_json::{Value, json};

mod created;
mod groups;

/// In no passwd file.
const SOMEBODY: u32 = 47_110;
/// See docs/testing.md.
const TESTER: u32 = 1000;

/// A bundle of an ordinary user's: the config is what the runtime's own `spec --rootless` gives them.
struct Bundle {
    c: Container,
    /// The program that becomes the user, and its arguments.
    becoming: Vec<String>,
    runtime: PathBuf,
    calls: AtomicU32,
}

/// By a process of its own: written by this one, the file would be held open by whatever another test
/// forks meanwhile, and could not be executed.
fn install(from: &Path, to: &Path) {
    let done = Command::new("install").args(["-m", "755"]).arg(from).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "install {}", to.display());
}

impl Bundle {
    fn new(view: View) -> Option<Self> {
        let setpriv = skip::tool("setpriv", "util-linux")?.display().to_string();
        let id = SOMEBODY.to_string();
        let words = [&setpriv, "--reuid", &id, "--regid", &id, "--clear-groups", "--"];
        Some(Self::of(view, SOMEBODY, &words))
    }

    /// Of the virtual machine's user, who has ranges of ids and a systemd.
    fn of_tester(view: View) -> Option<Self> {
        let as_user = skip::which("as-user");
        if as_user.is_none() {
            skip::inapplicable("nobody here has ranges of ids and a systemd: see make vm-test");
        }
        Some(Self::of(view, TESTER, &[&as_user?.display().to_string()]))
    }

    fn of(view: View, user: u32, becoming: &[&str]) -> Self {
        let mut c = Container::new(view);
        c.spec = Value::Null;
        // Where the build is, they may not look.
        let runtime = c.directory("bin").join(c.runtime.path.file_name().expect("a name"));
        install(&c.runtime.path, &runtime);
        for dir in [c.dir.clone(), c.rootfs()] {
            chown(dir, Some(user), Some(user)).expect("chown");
        }
        let becoming = becoming.iter().map(ToString::to_string).collect();
        let mut bundle = Self { c, becoming, runtime, calls: AtomicU32::new(0) };
        bundle.call(["spec", "--rootless"]).ok();
        let text = fs::read(bundle.c.path("config.json")).expect("config.json");
        bundle.c.spec = serde_json::from_slice(&text).expect("json");
        bundle.edit(|spec| {
            spec["process"]["terminal"] = false.into();
            spec["process"]["args"] = json!(["sleep", "1000"]);
        })
    }

    fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.c.spec);
        self
    }

    fn annotated(mut self, key: &str, value: &str) -> Self {
        self.c.annotate(key, value);
        self
    }

    fn script(self, script: &str) -> Self {
        self.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", script]))
    }

    /// Any program, as the user.
    fn as_user(&self, words: &[&str]) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(&self.becoming[0]);
        let call = self.c.bare(program, &format!("user-{number}"));
        call.args(&self.becoming[1..]).args(words)
    }

    fn call<const N: usize>(&self, words: [&str; N]) -> Call {
        let (runtime, root) = (self.runtime.to_str(), self.c.root.to_str());
        self.as_user(&[runtime.expect("utf-8"), "--root", root.expect("utf-8")])
            .args(self.c.globals())
            .args(words)
    }

    fn run(&self, flags: &[&str]) -> Call {
        self.c.write_config();
        self.call(["run"]).args(flags).arg(&self.c.id)
    }
}

#[test]
fn run() {
    in_each_view(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.script("id -u; cat /proc/self/uid_map; test -d /sys/kernel && echo sys");
        let out = b.run(&[]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "47110", "1", "sys"]);
        b.c.leaves_nothing();
    });
}

/// The user's binary is a copy in memory, as root's is a mount; what stays runs from the file.
#[test]
fn a_detached_container_has_a_monitor() {
    in_each_view(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("--rootfs is its own") {
            return;
        }
        let rootfs = b.c.rootfs().display().to_string();
        let id = b.c.id.clone();
        let run = |script: &str| {
            let words =
                ["run", "-d", "--rootfs", &rootfs, "--upper", "tmpfs", &id, "--", "sh", "-c"];
            b.call(words).arg(script).ok();
        };
        run("exec sleep 1000");
        let state: Value = serde_json::from_str(&b.call(["state", &id]).ok().stdout).expect("json");
        let stat = fs::read_to_string(format!("/proc/{}/stat", state["pid"])).expect("stat");
        let parent = stat.rsplit_once(") ").expect("stat").1.split(' ').nth(1).expect("a parent");
        let link = fs::read_link(format!("/proc/{parent}/exe")).expect("exe");
        assert!(!link.display().to_string().contains("memfd"), "{}", link.display());
        // Not the user's, nor those of any process of theirs in a container: no process may trace it.
        let owner = fs::metadata(format!("/proc/{parent}/mem")).expect("mem").uid();
        assert_eq!(owner, 0, "the monitor can be traced");
        let rollup = fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).expect("smaps");
        let pss = rollup.lines().find(|line| line.starts_with("Pss:")).expect("Pss");
        let kb: u32 = pss.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        assert!(kb <= 300, "{rollup}");
        b.call(["kill", &id, "KILL"]).ok();
        assert_eq!(b.call(["wait", &id]).output().exits(137).stdout, "137\n");
        b.call(["delete", &id]).ok();
        run("exit 9");
        b.call(["wait", &id]).output().exits(9);
        b.call(["delete", &id]).ok();
        b.c.leaves_nothing();
    });
}

#[test]
fn the_verbs_of_a_running_container() {
    in_each_view(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let id = b.c.id.clone();
        b.run(&["-d"]).ok();
        assert_eq!(b.call(["exec", &id, "sh", "-c", "id -u; id -g"]).ok().stdout, "0\n0\n");
        let state: Value = serde_json::from_str(&b.call(["state", &id]).ok().stdout).expect("json");
        assert_eq!(state["status"], "running");
        b.call(["list", "-q"]).ok().prints(&format!("{id}\n"));
        if b.c.runtime.is_aril() {
            let pids = b.call(["ps", "--format", "json", &id]).ok().stdout;
            assert_eq!(pids.trim(), format!("[{}]", state["pid"]));
        }
        b.call(["kill", &id, "KILL"]).ok();
        b.c.wait_for("stopped");
        b.call(["delete", &id]).ok();
        b.c.leaves_nothing();
    });
}

#[test]
fn create_and_start() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.script("exit 0");
        b.c.write_config();
        b.call(["create", &b.c.id]).ok();
        assert_eq!(b.c.status(), "created");
        b.call(["start", &b.c.id]).ok();
        b.c.wait_for("stopped");
        b.call(["delete", &b.c.id]).ok();
    });
}

/// Further ids by newuidmap, and limits by the user's own systemd.
#[test]
fn rootless_with_ranges_and_session() {
    on_the_host(|view| {
        let Some(b) = Bundle::of_tester(view) else { return };
        let b = b.script("id -u; cat /proc/self/uid_map; mkdir /x; chown 5 /x; rm -r /x").edit(
            |spec| {
                spec["root"]["readonly"] = false.into();
                spec["linux"]["uidMappings"] = ranges();
                spec["linux"]["gidMappings"] = ranges();
            },
        );
        let out = b.run(&[]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "1000", "1", "1", "100000", "65536"]);
        b.c.leaves_nothing();

        let b = b.edit(|spec| {
            spec["process"]["args"] = json!(["sleep", "1000"]);
            spec["linux"]["resources"] = json!({"pids": {"limit": 50}});
        });
        b.c.write_config();
        let id = b.c.id.clone();
        b.call(["--systemd-cgroup", "run", "-d", &id]).ok();
        // From a session, which is outside of where the user's systemd may move processes.
        let exec = b.call(["exec", &id, "cat", "/proc/self/cgroup"]).output();
        if b.c.runtime.is_aril() {
            exec.ok();
        }
        b.call(["events", "--stats", &id]).ok().prints("\"limit\":50");
        b.call(["update", "--pids-limit", "40", &id]).ok();
        b.call(["events", "--stats", &id]).ok().prints("\"limit\":40");
        b.call(["pause", &id]).ok();
        b.call(["resume", &id]).ok();
        b.call(["kill", &id, "KILL"]).ok();
        b.c.wait_for("stopped");
        b.call(["delete", &id]).ok();
        b.c.leaves_nothing();
    });
}

fn ranges() -> Value {
    json!([{"containerID": 0, "hostID": TESTER, "size": 1},
        {"containerID": 1, "hostID": 100_000, "size": 65_536}])
}

/// As from a cron job: nothing says where the user's systemd is.
#[test]
fn rootless_with_ranges_without_session() {
    on_the_host(|view| {
        if Bundle::of_tester(view).is_none() {
            return;
        }
        let Some(setpriv) = skip::tool("setpriv", "util-linux") else { return };
        let setpriv = setpriv.display().to_string();
        let id = TESTER.to_string();
        let words = [
            &*setpriv,
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "--",
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ];
        let b = Bundle::of(view, TESTER, &words).script("cat /proc/self/uid_map").edit(|spec| {
            spec["linux"]["uidMappings"] = ranges();
            spec["linux"]["gidMappings"] = ranges();
        });
        let out = b.run(&[]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "1000", "1", "1", "100000", "65536"]);
        b.c.leaves_nothing();
    });
}

#[test]
fn rootless_with_session_and_one_id() {
    on_the_host(|view| {
        let Some(b) = Bundle::of_tester(view) else { return };
        let b = b.script("cat /proc/self/uid_map /proc/self/cgroup").edit(|spec| {
            spec["linux"]["resources"] = json!({"pids": {"limit": 50}});
        });
        b.c.write_config();
        let out = b.call(["--systemd-cgroup", "run", &b.c.id]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words[..3], ["0", "1000", "1"], "{out:#?}");
        b.c.leaves_nothing();
    });
}

/// An engine of the user's own, without pictures of its own: on our folder.
#[test]
fn under_podman() {
    on_the_host(|view| {
        let Some(b) = Bundle::of_tester(view) else { return };
        let Some(podman) = skip::tool("podman", "podman") else { return };
        let path = |path: PathBuf| path.display().to_string();
        let (root, run) = (path(b.c.path("podman")), path(b.c.path("podman-run")));
        let podman = path(podman);
        let runtime = b.runtime.display().to_string();
        let podman = [
            &*podman,
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver",
            "vfs",
            "--events-backend",
            "file",
            "--runtime",
            &runtime,
        ];
        let rootfs = b.c.rootfs();
        // Podman, too, makes files there.
        for entry in fs::read_dir(&rootfs).expect("the rootfs").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                chown(entry.path(), Some(TESTER), Some(TESTER)).expect("chown");
            }
        }
        let rootfs = path(rootfs);
        let script = "id -u; cat /proc/self/uid_map; cat /sys/fs/cgroup/pids.max";
        let out = b
            .as_user(&podman)
            .args(["run", "--rm", "--network", "none", "--pids-limit", "50", "--rootfs", &rootfs])
            .args(["sh", "-c", script])
            .output();
        // Its process that holds the user namespace.
        let ended = b.as_user(&podman).args(["system", "migrate"]).output();
        let out = out.ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "1000", "1", "1", "100000", "65536", "50"]);
        ended.ok();
    });
}

/// What the container wrote, running and stopped, by all verbs that read it, and then it is removed.
fn is_read_and_removed(b: Bundle, script: &str, listed: &str) -> Bundle {
    let b = b.script(&format!("{script}; echo > /ready; sleep 1000")).edit(|spec| {
        spec["root"]["readonly"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().expect("a set");
            set.extend(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"].map(Value::from));
        }
    });
    let b = b.annotated("io.aril.rootfs.upper", "ephemeral");
    let id = b.c.id.clone();
    let path = |name: &str| b.c.path(name).display().to_string();
    b.run(&["-d"]).ok();
    wait_until("the files", || {
        b.call(["exec", &id, "test", "-e", "/ready"]).output().code == Some(0)
    });
    b.call(["diff", &id]).ok().prints(listed);
    b.call(["commit", &id, &path("running")]).ok();
    b.call(["export", &id, &path("running.tar")]).ok();
    b.call(["kill", &id, "KILL"]).ok();
    b.c.wait_for("stopped");
    b.call(["diff", &id]).ok().prints(listed);
    b.call(["commit", &id, &path("stopped.tar")]).ok();
    b.call(["export", &id, &path("exported.tar")]).ok();
    b.call(["delete", &id]).ok();
    b.c.leaves_nothing();
    // A foreground run removes it, too.
    let b = b.script(script);
    b.run(&[]).ok();
    b.c.leaves_nothing();
    b
}

/// Mode, owner and size of a file of an archive, as tar says them.
fn in_archive(b: &Bundle, archive: &str, file: &str) -> String {
    let tar =
        Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(b.c.path(archive)).output();
    let out = String::from_utf8(tar.expect("tar").stdout).expect("text");
    let line = out.lines().find(|line| line.ends_with(&format!(" {file}")));
    let line = line.unwrap_or_else(|| panic!("no {file} in {archive}: {out}"));
    line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn files_of_mapped_ids_are_read_and_removed() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("layers are its own") {
            return;
        }
        let listed = "A /ready\nA /x\nA /x/file\n";
        let b = is_read_and_removed(b, "mkdir -m 700 /x; echo secret > /x/file", listed);
        assert_eq!(in_archive(&b, "running.tar", "x/file"), "-rw-r--r-- 0/0 7");
        let owner = fs::metadata(b.c.path("running/x/file")).expect("a layer").uid();
        assert_eq!(owner, SOMEBODY);
        b.call(["diff", "missing"]).output().exits(1).says("container does not exist: missing");
    });
}

/// Which only root of a user namespace can read or remove: the user has no such id.
#[test]
fn files_of_further_ids_are_read_and_removed() {
    on_the_host(|view| {
        let Some(b) = Bundle::of_tester(view) else { return };
        if !b.c.runtime.only_aril("layers are its own") {
            return;
        }
        let ranges = json!([{"containerID": 0, "hostID": TESTER, "size": 1},
            {"containerID": 1, "hostID": 100_000, "size": 65_536}]);
        let b = b.edit(|spec| {
            spec["linux"]["uidMappings"] = ranges.clone();
            spec["linux"]["gidMappings"] = ranges;
        });
        let script = "mkdir -m 700 /x; echo secret > /x/file; chmod 600 /x/file; chown -R 5:7 /x";
        let b = is_read_and_removed(b, script, "A /ready\nA /x\nA /x/file\n");
        for archive in ["running.tar", "stopped.tar", "exported.tar"] {
            assert_eq!(in_archive(&b, archive, "x/file"), "-rw------- 5/7 7", "{archive}");
        }
        let layer = fs::metadata(b.c.path("running/x/file")).expect("a layer");
        assert_eq!((layer.uid(), layer.gid()), (100_004, 100_006));
    });
}

#[test]
fn ranges_that_nobody_granted() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let Some(_) = skip::which("newuidmap") else {
            return skip::inapplicable("newuidmap is not installed");
        };
        let b = b.edit(|spec| {
            for map in ["uidMappings", "gidMappings"] {
                spec["linux"][map] = json!([{"containerID": 0, "hostID": 5, "size": 10}]);
            }
        });
        b.run(&[]).output().exits(1).says("newuidmap");
        b.c.leaves_nothing();
    });
}

/// The pid namespace is owned by the user namespace: the user has no rights over it from outside.
#[test]
fn joins_another_containers_namespaces() {
    on_the_host(|view| {
        let Some(first) = Bundle::new(view) else { return };
        if !first.c.runtime.only_aril("runc 1.1.5 reads the mappings of config.json alone") {
            return;
        }
        first.run(&["-d"]).ok();
        let pid = first.c.pid();
        for kinds in [&["user"][..], &["user", "pid"], &["pid", "user", "ipc", "uts"]] {
            let Some(b) = Bundle::new(view) else { return };
            let b = b.script("id -u; readlink /proc/self/ns/user").edit(|spec| {
                let linux = spec["linux"].as_object_mut().expect("linux");
                linux.remove("uidMappings");
                linux.remove("gidMappings");
                for ns in linux["namespaces"].as_array_mut().expect("namespaces") {
                    if let Some(kind) = kinds.iter().find(|kind| ns["type"] == **kind) {
                        ns["path"] = format!("/proc/{pid}/ns/{kind}").into();
                    }
                }
            });
            let joined = fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
            let out = b.run(&[]).ok();
            assert_eq!(out.stdout, format!("0\n{}\n", joined.display()), "{kinds:?}");
            b.c.leaves_nothing();
        }
        first.call(["delete", "--force", &first.c.id]).ok();
    });
}

#[test]
fn a_time_namespace() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc 1.1.5 knows no time namespace") {
            return;
        }
        let b =
            b.script("cat /proc/self/timens_offsets; readlink /proc/self/ns/time").edit(|spec| {
                let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
                list.push(json!({"type": "time"}));
                spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1337, "nanosecs": 7}});
            });
        let out = b.run(&[]).ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words[..6], ["monotonic", "0", "0", "boottime", "1337", "7"], "{out:#?}");
        let own = fs::read_link("/proc/self/ns/time").expect("a link");
        assert_ne!(words[6], own.display().to_string());
        b.c.leaves_nothing();
    });
}

/// Limits that nobody may set are refused, not forgotten.
#[test]
fn limits_without_a_cgroup() {
    in_each_view(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc 1.1.5 goes on without its limits on cgroup v1") {
            return;
        }
        let b = b.edit(|spec| spec["linux"]["resources"] = json!({"pids": {"limit": 10}}));
        let out = b.run(&[]).output().exits(1);
        assert!(
            out.stderr.contains("cannot set pids limit: container could not join or create cgroup")
                || out.stderr.contains("rootless needs no limits + no cgrouppath"),
            "{out:#?}"
        );
        b.c.leaves_nothing();
    });
}

/// Engines and callers read stderr: nothing is said where nothing was asked for.
#[test]
fn no_word_about_a_cgroup_that_cannot_be_made() {
    in_each_view(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.script("echo out; echo err >&2");
        let out = b.run(&[]).ok();
        assert_eq!((&*out.stdout, &*out.stderr), ("out\n", "err\n"));
    });
}

/// Nothing but its own processes' will ends such a container's processes.
#[test]
fn a_container_that_cannot_be_killed_whole_is_warned_of() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.script("true").edit(|spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|ns| ns["type"] != "pid");
            for mount in spec["mounts"].as_array_mut().expect("mounts") {
                if mount["type"] == "proc" {
                    *mount = json!({"destination": "/proc", "type": "none", "source": "/proc",
                        "options": ["rbind", "nosuid", "nodev", "noexec"]});
                }
            }
        });
        b.run(&[]).ok().says("Such configuration is strongly discouraged");
    });
}

/// Without a cgroup, what can be known is its processes.
#[test]
fn events_without_a_cgroup() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc 1.1.5 counts nothing") {
            return;
        }
        let b = b.script("sleep 1000 & exec sleep 1000");
        b.run(&["-d"]).ok();
        let id = b.c.id.clone();
        if cgroups_of(&b) {
            return;
        }
        wait_until("two processes", || {
            b.call(["events", "--stats", &id]).ok().stdout.contains(r#""pids":{"current":2}"#)
        });
        b.call(["pause", &id]).output().exits(1).says("it has no cgroup");
        b.call(["delete", "--force", &id]).ok();
        b.c.leaves_nothing();
    });
}

/// Whether the user was allowed to make a cgroup after all.
fn cgroups_of(b: &Bundle) -> bool {
    let text = fs::read(b.c.root.join(&b.c.id).join("state.json")).expect("state.json");
    let state: Value = serde_json::from_slice(&text).expect("json");
    state["cgroup_paths"].as_object().is_some_and(|paths| !paths.is_empty())
}

#[test]
fn needs_a_user_namespace() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            let list = linux["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|ns| ns["type"] != "user");
        });
        b.run(&[]).output().exits(1).says("rootless container requires user namespaces");
        b.c.leaves_nothing();
    });
}

#[test]
fn a_mount_option_with_an_id_that_is_not_mapped() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.edit(|spec| {
            let mount = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                "options": ["gid=5"]});
            spec["mounts"].as_array_mut().expect("mounts").push(mount);
        });
        b.run(&[]).output().exits(1).says("unmapped gid in rootless containers");
        b.c.leaves_nothing();
    });
}

/// Root of a namespace where no other id is: as a tool inside of rootless engines finds itself.
#[test]
fn root_of_a_user_namespace_runs_containers() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc 1.1.5 wants the host's mount namespace for its binds") {
            return;
        }
        let Some(unshare) = skip::tool("unshare", "util-linux") else { return };
        let b = b.script("cat /proc/self/uid_map").edit(|spec| {
            for map in ["uidMappings", "gidMappings"] {
                spec["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
            }
        });
        b.c.write_config();
        let path = |path: &Path| path.to_str().expect("utf-8").to_owned();
        let out = b
            .as_user(&[&path(&unshare), "-Ur", &path(&b.runtime), "--root", &path(&b.c.root)])
            .args(["run", &b.c.id])
            .ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "1"]);
        b.c.leaves_nothing();
    });
}

/// Without XDG_RUNTIME_DIR there is a place all the same, if it is the user's alone.
#[test]
fn the_state_of_somebody_without_a_session() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc needs XDG_RUNTIME_DIR or --root") {
            return;
        }
        let b = b.script("true");
        b.c.write_config();
        let runtime = b.runtime.to_str().expect("utf-8").to_owned();
        let plain =
            |words: &[&str]| b.as_user(&["env", "-u", "XDG_RUNTIME_DIR", &runtime]).args(words);
        let place = PathBuf::from(format!("/tmp/aril-{SOMEBODY}"));
        let _ = fs::remove_dir(&place);
        let out = plain(&["run", &b.c.id]).output();
        let mode = fs::metadata(&place).map(|m| m.permissions().mode() & 0o7777);
        // Anybody could have made it.
        let _ = chown(&place, Some(SOMEBODY + 1), Some(SOMEBODY + 1));
        let refused = plain(&["list"]).output();
        let removed = fs::remove_dir(&place);
        out.ok().says("the state of containers is kept in /tmp/aril-47110");
        assert_eq!(mode.expect("made"), 0o1700);
        refused.exits(1).says("it is not a directory of this user with mode 0700");
        removed.expect("empty");
    });
}

/// In the place of pasta: goes into the background as it does, and tells what it was given.
const STAND_IN: &str = r#"#!/bin/sh
seen=$(dirname "$0")/seen
if [ -z "$ARIL_STAND_IN" ]; then
    rm -f "$seen"
    ARIL_STAND_IN=1 setsid "$0" "$@" < /dev/null > /dev/null 2>&1 &
    until [ -s "$seen" ]; do sleep 0.1; done
    exit 0
fi
for pid; do :; done
readlink /proc/$pid/ns/net /proc/$pid/ns/user > "$seen"
while :; do sleep 0.1; done
"#;

impl Bundle {
    fn with_pasta(self) -> Self {
        self.annotated("io.aril.network", "pasta")
    }

    fn pasta(&self, script: &str) {
        install(&self.c.file("script", script), &self.c.path("bin/pasta"));
    }

    fn stand_in(&self) {
        self.pasta(STAND_IN);
        chown(self.c.path("bin"), Some(SOMEBODY), Some(SOMEBODY)).expect("chown");
    }

    fn with_path(&self, call: Call) -> Call {
        let path = std::env::var("PATH").unwrap_or_default();
        call.env("PATH", format!("{}:{path}", self.c.path("bin").display()))
    }

    fn pastas(&self) -> usize {
        let marker = self.c.root.join(&self.c.id).join("pasta.pid").display().to_string();
        let processes = runtime_tests::host::processes(&self.c.mark);
        let line = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let has = |pid: &i32| String::from_utf8_lossy(&line(pid)).contains(&marker);
        processes.iter().filter(|pid| has(pid)).count()
    }
}

/// pasta gets the container's namespaces while the user may look into them, and ends with the container.
#[test]
fn pasta_lives_as_long_as_the_container() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc leaves networks to engines") {
            return;
        }
        let b = b.with_pasta();
        b.stand_in();
        b.with_path(b.run(&["-d"])).ok();
        let link = |kind: &str| {
            fs::read_link(format!("/proc/{}/ns/{kind}", b.c.pid())).expect("a namespace")
        };
        let own = format!("{}\n{}\n", link("net").display(), link("user").display());
        assert_eq!(fs::read_to_string(b.c.path("bin/seen")).expect("seen"), own);
        assert_eq!(b.pastas(), 1);
        b.call(["delete", "--force", &b.c.id]).ok();
        assert_eq!(b.pastas(), 0);
        b.c.leaves_nothing();
        // So it does when the program cannot be started, and after a run in the foreground.
        let b = b.edit(|spec| spec["process"]["args"] = json!(["/no/such/program"]));
        b.with_path(b.run(&[])).output().exits(127);
        assert_eq!(b.pastas(), 0);
        let b = b.script("true");
        b.with_path(b.run(&[])).ok();
        b.c.leaves_nothing();
    });
}

#[test]
fn pasta_that_is_missing_or_fails() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc leaves networks to engines") {
            return;
        }
        let b = b.with_pasta();
        let nowhere = b.run(&[]).env("PATH", "/nonexistent").output();
        nowhere
            .exits(1)
            .says("\"pasta\": executable file not found in $PATH")
            .says("package passt");
        b.c.leaves_nothing();
        b.pasta("#!/bin/sh\necho no tun here >&2\nexit 3\n");
        let out = b.with_path(b.run(&[])).output();
        out.exits(1).says("network pasta: exit status: 3: no tun here");
        b.c.leaves_nothing();
    });
}

/// The host, and its router, which listens once: pasta binds to the link of the default route, so that
/// an address of another link of the host's would not answer.
const LISTENER: &str = "ip link add out type veth peer name far; ip addr add 10.77.0.1/24 dev out
    unshare -n sh -c 'until ip addr add 10.77.0.254/24 dev far; do sleep 0.1; done; ip link set far up
        exec timeout 60 busybox nc -l -p 8000 -e echo reached' < /dev/null > /dev/null 2>&1 &
    while [ $(readlink /proc/$!/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.1; done
    ip link set far netns $!; ip link set out up; ip route add default via 10.77.0.254 dev out";

#[test]
fn pasta_connects() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc leaves networks to engines") {
            return;
        }
        let Some(_) = skip::tool("pasta", "passt") else { return };
        let tun = fs::metadata("/dev/net/tun").map(|m| m.permissions().mode() & 0o006);
        if !tun.is_ok_and(|mode| mode == 0o006) {
            return skip::inapplicable("/dev/net/tun is not for everybody here");
        }
        let b = b.with_pasta().script(
            "for i in 1 2 3 4 5; do \
                timeout 5 nc 10.77.0.254 8000 < /dev/null && break; sleep 1; \
             done; cat /proc/net/dev",
        );
        let out = b.run(&[]).stage(["network", LISTENER]).ok();
        assert!(out.stdout.contains("reached") && out.stdout.contains("out:"), "{out:#?}");
        b.c.leaves_nothing();
    });
}

#[test]
fn a_folder_with_layers_and_a_volume() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("others need a bundle") {
            return;
        }
        let (rootfs, volumes) = (b.c.rootfs(), b.c.path("volumes"));
        let script = "echo x > /new; rm -r /mnt; mkdir -p /d/e; chmod 0 /d; echo y >> /v/file; \
                      cat /new /v/file";
        let run = |upper: &str| {
            b.call(["run", "--rootfs", rootfs.to_str().expect("utf-8"), "--upper", upper])
                .env("ARIL_VOLUMES", &volumes)
                .args(["--volume", "v:/v", &b.c.id, "--", "sh", "-c", script])
        };
        run("ephemeral").ok().prints("x\ny\n");
        run("tmpfs:1m").ok().prints("x\ny\ny\n");
        assert!(rootfs.join("mnt").exists() && !rootfs.join("new").exists());
        b.c.leaves_nothing();
    });
}
