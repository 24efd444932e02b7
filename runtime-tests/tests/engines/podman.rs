//! Podman through conmon, cgroups by file.

use crate::private::{Client, privately};

const TOOLS: &[(&str, &str)] = &[("podman", "podman"), ("conmon", "conmon")];

/// Limits that a root without CAP_SYS_RESOURCE can set as well.
const CONFIG: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
    [engine]\nruntime_supports_json = [\"aril\", \"runc\", \"crun\"]\n";

fn with_podman(name: &str, test: impl FnOnce(&Client, &[&str])) {
    privately(name, TOOLS, |place| {
        let config = place.file("containers.conf", CONFIG);
        let config = format!("CONTAINERS_CONF={config}");
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        let policy = place.file("policy.json", policy);
        let (root, run, tmp) = (place.path("root"), place.path("run"), place.path("tmp"));
        let dirs = ["--root", &root, "--runroot", &run, "--tmpdir", &tmp];
        let drivers =
            ["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs"];
        let runtime = place.runtime();
        let args = [&[&config, "podman", "--runtime", &runtime][..], &dirs, &drivers].concat();
        let podman = place.client("env", &args);
        podman.run(&["import", "--signature-policy", &policy, &place.archive(), "box"]).ok();
        // Podman's own parent would stay behind.
        test(&podman, &["--network=none", "--cgroup-parent", &place.cgroup()]);
        podman.run(&["rm", "-f", "-t", "0", "-a"]).ok();
        place.remove_cgroup("conmon");
    });
}

#[test]
fn run() {
    with_podman("podman::run", |podman, common| {
        let run = |flags: &[&str], args: &[&str]| {
            podman.run(&[&["run", "--rm"], common, flags, &["box"], args].concat())
        };
        assert_eq!(run(&[], &["sh", "-c", "echo said; exit 3"]).exits(3).stdout, "said\n");
        run(&["-u", "mail"], &["id", "-u"]).ok().prints("8");
        let map = ["--uidmap=0:100000:1000", "--gidmap=0:100000:1000"];
        run(&map, &["cat", "/proc/self/uid_map"]).ok().prints("100000");
        run(&["--privileged"], &["grep", "Seccomp:", "/proc/self/status"]).ok().prints("0");
        for (program, code, text) in [
            ("missing", 127, "exec: \"missing\": executable file not found in $PATH"),
            ("/missing", 127, "stat /missing: no such file or directory"),
            ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ] {
            run(&[], &[program]).exits(code).says(text);
        }
    });
}

#[test]
fn lifecycle() {
    with_podman("podman::lifecycle", |podman, common| {
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep .1; done";
        let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c"];
        let create = ["--name=c", "box", "sh", "-c", script];
        podman.run(&[&["create"], common, &create].concat()).ok();
        podman.run(&["init", "c"]).ok();
        assert_eq!(podman.ask(&state), "initialized 0");
        podman.run(&["start", "c"]).ok();
        podman.wait_for(&["logs", "c"], "up");
        podman.run(&["exec", "c", "sh", "-c", "echo in; exit 4"]).exits(4).prints("in");
        podman.run(&["exec", "c", "missing"]).exits(127).says("executable file not found in $PATH");
        podman.run(&["top", "c", "args"]).ok().prints("trap");
        podman.run(&["pause", "c"]).ok();
        assert_eq!(podman.ask(&state), "paused 0");
        podman.run(&["unpause", "c"]).ok();
        podman.run(&["update", "--memory=64m", "c"]).ok();
        let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes";
        podman.run(&["exec", "c", "sh", "-c", limit]).prints("67108864");
        podman.run(&["stop", "c"]).ok();
        assert_eq!(podman.ask(&state), "exited 7");
        podman.run(&["start", "c"]).ok();
        podman.run(&["kill", "c"]).ok();
        podman.run(&["wait", "c"]).ok().prints("137");
    });
}
