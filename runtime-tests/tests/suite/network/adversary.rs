//! A hostile container and a hostile neighbour, each with raw sockets, before, during and after a flushed rule set.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use runtime_tests::{Container, skip};

use super::host::{Host, address, namespace_of, neighbour, possible, sleeper, tcp, within};
use super::wire::{self, EVERYBODY, Mac};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// How long what is not to come is waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// For what must arrive, on a machine with other things to do.
const LOADED: Duration = Duration::from_secs(60);

/// Where the packet filter's rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Whole,
    Flushed,
    Repaired,
}

const ALL: [Rules; 3] = [Rules::Whole, Rules::Flushed, Rules::Repaired];

fn bring_about(host: &Host, tool: &Container, rules: Rules) {
    match rules {
        Rules::Whole => {}
        Rules::Flushed => drop(host.sh("nft flush ruleset")),
        Rules::Repaired => {
            host.call(tool, &["reconcile"]).ok();
        }
    }
}

fn ready() -> bool {
    possible() && skip::tool("nft", "nftables").is_some()
}

fn mac_of(namespace: &Path, link: &str) -> Mac {
    let text = within(namespace, || {
        std::process::Command::new("ip").args(["-o", "link", "show", link]).output().expect("ip")
    });
    let text = String::from_utf8(text.stdout).expect("utf-8");
    let mac =
        text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a mac");
    let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).expect("hex")).collect();
    bytes.try_into().expect("six bytes")
}

/// What comes to a UDP port of a namespace from several attempts, by their names.
struct Ear(UdpSocket);

