//! Pods without a container of their own, as containerd 2.x asks for them with `sandboxer = "shim"`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, View, host, skip};
use serde_json::{Value, json};

use crate::place::{Place, Shim, Streams, place_for};
use crate::wire::{ALREADY_EXISTS, Client, NOT_FOUND, Out, out};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
const ID: &str = "pod";
/// runtime.v1.NamespaceMode.
const CONTAINER: u64 = 1;
const NODE: u64 = 2;

/// A network namespace, by the process that has it.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn();
        let network = Self(child.expect("unshare"));
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        wait_until("the network", || network.identity().is_some_and(|other| other != own));
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn identity(&self) -> Option<PathBuf> {
        fs::read_link(self.path()).ok()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace")
}

/// The kubelet's config of a pod, with these modes of pid and ipc.
fn config(place: &Place, pid: u64, ipc: u64, sysctl: (&str, &str)) -> Out {
    let modes = out().number(2, pid).number(3, ipc);
    let security = out().bytes(1, modes.0);
    let sysctl = out().bytes(1, sysctl.0).bytes(2, sysctl.1);
    let cgroup = format!("/{}", place.container.mark);
    let linux = out().bytes(1, cgroup).bytes(2, security.0).bytes(3, sysctl.0);
    let dns = out().bytes(1, "192.0.2.1").bytes(2, "a.example");
    out().bytes(2, "its-name").bytes(4, dns.0).bytes(8, linux.0)
}

const SOMAXCONN: (&str, &str) = ("net.core.somaxconn", "77");

fn creation(place: &Place, config: &Out, network: &str) -> Out {
    let bundle = place.container.path(ID).display().to_string();
    let named = out().bytes(1, ID).bytes(2, bundle);
    named.any(4, "runtime.v1.PodSandboxConfig", &config.0).bytes(5, network)
}

struct Sandbox<'a> {
    shim: Shim<'a>,
    client: Client,
    pid: i32,
}

/// A place where there can be one.
fn prepared() -> Option<Place> {
    prepared_for(Container::new(View::Host).sleeper())
}

fn prepared_for(container: Container) -> Option<Place> {
    skip::tool("unshare", "util-linux")?;
    let place = place_for(container)?;
    if !place.is_aril() {
        skip::inapplicable("containerd's shim needs a pause process");
        return None;
    }
    Some(place)
}

/// The shim of a pod that is not there yet.
fn begin(place: &Place) -> (Shim<'_>, Client) {
    fs::create_dir_all(place.container.path(ID).join("rootfs")).expect("a bundle");
    let shim = place.start_in(ID, &place.container.path(ID));
    let mut client = Client::connect(&shim.socket);
    client.service = SERVICE;
    (shim, client)
}

impl<'a> Sandbox<'a> {
    fn start(place: &'a Place, config: &Out, network: &str) -> Self {
        let (shim, mut client) = begin(place);
        client.ok("CreateSandbox", creation(place, config, network));
        let started = client.ok("StartSandbox", out().bytes(1, ID));
        assert!(started.message(2).number(1) > 1_600_000_000, "the time of its start");
        Self { pid: started.number(1) as i32, shim, client }
    }

