//! Kubernetes' interface, as containerd has it: pods of containers, configured as
//! `docs/kubernetes.md` or `docs/containerd.md` says.

mod client;
mod crio;
mod figures;
mod killed;
mod kinds;

use client::{Cri, named};
use runtime_tests::container::wait_until;
use runtime_tests::protobuf::{In, Out, out};
use runtime_tests::skip;

use crate::containerd::major_version;
use crate::pages;
use crate::private::{Daemon, Driver, Place, compared, privately};

const TOOLS: &[(&str, &str)] =
    &[("containerd", "containerd"), ("ctr", "containerd"), ("curl", "curl")];
/// The table of containerd's CRI plugin in a configuration of containerd 1.x, and of its runtimes in one of 2.x.
const PLUGIN: &str = "plugins.\"io.containerd.grpc.v1.cri\"";
const PLUGIN_2: &str = "plugins.'io.containerd.cri.v1.runtime'";
const IMAGE: &str = "docker.io/local/box:1";
const PLUGINS: &str = "/usr/lib/cni";

/// Of a namespace: the pod's, or the container's own.
const SHARED: u64 = 0;
const OWN: u64 = 1;

/// A page and a block of it: how containerd is configured.
type Page<'a> = (&'a str, &'a str);
const OUR_SHIM: Page = ("kubernetes.md", "toml");
const RUNCS_SHIM: Page = ("containerd.md", "toml");
const ANNOTATIONS: Page = ("shim.md", "toml annotations-1");
/// CRI-O in the place of containerd.
const CRIO: Page = ("cri-o.md", "toml");
/// For containerd 2.x.
const NO_PAUSE: Page = ("shim.md", "toml sandboxer");

struct Kubelet<'a> {
    place: &'a Place,
    page: Page<'a>,
    /// Of the pod.
    pids: u64,
    kind: Kind,
    cri: Cri<'a>,
}

/// What pods and their containers have of the host.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Plain,
    /// `hostNetwork: true`
    HostNetwork,
    Privileged,
    /// `hostUsers: false`
    UserNamespace,
}

fn with_kubelet(name: &str, page: Page, pids: u64, test: impl Fn(&Kubelet, Daemon)) {
    let tools = if page == CRIO { crio::TOOLS } else { TOOLS };
    compared(name, tools, |place| on_node(place, page, pids, &test));
}

fn on_node(place: &Place, page: Page, pids: u64, test: impl Fn(&Kubelet, Daemon)) {
    let kubelet = Kubelet { place, page, pids, kind: Kind::Plain, cri: Cri::new(place) };
    let image = place.image("local/box:1");
    let daemon = if page == CRIO {
        crio::import(place, &image);
        kubelet.start()
    } else {
        let daemon = kubelet.start();
        let ctr = place.client("ctr", &["-a", &place.path("socket"), "-n", "k8s.io"]);
        ctr.run(&["images", "import", &image]).ok();
        daemon
    };
    wait_until("the image", || {
        let image = out().bytes(1, named(IMAGE).0);
        !kubelet.cri.ok("ImageStatus", image).message(1).text(1).is_empty()
    });
    test(&kubelet, daemon);
    let left = |dir: &str| std::fs::read_dir(dir).map_or(0, |entries| entries.count());
    for dir in ["/run/containerd/s", "/run/containerd/runc/k8s.io", "/run/netns"] {
        wait_until(&format!("an empty {dir}"), || left(dir) == 0);
    }
}

