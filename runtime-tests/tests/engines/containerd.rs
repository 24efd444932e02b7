//! containerd, with the runtime under its shim for runc.

use runtime_tests::container::wait_until;

use crate::private::{Client, Daemon, Place, privately};

const TOOLS: &[(&str, &str)] = &[("containerd", "containerd"), ("ctr", "containerd")];

struct Containerd<'a> {
    place: &'a Place,
    ctr: Client<'a>,
}

fn with_containerd(name: &str, test: impl FnOnce(&Containerd, Daemon)) {
    privately(name, TOOLS, |place| {
        let socket = place.path("socket");
        let here = Containerd { place, ctr: place.client("ctr", &["-a", &socket]) };
        let daemon = here.start();
        test(&here, daemon);
    });
}

impl Containerd<'_> {
    fn start(&self) -> Daemon {
        let path = |name: &str| self.place.path(name);
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("socket"),
            path("socket.ttrpc"),
        );
        let config = self.place.file("config.toml", &config);
        let daemon = self.place.daemon("containerd", &["--config", &config]);
        self.ctr.wait_for(&["version"], "Server");
        daemon
    }

    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> runtime_tests::Output {
        let cgroup = format!("{}/{id}", self.place.cgroup());
        let (runtime, rootfs) = (self.place.runtime(), self.place.rootfs());
        let ours = ["--runc-binary", &runtime, "--cgroup", &cgroup, "--env", "PATH=/bin"];
        self.ctr.run(&[&["run"], flags, &ours, &["--rootfs", &rootfs, id], args].concat())
    }

    fn status(&self, id: &str) -> String {
        let tasks = self.ctr.ask(&["task", "ls"]);
        let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }
}

#[test]
fn run() {
    with_containerd("containerd::run", |containerd, _daemon| {
        let run =
            |flags: &[&str], args: &[&str]| containerd.run(&[&["--rm"], flags].concat(), "c", args);
        assert_eq!(run(&[], &["sh", "-c", "echo said; exit 3"]).exits(3).stdout, "said\n");
        run(&["--seccomp"], &["grep", "Seccomp:", "/proc/self/status"]).ok().prints("2");
        run(&["--memory-limit", "20000000"], &["true"]).ok();
        run(&["--read-only"], &["touch", "/x"]).exits(1).says("Read-only file system");
        for (program, text) in [
            ("missing", "exec: \"missing\": executable file not found in $PATH"),
            ("/missing", "stat /missing: no such file or directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ] {
            run(&[], &[program]).exits(1).says("OCI runtime create failed").says(text);
            containerd.ctr.run(&["containers", "rm", "c"]);
        }
    });
}

/// The shim, and with it the container, outlives the daemon.
#[test]
fn a_restarted_daemon_finds_its_containers() {
    let name = "containerd::a_restarted_daemon_finds_its_containers";
    with_containerd(name, |containerd, daemon| {
        let ctr = &containerd.ctr;
        let exec = |id: &str, args: &[&str]| {
            ctr.run(&[&["task", "exec", "--exec-id", id, "c"], args].concat())
        };
        let script = "trap 'exit 7' TERM; while :; do sleep .1; done";
        containerd.run(&["-d"], "c", &["sh", "-c", script]).ok();
        exec("e1", &["sh", "-c", "echo in; exit 4"]).exits(4).prints("in");
        let text = "exec: \"missing\": executable file not found in $PATH";
        exec("e2", &["missing"]).exits(1).says("OCI runtime exec failed").says(text);
        ctr.run(&["task", "pause", "c"]).ok();
        assert_eq!(containerd.status("c"), "PAUSED");
        ctr.run(&["task", "resume", "c"]).ok();
        drop(daemon);

        let _daemon = containerd.start();
        assert_eq!(containerd.status("c"), "RUNNING");
        exec("e3", &["echo", "again"]).ok().prints("again");
        ctr.run(&["task", "ps", "c"]).ok();
        ctr.run(&["task", "metrics", "c"]).ok().prints("pids.current");
        ctr.run(&["task", "rm", "c"]).exits(1).says("must be stopped");
        ctr.run(&["task", "kill", "c"]).ok();
        wait_until("the end", || containerd.status("c") == "STOPPED");
        ctr.run(&["task", "kill", "c"]).exits(1).says("process already finished");
        ctr.run(&["task", "rm", "c"]).ok().says("exit code 7");
        ctr.run(&["containers", "rm", "c"]).ok();
    });
}
