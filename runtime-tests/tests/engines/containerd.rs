//! containerd, with the runtime under its shim for runc, and under ours.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{host, skip};

use crate::pages;
use crate::private::{Client, Daemon, Place, privately};

const TOOLS: &[(&str, &str)] = &[("containerd", "containerd"), ("ctr", "containerd")];

pub struct Containerd<'a> {
    pub place: &'a Place,
    pub ctr: Client<'a>,
    shim: Shim,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Shim {
    /// containerd's own.
    Runc,
    Aril,
}

/// The major version of the containerd that PATH finds.
pub fn major_version() -> u32 {
    let version = Command::new("containerd").arg("--version").output();
    let text = version.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let major = |word: &str| word.trim_start_matches('v').split_once('.')?.0.parse().ok();
    text.unwrap_or_default().split(' ').find_map(major).unwrap_or_default()
}

pub fn with_containerd(name: &str, shim: Shim, test: impl FnOnce(&Containerd, Daemon)) {
    privately(name, TOOLS, |place| {
        let own = Path::new(&place.runtime()).with_file_name("containerd-shim-aril-v2");
        if shim == Shim::Aril && !own.is_file() {
            return skip::unprepared(&format!("{} is missing: cargo build", own.display()));
        }
        let socket = place.path("socket");
        let here = Containerd { place, ctr: place.client("ctr", &["-a", &socket]), shim };
        let daemon = here.start();
        test(&here, daemon);
    });
}

impl Containerd<'_> {
    pub fn start(&self) -> Daemon {
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

    pub fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> runtime_tests::Output {
        let cgroup = format!("{}/{id}", self.place.cgroup());
        let (runtime, rootfs) = (self.place.runtime(), self.place.rootfs());
        let shim = Path::new(&runtime).with_file_name("containerd-shim-aril-v2");
        let shim = shim.display().to_string();
        let driver = match self.shim {
            Shim::Runc => ["--runc-binary", &runtime],
            Shim::Aril => ["--runtime", &shim],
        };
        let ours = ["--cgroup", &cgroup, "--env", "PATH=/bin"];
        let words = [&["run"], flags, &driver, &ours, &["--rootfs", &rootfs, id], args];
        self.ctr.run(&words.concat())
    }

    pub fn status(&self, id: &str) -> String {
        let tasks = self.ctr.ask(&["task", "ls"]);
        let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }
}

#[test]
fn run() {
    runs("containerd::run", Shim::Runc);
}

#[test]
fn run_under_our_shim() {
    runs("containerd::run_under_our_shim", Shim::Aril);
}