impl Kubelet<'_> {
    fn start(&self) -> Daemon {
        let network = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[
            {"type":"bridge","bridge":"pods0","isGateway":true,
             "ipam":{"type":"host-local","subnet":"10.88.0.0/24"}}]}"#;
        std::fs::create_dir_all(self.place.path("networks")).expect("a directory");
        self.place.file("networks/pods.conflist", network);
        let daemon = if self.page == CRIO { crio::start(self) } else { self.start_containerd() };
        wait_until("the network", || {
            let status = self.cri.call("Status", out());
            // A later containerd complains of what is deprecated in a condition of its own.
            let ready = |c: &In| c.number(2) == 1 || !c.text(1).ends_with("Ready");
            status.is_ok_and(|s| s.message(1).all(1).iter().all(ready))
        });
        daemon
    }

    fn start_containerd(&self) -> Daemon {
        let path = |name: &str| self.place.path(name);
        let cri = if major_version() < 2 {
            format!(
                "version = 2\n[{PLUGIN}]\nsandbox_image = \"{IMAGE}\"\n\
                 disable_apparmor = true\nrestrict_oom_score_adj = true\n\
                 stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
                 [{PLUGIN}.cni]\nbin_dir = \"{PLUGINS}\"\nconf_dir = \"{}\"\n{}",
                path("networks"),
                self.runtimes(PLUGIN),
            )
        } else {
            format!(
                "version = 3\n\
                 [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = \"{IMAGE}\"\n\
                 [plugins.'io.containerd.grpc.v1.cri']\n\
                 stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
                 [{PLUGIN_2}]\ndisable_apparmor = true\nrestrict_oom_score_adj = true\n\
                 [{PLUGIN_2}.cni]\nbin_dirs = [\"{PLUGINS}\"]\nconf_dir = \"{}\"\n{}",
                path("networks"),
                self.runtimes(PLUGIN_2),
            )
        };
        let config = format!(
            "root = \"{}\"\nstate = \"{}\"\n{cri}\n[grpc]\naddress = \"{}\"\n\
             [ttrpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("socket"),
            path("socket.ttrpc"),
        );
        let config = self.place.file("config.toml", &config);
        self.place.daemon("containerd", &["--config", &config])
    }

    /// The page's tables of runtimes, under the name that this version of containerd has for the plugin.
    fn runtimes(&self, plugin: &str) -> String {
        pages::block(self.page.0, self.page.1)
            .replace("/usr/local/bin/aril", &self.place.runtime())
            // What the author of a pod may write; what it may do is in the file.
            .replace("[\"io.aril.landlock\"]", "[\"io.aril.*\"]")
            .replace("/etc/containerd/aril.toml", &self.place.path("aril.toml"))
            .replace(PLUGIN, plugin)
    }

    /// The name of the runtime, as a pod's RuntimeClass says it.
    fn handler(&self) -> String {
        match self.place.driver {
            Driver::Own => "runc".into(),
            Driver::Tested => {
                let class = pages::block("kubernetes.md", "yaml");
                let handler = class.lines().find_map(|line| line.strip_prefix("handler: "));
                handler.expect("a handler").to_owned()
            }
        }
    }

    /// Its annotations are in a file of `key=value`, if there is one.
    fn pod_config(&self, name: &str) -> Out {
        let annotations = std::fs::read_to_string(self.place.path("annotations"));
        let pairs = annotations.unwrap_or_default();
        let pairs = pairs.lines().filter_map(|line| line.split_once('='));
        let entry = |(key, value): (&str, &str)| out().bytes(1, key).bytes(2, value).0;
        let annotations: Vec<_> = pairs.map(entry).collect();
        let metadata = named(name).bytes(2, "uid").bytes(3, "tests");
        let security = self.security(1, 6, out().number(2, self.pids));
        let mut linux = out().bytes(1, self.place.cgroup()).bytes(2, security.0);
        if self.kind != Kind::HostNetwork {
            linux = linux.bytes(3, named("net.core.somaxconn").bytes(2, "77").0);
        }
        let dns = out().bytes(1, "192.0.2.1").bytes(2, "a.example").bytes(3, "ndots:2");
        let mut config = out().bytes(1, metadata.0);
        if self.kind != Kind::HostNetwork {
            config = config.bytes(2, name);
        }
        let config = config.bytes(3, self.place.path("logs")).bytes(4, dns.0);
        let config = annotations.iter().fold(config, |config, entry| config.bytes(7, entry));
        config.bytes(8, linux.0)
    }

    /// A security context of this kind of pods; its fields have other numbers for a pod than for a container.
    fn security(&self, namespaces: u64, privileged: u64, modes: Out) -> Out {
        const NODE: u64 = 2;
        let modes = match self.kind {
            Kind::HostNetwork => modes.number(1, NODE),
            Kind::UserNamespace => {
                let ids = out().number(1, 100_000).number(3, 65_536);
                modes.bytes(5, out().bytes(2, &ids.0).bytes(3, &ids.0).0)
            }
            Kind::Plain | Kind::Privileged => modes,
        };
        let privileges = u64::from(self.kind == Kind::Privileged);
        out().bytes(namespaces, modes.0).number(privileged, privileges)
    }

    fn pod(&self, name: &str) -> String {
        let request = out().bytes(1, self.pod_config(name).0).bytes(2, self.handler());
        self.cri.ok("RunPodSandbox", request).text(1)
    }

    /// Creates and starts a container; `linux` is the rest of its LinuxContainerConfig.
    fn run(&self, pod: (&str, &str), name: &str, pids: u64, linux: Out, args: &[&str]) -> String {
        self.start_new(self.creation(pod, name, out().number(2, pids), linux, args))
    }

    fn start_new(&self, request: Out) -> String {
        let id = self.cri.ok("CreateContainer", request).text(1);
        self.cri.ok("StartContainer", named(&id));
        id
    }

    fn creation(
        &self,
        (pod_name, pod): (&str, &str),
        name: &str,
        modes: Out,
        linux: Out,
        args: &[&str],
    ) -> Out {
        let security = self.security(3, 2, modes);
        let linux = linux.bytes(2, security.0);
        let image = named(IMAGE).bytes(18, IMAGE);
        let config = out().bytes(1, named(name).0).bytes(2, image.0);
        let config = args.iter().fold(config, |config, arg| config.bytes(3, arg));
        let config = config.bytes(11, format!("{name}.log")).number(12, 1).bytes(15, linux.0);
        out().bytes(1, pod).bytes(2, config.0).bytes(3, self.pod_config(pod_name).0)
    }

    /// Exit code and both outputs.
    fn exec(&self, id: &str, args: &[&str]) -> (u64, String, String) {
        let request = args.iter().fold(named(id), |request, arg| request.bytes(2, arg));
        let answer = self.cri.ok("ExecSync", request.number(3, 20));
        (answer.number(3), answer.text(1), answer.text(2))
    }

    fn see_exec(&self, id: &str, args: &[&str]) -> (u64, String, String) {
        let seen = self.exec(id, args);
        self.place.note(format!("{args:?}: {seen:?}"));
        seen
    }

    fn status(&self, id: &str) -> In {
        self.cri.ok("ContainerStatus", named(id)).message(1)
    }

    /// Its exit code and the reason, once it has ended.
    fn end(&self, id: &str) -> (u64, String) {
        let end = self.unseen_end(id);
        self.place.note(format!("end: {end:?}"));
        end
    }

    /// The same, not compared.
    fn unseen_end(&self, id: &str) -> (u64, String) {
        wait_until("the end", || self.status(id).number(3) == 2);
        let status = self.status(id);
        (status.number(7), status.text(10))
    }

    /// What it said, without times.
    fn log(&self, name: &str) -> Vec<String> {
        let path = self.place.path(&format!("logs/{name}.log"));
        let log = std::fs::read_to_string(path).expect("a log");
        let words = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
        log.lines().filter_map(words).collect()
    }

    fn remove(&self, pod: &str) {
        self.cri.ok("StopPodSandbox", named(pod));
        self.cri.ok("RemovePodSandbox", named(pod));
    }
}

