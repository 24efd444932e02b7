//! `aril-cni`, called as an engine calls a plugin, on hosts of the tests' own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use runtime_tests::container::wait_until;
use runtime_tests::{Container, skip};
use serde_json::{Value, json};

use crate::network::host::{Host, possible, sleeper, tcp};

struct Engine {
    host: Host,
    plugin: PathBuf,
    /// For calls of the runtime, which finds what is left.
    aril: Container,
}

/// What the plugin prints, and its exit code.
type Answer = (Value, i32);

impl Engine {
    fn new() -> Option<Self> {
        if !possible() {
            return None;
        }
        let aril = sleeper();
        let plugin = aril.runtime.path.with_file_name("aril-cni");
        if !plugin.is_file() {
            skip::unprepared("aril-cni is not beside the runtime: cargo build -p aril");
            return None;
        }
        Some(Self { host: Host::new(), plugin, aril })
    }

    /// A network namespace as engines make them.
    fn sandbox(&self, name: &str) {
        self.host.sh(&format!("ip netns add {name}"));
    }

    /// The same, where this process sees it.
    fn namespace(&self, name: &str) -> PathBuf {
        let own = self.host.namespace();
        let process = own.ancestors().nth(2).expect("a process").to_owned();
        process.join("root/run/netns").join(name)
    }

    fn call(&self, command: &str, container: &str, config: &Value) -> Answer {
        let environment = format!(
            "CNI_COMMAND={command} CNI_CONTAINERID={container} CNI_IFNAME=eth0 \
             CNI_NETNS=/run/netns/{container} CNI_PATH=/usr/lib/cni"
        );
        self.raw(&environment, &config.to_string())
    }

    fn raw(&self, environment: &str, input: &str) -> Answer {
        let plugin = self.plugin.display();
        let text = self.host.sh(&format!(
            "printf %s '{input}' | env {environment} {plugin} 2>&1; printf '\\n%s' $?"
        ));
        let (printed, code) = text.rsplit_once('\n').expect("a code");
        let code = code.parse().expect("a number");
        if printed.trim().is_empty() {
            return (Value::Null, code);
        }
        (serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed}")), code)
    }

    #[track_caller]
    fn ok(&self, command: &str, container: &str, config: &Value) -> Value {
        let (answer, code) = self.call(command, container, config);
        assert_eq!(code, 0, "{command} {container}: {answer}");
        answer
    }

