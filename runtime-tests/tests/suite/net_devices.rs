//! Devices of the host that a container gets, from a network namespace that plays the host's part.

use std::fs;

use runtime_tests::{Call, Container, View, on_the_host, skip};
use serde_json::{Value, json};

/// The host: a pair of devices, one of which is the container's to be.
const HOST: &str = "ip link add aril-a type veth peer name aril-b
    ip link set aril-a mtu 1300
    ip addr add 10.99.0.2/24 dev aril-a
    ip addr add fd99::2/64 dev aril-a nodad";

fn on_a_host_with_devices(test: impl Fn(Container)) {
    if skip::tool("ip", "iproute2").is_none() {
        return;
    }
    on_the_host(|view: View| {
        let c = Container::new(view);
        if c.runtime.only_aril("netDevices came with runc 1.4") {
            test(c);
        }
    });
}

fn staged(call: Call) -> Call {
    call.stage(["network", HOST])
}

/// What the kernel tells without a tool: addresses of both families and the device's own facts.
const LOOK: &str = "cat /proc/net/fib_trie /proc/net/if_inet6 /proc/net/dev; \
                    cat /sys/class/net/*/mtu; cat /sys/class/net/*/flags";

#[test]
fn moved_and_renamed_with_their_addresses() {
    on_a_host_with_devices(|c| {
        let c = c.script(LOOK).edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {"name": "inner0"}});
        });
        let out = staged(c.run_call(&[])).ok();
        for text in ["inner0:", "|-- 10.99.0.2", "fd990000000000000000000000000002", "\n1300\n"] {
            assert!(out.stdout.contains(text), "{text}: {out:#?}");
        }
        assert!(!out.stdout.contains("aril-"), "{out:#?}");
    });
}

#[test]
fn under_their_own_name_and_by_a_template() {
    on_a_host_with_devices(|c| {
        let c = c.script("grep : /proc/net/dev").edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {}, "aril-b": {"name": "port%d"}});
        });
        let out = staged(c.run_call(&[])).ok();
        assert!(out.stdout.contains("aril-a:") && out.stdout.contains("port0:"), "{out:#?}");
    });
}

#[test]
fn before_the_hooks() {
    on_a_host_with_devices(|c| {
        let file = c.path("said");
        let script = format!(
            "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); cat /proc/$pid/net/dev > {}",
            file.display()
        );
        let c = c.edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {"name": "inner0"}});
            spec["hooks"] =
                json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        });
        staged(c.run_call(&[])).ok();
        let said = fs::read_to_string(file).expect("what the hook saw");
        assert!(said.contains("inner0:"), "{said}");
    });
}

#[test]
fn a_name_that_the_container_has() {
    on_a_host_with_devices(|c| {
        let c = c.edit(|spec| spec["linux"]["netDevices"] = json!({"aril-a": {"name": "lo"}}));
        let out = staged(c.run_call(&[])).output();
        out.exits(1).says("netDevices").says("\"lo\" already exists").says("hint: ");
        c.leaves_nothing();
    });
}

/// Also a virtual one, which the kernel would destroy with the container's namespace.
#[test]
fn given_back_if_the_container_does_not_come_to_be() {
    on_a_host_with_devices(|c| {
        let failing = json!([{"path": "/bin/false"}]);
        let edits: [(&str, Value); 3] = [
            ("/hooks", json!({"createRuntime": failing})),
            ("/hooks", json!({"poststart": failing})),
            ("/process/args", json!(["/no/such/program"])),
        ];
        let mut c = c.edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {"name": "inner0"}});
            spec["hooks"] = json!({});
        });
        for (field, value) in edits {
            let before = c.spec.pointer(field).expect("a field").clone();
            *c.spec.pointer_mut(field).expect("a field") = value;
            let look = "\"$@\" || ip addr show dev aril-a";
            let out = staged(c.run_call(&[]).in_shell(look)).ok();
            for text in ["aril-a@aril-b", "mtu 1300", "10.99.0.2/24", "fd99::2/64"] {
                assert!(out.stdout.contains(text), "{text}: {out:#?}");
            }
            c.leaves_nothing();
            *c.spec.pointer_mut(field).expect("a field") = before;
        }
    });
}

#[test]
fn devices_move_into_a_user_namespace() {
    on_a_host_with_devices(|c| {
        let c = c.in_user_namespace(100_000).script("grep inner0: /proc/net/dev").edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {"name": "inner0"}});
        });
        staged(c.run_call(&[])).ok().prints("inner0:");
    });
}

#[test]
fn into_a_namespace_that_is_joined() {
    on_a_host_with_devices(|c| {
        let host = format!("touch {0}; {HOST}\nunshare --net={0} true", c.path("net").display());
        let path = c.path("net").display().to_string();
        let look = format!("nsenter --net={path} ip -o link; umount {path}");
        let c = c.namespace(json!({"type": "network", "path": path})).args(["true"]).edit(|spec| {
            spec["linux"]["netDevices"] = json!({"aril-a": {"name": "inner0"}});
        });
        let script = format!("\"$@\" && {{ {look}; }}");
        let out =
            c.run_call(&[]).in_shell(&script).stage(["mounts"]).stage(["network", &host]).ok();
        assert!(out.stdout.contains("inner0"), "{out:#?}");
    });
}