/// How `kubectl` gets the exit code of an `exec`.
fn refusal(status: &str) -> u64 {
    let status: serde_json::Value = serde_json::from_str(status).expect("a status");
    let code = status["details"]["causes"][0]["message"].as_str().expect("an exit code");
    code.parse().expect("a number")
}

fn is_prepared() -> bool {
    let there = std::path::Path::new(PLUGINS).join("bridge").is_file();
    if !there {
        skip::unprepared("no CNI plugins: apt-get install containernetworking-plugins");
    }
    there
}

#[test]
fn a_pod() {
    a_session("cri::a_pod", OUR_SHIM, SHARED);
}

#[test]
fn a_pod_under_runcs_shim() {
    a_session("cri::a_pod_under_runcs_shim", RUNCS_SHIM, SHARED);
}

#[test]
fn a_pod_without_a_pause_process() {
    if has_sandboxes() {
        a_session("cri::a_pod_without_a_pause_process", NO_PAUSE, OWN);
    }
}

#[test]
fn a_pod_of_shared_processes_without_a_pause_process() {
    if has_sandboxes() {
        let name = "cri::a_pod_of_shared_processes_without_a_pause_process";
        a_session(name, NO_PAUSE, SHARED);
    }
}

/// Debian's containerd 1.6 has no `sandboxer`.
fn has_sandboxes() -> bool {
    is_version_2("sandboxer = \"shim\"")
}

fn is_version_2(wanted: &str) -> bool {
    let newer = major_version() >= 2;
    if !newer {
        skip::inapplicable(&format!("containerd before 2.0 has no {wanted}"));
    }
    newer
}

