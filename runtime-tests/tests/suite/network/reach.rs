//! Who reaches whom.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use super::host::{
    Host, address, annotate, namespace_of, neighbour, possible, sleeper, tcp, udp, within,
};

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn containers_and_hosts_by_address() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    let both = ["--subnet", "10.71.0.0/24", "--subnet", "fd71::/64"];
    host.network(&tool, &[&["create", "n1"], &both[..]].concat()).ok();
    let [a, b] = ["--network", "--network"].map(|flag| host.sleeper(&[flag, "bridge:n1"]));
    let [ns_a, ns_b] = [&a, &b].map(namespace_of);
    for ipv4 in [true, false] {
        let (at_a, at_b) = (address(&host, &a, ipv4), address(&host, &b, ipv4));
        let gateway = ip(if ipv4 { "10.71.0.1" } else { "fd71::1" });
        // One to the other, by their own addresses.
        assert_eq!(tcp(&ns_a, at(at_b, 80), &ns_b, 80), Some(at_a));
        assert_eq!(udp(&ns_b, at(at_a, 53), &ns_a, 53), Some(at_b));
        // The host and its containers.
        assert_eq!(tcp(&ns_a, at(gateway, 81), &host.namespace(), 81), Some(at_a));
        assert_eq!(tcp(&host.namespace(), at(at_a, 82), &ns_a, 82), Some(gateway));
        // Out to the world, with the host's address; not in again.
        let outside = ip(if ipv4 { "192.0.2.2" } else { "2001:db8::2" });
        let inside = ip(if ipv4 { "192.0.2.1" } else { "2001:db8::1" });
        assert_eq!(tcp(&ns_a, at(outside, 83), &world.namespace(), 83), Some(inside));
        assert_eq!(udp(&ns_a, at(outside, 84), &world.namespace(), 84), Some(inside));
        let (family, net) = if ipv4 { ("-4", "10.71.0.0/24") } else { ("-6", "fd71::/64") };
        world.sh(&format!("ip {family} route add {net} via {inside}"));
        assert_eq!(tcp(&world.namespace(), at(at_a, 85), &ns_a, 85), None);
    }
    for container in [&a, &b] {
        host.delete(container);
    }
    host.has_nothing_left();
}

#[test]
fn ports_of_one_family() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    let both = ["--subnet", "10.70.0.0/24", "--subnet", "fd70::/64"];
    host.network(&tool, &[&["create", "n0"], &both[..]].concat()).ok();
    let ports = "0.0.0.0:8080:80,[::]:8081:81,0.0.0.0:8082:82,[::]:8082:83,\
                 0.0.0.0:3000-3009:3000-3009,[::ffff:192.0.2.1]:8084:84";
    let on = ["--network", "bridge:n0", "--publish"];
    let web = host.sleeper(&[&on[..], &[ports]].concat());
    let (server, far) = (namespace_of(&web), world.namespace());
    let [four, six] = ["192.0.2.1", "2001:db8::1"].map(ip);
    for (port, inside4, inside6) in [
        (8080, Some(80), None),
        (8081, None, Some(81)),
        (8082, Some(82), Some(83)),
        (3005, Some(3005), None),
        (8084, Some(84), None),
    ] {
        for (outside, inside) in [(four, inside4), (six, inside6)] {
            let answers = tcp(&far, at(outside, port), &server, inside.unwrap_or(port));
            assert_eq!(answers.is_some(), inside.is_some(), "{outside} {port}");
        }
    }
    assert!(tcp(&host.namespace(), at(ip("127.0.0.1"), 8080), &server, 80).is_some());
    // What one family has taken is free in the other.
    let other = sleeper();
    let out = host.run_call(&other, &[&on[..], &["0.0.0.0:8080:80"]].concat()).output();
    out.exits(1).says("already published by container");
    let other = sleeper();
    let out = host.run_call(&other, &[&on[..], &["8081:80"]].concat()).output();
    out.exits(1).says("already published by container");
    let other = host.sleeper(&[&on[..], &["[::]:8080:80,0.0.0.0:8081:80"]].concat());
    assert!(tcp(&far, at(six, 8080), &namespace_of(&other), 80).is_some());
    for container in [&web, &other] {
        host.delete(container);
    }
    host.has_nothing_left();
}

