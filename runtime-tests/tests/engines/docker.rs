//! dockerd, with the runtime registered under a name.

use runtime_tests::container::wait_until;

use crate::private::{Client, Place, privately};

const TOOLS: &[(&str, &str)] = &[("dockerd", "docker.io"), ("docker", "docker.io")];

fn with_docker(name: &str, test: impl FnOnce(&Client)) {
    privately(name, TOOLS, |place| {
        let socket = format!("unix://{}", place.path("socket"));
        let _daemon = dockerd(place, &socket);
        let docker = place.client("docker", &["-H", &socket]);
        docker.wait_for(&["version"], "Server");
        docker.run(&["import", "--change", "CMD sh", &place.archive(), "box"]).ok();
        test(&docker);
        let left = docker.ask(&["ps", "-aq"]);
        left.lines().for_each(|id| drop(docker.run(&["rm", "-f", id]).ok()));
    });
}

fn dockerd(place: &Place, socket: &str) -> crate::private::Daemon {
    let runtime = format!("tested={}", place.runtime());
    let (data, exec, pid) = (place.path("data"), place.path("exec"), place.path("pid"));
    let args = ["--iptables=false", "--ip6tables=false", "--bridge=none", "-H", socket];
    let own = ["--data-root", &data, "--exec-root", &exec, "-p", &pid];
    let ours = ["--add-runtime", &runtime, "--default-runtime", "tested"];
    let cgroup = place.cgroup();
    let parent = ["--cgroup-parent", &cgroup];
    place.daemon("dockerd", &[&args[..], &own, &ours, &parent].concat())
}

#[test]
fn run() {
    with_docker("docker::run", |docker| {
        let run = |flags: &[&str], args: &[&str]| {
            docker.run(&[&["run", "--rm"], flags, &["box"], args].concat())
        };
        assert_eq!(run(&[], &["sh", "-c", "echo said; exit 3"]).exits(3).stdout, "said\n");
        run(&["--user", "mail"], &["id", "-u"]).ok().prints("8");
        run(&["--cap-drop", "ALL"], &["grep", "CapBnd", "/proc/self/status"])
            .ok()
            .prints("0000000000000000");
        run(&[], &["grep", "Seccomp:", "/proc/self/status"]).ok().prints("2");
        run(&["--init"], &["sh", "-c", "exit 9"]).exits(9);
        run(&["--pids-limit", "20"], &["true"]).ok();
        run(&["--read-only"], &["touch", "/x"]).exits(1).says("Read-only file system");
        run(&["--sysctl", "net.ipv4.ip_forward=1"], &["cat", "/proc/sys/net/ipv4/ip_forward"])
            .ok()
            .prints("1");
    });
}

#[test]
fn exit_codes_and_texts() {
    with_docker("docker::exit_codes_and_texts", |docker| {
        for (flags, program, code, text) in [
            (None, "missing", 127, "exec: \"missing\": executable file not found in $PATH"),
            (None, "/missing", 127, "stat /missing: no such file or directory"),
            (None, "/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
            (None, "/etc", 126, "exec: \"/etc\": "),
            (Some(["-v", "/etc:/etc/passwd"]), "true", 125, "not a directory"),
            (Some(["--sysctl", "net.missing=1"]), "true", 127, "no such file or directory"),
        ] {
            let flags = flags.as_ref().map_or(&[][..], |flags| flags);
            let args = [&["run", "--rm"], flags, &["box", program]].concat();
            docker.run(&args).exits(code).says(text);
        }
    });
}

#[test]
fn lifecycle() {
    with_docker("docker::lifecycle", |docker| {
        let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "it"];
        let script = "trap 'exit 7' TERM; while :; do sleep .1; done";
        docker.run(&["run", "-d", "--name", "it", "box", "sh", "-c", script]).ok();
        docker.run(&["exec", "it", "sh", "-c", "echo in; exit 4"]).exits(4).prints("in");
        docker.run(&["exec", "-u", "8", "it", "id", "-u"]).ok().prints("8");
        let text = "exec: \"missing\": executable file not found in $PATH";
        let out = docker.run(&["exec", "it", "missing"]);
        assert!(matches!(out.code, Some(126 | 127)), "{out:#?}");
        assert!(format!("{}{}", out.stdout, out.stderr).contains(text), "{out:#?}");
        docker.run(&["top", "it"]).ok().prints("trap");
        docker.run(&["stats", "--no-stream", "it"]).ok().prints("PIDS");
        docker.run(&["pause", "it"]).ok();
        assert_eq!(docker.ask(&state), "paused 0");
        docker.run(&["exec", "it", "true"]).exits(1).says("is paused");
        docker.run(&["unpause", "it"]).ok();
        docker.run(&["update", "--memory=64m", "--memory-swap=64m", "--cpus=0.5", "it"]).ok();
        let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max \
            /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
        docker.run(&["exec", "it", "sh", "-c", limits]).prints("67108864\n50000");
        docker.run(&["stop", "it"]).ok();
        assert_eq!(docker.ask(&state), "exited 7");
        docker.run(&["start", "it"]).ok();
        docker.run(&["kill", "it"]).ok();
        wait_until("the end", || docker.ask(&state) == "exited 137");
    });
}

/// The OOM killer's victim is known as such.
#[test]
fn out_of_memory() {
    with_docker("docker::out_of_memory", |docker| {
        let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
        let run =
            [&["run", "--name", "it", "--memory", "20m", "box", "busybox"], &hog[..]].concat();
        docker.run(&run).exits(137);
        assert_eq!(docker.ask(&["inspect", "-f", "{{.State.OOMKilled}}", "it"]), "true");
    });
}