fn a_session(name: &str, page: Page, pids: u64) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, pids, |kubelet, daemon| {
        let Kubelet { place, cri, .. } = kubelet;
        let id = kubelet.pod("pod");
        let pod = ("pod", id.as_str());
        // Where it is init, SIGTERM would not end it by itself.
        let web =
            "busybox httpd -f -p 8080 -h /etc & trap 'exit 143' TERM; while :; do sleep .1; done";
        let web = ["sh", "-c", web];
        let web = kubelet.run(pod, "web", pids, out(), &web);
        let script = "echo up; echo problem >&2; while read line; do echo got $line; done";
        let shell = kubelet.run(pod, "shell", OWN, out(), &["sh", "-c", script]);

        // Under our shim a rootfs is mounted in its container alone.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let hidden = page == CRIO || place.driver == Driver::Tested && page != RUNCS_SHIM;
        assert_ne!(mounts.contains("io.containerd.runtime.v2.task"), hidden, "{mounts}");
        let get = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/passwd"];
        wait_until("the server", || kubelet.exec(&shell, &get).0 == 0);
        assert!(kubelet.see_exec(&shell, &get).1.contains("root:"));
        assert_eq!(kubelet.see_exec(&shell, &["hostname"]).1, "pod\n");
        let files = "cat /etc/hostname /etc/hosts /etc/resolv.conf /proc/sys/net/core/somaxconn; \
                     grep -c '/dev/shm.* shm rw,size=65536k' /proc/self/mountinfo; stat -c %a /dev/shm; ls /proc/1/exe";
        kubelet.see_exec(&shell, &["sh", "-c", files]);
        kubelet.see_exec(&web, &["sh", "-c", "echo shared > /dev/shm/file"]);
        assert_eq!(kubelet.see_exec(&shell, &["cat", "/dev/shm/file"]).1, "shared\n");
        let script = "echo in; echo err >&2; exit 4";
        let seen = kubelet.see_exec(&shell, &["sh", "-c", script]);
        assert_eq!(seen, (4, "in\n".into(), "err\n".into()));
        let endless = named(&shell).bytes(2, "sleep").bytes(2, "100").number(3, 1);
        let late = cri.call("ExecSync", endless);
        let missing = cri.call("ExecSync", named(&shell).bytes(2, "missing"));
        if page == CRIO {
            // It answers as if the command had failed.
            let late = late.expect("an answer");
            assert_eq!(late.text(2), "command timed out");
            place.note(format!("missing: {:?}", missing.map_err(|_| "refused")));
        } else {
            let text = late.expect_err("too late");
            assert!(text.contains("grpc-status: 4"), "{text}");
            assert!(missing.expect_err("missing").contains("executable file not found"));
        }

        // The streams of an exec, then those of the container, then those of a port.
        // They stay until they were heard: what is written before containerd has opened the stream is lost if its
        // writer ends, and containerd 1.6 loses what a terminal says last, with runc too.
        let script = "read line; echo said $line; read line; echo err >&2; read line; exit 5";
        let exec =
            ["sh", "-c", script].iter().fold(named(&shell), |exec, word| exec.bytes(2, word));
        let mut stream = cri.stream("Exec", exec.number(4, 1).number(5, 1).number(6, 1), "");
        stream.write(0, "word\n");
        assert_eq!(stream.until(1, |said| said.ends_with('\n')), "said word\n");
        stream.write(0, "\n");
        assert_eq!(stream.until(2, |said| said.ends_with('\n')), "err\n");
        stream.write(0, "\n");
        let [_, _, status] = stream.rest();
        assert_eq!(refusal(&status), 5);
        let tty = ["sh", "-c", "tty; read line"];
        let exec = tty.iter().fold(named(&shell), |exec, word| exec.bytes(2, word));
        let mut stream = cri.stream("Exec", exec.number(3, 1).number(4, 1).number(5, 1), "");
        let said = stream.until(1, |said| said.ends_with('\n'));
        assert_eq!(said, "/dev/pts/0\r\n");
        stream.write(0, "\n");
        stream.rest();
        let attach = named(&shell).number(2, 1).number(4, 1).number(5, 1);
        let mut stream = cri.stream("Attach", attach, "");
        stream.write(0, "through\n");
        assert_eq!(stream.until(1, |said| said.ends_with("through\n")), "got through\n");
        let mut stream = cri.stream("PortForward", named(&id).number(2, 8080), "?port=8080");
        stream.write(0, "GET /passwd HTTP/1.0\r\n\r\n");
        assert!(stream.until(0, |said| said.contains("root:")).contains("200 OK"));

        // The daemon goes and comes: its pods stay.
        drop(daemon);
        let daemon = kubelet.start();
        assert_eq!(kubelet.status(&shell).number(3), 1, "running");
        assert_eq!(kubelet.see_exec(&shell, &["echo", "again"]).1, "again\n");

        let limits = out().number(1, 100_000).number(2, 50_000).number(4, 64 << 20);
        cri.ok("UpdateContainerResources", named(&shell).bytes(2, limits.0));
        let usage = cri.ok("ContainerStats", named(&shell)).message(1);
        assert!(usage.message(2).message(2).number(1) > 0, "no cpu time: {usage:?}");
        assert!(usage.message(3).message(2).number(1) > 0, "no memory: {usage:?}");

        // The one ends when it is asked; the other is its namespace's init, which SIGTERM does not end.
        cri.ok("StopContainer", named(&web).number(2, 20));
        assert_eq!(kubelet.end(&web).0, 143);
        cri.ok("StopContainer", named(&shell).number(2, 1));
        assert_eq!(kubelet.end(&shell).0, 137);
        // Two threads of containerd's write it.
        let mut log = kubelet.log("shell");
        log.sort_unstable();
        assert_eq!(log, ["stderr F problem", "stdout F got through", "stdout F up"]);
        for id in [&web, &shell] {
            cri.ok("RemoveContainer", named(id));
        }
        kubelet.remove(&id);
        drop(daemon);
    });
}