    /// Runs a container as containerd configures those of a pod.
    fn run(&mut self, id: &str, pid: bool, edit: impl FnOnce(&mut Value)) -> i32 {
        let kinds: &[&str] = if pid { &["ipc", "pid", "uts"] } else { &["ipc", "uts"] };
        let (place, sandbox) = (self.shim.place, self.pid);
        let bundle = place.another_bundle_with(id, |spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|ns| !kinds.contains(&ns["type"].as_str().expect("a type")));
            list.retain(|ns| ns["type"] != "network");
            let joined =
                |kind: &&str| json!({"type": kind, "path": format!("/proc/{sandbox}/ns/{kind}")});
            list.extend(kinds.iter().map(joined));
            let net = format!("/proc/{sandbox}/ns/net");
            list.push(json!({"type": "network", "path": net}));
            spec.as_object_mut().expect("a spec").remove("hostname");
            edit(spec);
        });
        let request = self.shim.request_for(id, &bundle, &Streams::default(), place.options());
        let pid = self.shim.client.ok("Create", request).number(1);
        self.shim.client.ok("Start", out().bytes(1, id));
        pid as i32
    }

    /// What a command in a container says, who may look into all of its processes.
    fn said(&mut self, id: &str, script: &str) -> String {
        let caps = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"];
        let path = self.shim.place.container.path("said");
        let process = json!({
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        });
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        let exec = || out().bytes(1, id).bytes(2, "said");
        let request = exec().bytes(5, format!("file://{}", path.display()));
        let client = &mut self.shim.client;
        client.ok("Exec", request.any(7, kind, process.to_string().as_bytes()));
        client.ok("Start", exec());
        client.ok("Wait", exec());
        client.ok("Delete", exec());
        let text = fs::read_to_string(&path).expect("an output");
        fs::remove_file(path).expect("the output");
        text
    }

    fn state(&mut self) -> String {
        self.client.ok("SandboxStatus", out().bytes(1, ID)).text(3)
    }

    /// Sees it out, with nothing left.
    fn finish(mut self) {
        self.client.ok("ShutdownSandbox", out().bytes(1, ID));
        assert!(!host::is_gone(self.shim.pid), "it waits until it was heard");
        drop(self.client);
        wait_until("the shim's end", || host::is_gone(self.shim.pid));
        assert!(!self.shim.socket.exists());
        self.shim.place.container.leaves_nothing();
    }
}

#[test]
fn a_pod_is_its_shim() {
    let Some(place) = prepared() else { return };
    let network = Network::new();
    let config = config(&place, CONTAINER, 0, SOMAXCONN);
    let mut pod = Sandbox::start(&place, &config, &network.path());
    assert_eq!(pod.pid, pod.shim.pid, "no process but the shim");
    assert_eq!(Some(namespace(pod.pid, "net")), network.identity());
    let own = std::process::id() as i32;
    for kind in ["uts", "ipc"] {
        assert_ne!(namespace(pod.pid, kind), namespace(own, kind), "{kind}");
    }
    pod.client.ok("PingSandbox", out().bytes(1, ID));
    assert_eq!(pod.client.ok("Platform", out().bytes(1, ID)).message(1).text(1), "linux");

    // The runtime and its hooks are at home.
    let [seen, home] = ["net", "uts"]
        .map(|kind| (kind, namespace(own, kind)))
        .map(|(kind, id)| (place.container.path(kind), format!("{}\n", id.display())));
    let line = format!(
        "readlink /proc/self/ns/net > {}; readlink /proc/self/ns/uts > {}",
        seen.0.display(),
        home.0.display()
    );
    pod.run("first", false, |spec| {
        spec["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", line]}]);
    });
    for (path, expected) in [seen, home] {
        assert_eq!(fs::read_to_string(&path).expect("a hook's word"), expected);
    }
    pod.run("second", false, |spec| spec["root"]["readonly"] = true.into());

    let look = "hostname; cat /etc/hostname /etc/resolv.conf /proc/sys/net/core/somaxconn";
    let expected = "its-name\nits-name\nsearch a.example\nnameserver 192.0.2.1\n77\n";
    for id in ["first", "second"] {
        assert_eq!(pod.said(id, look), expected, "{id}");
    }
    pod.said("first", "echo shared > /dev/shm/file");
    let look = "cat /dev/shm/file; ps > /dev/shm/ps; wc -l < /dev/shm/ps";
    assert_eq!(pod.said("second", look), "shared\n4\n", "a heading, init, sh, ps");
    let metric = pod.client.ok("SandboxMetrics", out().bytes(1, ID)).message(1);
    assert!(metric.message(3).text(1).starts_with("io.containerd.cgroups.v"), "{metric:?}");

    // It stops when its containers have.
    let mut waiting = Client::connect(&pod.shim.socket);
    waiting.service = SERVICE;
    waiting.send("WaitSandbox", out().bytes(1, ID));
    assert_eq!(pod.state(), "SANDBOX_READY");
    pod.client.ok("StopSandbox", out().bytes(1, ID));
    waiting.receive().expect("its end");
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    assert_eq!(pod.shim.client.ok("Wait", out().bytes(1, "first")).number(1), 137);
    assert_eq!(namespace(pod.pid, "net"), namespace(own, "net"), "home again");
    let late = pod.shim.request_for(
        "late",
        &place.another_bundle("late"),
        &Streams::default(),
        place.options(),
    );
    assert!(pod.shim.client.refused("Create", late).text.contains("sandbox is not running"));
    pod.shim.client.ok("Shutdown", out().bytes(1, "first"));
    pod.client.ok("StopSandbox", out().bytes(1, ID));
    pod.finish();
}

