//! Pods and containers of other kinds than the plain one, and what a kubelet does to them later: each with the result
//! that runc has, by the name of our shim and by runc's shim.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use runtime_tests::container::wait_until;
use runtime_tests::protobuf::{Out, out};
use runtime_tests::skip;

use super::client::named;
use super::{
    Cri, Daemon, Driver, Kind, Kubelet, NO_PAUSE, OUR_SHIM, OWN, Page, RUNCS_SHIM, SHARED,
    has_sandboxes, is_prepared, is_version_2, with_kubelet,
};

/// Of a process ID namespace: that of the container `target_id`.
const TARGET: u64 = 3;

/// All that a container sees of its surroundings, but names that are different each time, and some mounts:
///
/// - Before 1.2, runc does not clear the flags of /dev/shm, a bind mount, that the option `rw` clears.
/// - runc leaves the tmpfs of a read-only cgroup mount writable (cgroup v1).
/// - In a user namespace, runc binds the host's device nodes, Aril nodes of a tmpfs that is nosuid and noexec.
/// - containerd maps the owners of the pod's files in their mounts, our shim in the files.
const LOOK: &str = "cat /proc/self/uid_map /proc/self/gid_map; grep -E '^(Cap|Seccomp|NoNew|Groups)' /proc/self/status; \
    ls /dev /sys/class/net; cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj; \
    stat -c '%n %u %g %a' / /bin /bin/busybox /dev /dev/null /dev/shm /proc/1 /etc/hosts; \
    touch /file && stat -c '%u %g' /file; chown 8:9 /file && stat -c '%u %g' /file; \
    busybox mount -t tmpfs none /tmp 2>&1; busybox umount /tmp 2>&1; \
    for file in /sys/kernel/notes /proc/sys/kernel/domainname /proc/kcore; do [ -w $file ] && echo writable $file; done; \
    cut -d ' ' -f 5,6 /proc/self/mountinfo | grep -v -e '^/ ' -e '^/dev/shm ' -e '^/sys/fs/cgroup ' \
    -e '^/dev/full ' -e '^/dev/null ' -e '^/dev/random ' -e '^/dev/tty ' -e '^/dev/urandom ' -e '^/dev/zero ' | \
    sed 's/,idmapped//' | sort";

#[test]
fn host_network() {
    of_kind("cri::kinds::host_network", Kind::HostNetwork, OUR_SHIM);
}

#[test]
fn host_network_under_runcs_shim() {
    of_kind("cri::kinds::host_network_under_runcs_shim", Kind::HostNetwork, RUNCS_SHIM);
}

#[test]
fn host_network_without_a_pause_process() {
    if has_sandboxes() {
        let name = "cri::kinds::host_network_without_a_pause_process";
        of_kind(name, Kind::HostNetwork, NO_PAUSE);
    }
}

#[test]
fn privileged() {
    of_kind("cri::kinds::privileged", Kind::Privileged, OUR_SHIM);
}

#[test]
fn privileged_under_runcs_shim() {
    of_kind("cri::kinds::privileged_under_runcs_shim", Kind::Privileged, RUNCS_SHIM);
}

#[test]
fn privileged_without_a_pause_process() {
    if has_sandboxes() {
        let name = "cri::kinds::privileged_without_a_pause_process";
        of_kind(name, Kind::Privileged, NO_PAUSE);
    }
}

#[test]
fn user_namespace() {
    if has_user_namespaces() {
        of_kind("cri::kinds::user_namespace", Kind::UserNamespace, OUR_SHIM);
    }
}

#[test]
fn user_namespace_under_runcs_shim() {
    if has_user_namespaces() {
        let name = "cri::kinds::user_namespace_under_runcs_shim";
        of_kind(name, Kind::UserNamespace, RUNCS_SHIM);
    }
}

#[test]
fn user_namespace_without_a_pause_process() {
    if has_user_namespaces() {
        let name = "cri::kinds::user_namespace_without_a_pause_process";
        of_kind(name, Kind::UserNamespace, NO_PAUSE);
    }
}

/// In containerd, and in the runc that the pods are compared with.
fn has_user_namespaces() -> bool {
    is_version_2("user namespaces of pods") && runc_has_id_maps()
}

pub fn runc_has_id_maps() -> bool {
    let features = Command::new("runc").arg("features").output();
    let features = features.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let has = features.is_ok_and(|text| text.contains("\"idmap\""));
    if !has {
        skip::inapplicable("the runc in PATH has no id-mapped mounts, as runc before 1.2");
    }
    has
}

