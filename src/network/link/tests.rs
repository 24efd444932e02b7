use runtime_tests::skip;

use super::*;
use crate::network::definition::subnet::Subnet;
use crate::sys::netlink::{Batch, ROUTE, Socket};
use crate::sys::pidfd::Ended;
use crate::sys::spawn::in_child;

/// Runs `body` in a new network namespace, or prints why it was skipped.
fn in_new_network_namespace(body: impl FnOnce(&mut Socket)) {
    if !skip::is_root() {
        return;
    }
    let ended = in_child(|| {
        crate::sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
        body(&mut Socket::open(ROUTE).unwrap());
    });
    assert_eq!(ended, Ended::Exited(0));
}

fn net(text: &str) -> Subnet {
    text.parse().unwrap()
}

#[test]
fn one_request_creates_a_veth_pair_on_a_bridge() {
    in_new_network_namespace(|socket| {
        let mut batch = Batch::new();
        new_bridge(&mut batch, "br", [2, 0, 0, 0, 0, 1], 1400);
        socket.transact(batch).unwrap();
        let bridge = find(socket, "br").unwrap().unwrap();
        assert_eq!(bridge.mtu, 1400);
        let here = std::fs::File::open("/proc/self/ns/net").unwrap();
        let place = LinkNamespace::File(std::os::fd::AsFd::as_fd(&here));
        let mut batch = Batch::new();
        let mac = [2, 0, 0, 0, 0, 2];
        let bridge = Some(bridge.index);
        new_veth(
            &mut batch,
            &Veth { here: "a", bridge, there: "b", namespace: place, mac, mtu: 1400 },
        );
        get(&mut batch, "a");
        let mut found = None;
        socket.ask(batch, |reply| found = found.take().or(Found::read(reply))).unwrap();
        let other = find(socket, "b").unwrap().unwrap();
        assert_eq!(found.unwrap().peer, other.index);
        let mut batch = Batch::new();
        no_link_local(&mut batch, LinkRef::Index(other.index));
        up(&mut batch, LinkRef::Index(other.index));
        add_address(&mut batch, other.index, net("10.9.0.2/24"));
        add_address(&mut batch, other.index, net("fd09::2/64"));
        add_route(&mut batch, net("0.0.0.0/0"), "10.9.0.1".parse().unwrap());
        add_route(&mut batch, net("fd0a::/64"), "fd09::1".parse().unwrap());
        limit(&mut batch, other.index, 1_000_000, 64 * 1024);
        socket.transact(batch).unwrap();
        assert!(destinations(socket, true).unwrap().contains(&net("10.9.0.0/24")));
        let six = destinations(socket, false).unwrap();
        assert!(six.contains(&net("fd0a::/64")), "{six:?}");
        assert!(
            !six.iter().any(|s| s.to_string().starts_with("fe80::") && s.prefix == 128),
            "{six:?}"
        );
        let mut batch = Batch::new();
        delete(&mut batch, "a");
        socket.transact(batch).unwrap();
        assert_eq!(find(socket, "b").unwrap(), None);
    });
}

#[test]
fn a_vxlan_device_floods_to_its_peers() {
    in_new_network_namespace(|socket| {
        let mut batch = Batch::new();
        new_bridge(&mut batch, "br", [2, 0, 0, 0, 0, 1], 1450);
        socket.transact(batch).unwrap();
        let bridge = find(socket, "br").unwrap().unwrap().index;
        let mut batch = Batch::new();
        new_vxlan(&mut batch, &Vxlan { name: "vx", mtu: 1450, id: 7, port: 4789, ipv6: false });
        socket.transact(batch).unwrap();
        let vxlan = find(socket, "vx").unwrap().unwrap().index;
        let mut batch = Batch::new();
        enslave(&mut batch, vxlan, bridge);
        socket.transact(batch).unwrap();
        let mut batch = Batch::new();
        flood_to(&mut batch, vxlan, "192.0.2.2".parse().unwrap());
        flood_to(&mut batch, vxlan, "192.0.2.3".parse().unwrap());
        socket.transact(batch).unwrap();
        assert_eq!(names(socket).unwrap(), ["lo", "br", "vx"]);
    });
}