impl Ear {
    fn new(namespace: &Path, at: &str) -> Self {
        let socket = within(namespace, || UdpSocket::bind(at).expect("bind"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    /// What has arrived when `expected` is there, however long that takes, and nothing more follows.
    fn heard(&self, expected: &HashSet<String>) -> HashSet<String> {
        let start = Instant::now();
        let mut heard = HashSet::new();
        let mut buffer = [0; 64];
        loop {
            match self.0.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    heard.insert(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
                Err(_) if !heard.is_superset(expected) && start.elapsed() < LOADED => {}
                Err(_) => return heard,
            }
        }
    }
}

fn set(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_container_has_its_own_addresses_and_no_other() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    for (name, four, six) in
        [("n1", "10.61.0.0/24", "fd61::/64"), ("n2", "10.62.0.0/24", "fd62::/64")]
    {
        host.network(&tool, &["create", name, "--subnet", four, "--subnet", six]).ok();
    }
    let on = ["--network", "bridge:n1"];
    // With a port of 127.0.0.1 the host may send from there, and the kernel would take what is sent there.
    let a = host.sleeper(&[&on[..], &["-p", "127.0.0.1:8080:80"]].concat());
    let b = host.sleeper(&on);
    host.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
    let (home, inside) = (host.namespace(), namespace_of(&a));
    let (own, gateway) = (mac_of(&inside, "eth0"), mac_of(&home, "n1"));
    let other = mac_of(&namespace_of(&b), "eth0");
    let outside = Ear::new(&home, "[::]:0");
    let local = Ear::new(&home, "127.0.0.1:0");
    // The host's DHCP clients.
    let clients = [Ear::new(&home, "0.0.0.0:68"), Ear::new(&home, "[::]:546")];
    for rules in ALL {
        bring_about(&host, &tool, rules);
        let mut frames = Vec::new();
        let mut send = |name: &str, mac: Mac, from: IpAddr, to: IpAddr, port: u16| {
            let (protocol, packet) = wire::udp(from, to, port, name.as_bytes());
            frames.push(wire::ethernet(mac, gateway, protocol, &packet));
        };
        let mut expected = Vec::new();
        for ipv4 in [true, false] {
            let mine = address(&host, &a, ipv4);
            let to = ip(if ipv4 { "10.61.0.1" } else { "fd61::1" });
            let spoofed: &[&str] = if ipv4 {
                &["10.62.0.9", "192.0.2.9", "10.61.0.1", "127.0.0.1", "127.0.0.2", "10.62.0.1"]
            } else {
                &["fd62::9", "2001:db8::9", "fd61::1", "::1", "fd62::1", "fe80::a1:aff:fe3d:1"]
            };
            for from in spoofed {
                send(from, own, ip(from), to, outside.port());
            }
            // Another's hardware address, with one's own address and with its.
            send("mac", other, mine, to, outside.port());
            send("identity", other, address(&host, &b, ipv4), to, outside.port());
            send("unknown mac", [2, 9, 9, 9, 9, 9], mine, to, outside.port());
            if ipv4 {
                for at in ["127.0.0.1", "127.0.0.2"] {
                    send(at, own, mine, ip(at), local.port());
                    send(at, own, ip("127.0.0.3"), ip(at), local.port());
                }
            }
            if ipv4 {
                send("offer", own, mine, to, 68);
                send("offer to all", own, mine, ip("255.255.255.255"), 68);
            } else {
                send("reply", own, mine, to, 546);
            }
            let fair = if ipv4 { "fair 4" } else { "fair 6" };
            send(fair, own, mine, to, outside.port());
            expected.push(fair);
        }
        wire::send(&inside, "eth0", &frames);
        let expected = set(&expected);
        assert_eq!(outside.heard(&expected), expected, "{rules:?}");
        assert_eq!(local.heard(&set(&[])), set(&[]), "{rules:?}");
        for client in &clients {
            assert_eq!(client.heard(&set(&[])), set(&[]), "{rules:?}");
        }
    }
    for container in [&a, &b] {
        host.delete(container);
    }
    host.has_nothing_left();
}

#[test]
fn a_flushed_network_reaches_less() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    let create = |name: &str, four: &str, six: &str, more: &[&str]| {
        let words = ["create", name, "--subnet", four, "--subnet", six];
        host.network(&tool, &[&words[..], more].concat()).ok();
    };
    create("n1", "10.61.0.0/24", "fd61::/64", &[]);
    create("n2", "10.62.0.0/24", "fd62::/64", &[]);
    create("n3", "10.63.0.0/24", "fd63::/64", &["--internal"]);
    let ports = "127.0.0.1:8080:7000,192.0.2.1:9000:7000/udp";
    let a = host.sleeper(&["--network", "bridge:n1"]);
    let b = host.sleeper(&["--network", "bridge:n2", "-p", ports]);
    let c = host.sleeper(&["--network", "bridge:n3"]);
    let (home, far) = (host.namespace(), world.namespace());
    let [in_a, in_b, in_c] = [&a, &b, &c].map(namespace_of);
    let [ear_b, ear_c] = [&in_b, &in_c].map(|namespace| Ear::new(namespace, "[::]:7000"));
    let ear_far = Ear::new(&far, "[::]:0");
    let own = |namespace: &Path, link: &str| mac_of(namespace, link);
    let routes = [own(&home, "n1"), own(&home, "n3"), own(&home, "wire")];
    let from = [own(&in_a, "eth0"), own(&in_c, "eth0"), own(&far, "wire")];
    for rules in ALL {
        bring_about(&host, &tool, rules);
        let send = |n: usize,
                    namespace: &Path,
                    link: &str,
                    from_ip: IpAddr,
                    to: IpAddr,
                    port: u16,
                    name: &str| {
            let (protocol, packet) = wire::udp(from_ip, to, port, name.as_bytes());
            let frame = wire::ethernet(from[n], routes[n], protocol, &packet);
            wire::send(namespace, link, &[frame]);
        };
        for ipv4 in [true, false] {
            let [at_a, at_b, at_c] = [&a, &b, &c].map(|container| address(&host, container, ipv4));
            let outside = ip(if ipv4 { "192.0.2.2" } else { "2001:db8::2" });
            // From one network to others, and from the world to addresses of containers.
            send(0, &in_a, "eth0", at_a, at_b, 7000, "a to b");
            send(0, &in_a, "eth0", at_a, at_c, 7000, "a to c");
            send(2, &far, "wire", outside, at_b, 7000, "world to b");
            send(2, &far, "wire", outside, at_c, 7000, "world to c");
            // From an internal network to the world and to others, with addresses of others too.
            send(1, &in_c, "eth0", at_c, outside, ear_far.port(), "c to world");
            send(1, &in_c, "eth0", at_c, at_b, 7000, "c to b");
            send(1, &in_c, "eth0", at_b, outside, ear_far.port(), "c as b to world");
        }
        // The host's loopback, and what is published there, from the world and from a container.
        for to in ["127.0.0.1", "127.0.0.2"] {
            for port in [8080, 7000] {
                send(2, &far, "wire", ip("192.0.2.2"), ip(to), port, "loopback");
                send(2, &far, "wire", ip("127.0.0.9"), ip("192.0.2.1"), 9000, "from loopback");
                send(0, &in_a, "eth0", address(&host, &a, true), ip(to), port, "loopback");
            }
        }
        // A published port, which is there with the rules.
        send(2, &far, "wire", ip("192.0.2.2"), ip("192.0.2.1"), 9000, "published");
        let published = if rules == Rules::Flushed { set(&[]) } else { set(&["published"]) };
        assert_eq!(ear_b.heard(&published), published, "{rules:?}");
        assert_eq!(ear_c.heard(&set(&[])), set(&[]), "{rules:?}");
        assert_eq!(ear_far.heard(&set(&[])), set(&[]), "{rules:?}");
        // By TCP, as the host itself may.
        let loopback: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
        let own = tcp(&home, loopback, &in_b, 7000).is_some();
        assert_eq!(own, rules != Rules::Flushed, "{rules:?}");
        for setting in
            ["all/route_localnet", "wire/route_localnet", "all/rp_filter", "wire/rp_filter"]
        {
            let value = u8::from(setting.ends_with("localnet"));
            world.sh(&format!("echo {value} > /proc/sys/net/ipv4/conf/{setting}"));
        }
        world.sh("ip addr flush dev lo; ip link set lo down; ip route replace 127.0.0.1/32 via 192.0.2.1 dev wire");
        assert_eq!(tcp(&far, loopback, &in_b, 7000), None, "{rules:?}");
        // And the host reaches its containers.
        assert!(tcp(&home, SocketAddr::new(address(&host, &b, true), 71), &in_b, 71).is_some());
    }
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/conf/n1/route_localnet"), "0\n");
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/conf/n2/route_localnet"), "1\n");
    for container in [&a, &b, &c] {
        host.delete(container);
    }
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/conf/n2/route_localnet"), "0\n");
    // A socket keeps its network namespace, and that its links.
    drop([ear_b, ear_c]);
    host.has_nothing_left();
}

#[test]
fn announcements_of_neighbours_have_no_effect() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    // IPv6 in general, and on a network without it.
    host.network(&tool, &["create", "n1", "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64"])
        .ok();
    host.network(&tool, &["create", "n2", "--subnet", "10.62.0.0/24"]).ok();
    for network in ["n1", "n2"] {
        let on = format!("bridge:{network}");
        let (a, b) = (host.sleeper(&["--network", &on]), host.sleeper(&["--network", &on]));
        let (home, in_a, in_b) = (host.namespace(), namespace_of(&a), namespace_of(&b));
        let (own, bridge) = (mac_of(&in_a, "eth0"), mac_of(&home, network));
        let gateway = if network == "n1" { "10.61.0.1" } else { "10.62.0.1" };
        let look = |namespace: &Path| {
            within(namespace, || {
                let script = "ip -6 route; ip -6 -o addr; ip neigh show nud permanent; ip route";
                let out = std::process::Command::new("sh").args(["-c", script]).output();
                String::from_utf8(out.expect("sh").stdout).expect("utf-8").replace(" linkdown", "")
            })
        };
        let before = [look(&home), look(&in_b)];
        for rules in ALL {
            bring_about(&host, &tool, rules);
            let mut frames = Vec::new();
            for from in ["fe80::1", "fe80::a1:aff:fe3d:1", "fe80::dead:beef"] {
                let from: Ipv6Addr = from.parse().expect("an address");
                let packet =
                    wire::advertisement(from, own, "2001:db8:bad::".parse().expect("a prefix"));
                frames.push(wire::ethernet(own, [0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet));
                frames.push(wire::ethernet(own, bridge, 0x86dd, &packet));
            }
            // The gateway's address, and the other container's, are the attacker's.
            let (IpAddr::V4(gate), IpAddr::V4(victim)) = (ip(gateway), address(&host, &b, true))
            else {
                unreachable!("IPv4 was asked for")
            };
            for (to, claimed, asker) in [
                (EVERYBODY, gate, victim),
                (mac_of(&in_b, "eth0"), gate, victim),
                (bridge, victim, gate),
                (EVERYBODY, victim, gate),
            ] {
                frames.push(wire::ethernet(own, to, 0x0806, &wire::arp(own, claimed, to, asker)));
            }
            if network == "n1" {
                let (IpAddr::V6(victim), IpAddr::V6(gate)) =
                    (address(&host, &b, false), ip("fd61::1"))
                else {
                    unreachable!("IPv6 was asked for")
                };
                let IpAddr::V6(mine) = address(&host, &a, false) else { unreachable!("IPv6") };
                for (to, at, target) in
                    [(bridge, gate, victim), (mac_of(&in_b, "eth0"), victim, gate)]
                {
                    let packet = wire::neighbour6(mine, at, target, own);
                    frames.push(wire::ethernet(own, to, 0x86dd, &packet));
                }
            }
            wire::send(&in_a, "eth0", &frames);
            // What is sent later comes later: the container and the host have seen the frames by then.
            let mut reached = 0;
            for (namespace, at) in [(&home, ip(gateway)), (&in_b, address(&host, &b, true))] {
                reached += u32::from(tcp(&in_a, SocketAddr::new(at, 72), namespace, 72).is_some());
            }
            assert_eq!(reached, 2, "{network} {rules:?}");
            assert_eq!([look(&home), look(&in_b)], before, "{network} {rules:?}");
            // The host finds the victim where it is, and the victim its gateway.
            let at_b = SocketAddr::new(address(&host, &b, true), 73);
            assert!(tcp(&home, at_b, &in_b, 73).is_some(), "{network} {rules:?}");
            assert!(tcp(&in_b, SocketAddr::new(ip(gateway), 74), &home, 74).is_some());
            if network == "n1" {
                let at_b = SocketAddr::new(address(&host, &b, false), 75);
                assert!(tcp(&home, at_b, &in_b, 75).is_some(), "{network} {rules:?}");
                assert!(tcp(&in_b, SocketAddr::new(ip("fd61::1"), 76), &home, 76).is_some());
            }
        }
        for container in [&a, &b] {
            host.delete(container);
        }
    }
    host.has_nothing_left();
}

#[test]
fn settings_of_links() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let all = "cd /proc/sys/net; for f in $(find ipv4/conf/all ipv4/conf/default ipv6/conf/all ipv6/conf/default \
               ipv6/conf/lo ipv6/conf/wire -name accept_ra -o -name accept_redirects -o -name autoconf \
               -o -name route_localnet -o -name rp_filter -o -name send_redirects -o -name proxy_arp); do \
               echo $f $(cat $f); done | sort";
    // Turning forwarding on has the kernel itself change this one.
    let unforced = |text: String| -> Vec<String> {
        text.lines()
            .filter(|l| !l.starts_with("ipv4/conf/all/accept_redirects"))
            .map(str::to_owned)
            .collect()
    };
    // The uplink has a route that a router announced, and lo has none.
    world.sh("ip link set wire up");
    let router = mac_of(&world.namespace(), "wire");
    let announce = || {
        let from = "fe80::7".parse().expect("an address");
        let packet = wire::advertisement(from, router, "2001:db8:7::".parse().expect("a prefix"));
        let frame = wire::ethernet(router, [0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet);
        wire::send(&world.namespace(), "wire", &[frame]);
    };
    announce();
    runtime_tests::container::wait_until("the announced route", || {
        host.sh("ip -6 route show default").contains("fe80::7")
    });
    let before = unforced(host.sh(all));
    let tool = sleeper();
    host.network(&tool, &["create", "n1", "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64"])
        .ok();
    let a = host.sleeper(&["--network", "bridge:n1"]);
    let mut after = unforced(host.sh(all));
    assert_eq!(host.sh("cat /proc/sys/net/ipv6/conf/wire/accept_ra"), "2\n");
    for line in &mut after {
        if line == "ipv6/conf/wire/accept_ra 2" {
            *line = "ipv6/conf/wire/accept_ra 1".to_owned();
        }
    }
    assert_eq!(after, before);
    assert!(host.sh("ip -6 route show default").contains("fe80::7"), "the host has lost its route");
    let quiet = host.sh(
        "cd /proc/sys/net/ipv6/conf; for l in n1 aril-*; do for f in accept_ra accept_redirects autoconf; do \
         cat $l/$f; done; done; cd /proc/sys/net/ipv4/conf/n1; \
         cat accept_redirects send_redirects proxy_arp accept_source_route route_localnet",
    );
    assert!(quiet.lines().count() == 11 && quiet.lines().all(|line| line == "0"), "{quiet}");
    let inside = host.sh(&format!(
        "nsenter -t {} -n sh -c 'cd /proc/sys/net; cat ipv6/conf/eth0/accept_ra \
         ipv6/conf/eth0/accept_redirects ipv6/conf/eth0/autoconf ipv4/conf/eth0/accept_redirects'",
        a.pid()
    ));
    assert_eq!(inside, "0\n0\n0\n0\n");
    host.delete(&a);
    host.has_nothing_left();
}

#[test]
fn a_tunnel_is_its_peers_alone() {
    if !ready() {
        return;
    }
    for ipv4 in [true, false] {
        let host = Host::new();
        let world = neighbour(&host);
        let tool = sleeper();
        let (peer, stranger, here) = if ipv4 {
            (ip("192.0.2.2"), ip("192.0.2.3"), ip("192.0.2.1"))
        } else {
            (ip("2001:db8::2"), ip("2001:db8::3"), ip("2001:db8::1"))
        };
        let named = peer.to_string();
        let vxlan = ["create", "v", "--driver", "vxlan", "--vni", "75", "--subnet", "10.75.0.0/24"];
        host.network(&tool, &[&vxlan[..], &["--peer", &named]].concat()).ok();
        let a = host.sleeper(&["--network", "bridge:v"]);
        let (inside, far) = (namespace_of(&a), world.namespace());
        let ear = Ear::new(&inside, "[::]:7000");
        let to = address(&host, &a, true);
        let own = mac_of(&inside, "eth0");
        let (wire_here, wire_far) = (mac_of(&host.namespace(), "wire"), mac_of(&far, "wire"));
        for rules in ALL {
            bring_about(&host, &tool, rules);
            let frame = |from: IpAddr, number: u32, name: &str| {
                let (protocol, packet) = wire::udp(ip("10.75.0.200"), to, 7000, name.as_bytes());
                let inner = wire::ethernet([2, 0xa1, 10, 75, 0, 200], own, protocol, &packet);
                let (protocol, packet) = wire::vxlan(from, here, number, &inner);
                wire::ethernet(wire_far, wire_here, protocol, &packet)
            };
            wire::send(
                &far,
                "wire",
                &[
                    frame(stranger, 75, "stranger"),
                    frame(peer, 76, "other number"),
                    frame(peer, 75, "peer"),
                ],
            );
            let expected = if rules == Rules::Flushed { set(&[]) } else { set(&["peer"]) };
            assert_eq!(ear.heard(&expected), expected, "{peer} {rules:?}");
        }
        let known = host.sh("bridge fdb show dev vx75");
        assert!(!known.contains(&stranger.to_string()) && known.contains(&named), "{known}");
        assert!(!known.contains("02:a1:0a:4b:00:c8 dst"), "{known}");
        drop(ear);
        host.delete(&a);
        host.network(&tool, &["rm", "v"]).ok();
        host.has_nothing_left();
    }
}

#[test]
fn a_published_port_is_the_hosts_own_and_no_other_machines() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    host.network(&tool, &["create", "n1", "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64"])
        .ok();
    let ports = "9001:70,9100-9109:9100-9109";
    let a = host.sleeper(&["--network", "bridge:n1", "-p", ports]);
    let b = host.sleeper(&["--network", "bridge:n1"]);
    for far in [ip("192.0.2.2"), ip("2001:db8::2")] {
        // The wire's own link-local address may be tentative still.
        runtime_tests::container::wait_until("the other machine", || {
            tcp(&host.namespace(), SocketAddr::new(far, 79), &world.namespace(), 79).is_some()
        });
        for port in [9001, 9105] {
            let to = SocketAddr::new(far, port);
            for from in [namespace_of(&b), namespace_of(&a), host.namespace()] {
                assert!(tcp(&from, to, &world.namespace(), port).is_some(), "{to}");
            }
        }
    }
    for container in [&a, &b] {
        host.delete(container);
    }
    host.has_nothing_left();
}
