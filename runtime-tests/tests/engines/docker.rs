//! dockerd, with the runtime registered under a name.

use std::io::{Read, Write};
use std::net::TcpStream;

use runtime_tests::container::wait_until;
use runtime_tests::{skip, terminal};

use crate::pages;
use crate::private::{Client, Daemon, Driver, Place, compared, privately};

const TOOLS: &[(&str, &str)] = &[("dockerd", "docker.io"), ("docker", "docker.io")];

fn with_docker(name: &str, test: impl FnOnce(&Client)) {
    privately(name, TOOLS, |place| in_docker(place, &["--bridge=none"], test));
}

/// Runs `test` with a daemon that has started and an image `box`; no container is left after it.
fn in_docker(place: &Place, network: &[&str], test: impl FnOnce(&Client)) {
    let socket = format!("unix://{}", place.path("socket"));
    let _daemon = dockerd(place, &socket, network);
    // The other builder runs on containers of its own.
    let docker = place.client("env", &["DOCKER_BUILDKIT=0", "docker", "-H", &socket]);
    docker.wait_for(&["version"], "Server");
    docker.run(&["import", "--change", "CMD sh", &place.archive(), "box"]).ok();
    test(&docker);
    let left = docker.ask(&["ps", "-aq"]);
    left.lines().for_each(|id| drop(docker.run(&["rm", "-f", id]).ok()));
}

/// Configured as `docs/docker.md` says, with the runtime as the default one.
fn dockerd(place: &Place, socket: &str, network: &[&str]) -> Daemon {
    let config = pages::block("docker.md", "json").replace("/usr/local/bin/aril", &place.runtime());
    let config = place.file("daemon.json", &config);
    let (data, exec, pid) = (place.path("data"), place.path("exec"), place.path("pid"));
    let args = ["--config-file", &config, "--iptables=false", "--ip6tables=false", "-H", socket];
    let own = ["--data-root", &data, "--exec-root", &exec, "-p", &pid];
    let runtime = if place.driver == Driver::Own { "runc" } else { "aril" };
    let cgroup = place.cgroup();
    let rest = ["--default-runtime", runtime, "--cgroup-parent", &cgroup];
    place.daemon("dockerd", &[&args[..], &own, network, &rest].concat())
}

/// What a person does in a day.
#[test]
fn session() {
    compared("docker::session", TOOLS, |place| {
        in_docker(place, &[], |docker| {
            options(docker);
            terminals(docker);
            ports(docker);
            stops(docker);
            build(place, docker);
        });
    });
}

fn options(docker: &Client) {
    let run = |flags: &[&str], args: &[&str]| {
        docker.see(&[&["run", "--rm"], flags, &["box"], args].concat())
    };
    let status = "/proc/self/status";
    let shell = |flags: &[&str], script: &str| run(flags, &["sh", "-c", script]);
    shell(&["-v", "/etc:/there:ro"], "cat /there/hostname; touch /there/x").exits(1);
    shell(&["--tmpfs", "/x:size=1m,noexec"], "grep ' /x ' /proc/mounts").ok().prints("size=1024k");
    let limits = ["--cpus", "0.5", "-m", "64m", "--memory-swap", "64m", "--pids-limit", "20"];
    let v1 =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max";
    let v2 = "memory.max cpu.max pids.max";
    shell(&limits, &format!("{v1} {v2} 2>/dev/null; true")).ok().prints("67108864\n50000");
    run(&["--cap-drop", "ALL", "--cap-add", "NET_RAW"], &["grep", "Cap", status]).ok();
    run(&["--security-opt", "no-new-privileges"], &["grep", "NoNew", status]).ok().prints("1");
    run(&["--security-opt", "seccomp=unconfined"], &["grep", "Seccomp:", status]).ok().prints("0");
    run(&["--user", "8:9", "--group-add", "10"], &["id"]).ok();
    run(&["--init"], &["sh", "-c", "cat /proc/1/comm; exit 9"]).exits(9).prints("init");
    run(&["--hostname", "h", "--add-host", "x:1.2.3.4"], &["cat", "/etc/hostname"]).ok();
    run(&["--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -n; ulimit -Hn"]).ok();
    run(&["--shm-size", "1m"], &["grep", "/dev/shm", "/proc/mounts"]).ok().prints("size=1024k");
    run(&["--device", "/dev/null:/dev/x"], &["stat", "-c", "%t %T", "/dev/x"]).ok().prints("1 3");
    run(&["--pid=host", "--ipc=host", "--uts=host"], &["true"]).ok();
    run(&["--env", "A=b", "-w", "/tmp"], &["sh", "-c", "echo $A; pwd"]).ok().prints("b\n/tmp");
    run(&[], &["missing"]).exits(127);
}