pub fn of_kind(name: &str, kind: Kind, page: Page) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, OWN, |plain, daemon| {
        let place = plain.place;
        let kubelet = Kubelet { place, page, pids: OWN, kind, cri: Cri::new(place) };
        let id = kubelet.pod("pod");
        let script = "trap 'exit 143' TERM; while :; do sleep .1; done";
        let first = kubelet.run(("pod", &id), "first", OWN, out(), &["sh", "-c", script]);
        let second = kubelet.run(("pod", &id), "second", OWN, out(), &["sleep", "1000"]);
        for container in [&first, &second] {
            kubelet.see_exec(container, &["sh", "-c", LOOK]);
        }
        let own = std::fs::metadata("/proc/self/ns/net").expect("the network namespace").ino();
        let (_, theirs, _) = kubelet.exec(&first, &["stat", "-L", "-c", "%i", "/proc/1/ns/net"]);
        let is_own = theirs.trim() == own.to_string();
        assert_eq!(is_own, kind == Kind::HostNetwork, "the pod's {theirs:?}, the host's {own}");
        kubelet.see_exec(&first, &["sh", "-c", "echo shared > /dev/shm/file"]);
        assert_eq!(kubelet.see_exec(&second, &["cat", "/dev/shm/file"]).1, "shared\n");
        drop(daemon);
        let _daemon = kubelet.start();
        kubelet.see_exec(&first, &["sh", "-c", LOOK]);
        kubelet.cri.ok("StopContainer", named(&first).number(2, 20));
        assert_eq!(kubelet.end(&first).0, 143);
        kubelet.remove(&id);
    });
}

#[test]
fn ephemeral_container() {
    joins_another("cri::kinds::ephemeral_container", OUR_SHIM);
}

#[test]
fn ephemeral_container_under_runcs_shim() {
    joins_another("cri::kinds::ephemeral_container_under_runcs_shim", RUNCS_SHIM);
}

#[test]
fn ephemeral_container_without_a_pause_process() {
    if has_sandboxes() {
        joins_another("cri::kinds::ephemeral_container_without_a_pause_process", NO_PAUSE);
    }
}

/// `kubectl debug --target`: in the process ID namespace of another container of the pod.
pub fn joins_another(name: &str, page: Page) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, OWN, |kubelet, _daemon| {
        let id = kubelet.pod("pod");
        let pod = ("pod", id.as_str());
        let app = kubelet.run(pod, "app", OWN, out(), &["sleep", "4711"]);
        let other = kubelet.run(pod, "other", OWN, out(), &["sleep", "1000"]);
        let debug = |name: &str, target: &str| {
            let modes = out().number(2, TARGET).bytes(4, target);
            kubelet.creation(pod, name, modes, out(), &["sleep", "815"])
        };
        let container = kubelet.start_new(debug("debug", &app));
        let look = "cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep [1-9][0-9]*' | sort; \
                    ls /proc/1/root/ > /dev/null && echo root";
        kubelet.see_exec(&container, &["sh", "-c", look]);
        let there = |words: &str| kubelet.see_exec(&container, &["sh", "-c", words]);
        assert!(there("cat /proc/1/cmdline").1.contains("4711"));
        // Where it has ended or is none, no container joins it.
        let refused = |target: &str| {
            let refused = kubelet.cri.call("CreateContainer", debug("refused", target));
            refused.expect_err("a target that cannot be joined")
        };
        let text = refused("missing");
        let code = text.lines().find(|line| line.starts_with("grpc-status")).unwrap_or_default();
        kubelet.place.note(code);
        // It ends with the namespace's init.
        kubelet.cri.ok("StopContainer", named(&app).number(2, 0));
        assert_eq!(kubelet.end(&app).0, 137);
        assert_eq!(kubelet.end(&container).0, 137);
        refused(&app);
        assert_eq!(kubelet.see_exec(&other, &["echo", "still"]).1, "still\n");
        kubelet.remove(&id);
    });
}

#[test]
fn later() {
    changes("cri::kinds::later", OUR_SHIM, SHARED);
}

#[test]
fn later_under_runcs_shim() {
    changes("cri::kinds::later_under_runcs_shim", RUNCS_SHIM, SHARED);
}

#[test]
fn later_without_a_pause_process() {
    if has_sandboxes() {
        changes("cri::kinds::later_without_a_pause_process", NO_PAUSE, SHARED);
    }
}