#[test]
fn shared_processes_have_an_init() {
    let Some(place) = prepared() else { return };
    let network = Network::new();
    let mut pod = Sandbox::start(&place, &config(&place, 0, 0, SOMAXCONN), &network.path());
    assert_ne!(pod.pid, pod.shim.pid);
    assert_eq!(Some(namespace(pod.pid, "net")), network.identity());
    let first = pod.run("first", true, |_| ());
    pod.run("second", true, |_| ());
    let expected = "its-name\n77\nsleep 1000\nsleep 1000\n";
    let look = "hostname; cat /proc/sys/net/core/somaxconn; \
                ps -o args | grep '^sleep'; exec 2>&1; ls /proc/1/root/ | grep .";
    let own = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    assert_ne!(namespace(first, "pid"), own);
    assert_eq!(pod.said("second", look), expected, "init's root is empty");
    // What is left behind in the pod is reaped.
    pod.said("first", "(sleep 0.1 & sleep 0.1 &) ; sleep 0.3");
    let states = "cat /proc/[0-9]*/stat | grep -c ') Z '";
    assert_eq!(pod.said("first", states), "0\n");
    // Nobody can write to the program that it runs.
    let write = "(echo > /proc/1/exe) 2>&1 | grep -c -e Read-only -e busy -e denied";
    assert_eq!(pod.said("first", write), "1\n");

    let mut waiting = Client::connect(&pod.shim.socket);
    waiting.service = SERVICE;
    waiting.send("WaitSandbox", out().bytes(1, ID));
    kill(Pid::from_raw(pod.pid), Signal::SIGKILL).expect("kill");
    assert_eq!(waiting.receive().expect("its end").number(1), 137);
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    assert_eq!(pod.shim.client.ok("Wait", out().bytes(1, "first")).number(1), 137);
    pod.finish();
}

/// As containerd makes it: the user namespace is found by the network namespace that it owns.
#[test]
fn a_pod_in_a_user_namespace() {
    const FIRST: u32 = 200_000;
    let container = Container::new(View::Host).sleeper().in_user_namespace(FIRST);
    let Some(place) = prepared_for(container) else { return };
    let network = Network(
        Command::new("unshare")
            .args(["--user", "--net", "sleep", "1000"])
            .spawn()
            .expect("unshare"),
    );
    let (own, pid) = (std::process::id() as i32, network.0.id());
    wait_until("the namespaces", || {
        network.identity().is_some_and(|other| other != namespace(own, "net"))
    });
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), format!("0 {FIRST} 65536")).expect("a map");
    }
    for pids in [CONTAINER, 0] {
        let modes = out().number(2, pids).bytes(5, out().number(1, 0).0);
        let linux = out().bytes(2, out().bytes(1, modes.0).0);
        let config = out().bytes(2, "its-name").bytes(8, linux.0);
        let mut pod = Sandbox::start(&place, &config, &network.path());
        let user = namespace(network.0.id() as i32, "user");
        // As a bundle is: the pod's ids cannot pass.
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(place.container.path(ID), closed).expect("chmod");
        assert_eq!(namespace(pod.pid, "user"), user);
        assert_eq!(Some(namespace(pod.pid, "net")), network.identity());
        let sandbox = pod.pid;
        let first = pod.run("first", pids == 0, |spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|ns| ns["type"] != "user");
            list.push(json!({"type": "user", "path": format!("/proc/{sandbox}/ns/user")}));
        });
        assert_eq!(namespace(first, "user"), user);
        assert_eq!(namespace(first, "pid") == namespace(sandbox, "pid"), pids == 0);
        assert_eq!(pod.said("first", "hostname; cat /etc/hostname"), "its-name\nits-name\n");
        pod.finish();
        for bundle in [ID, "first"] {
            fs::remove_dir_all(place.container.path(bundle)).expect("nothing is mounted there");
        }
    }
}