fn terminals(docker: &Client) {
    let on = |args: &[&str], words: &str| {
        let (master, slave) = terminal::open(33, 91);
        let call = docker.call(args).on_terminal(&slave).spawn();
        drop(slave);
        terminal::read_until(&master, "# ");
        terminal::type_in(&master, words);
        terminal::read_until(&master, "33 91");
        terminal::type_in(&master, "exit 6\n");
        call.wait().exits(6);
    };
    on(&["run", "-it", "--name", "tty", "box", "sh"], "stty size\n");
    docker.see(&["inspect", "-f", "{{.State.ExitCode}}", "tty"]).ok().prints("6");
    docker.run(&["start", "tty"]).ok();
    on(&["exec", "-it", "tty", "sh"], "stty size\n");
    docker.run(&["rm", "-f", "tty"]).ok();
}

fn ports(docker: &Client) {
    let server = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    let flags = ["run", "-d", "--name", "web", "-p", "127.0.0.1:8088:80", "box"];
    docker.run(&[&flags[..], &server].concat()).ok();
    let page = || {
        let mut said = String::new();
        let mut socket = TcpStream::connect("127.0.0.1:8088").ok()?;
        socket.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").ok()?;
        socket.read_to_string(&mut said).ok()?;
        said.contains("root:").then_some(())
    };
    wait_until("the page", || page().is_some());
    docker.run(&["rm", "-f", "web"]).ok();
}

/// SIGTERM and, for who does not listen, SIGKILL after the grace period.
fn stops(docker: &Client) {
    let inspect = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}"];
    let state = |id: &str| docker.see(&[&inspect[..], &[id]].concat()).ok().stdout;
    docker.run(&["run", "-d", "--init", "--name", "good", "box", "sleep", "1000"]).ok();
    docker.run(&["stop", "good"]).ok();
    assert_eq!(state("good"), "exited 143\n");
    docker.run(&["run", "-d", "--name", "deaf", "box", "sleep", "1000"]).ok();
    docker.run(&["top", "deaf", "-eo", "pid,args"]).ok().prints("sleep 1000");
    docker.see(&["exec", "-e", "A=b", "-w", "/tmp", "deaf", "sh", "-c", "echo $A; pwd"]).ok();
    docker.run(&["stats", "--no-stream", "deaf"]).ok().prints("PIDS");
    docker.run(&["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(state("deaf"), "exited 137\n");
    docker.run(&["restart", "-t", "1", "deaf"]).ok();
    assert_eq!(state("deaf"), "running 0\n");
}

fn build(place: &Place, docker: &Client) {
    let recipe = "FROM box\nRUN echo made > /made && id -u >> /made\nCMD [\"cat\", \"/made\"]\n";
    std::fs::create_dir_all(place.path("recipe")).expect("a directory");
    place.file("recipe/Dockerfile", recipe);
    docker.run(&["build", "-q", "-t", "made", &place.path("recipe")]).ok();
    docker.see(&["run", "--rm", "made"]).ok().prints("made\n0");
}

/// Major version of a `part` of Docker: `Server` or `Client`, which may be of different packages.
fn major_version(docker: &Client, part: &str) -> u32 {
    let version = docker.ask(&["version", "-f", &format!("{{{{.{part}.Version}}}}")]);
    version.split('.').next().and_then(|major| major.parse().ok()).expect("a version")
}

/// The commands of docs/docker.md, and the runtime by the name of Aril's shim.
#[test]
fn page() {
    with_docker("docker::page", |docker| {
        docker.run(&["tag", "box", "busybox"]).ok();
        for (line, printed) in pages::commands("docker.md", "docker ") {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(docker.run(&words).ok().stdout, format!("{printed}\n"), "{line}");
        }
        if major_version(docker, "Server") < 23 {
            return skip::inapplicable("Docker before 23 knows no names of shims");
        }
        let flags = ["run", "--rm", "--runtime", "io.containerd.aril.v2", "box"];
        docker.run(&[&flags[..], &["echo", "said"]].concat()).ok().prints("said");
        docker.run(&[&flags[..], &["sh", "-c", "exit 5"]].concat()).exits(5);
        docker
            .run(&[&["run", "-d", "--name", "it"], &flags[2..], &["sleep", "1000"]].concat())
            .ok();
        docker.run(&["exec", "it", "echo", "in"]).ok().prints("in");
        docker.run(&["update", "--pids-limit", "30", "it"]).ok();
        docker.run(&["stop", "-t", "1", "it"]).ok();
    });
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
        // Older clients read 126 from "permission denied" only.
        let directory = if major_version(docker, "Client") < 23 { 125 } else { 126 };
        for (flags, program, code, text) in [
            (None, "missing", 127, "exec: \"missing\": executable file not found in $PATH"),
            (None, "/missing", 127, "stat /missing: no such file or directory"),
            (None, "/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
            (None, "/etc", directory, "exec: \"/etc\": "),
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