/// Limits changed in place, hooks that outlast a grace period, ends while the daemon is away.
pub fn changes(name: &str, page: Page, pids: u64) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, pids, |kubelet, daemon| {
        let id = kubelet.pod("pod");
        let pod = ("pod", id.as_str());
        resizes(kubelet, pod);
        ends_under_hooks(kubelet, pod);
        ends_unseen(kubelet, pod, daemon);
        let _daemon = kubelet.start();
        kubelet.remove(&id);
    });
}

fn limits(quota: u64, megabytes: u64) -> Out {
    out().number(1, 100_000).number(2, quota).number(3, quota / 100).number(4, megabytes << 20)
}

fn limited(kubelet: &Kubelet, pod: (&str, &str), name: &str, args: &[&str]) -> String {
    kubelet.run(pod, name, OWN, out().bytes(1, limits(100_000, 64).0), args)
}

/// A resize in place.
fn resizes(kubelet: &Kubelet, pod: (&str, &str)) {
    let container = limited(kubelet, pod, "sized", &["sleep", "1000"]);
    for (quota, megabytes) in [(50_000, 32), (200_000, 128), (20_000, 16)] {
        let update = named(&container).bytes(2, limits(quota, megabytes).0);
        kubelet.cri.ok("UpdateContainerResources", update);
        let files = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us \
                     cpu/cpu.shares memory.max cpu.max cpu.weight 2> /dev/null; true";
        let (_, seen, _) = kubelet.see_exec(&container, &["sh", "-c", files]);
        assert!(seen.contains(&(megabytes << 20).to_string()), "{seen}");
        assert!(seen.contains(&quota.to_string()), "{seen}");
    }
    let absent = named("absent").bytes(2, limits(50_000, 32).0);
    kubelet.cri.call("UpdateContainerResources", absent).expect_err("an absent container");
    kubelet.cri.ok("RemoveContainer", named(&container));
}

/// A PreStop hook, or a probe, that is still running when its container ends.
fn ends_under_hooks(kubelet: &Kubelet, pod: (&str, &str)) {
    let script = "trap 'sleep .2; exit 9' TERM; while :; do sleep .1; done";
    for (name, args, grace, expected) in
        [("soft", &["sh", "-c", script][..], 20, 9), ("deaf", &["sleep", "815"], 1, 137)]
    {
        let container = limited(kubelet, pod, name, args);
        std::thread::scope(|scope| {
            let hook = scope.spawn(|| kubelet.exec(&container, &["sleep", "1000"]));
            let running =
                ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep 'sleep 100[0]'"];
            wait_until("the hook", || kubelet.exec(&container, &running).0 == 0);
            kubelet.cri.ok("StopContainer", named(&container).number(2, grace));
            assert_eq!(kubelet.end(&container).0, expected);
            kubelet.place.note(format!("{name}, hook: {:?}", hook.join().expect("the hook")));
        });
        kubelet.cri.ok("RemoveContainer", named(&container));
    }
}

/// Some end while the daemon is away, others stay.
fn ends_unseen(kubelet: &Kubelet, pod: (&str, &str), daemon: Daemon) {
    let run = |name: &str, then: &str| {
        let script = format!("while [ ! -e /dev/shm/now ]; do sleep .1; done; {then}");
        limited(kubelet, pod, name, &["sh", "-c", &script])
    };
    let plain = run("plain", "exit 5");
    let hog = run("hog", "exec busybox dd if=/dev/zero of=/dev/null bs=100M count=1");
    let stays = limited(kubelet, pod, "stays", &["sleep", "1000"]);
    let namespace = || kubelet.exec(&stays, &["readlink", "/proc/self/ns/pid"]).1;
    let before = namespace();
    let later = "(sleep 1; touch /dev/shm/now) > /dev/null 2>&1 &";
    kubelet.exec(&stays, &["sh", "-c", later]);
    drop(daemon);
    let shared = |pid: &i32| Path::new(&format!("/proc/{pid}/root/dev/shm/now")).exists();
    wait_until("the sign", || kubelet.place.processes().iter().any(shared));
    let waits = |line: &String| line.contains("/dev/shm/now") || line.contains("busybox dd");
    wait_until("their ends", || !kubelet.place.lines().iter().any(waits));
    let daemon = kubelet.start();
    // With its own shim, containerd 2.3 may report 255 for both.
    if kubelet.place.driver == Driver::Tested && kubelet.page != RUNCS_SHIM {
        assert_eq!(kubelet.unseen_end(&plain), (5, "Error".into()));
        assert_eq!(kubelet.unseen_end(&hog).0, 137);
    }
    assert_eq!(namespace(), before, "another container");
    drop(daemon);
}
