//! Namespaces made, joined and shared; identity within them.

use std::fs;

use runtime_tests::{Container, Runtime, View, in_each_view, on_the_host};
use serde_json::json;

fn link(pid: i32, kind: &str) -> String {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::read_link(&path).unwrap_or_else(|e| panic!("{path}: {e}")).display().to_string()
}

const KINDS: [&str; 5] = ["pid", "net", "ipc", "uts", "mnt"];

#[test]
fn made() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let (own, host) = (c.pid(), std::process::id().cast_signed());
        for kind in KINDS {
            assert_ne!(link(own, kind), link(host, kind), "{kind}");
        }
        assert_eq!(link(own, "user"), link(host, "user"));
    });
}

#[test]
fn joined_by_path() {
    in_each_view(|view| {
        let first = Container::new(view).sleeper();
        first.run_detached();
        let pid = first.pid();
        let mut second = Container::new(view).sleeper();
        for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
            second =
                second.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
        }
        let second = second.edit(|spec| {
            spec.as_object_mut().expect("spec").remove("hostname");
        });
        second.run_detached();
        for kind in ["net", "ipc", "uts", "pid"] {
            assert_eq!(link(second.pid(), kind), link(pid, kind), "{kind}");
        }
        second.kill("KILL").ok();
        second.wait_for("stopped");
        assert_eq!(first.status(), "running");
    });
}

#[test]
fn a_joined_user_namespace() {
    on_the_host(|view| {
        let first = Container::new(view).in_user_namespace(100_000).sleeper();
        first.run_detached();
        let path = format!("/proc/{}/ns/user", first.pid());
        let second = Container::new(view)
            .in_user_namespace(100_000)
            .namespace(json!({"type": "user", "path": path}))
            .script("cat /proc/self/uid_map; id -u");
        let second = second.edit(|spec| {
            // Callers send the mappings as well; runc 1.1.5 insists on them.
            if Runtime::under_test().is_aril() {
                let linux = spec["linux"].as_object_mut().expect("linux");
                linux.remove("uidMappings");
                linux.remove("gidMappings");
            }
        });
        let out = second.run().ok();
        let words: Vec<&str> = out.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536", "0"]);
    });
}

#[test]
fn ids_in_a_user_namespace() {
    in_each_view(|view| {
        let c = Container::new(view).in_user_namespace(100_000).sleeper();
        c.run_detached();
        let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
        assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
        c.exec(["id", "-u"]).ok().prints("0\n");
    });
}

/// Message queues are owned by whoever makes the ipc namespace.
#[test]
fn namespaces_created_with_a_user_namespace_belong_to_its_root() {
    on_the_host(|view| {
        let c = Container::new(view).in_user_namespace(100_000);
        let c =
            c.script("cd /dev; stat -c '%n %u' mqueue shm pts; cd /proc/sys/fs; stat -c %u mqueue");
        c.run().ok().prints("mqueue 0\nshm 0\npts 0\n0\n");
    });
}

#[test]
fn a_user_that_is_not_mapped() {
    on_the_host(|view| {
        let c = Container::new(view).in_user_namespace(100_000).edit(|spec| {
            spec["process"]["user"] = json!({"uid": 70_000, "gid": 0});
        });
        c.run().exits(1).says("user namespace");
        c.leaves_nothing();
    });
}

#[test]
fn loopback_is_up() {
    on_the_host(|view| {
        let c =
            Container::new(view).script("cat /sys/class/net/lo/operstate; probe | grep ^network");
        c.run().ok().prints("network lo up true\n");
    });
}

#[test]
fn hostname_and_domainname() {
    on_the_host(|view| {
        let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
        let c =
            Container::new(view).script("hostname; cat /proc/sys/kernel/domainname").edit(|spec| {
                spec["hostname"] = "inside".into();
                spec["domainname"] = "example.org".into();
            });
        let out = c.run().ok();
        let mut lines = out.stdout.lines();
        assert_eq!(lines.next(), Some("inside"));
        // domainname came with runc 1.1.5's successor.
        assert!(lines.next() == Some("example.org") || !c.runtime.is_aril(), "{out:?}");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname"), before);
    });
}