    #[track_caller]
    fn fails(&self, command: &str, container: &str, config: &Value) -> Value {
        let (answer, code) = self.call(command, container, config);
        assert_eq!(code, 1, "{command} {container}: {answer}");
        assert!(answer["msg"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
        answer["code"].clone()
    }

    fn has_nothing_left(&self) {
        self.host.has_nothing_left();
        assert_eq!(self.host.sh("find /run/aril/@cni -mindepth 1 2>/dev/null || true"), "");
    }
}

fn config(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net1", "type": "aril-cni",
        "ipam": {"ranges": [[{"subnet": "10.81.0.0/24"}], [{"subnet": "fd81::/64"}]]}
    })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn address(result: &Value, index: usize) -> IpAddr {
    let text = result["ips"][index]["address"].as_str().expect("an address");
    text.split('/').next().expect("an address").parse().expect("an address")
}

#[test]
fn added_checked_deleted() {
    let Some(engine) = Engine::new() else { return };
    engine.sandbox("c1");
    let config = with(
        config("1.1.0"),
        "runtimeConfig",
        json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 80_000_000, "egressRate": 80_000_000}
        }),
    );
    let result = engine.ok("ADD", "c1", &config);
    assert_eq!(result["cniVersion"], "1.1.0");
    let inside = &result["interfaces"][2];
    assert_eq!((&inside["name"], &inside["sandbox"]), (&json!("eth0"), &json!("/run/netns/c1")));
    assert_eq!((&result["interfaces"][0]["name"], &inside["mtu"]), (&json!("net1"), &json!(1500)));
    assert_eq!(result["ips"][0]["gateway"], "10.81.0.1");
    assert_eq!(
        (&result["ips"][1]["interface"], &result["ips"][1]["version"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.81.0.1"}));
    // What the result says is so.
    let shown = engine.host.sh("ip netns exec c1 ip -j link show eth0");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown[0]["address"], inside["mac"]);
    let (container, host) = (engine.namespace("c1"), engine.host.namespace());
    for index in [0, 1] {
        let to = SocketAddr::new(address(&result, index), 81);
        assert!(tcp(&host, to, &container, 81).is_some(), "{to}");
    }
    assert!(tcp(&host, "10.81.0.1:8080".parse().expect("an address"), &container, 80).is_some());
    assert!(engine.host.sh("ip netns exec c1 tc qdisc show dev eth0").contains("tbf"));
    let checked = with(config.clone(), "prevResult", result);
    engine.ok("CHECK", "c1", &checked);
    assert_eq!(engine.fails("ADD", "c1", &config), 101);
    // Nobody else may have the port.
    engine.sandbox("c2");
    assert_eq!(engine.fails("ADD", "c2", &config), 101);
    // A container of the runtime's on the same network, and nothing that looks abandoned.
    let c3 = engine.host.sleeper(&["--network", "bridge:net1"]);
    let found = engine.host.call(&engine.aril, &["reconcile", "--dry-run"]).ok();
    assert!(!found.stdout.contains("lease"), "{found:?}");
    engine.host.delete(&c3);
    engine.host.sh("ip netns exec c1 ip addr flush dev eth0");
    assert_eq!(engine.fails("CHECK", "c1", &checked), 102);
    // The namespace stays, the link goes; twice is as good as once.
    engine.ok("DEL", "c1", &config);
    assert!(!engine.host.sh("ip netns exec c1 ip -o link").contains("eth0"));
    engine.ok("DEL", "c1", &config);
    assert_eq!(engine.fails("CHECK", "c1", &checked), 102);
    engine.has_nothing_left();
}

/// CVE-2021-41091: what a plugin makes before the first container is as closed as what that makes.
#[test]
fn a_state_root_made_by_the_plugin_is_closed() {
    let Some(engine) = Engine::new() else { return };
    engine.sandbox("c1");
    let (input, plugin) = (config("1.1.0"), engine.plugin.display());
    let modes = engine.host.sh(&format!(
        "rm -rf /run/aril; umask 0; printf %s '{input}' | env CNI_COMMAND=ADD CNI_CONTAINERID=c1 \
         CNI_IFNAME=eth0 CNI_NETNS=/run/netns/c1 CNI_PATH=/x {plugin} > /dev/null; \
         stat -c %a /run/aril /run/aril/@cni /run/aril/@cni/net1"
    ));
    assert_eq!(modes.trim(), "700\n700\n700");
    // And one that is open is closed by the next container.
    engine.host.sh("chmod 755 /run/aril");
    engine.host.sh(&format!(
        "{} run --rootfs {} seen -- true; stat -c %a /run/aril | grep -x 700",
        engine.aril.runtime.path.display(),
        engine.aril.rootfs().display()
    ));
    engine.ok("DEL", "c1", &config("1.1.0"));
    engine.has_nothing_left();
}

#[test]
fn each_cni_version_has_its_result() {
    let Some(engine) = Engine::new() else { return };
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let name = format!("v{}", version.replace('.', ""));
        engine.sandbox(&name);
        let result = engine.ok("ADD", &name, &config(version));
        assert_eq!(result["cniVersion"], version);
        let old = version.starts_with('0');
        assert_eq!(result["ips"][0]["version"] == "4", old, "{result}");
        assert_eq!(result["interfaces"][2]["mtu"].is_number(), version == "1.1.0", "{result}");
        engine.ok("DEL", &name, &config(version));
    }
    let (answer, code) = engine.raw("CNI_COMMAND=VERSION", r#"{"cniVersion":"0.4.0"}"#);
    assert_eq!((code, &answer["cniVersion"]), (0, &json!("0.4.0")));
    assert_eq!(answer["supportedVersions"].as_array().map(Vec::len), Some(5));
    engine.ok("STATUS", "c", &config("1.1.0"));
    engine.has_nothing_left();
}

#[test]
fn errors_have_the_specifications_codes() {
    let Some(engine) = Engine::new() else { return };
    engine.sandbox("c1");
    let good = config("1.0.0");
    assert_eq!(engine.fails("ADD", "c1", &with(good.clone(), "cniVersion", json!("7.0.0"))), 1);
    let start = json!({"subnet": "10.81.0.0/24", "rangeStart": "10.81.0.9"});
    assert_eq!(engine.fails("ADD", "c1", &with(good.clone(), "ipam", start)), 2);
    assert_eq!(engine.fails("FROB", "c1", &good), 4);
    assert_eq!(engine.fails("ADD", "../c1", &good), 4);
    assert_eq!(engine.fails("ADD", "c1", &with(good.clone(), "mtu", json!("x"))), 6);
    let add = "CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_IFNAME=e CNI_NETNS=/run/netns/c1";
    let (answer, code) = engine.raw(add, "{");
    assert_eq!((answer["code"].as_u64(), code), (Some(6), 1));
    assert_eq!(engine.fails("ADD", "c1", &with(good.clone(), "name", json!("a name"))), 7);
    assert_eq!(engine.fails("CHECK", "c1", &good), 7);
    let nobody = json!({"type": "no-such-plugin"});
    assert_eq!(engine.fails("ADD", "c1", &with(good.clone(), "ipam", nobody)), 7);
    // No such namespace, and one that is not one.
    assert_eq!(engine.fails("ADD", "c9", &good), 100);
    engine.host.sh("touch /run/netns/file");
    assert_eq!(engine.fails("ADD", "file", &good), 100);
    // The network is there by now, and is not what is asked for.
    engine.ok("ADD", "c1", &good);
    let other = with(good.clone(), "ipam", json!({"subnet": "10.82.0.0/24"}));
    engine.sandbox("c2");
    assert_eq!(engine.fails("ADD", "c2", &other), 7);
    engine.ok("DEL", "c1", &good);
    engine.has_nothing_left();
}

#[test]
fn gc_removes_attachments_that_the_engine_forgot() {
    let Some(engine) = Engine::new() else { return };
    let config = config("1.1.0");
    for name in ["c1", "c2", "c3"] {
        engine.sandbox(name);
        engine.ok("ADD", name, &config);
    }
    // One namespace went without a DEL.
    engine.host.sh("ip netns del c3");
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    engine.ok("GC", "", &with(config.clone(), "cni.dev/valid-attachments", valid));
    assert_eq!(engine.host.leases().lines().filter(|l| l.contains("10.81")).count(), 1);
    assert_eq!(engine.host.sh("ls /run/aril/@cni/net1"), "c1@eth0\n");
    engine.ok("DEL", "c1", &config);
    engine.has_nothing_left();
}

#[test]
fn reconcile_removes_abandoned_attachments() {
    let Some(engine) = Engine::new() else { return };
    let config = config("1.1.0");
    for name in ["c1", "c2"] {
        engine.sandbox(name);
        engine.ok("ADD", name, &config);
    }
    engine.host.sh("ip netns del c1; mkdir /run/aril/@cni/net1/c3@eth0");
    wait_until("the link's end", || engine.host.links() == 1);
    let said = engine.host.call(&engine.aril, &["reconcile"]).ok().stdout;
    for text in ["net1/c1@eth0", "its link is gone", "net1/c3@eth0", "before it had an address"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(!said.contains("c2@eth0"), "{said}");
    assert_eq!(engine.host.leases().lines().count(), 2);
    engine.ok("DEL", "c2", &config);
    engine.has_nothing_left();
}

#[test]
fn killed_at_any_moment() {
    let Some(engine) = Engine::new() else { return };
    let mappings = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
    let config = with(config("1.1.0"), "runtimeConfig", mappings);
    engine.sandbox("c1");
    for moment in 0..30 {
        engine.host.sh(&format!(
            "printf %s '{config}' > /run/config; CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 \
             CNI_NETNS=/run/netns/c1 {} < /run/config > /dev/null & \
             sleep 0.0{moment:02}; kill -9 $! 2> /dev/null; wait",
            engine.plugin.display()
        ));
        if moment % 3 == 2 {
            // Nobody comes back for it.
            engine.host.sh("ip netns del c1");
            engine.sandbox("c1");
            wait_until("the link's end", || engine.host.links() == 0);
            engine.host.call(&engine.aril, &["reconcile"]).ok();
        } else {
            engine.ok("DEL", "c1", &config);
        }
        let leases = engine.host.leases();
        assert!(leases.lines().all(|line| line.contains("/.")), "{moment} ms: {leases}");
        assert_eq!(engine.host.links(), 0, "{moment} ms");
        assert_eq!(engine.host.elements().unwrap_or_default(), "", "{moment} ms");
        assert_eq!(
            engine.host.sh("find /run/aril/@cni -mindepth 1 2>/dev/null || true"),
            "",
            "{moment} ms"
        );
    }
    engine.host.network(&engine.aril, &["rm", "net1"]).ok();
    engine.has_nothing_left();
}

#[test]
fn another_plugin_gives_out_addresses() {
    let Some(engine) = Engine::new() else { return };
    let host_local = Path::new("/usr/lib/cni/host-local");
    if skip::tool(host_local.to_str().expect("utf-8"), "containernetworking-plugins").is_none() {
        return;
    }
    let ipam = json!({
        "type": "host-local", "dataDir": "/run/host-local",
        "ranges": [[{"subnet": "10.83.0.0/24", "rangeStart": "10.83.0.77"}]]
    });
    let config = with(config("1.0.0"), "ipam", ipam);
    engine.sandbox("c1");
    let result = engine.ok("ADD", "c1", &config);
    assert_eq!(result["ips"][0]["address"], "10.83.0.77/24");
    let (container, host) = (engine.namespace("c1"), engine.host.namespace());
    assert!(tcp(&host, SocketAddr::new(address(&result, 0), 80), &container, 80).is_some());
    engine.ok("CHECK", "c1", &with(config.clone(), "prevResult", result));
    engine.ok("DEL", "c1", &config);
    assert_eq!(engine.host.sh("ls /run/host-local/net1 | grep 10.83 || true"), "");
    engine.has_nothing_left();
}

#[test]
fn go_programs_write_null_and_names_in_another_case() {
    let Some(engine) = Engine::new() else { return };
    engine.sandbox("c1");
    let empty = [
        json!({"runtimeConfig": {"portMappings": null}}),
        json!({"runtimeConfig": {"ips": null, "bandwidth": null}}),
        json!({"runtimeConfig": null, "dns": null, "prevResult": null, "capabilities": null}),
        json!({"bridge": "", "mtu": 0, "args": null}),
        json!({"ipam": {"type": "", "routes": null, "ranges": [[{"subnet": "10.81.0.0/24", "gateway": ""}], null]}}),
    ];
    for members in empty {
        let mut config = json!({"cniVersion": "1.0.0", "name": "net1", "type": "aril-cni", "subnet": "10.81.0.0/24"});
        if members.get("ipam").is_some() {
            config.as_object_mut().expect("an object").remove("subnet");
        }
        for (key, value) in members.as_object().expect("an object") {
            config[key] = value.clone();
        }
        engine.ok("ADD", "c1", &config);
        engine.ok("DEL", "c1", &config);
        engine.has_nothing_left();
    }
    // As go-cni sends it.
    let runtime = json!({
        "PortMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
        "Bandwidth": {"IngressRate": 80_000_000, "IngressBurst": 1, "EgressRate": 0, "EgressBurst": 0}
    });
    let config = json!({"CNIVersion": "1.0.0", "Name": "net1", "RuntimeConfig": runtime});
    engine.ok("ADD", "c1", &config);
    let (container, host) = (engine.namespace("c1"), engine.host.namespace());
    assert!(tcp(&host, "10.81.0.1:8080".parse().expect("an address"), &container, 80).is_some());
    assert!(engine.host.sh("tc qdisc show").contains("rate 80Mbit"));
    // The same, on one family alone.
    engine.ok("DEL", "c1", &config);
    engine.ok("DEL", "c1", &json!({"Name": "net1"}));
    engine.has_nothing_left();
}

#[test]
fn a_del_removes_what_is_there_whatever_it_is_told() {
    let Some(engine) = Engine::new() else { return };
    let good = config("1.0.0");
    let mut odd: Vec<String> = [
        json!({}),
        json!({"cniVersion": "7.0.0", "name": "net1"}),
        json!({"cniVersion": "1.0.0", "name": "a name"}),
        with(good.clone(), "mtu", json!("x")),
        with(good.clone(), "name", json!("another")),
        with(good.clone(), "ipam", json!([1])),
        with(good.clone(), "runtimeConfig", json!({"portMappings": {}, "ips": "x"})),
        with(good.clone(), "prevResult", json!(7)),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    odd.extend(["", "{", "null", "[]"].map(str::to_owned));
    engine.sandbox("c1");
    for input in odd {
        engine.ok("ADD", "c1", &good);
        // The namespace may be anything by now, or nothing.
        for namespace in ["CNI_NETNS=/run/netns/c1", "CNI_NETNS=/nowhere", "CNI_NETNS=", ""] {
            let del = format!("CNI_COMMAND=DEL CNI_CONTAINERID=c1 CNI_IFNAME=eth0 {namespace}");
            let (answer, code) = engine.raw(&del, &input);
            assert_eq!((code, &answer), (0, &Value::Null), "{input}");
        }
        engine.has_nothing_left();
    }
}

#[test]
fn namespaces_and_interfaces_that_are_not_what_the_call_says() {
    let Some(engine) = Engine::new() else { return };
    let config = config("1.0.0");
    engine.sandbox("c1");
    let add = |namespace: &str, interface: &str| {
        let call = format!(
            "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME={interface} CNI_NETNS={namespace}"
        );
        let (answer, code) = engine.raw(&call, &config.to_string());
        assert_eq!(code, 1, "{namespace} {interface}: {answer}");
        answer["code"].as_u64()
    };
    // The plugin's own.
    assert_eq!(add("/proc/self/ns/net", "eth0"), Some(8));
    engine
        .host
        .sh("mkfifo /run/netns/fifo; ip netns exec c1 ip link add eth7 type veth peer name eth8");
    for (namespace, interface) in [
        ("/run/netns/fifo", "eth0"),
        ("/run/netns", "eth0"),
        ("/proc/self/ns/mnt", "eth0"),
        ("/proc/self/ns/user", "eth0"),
        ("/run/netns/c1", "lo"),
        ("/run/netns/c1", "eth7"),
    ] {
        assert_eq!(add(namespace, interface), Some(100), "{namespace} {interface}");
        engine.has_nothing_left();
    }
    assert!(engine.host.sh("ip netns exec c1 ip link").contains("eth7"));
    // CHECK looks at the link that ADD made, not at one of the same name with the same address.
    let result = engine.ok("ADD", "c1", &config);
    let checked = with(config.clone(), "prevResult", result);
    engine.ok("CHECK", "c1", &checked);
    engine.host.sh(
        "ip netns exec c1 ip addr flush dev eth0; ip netns exec c1 ip link set eth7 up; \
         A=$(ls /run/aril/@network/leases/net1 | grep 10.81); \
         ip netns exec c1 ip addr add $A/24 dev eth7",
    );
    assert_eq!(engine.fails("CHECK", "c1", &checked), 102);
    engine.host.sh(
        "ip netns exec c1 ip link set eth0 down; ip netns exec c1 ip link set eth0 name eth9; \
         ip netns exec c1 ip link set eth7 down; ip netns exec c1 ip link set eth7 name eth0; \
         ip netns exec c1 ip link set eth0 up",
    );
    assert_eq!(engine.fails("CHECK", "c1", &checked), 102);
    engine.ok("DEL", "c1", &config);
    engine.has_nothing_left();
}

#[test]
fn a_directory_that_a_killed_add_left_is_removed_by_del() {
    let Some(engine) = Engine::new() else { return };
    engine.sandbox("c1");
    engine.host.sh("mkdir -p -m 700 /run/aril/@cni/net1");
    engine.ok("DEL", "c1", &config("1.1.0"));
    engine.has_nothing_left();
}