fn runs(name: &str, shim: Shim) {
    with_containerd(name, shim, |containerd, _daemon| {
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
    restarts("containerd::a_restarted_daemon_finds_its_containers", Shim::Runc);
}

#[test]
fn a_restarted_daemon_finds_our_shim() {
    restarts("containerd::a_restarted_daemon_finds_our_shim", Shim::Aril);
}

fn restarts(name: &str, shim: Shim) {
    with_containerd(name, shim, |containerd, daemon| {
        let ctr = &containerd.ctr;
        let exec = |id: &str, args: &[&str]| {
            ctr.run(&[&["task", "exec", "--exec-id", id, "c"], args].concat())
        };
        // containerd's client opens the stream in the background. What a process writes that ends before it
        // has come to that is lost, whatever the runtime.
        let exec_prints = |id: &str, args: &[&str], code: i32, text: &str| {
            let calls = Cell::new(0);
            wait_until(&format!("{text:?} from {args:?}"), || {
                calls.set(calls.get() + 1);
                exec(&format!("{id}-{}", calls.get()), args).exits(code).stdout.trim_end() == text
            });
        };
        let script = "trap 'exit 7' TERM; while :; do sleep .1; done";
        containerd.run(&["-d"], "c", &["sh", "-c", script]).ok();
        exec_prints("e1", &["sh", "-c", "echo in; exit 4"], 4, "in");
        let text = "exec: \"missing\": executable file not found in $PATH";
        exec("e2", &["missing"]).exits(1).says("OCI runtime exec failed").says(text);
        ctr.run(&["task", "pause", "c"]).ok();
        assert_eq!(containerd.status("c"), "PAUSED");
        ctr.run(&["task", "resume", "c"]).ok();
        drop(daemon);

        let _daemon = containerd.start();
        assert_eq!(containerd.status("c"), "RUNNING");
        exec_prints("e3", &["echo", "again"], 0, "again");
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

/// The words of the page: the shim by its name, the image from containerd's store.
#[test]
fn page() {
    with_containerd("containerd::page", Shim::Aril, |containerd, _daemon| {
        let ctr = &containerd.ctr;
        let image = containerd.place.image("docker.io/library/busybox:latest");
        ctr.run(&["images", "import", &image]).ok();
        let cgroup = format!("{}/demo", containerd.place.cgroup());
        for (line, printed) in pages::commands("containerd.md", "ctr run ") {
            let words: Vec<&str> = line.split(' ').collect();
            let out = ctr.run(&[&["run", "--cgroup", &cgroup], &words[..]].concat()).ok();
            assert_eq!(out.stdout, format!("{printed}\n"), "{line}");
        }
    });
}

/// Mounted in the container alone, unless somebody wants to see it.
#[test]
fn a_rootfs_that_the_host_does_not_see() {
    let name = "containerd::a_rootfs_that_the_host_does_not_see";
    with_containerd(name, Shim::Aril, |containerd, _daemon| {
        let (ctr, place) = (&containerd.ctr, containerd.place);
        let image = "docker.io/local/box:1";
        ctr.run(&["images", "import", &place.image(image)]).ok();
        let options = place.file("options.toml", "RootfsOnHost = true\n");
        let allow = "AllowAnnotations = [\"io.aril.rootfs.show\"]\n";
        let allow = place.file("allow.toml", allow);
        let show = ["--annotation", "io.aril.rootfs.show=true"];
        let shown = [&show[..], &["--runtime-config-path", &allow]].concat();
        let on_host = ["--runtime-config-path", options.as_str()];
        let seen = || {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
            mounts.contains("io.containerd.runtime.v2.task")
        };
        for (flags, expected) in [
            (&[][..], false),
            // Its author does not decide it.
            (&show, false),
            (&shown, true),
            (&on_host, true),
        ] {
            let cgroup = format!("{}/c", place.cgroup());
            let shim = ["run", "-d", "--runtime", "io.containerd.aril.v2", "--cgroup", &cgroup];
            let script = "echo new > /new; exec sleep 1000";
            let words = [image, "c", "sh", "-c", script];
            ctr.run(&[&shim[..], flags, &words].concat()).ok();
            let read = ["task", "exec", "--exec-id", "e", "c", "cat", "/new", "/etc/hostname"];
            wait_until("the file", || ctr.run(&read).stdout.starts_with("new\n"));
            assert_eq!(seen(), expected, "{flags:?}");
            ctr.run(&["task", "kill", "-s", "SIGKILL", "c"]).ok();
            wait_until("the end", || containerd.status("c") == "STOPPED");
            ctr.run(&["task", "rm", "c"]);
            assert!(!seen(), "a mount is left: {flags:?}");
            ctr.run(&["containers", "rm", "c"]).ok();
        }
    });
}

/// Whoever is killed: what containerd says afterwards is true, and nothing is left.
#[test]
fn our_shim_is_killed() {
    with_containerd("containerd::our_shim_is_killed", Shim::Aril, |containerd, daemon| {
        let ctr = &containerd.ctr;
        containerd.run(&["-d"], "c", &["sleep", "1000"]).ok();
        let tasks = ctr.ask(&["task", "ls"]);
        let task: Vec<&str> = tasks.lines().nth(1).unwrap_or_default().split(' ').collect();
        let pid: i32 = task.iter().find_map(|word| word.parse().ok()).expect("a pid");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let shim = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        let shim: i32 = shim.and_then(|pid| pid.parse().ok()).expect("the shim");
        kill(Pid::from_raw(shim), Signal::SIGKILL).expect("kill");
        wait_until("the container's end", || host::is_gone(pid));
        wait_until("the task's end", || containerd.status("c").is_empty());
        ctr.run(&["containers", "rm", "c"]).ok();
        // While nobody looks.
        containerd.run(&["-d"], "d", &["sh", "-c", "sleep .3; exit 5"]).ok();
        drop(daemon);
        let _daemon = containerd.start();
        wait_until("the end", || containerd.status("d") == "STOPPED");
        ctr.run(&["task", "rm", "d"]).ok().says("exit code 5");
        ctr.run(&["containers", "rm", "d"]).ok();
        // The first one's `delete` may still be under way: its task is gone from the list, and its
        // container dead, before that.
        let left = || std::fs::read_dir("/run/containerd/s").expect("sockets").count();
        wait_until("an empty directory of sockets", || left() == 0);
    });
}

/// Many at once: each is told of once, in order, and nothing is left. `STARTS=1000` makes more of them.
#[test]
fn a_hundred_containers() {
    const WORKERS: i32 = 20;
    let starts = std::env::var("STARTS").map_or(100, |n| n.parse().expect("STARTS: a number"));
    let rounds: i32 = starts / WORKERS;
    with_containerd("containerd::a_hundred_containers", Shim::Aril, |containerd, _daemon| {
        let events = containerd.ctr.call(&["events"]).spawn();
        wait_until("the subscription", || {
            containerd.ctr.run(&["namespaces", "label", "default", "a=b"]);
            !events.stdout().is_empty()
        });
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                scope.spawn(move || {
                    for round in 0..rounds {
                        let (id, code) = (format!("c{worker}-{round}"), (worker + round) % 200);
                        let script = format!("echo {id}; exit {code}");
                        let out = containerd.run(&["--rm"], &id, &["sh", "-c", &script]);
                        assert_eq!(out.exits(code).stdout, format!("{id}\n"));
                    }
                });
            }
        });
        let told = |id: &str| -> Vec<String> {
            let of = format!("\"container_id\":\"{id}\"");
            let text = events.stdout();
            let lines = text.lines().filter(|line| line.contains(&of));
            let topic = |line: &str| {
                line.split(' ').find_map(|w| w.strip_prefix("/tasks/").map(str::to_owned))
            };
            lines.filter_map(topic).collect()
        };
        let ids = (0..WORKERS).flat_map(|w| (0..rounds).map(move |round| format!("c{w}-{round}")));
        for id in ids {
            wait_until("the last event", || told(&id).last().is_some_and(|last| last == "delete"));
            assert_eq!(told(&id), ["create", "start", "exit", "delete"], "{id}");
        }
        events.signal(Signal::SIGTERM);
        events.wait();
        let left = |dir: &str| std::fs::read_dir(dir).map_or(0, |entries| entries.count());
        for dir in ["/run/containerd/s", "/run/containerd/runc/default", "/run/containerd/fifo"] {
            wait_until(&format!("an empty {dir}"), || left(dir) == 0);
        }
        wait_until("the end of all shims", || containerd.place.processes().is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("io.containerd.runtime.v2.task"), "{mounts}");
        let cgroups = host::cgroups(containerd.place.cgroup().trim_start_matches('/'));
        assert!(
            cgroups.iter().all(|dir| dir.ends_with(&containerd.place.cgroup()[1..])),
            "{cgroups:?}"
        );
    });
}