#[test]
fn time_offsets() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("cat /proc/self/timens_offsets; readlink /proc/self/ns/time");
        if !c.runtime.only_aril("time namespaces came with runc 1.2") {
            return;
        }
        let c = c.namespace(json!({"type": "time"})).edit(|spec| {
            spec["linux"]["timeOffsets"] =
                json!({"monotonic": {"secs": 172_800, "nanosecs": 1}, "boottime": {"secs": -5}});
        });
        let out = c.run().ok();
        let words: Vec<Vec<&str>> =
            out.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["monotonic", "172800", "1"]);
        assert_eq!(words[1], ["boottime", "-5", "0"]);
        assert_ne!(words[2][0], link(std::process::id().cast_signed(), "time"));
    });
}

#[test]
fn the_cgroup_namespace_begins_at_the_container() {
    in_each_view(|view| {
        let c = Container::new(view)
            .namespace(json!({"type": "cgroup"}))
            .args(["cat", "/proc/self/cgroup"]);
        let out = c.run().ok();
        assert!(!out.stdout.contains(&c.mark) && !out.stdout.contains("/.."), "{out:?}");
    });
}

/// Where cgroup2 is mounted with nsdelegate no process is cloned from a joined cgroup namespace into
/// a cgroup outside of it.
#[test]
fn user_and_cgroup_namespace_of_another_container() {
    in_each_view(|view| {
        let first = Container::new(view).in_user_namespace(100_000).sleeper();
        first.run_detached();
        let pid = first.pid();
        let c = Container::new(view).in_user_namespace(100_000);
        let mut c = c.script("readlink /proc/self/ns/cgroup; readlink /proc/self/ns/user");
        for kind in ["user", "cgroup"] {
            let path = format!("/proc/{pid}/ns/{kind}");
            c = c.namespace(json!({"type": kind, "path": path}));
        }
        let c = c.edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        });
        let expected = format!("{}\n{}\n", link(pid, "cgroup"), link(pid, "user"));
        c.run().ok().prints(&expected);
        first.delete_by_force().ok();
    });
}

fn without_a_mount_namespace(view: View) -> Container {
    Container::new(view).without_namespace("mount").edit(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    })
}

/// The specification's "inherit the runtime namespace", where it cannot harm the host.
#[test]
fn mounts_in_the_mount_namespace_of_the_caller() {
    on_the_host(|view| {
        let c = without_a_mount_namespace(view);
        if !c.runtime.only_aril("runc changes the host's mount table, and leaves its mounts there")
        {
            return;
        }
        let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        c.run()
            .exits(1)
            .says("without a private MNT namespace: the caller is in the host's mount namespace");
        c.leaves_nothing();
        // In one of its own: that one, with the mounts of the config, of which none is left.
        let left = format!("grep -c {} /proc/self/mountinfo || true", c.rootfs().display());
        let namespace = "readlink /proc/self/ns/mnt";
        let shell = |prepare: &str| {
            format!(
                "exec unshare -m sh -ec '{prepare}; {namespace}; \"$@\" || true; {left}' sh \"$@\""
            )
        };
        let c = c.script(&format!(
            "{namespace}; ls -d /proc/self/status /dev/null; touch /x 2>&1; grep -c \" $0 \" /proc/mounts"
        ));
        let out = c.run_call(&[]).in_shell(&shell("true")).ok();
        let lines: Vec<_> = out.stdout.lines().collect();
        assert_eq!(lines[0], lines[1], "{out:?}");
        let rest = ["/dev/null", "/proc/self/status", "touch: /x: Read-only file system", "0", "0"];
        assert_eq!(lines[2..], rest, "{out:?}");
        // A create that fails behind them.
        let failing = without_a_mount_namespace(view).mounting(json!({
            "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=bogus"]
        }));
        let left_of_it =
            format!("grep -c {} /proc/self/mountinfo || true", failing.rootfs().display());
        let script = shell("true").replace(&left, &left_of_it);
        let out = failing.run_call(&[]).in_shell(&script).output().says("size=bogus");
        assert_eq!(out.stdout.lines().last(), Some("0"), "{out:?}");
        failing.leaves_nothing();
        // Where others would see them, they have to be allowed.
        let shared = "mount --make-rprivate /; mount --make-rshared /";
        let out = c.run_call(&[]).in_shell(&shell(shared)).output();
        let out = out.says("the mount that holds the rootfs is shared");
        assert_eq!(out.stdout.lines().last(), Some("0"), "{out:?}");
        let bundle = c.dir.to_str().expect("utf-8");
        let allowed = c.call(["--allow-host-mounts", "run", "-b", bundle, &c.id]);
        let out = allowed.in_shell(&shell(shared)).ok().prints("/proc/self/status");
        assert_eq!(out.stdout.lines().last(), Some("0"), "{out:?}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"), before);
    });
}