#[test]
fn published_ports() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    let both = ["--subnet", "10.72.0.0/24", "--subnet", "fd72::/64"];
    host.network(&tool, &[&["create", "n2"], &both[..]].concat()).ok();
    let ports = "8080:80,5353:53/udp,127.0.0.1:8081:81,192.0.2.1:8082:82,3000-3009:3000-3009,\
                 4000-4001:40-41,[2001:db8::1]:8083:83";
    let mut web = sleeper();
    annotate(&mut web, "io.aril.network", "bridge:n2");
    annotate(&mut web, "io.aril.network.publish", ports);
    host.run(&web, &[]);
    let sibling = host.sleeper(&["--network", "bridge:n2"]);
    let (server, home, far) = (namespace_of(&web), host.namespace(), world.namespace());
    let near = namespace_of(&sibling);
    for (outside, there) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let [outside, there] = [outside, there].map(ip);
        // From another machine, whose address the container sees.
        assert_eq!(tcp(&far, at(outside, 8080), &server, 80), Some(there));
        assert_eq!(udp(&far, at(outside, 5353), &server, 53), Some(there));
        // Ranges: as they are, and moved.
        assert_eq!(tcp(&far, at(outside, 3007), &server, 3007), Some(there));
        assert_eq!(tcp(&far, at(outside, 4001), &server, 41), Some(there));
        assert_eq!(tcp(&far, at(outside, 3010), &server, 3010), None);
        // From the host itself, a sibling, and from inside (hairpin).
        assert!(tcp(&home, at(outside, 8080), &server, 80).is_some());
        assert!(tcp(&near, at(outside, 8080), &server, 80).is_some());
        assert!(tcp(&server, at(outside, 8080), &server, 80).is_some());
        assert!(udp(&server, at(outside, 5353), &server, 53).is_some());
    }
    // On loopback, and on one address only.
    let local = ip("127.0.0.1");
    for port in [8080, 8081] {
        assert!(tcp(&home, at(local, port), &server, port - 8000).is_some(), "{port}");
    }
    assert!(udp(&home, at(local, 5353), &server, 53).is_some());
    assert_eq!(tcp(&far, at(ip("192.0.2.1"), 8081), &server, 81), None);
    assert!(tcp(&far, at(ip("192.0.2.1"), 8082), &server, 82).is_some());
    assert_eq!(tcp(&home, at(local, 8082), &server, 82), None);
    assert!(tcp(&far, at(ip("2001:db8::1"), 8083), &server, 83).is_some());
    // No container reaches what the host has on its loopback.
    assert_eq!(tcp(&near, at(local, 22), &home, 22), None);
    for container in [&web, &sibling] {
        host.delete(container);
    }
    assert_eq!(tcp(&far, at(ip("192.0.2.1"), 8080), &home, 80), None);
    host.has_nothing_left();
}

#[test]
fn networks_are_apart_unless_open() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    for (name, subnet, more) in [
        ("one", "10.73.0.0/24", None),
        ("two", "10.73.1.0/24", None),
        ("free", "10.73.2.0/24", Some("--open")),
        ("free2", "10.73.3.0/24", Some("--open")),
        ("inner", "10.73.4.0/24", Some("--internal")),
    ] {
        let words = ["create", name, "--subnet", subnet];
        host.network(&tool, &words.into_iter().chain(more).collect::<Vec<_>>()).ok();
    }
    let on = |name: &str, port: &str| {
        let publish = [port, "--publish"];
        let flags = if port.is_empty() { &publish[..0] } else { &["--publish", port][..] };
        host.sleeper(&[&["--network", &format!("bridge:{name}")], flags].concat())
    };
    let one = on("one", "");
    let two = on("two", "9000:90");
    let (free, free2, inner) = (on("free", ""), on("free2", ""), on("inner", ""));
    let reaches = |from: &runtime_tests::Container, to: &runtime_tests::Container| {
        let to_address = at(address(&host, to, true), 70);
        tcp(&namespace_of(from), to_address, &namespace_of(to), 70).is_some()
    };
    assert!(!reaches(&one, &two) && !reaches(&two, &one));
    assert!(!reaches(&one, &free) && !reaches(&free, &one));
    assert!(reaches(&free, &free2) && reaches(&free2, &free));
    assert!(!reaches(&one, &inner) && !reaches(&inner, &one));
    // Through a published port, as everybody.
    let gateway = ip("10.73.0.1");
    assert!(tcp(&namespace_of(&one), at(gateway, 9000), &namespace_of(&two), 90).is_some());
    // The host reaches an internal network's containers, and they the host.
    let inside = address(&host, &inner, true);
    assert!(tcp(&host.namespace(), at(inside, 71), &namespace_of(&inner), 71).is_some());
    for container in [&one, &two, &free, &free2, &inner] {
        host.delete(container);
    }
    host.has_nothing_left();
    host.network(&tool, &["rm", "one", "two", "free", "free2", "inner"]).ok();
    assert_eq!(host.sh("ip -o link show type bridge"), "");
}

