//! Which network a container has, by options and by annotations.

use std::fs;

use super::host::{Host, address, annotate, namespace_of, possible, sleeper, tcp};

fn inode(path: &std::path::Path) -> String {
    fs::read_link(path).expect("a namespace").to_string_lossy().into_owned()
}

#[test]
fn networks_none_host_and_path() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let none = host.sleeper(&["--network", "none"]);
    let names = host.sh(&format!("nsenter -t {} -n ip -o link", none.pid()));
    assert_eq!(names.lines().count(), 1, "{names}");
    let shared = host.sleeper(&["--network", "host"]);
    assert_eq!(inode(&namespace_of(&shared)), inode(&host.namespace()));
    let path = format!("ns:{}", namespace_of(&none).display());
    let joined = host.sleeper(&["--network", &path]);
    assert_eq!(inode(&namespace_of(&joined)), inode(&namespace_of(&none)));
    assert_eq!(host.leases(), "");
}

#[test]
fn annotated_network_is_released_by_delete() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let mut container = sleeper();
    annotate(&mut container, "io.aril.network", "bridge");
    annotate(&mut container, "io.aril.network.address", "10.213.0.77");
    annotate(&mut container, "io.aril.network.publish", "8080:80");
    container.write_config();
    let bundle = container.dir.to_str().expect("utf-8").to_owned();
    let id = container.id.clone();
    host.call(&container, &["create", "-b", &bundle, &id]).ok();
    host.call(&container, &["start", &id]).ok();
    let inside = host.sh(&format!("nsenter -t {} -n ip -o -4 addr show eth0", container.pid()));
    assert!(inside.contains("10.213.0.77/22"), "{inside}");
    let to = "127.0.0.1:8080".parse().expect("an address");
    assert!(tcp(&host.namespace(), to, &namespace_of(&container), 80).is_some());
    host.call(&container, &["kill", &id, "KILL"]).ok();
    runtime_tests::container::wait_until("its end", || container.status() == "stopped");
    host.call(&container, &["delete", &id]).ok();
    host.has_nothing_left();
}

#[test]
fn a_shared_network_lasts_as_long_as_somebody_is_there() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let first = host.sleeper(&["--network", "bridge", "--publish", "8080:80"]);
    let mut second = sleeper();
    second.root.clone_from(&first.root);
    annotate(&mut second, "io.aril.network", &format!("container:{}", first.id));
    host.run(&second, &[]);
    assert_eq!(inode(&namespace_of(&first)), inode(&namespace_of(&second)));
    let at = address(&host, &first, true);
    let to = "127.0.0.1:8080".parse().expect("an address");
    host.delete(&first);
    assert_eq!(address(&host, &second, true), at);
    assert!(tcp(&host.namespace(), to, &namespace_of(&second), 80).is_some());
    host.delete(&second);
    host.has_nothing_left();
}

#[test]
fn sysctls_of_the_link_and_hooks_find_it() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let container = sleeper().edit(|spec| {
        spec["linux"]["sysctl"]["net.ipv4.conf.eth0.arp_announce"] = "2".into();
    });
    host.run(&container, &["--network", "bridge"]);
    let pid = container.pid();
    let value =
        host.sh(&format!("nsenter -t {pid} -n cat /proc/sys/net/ipv4/conf/eth0/arp_announce"));
    assert_eq!(value, "2\n");
    host.delete(&container);
    host.has_nothing_left();
}

#[test]
fn rates_in_both_directions() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let container = host.sleeper(&["--network", "bridge", "--network-rate", "in=8mbit,out=16mbit"]);
    let inside = host.sh(&format!("nsenter -t {} -n tc qdisc show dev eth0", container.pid()));
    assert!(inside.contains("tbf") && inside.contains("rate 16Mbit"), "{inside}");
    let outside = host
        .sh("for l in $(ls /proc/sys/net/ipv4/conf | grep aril-); do tc qdisc show dev $l; done");
    assert!(outside.contains("tbf") && outside.contains("rate 8Mbit"), "{outside}");
    host.delete(&container);
}