#[test]
fn ends() {
    ends_by("cri::ends", OUR_SHIM, SHARED);
}

#[test]
fn ends_under_runcs_shim() {
    ends_by("cri::ends_under_runcs_shim", RUNCS_SHIM, SHARED);
}

#[test]
fn ends_without_a_pause_process() {
    if has_sandboxes() {
        ends_by("cri::ends_without_a_pause_process", NO_PAUSE, SHARED);
    }
}

/// `pod_annotations = ["io.aril.*"]` lets a pod's author write them, not decide what they do.
#[test]
fn a_pod_with_annotations() {
    let name = "cri::a_pod_with_annotations";
    if !is_prepared() {
        return;
    }
    privately(name, TOOLS, |place| {
        on_node(place, ANNOTATIONS, OWN, |kubelet, daemon| {
            let host = place.path("host");
            std::fs::create_dir_all(format!("{host}/etc")).expect("a directory");
            place.file("host/etc/secret", "of the host\n");
            let annotations = format!(
                "io.aril.rootfs.layers=[\"{host}\"]\nio.aril.network=host\n\
                 io.aril.network.publish=22:22\nother=x\n"
            );
            place.file("annotations", &annotations);
            let said = |pod: &str, options: &str| {
                place.file("aril.toml", options);
                let id = kubelet.pod(pod);
                let script = "cat /etc/secret 2> /dev/null; ls /sys/class/net; echo over";
                let words = ["sh", "-c", script];
                let container = kubelet.run((pod, &id), pod, OWN, out(), &words);
                assert_eq!(kubelet.end(&container).0, 0);
                kubelet.remove(&id);
                kubelet.log(pod)
            };
            let plain = ["stdout F eth0", "stdout F lo", "stdout F over"];
            assert_eq!(said("hostile", ""), plain);
            let why = "ignored: the operator has not allowed it";
            let keys = "io.aril.network, io.aril.network.publish, io.aril.rootfs.layers";
            wait_until("the warning", || daemon.said().contains(&format!("{keys} {why}")));
            assert_eq!(said("prefixed", "AllowAnnotations = [\"io.aril.*\"]\n"), plain);
            wait_until("the warning", || daemon.said().contains("ignored: it affects the host"));
            let seen = said("named", "AllowAnnotations = [\"io.aril.rootfs.layers\"]\n");
            assert_eq!(seen, [&["stdout F of the host"], &plain[..]].concat());
        });
    });
}

fn ends_by(name: &str, page: Page, pids: u64) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, pids, |kubelet, _daemon| {
        let id = kubelet.pod("pod");
        let pod = ("pod", id.as_str());
        let run = |name: &str, linux: Out, args: &[&str]| {
            kubelet.end(&kubelet.run(pod, name, OWN, linux, args))
        };
        assert_eq!(run("good", out(), &["true"]), (0, "Completed".into()));
        assert_eq!(run("bad", out(), &["sh", "-c", "exit 7"]), (7, "Error".into()));
        let memory = out().bytes(1, out().number(4, 20 << 20).0);
        let hog = ["busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
        let hog = kubelet.run(pod, "hog", OWN, memory, &hog);
        // With its own shim on cgroup v1, containerd may see the end before its cause.
        let (status, reason) = kubelet.unseen_end(&hog);
        let own_shim = kubelet.place.driver == Driver::Own || page == RUNCS_SHIM;
        assert!(status == 137 && (reason == "OOMKilled" || own_shim), "{status} {reason}");
        // A pod that is removed takes along what runs in it.
        kubelet.run(pod, "left", pids, out(), &["sleep", "1000"]);
        kubelet.remove(&id);
    });
}