#[test]
fn two_hosts_by_routes() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let other = neighbour(&host);
    let tool = sleeper();
    let create = |on: &Host, own: &str, theirs: &str| {
        let route = format!("--route={theirs}");
        on.network(&tool, &["create", "r", "--driver", "routed", "--subnet", own, &route]).ok();
    };
    create(&host, "10.74.1.0/24", "10.74.2.0/24=192.0.2.2");
    create(&other, "10.74.2.0/24", "10.74.1.0/24=192.0.2.1");
    let a = host.sleeper(&["--network", "bridge:r"]);
    let b = other.sleeper(&["--network", "bridge:r"]);
    let (at_a, at_b) = (address(&host, &a, true), address(&other, &b, true));
    assert_eq!(tcp(&namespace_of(&a), at(at_b, 80), &namespace_of(&b), 80), Some(at_a));
    assert_eq!(udp(&namespace_of(&b), at(at_a, 80), &namespace_of(&a), 80), Some(at_b));
    host.delete(&a);
    other.delete(&b);
}

#[test]
fn two_hosts_by_vxlan() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let other = neighbour(&host);
    let tool = sleeper();
    for (on, gateway, range, peer) in [
        (&host, "10.75.0.1", "10.75.0.0/25", "192.0.2.2"),
        (&other, "10.75.0.254", "10.75.0.128/25", "192.0.2.1"),
    ] {
        on.network(
            &tool,
            &[
                "create",
                "v",
                "--driver",
                "vxlan",
                "--vni",
                "75",
                "--subnet",
                "10.75.0.0/24",
                "--gateway",
                gateway,
                "--range",
                range,
                "--peer",
                peer,
            ],
        )
        .ok();
    }
    let a = host.sleeper(&["--network", "bridge:v"]);
    let b = other.sleeper(&["--network", "bridge:v"]);
    let (at_a, at_b) = (address(&host, &a, true), address(&other, &b, true));
    assert_eq!(tcp(&namespace_of(&a), at(at_b, 80), &namespace_of(&b), 80), Some(at_a));
    assert_eq!(udp(&namespace_of(&b), at(at_a, 80), &namespace_of(&a), 80), Some(at_b));
    host.delete(&a);
    other.delete(&b);
}

#[test]
fn a_port_on_which_the_host_listens() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let wanted = |at: &str, flags: &[&str]| {
        let container = sleeper();
        let on = ["--network", "bridge", "--publish", at];
        (host.run_call(&container, &[&on[..], flags].concat()).output(), container)
    };
    let bound = within(&host.namespace(), || {
        let tcp = ["0.0.0.0:8080", "127.0.0.1:8081"].map(|at| TcpListener::bind(at).expect("bind"));
        (tcp, UdpSocket::bind("[::]:8082").expect("bind"))
    });
    let own = format!("(pid {}) of the host is listening on ", std::process::id());
    for port in ["8080:80", "127.0.0.1:8080:80", "8070-8089:70-89", "8081:80", "8082:80/udp"] {
        let (out, _) = wanted(port, &[]);
        assert!(out.code == Some(1) && out.stderr.contains(&own), "{port}: {out:?}");
        assert!(out.stderr.contains("--publish-over-listener"), "{out:?}");
        assert_eq!(host.leases(), "", "{port}");
    }
    for port in ["8080:80/udp", "8082:80", "8083:80", "127.0.0.2:8081:80"] {
        let (out, container) = wanted(port, &[]);
        assert_eq!(out.code, Some(0), "{port}: {out:?}");
        host.delete(&container);
    }
    let (out, container) = wanted("8080:80", &["--publish-over-listener"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let to = at(ip("127.0.0.1"), 8080);
    assert!(tcp(&host.namespace(), to, &namespace_of(&container), 80).is_some());
    host.delete(&container);
    drop(bound);
    host.has_nothing_left();
}