#[test]
fn refused_networks_leave_nothing() {
    if !possible() {
        return;
    }
    let host = Host::new();
    for (flags, text) in [
        (&["--network", "bridge:nowhere"][..], "network does not exist: nowhere"),
        (&["--network", "bridge", "--network", "none"], "--network is given more than once"),
        (&["--network", "wifi"], "invalid network \"wifi\""),
        (&["--publish", "80:80"], "io.aril.network.publish needs io.aril.network"),
        (&["--network", "host", "--publish", "80:80"], "needs io.aril.network=bridge"),
        (&["--network", "container:nobody"], "container does not exist: nobody"),
        (&["--network", "ns:/nowhere"], "no such file or directory"),
        (
            &["--network", "bridge", "--network-address", "10.1.1.1"],
            "cannot be assigned to a container on network",
        ),
        (
            &["--network", "bridge", "--network-address", "10.213.0.1"],
            "cannot be assigned to a container on network",
        ),
        (&["--network", "bridge", "--publish", "[::1]:80:80"], "no subnet of that address family"),
        (
            &["--network", "bridge", "--network-rate", "fast"],
            "invalid rate \"fast\": expected a number with kbit, mbit or gbit",
        ),
    ] {
        let container = sleeper();
        let out = host.run_call(&container, flags).output();
        assert_ne!(out.code, Some(0), "{flags:?}");
        assert!(out.stderr.contains(text), "{flags:?}: {}", out.stderr);
        assert_eq!(host.leases(), "", "{flags:?}");
    }
}

#[test]
fn networks_as_they_are_shown() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    let net = |words: &[&str]| host.network(&tool, words);
    net(&["create", "a", "--subnet", "10.76.0.0/24"]).ok();
    assert_eq!(net(&["ls", "-q"]).ok().stdout, "a\n");
    net(&["create", "both", "--subnet", "10.75.0.0/24", "--subnet", "fd75:1234:5678:9abc::/64"])
        .ok();
    let listed = net(&["ls"]).ok().stdout;
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            ["NAME", "DRIVER", "SUBNET", "CONTAINERS"],
            ["a", "bridge", "10.76.0.0/24", "0"],
            ["both", "bridge", "10.75.0.0/24,fd75:1234:5678:9abc::/64", "0"],
        ]
    );
    net(&["rm", "both"]).ok();
    let shown = net(&["inspect", "a"]).ok().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("json");
    assert_eq!(shown[0]["ipv4"]["gateway"], "10.76.0.1");
    for (words, text) in [
        (&["create", "a"][..], "network already exists: a"),
        (&["create", "lo"], "a network interface named lo already exists"),
        (&["create", "b", "--subnet", "10.76.0.128/25"], "overlaps 10.76.0.0/24 of network a"),
        (&["create", "b", "--subnet", "x"], "invalid subnet \"x\""),
        (&["create", "b", "--driver", "x"], "unknown network driver"),
        (&["rm", "b"], "network does not exist: b"),
        (&["inspect", "b"], "network does not exist: b"),
        (&["turn"], "unknown action \"turn\" of network"),
        (&["rm"], "aril network rm needs at least one name"),
    ] {
        let out = net(words).output();
        assert_ne!(out.code, Some(0), "{words:?}");
        assert!(out.stderr.contains(text), "{words:?}: {}", out.stderr);
    }
    let user = host.sleeper(&["--network", "bridge:a"]);
    let out = net(&["rm", "a"]).output();
    assert!(out.stderr.contains(&format!("in use by {}", user.id)), "{}", out.stderr);
    host.delete(&user);
    net(&["rm", "a"]).ok();
    assert_eq!(net(&["ls", "-q"]).ok().stdout, "");
}