/// containerd 2.x asks to clean up after the pod only. One container that cannot be removed keeps none of the others.
#[test]
fn a_pod_whose_shim_was_killed() {
    let Some(place) = prepared() else { return };
    let network = Network::new();
    for shared in [0, CONTAINER] {
        let config = config(&place, shared, 0, SOMAXCONN);
        let mut pod = Sandbox::start(&place, &config, &network.path());
        let bundle = place.container.path(ID);
        let broken = |name: &str| {
            let record = json!({"bundle": "/nonexistent", "options": {"binary_name": "/missing"}});
            let path = bundle.join(format!("member-{name}"));
            fs::write(&path, record.to_string()).expect("a record");
            path
        };
        // Whatever the order in which the directory lists them.
        let earlier = broken("earlier");
        let pids = [pod.run("first", false, |_| ()), pod.run("second", false, |_| ()), pod.pid];
        let later = broken("later");
        kill(Pid::from_raw(pod.shim.pid), Signal::SIGKILL).expect("kill");
        wait_until("the shim's end", || host::is_gone(pod.shim.pid));
        let words = ["-bundle", &bundle.display().to_string(), "delete"];
        place.action(ID, &bundle, &words).exits(1).says("/missing");
        wait_until("the end of all", || pids.iter().all(|pid| host::is_gone(*pid)));
        for record in [earlier, later] {
            fs::remove_file(record).expect("a record");
        }
        place.action(ID, &bundle, &words).ok();
        assert!(!pod.shim.socket.exists(), "a socket without a shim");
        place.container.leaves_nothing();
        for bundle in [ID, "first", "second"] {
            fs::remove_dir_all(place.container.path(bundle)).expect("nothing is mounted there");
        }
    }
}

#[test]
fn what_no_pod_can_be() {
    let Some(place) = prepared() else { return };
    let (mut shim, mut client) = begin(&place);
    let network = Network::new();
    for method in ["StartSandbox", "StopSandbox", "WaitSandbox", "SandboxStatus", "PingSandbox"] {
        assert_eq!(client.refused(method, out().bytes(1, "none")).code, NOT_FOUND, "{method}");
    }
    let mut why = |config: &Out, network: &str| {
        client.refused("CreateSandbox", creation(&place, config, network)).text
    };
    let own = |sysctl| config(&place, CONTAINER, NODE, sysctl);
    assert!(why(&own(SOMAXCONN), "").contains("not allowed in host network namespace"));
    let text = why(&own(("kernel.shmmax", "1")), &network.path());
    assert!(text.contains("not allowed in the hosts ipc namespace"), "{text}");
    assert!(why(&own(("vm.swappiness", "1")), &network.path()).contains("separate kernel"));

    // What only its start finds: it stays where it was, and is seen out.
    let missing = creation(&place, &own(SOMAXCONN), "/nonexistent/netns");
    let text = client.refused("CreateSandbox", missing).text;
    assert!(text.contains("/nonexistent/netns"), "{text}");
    let wrong = creation(&place, &own(SOMAXCONN), "/proc/self/ns/mnt");
    client.ok("CreateSandbox", wrong.clone());
    assert_eq!(client.refused("CreateSandbox", wrong).code, ALREADY_EXISTS);
    let text = client.refused("StartSandbox", out().bytes(1, ID)).text;
    assert!(text.contains("/proc/self/ns/mnt"), "{text}");
    assert_eq!(namespace(shim.pid, "uts"), namespace(std::process::id() as i32, "uts"));
    // A container that is no container leaves no record.
    let broken = place.another_bundle("broken");
    fs::write(broken.join("config.json"), "{").expect("config.json");
    let request = shim.request_for("broken", &broken, &Streams::default(), place.options());
    shim.client.refused("Create", request);
    let left = fs::read_dir(place.container.path(ID)).expect("the bundle").flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name() == "member-broken"));
    // By a containerd that has forgotten what it wanted.
    shim.client.send("Shutdown", out().bytes(1, ID));
    wait_until("the shim's end", || host::is_gone(shim.pid));
}
