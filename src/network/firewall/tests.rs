#![expect(clippy::disallowed_types, reason = "tests read the rules with nft(8)")]

use std::process::Command;

use runtime_tests::skip;

use super::*;
use crate::network::ports::Published;
use crate::sys::pidfd::Ended;
use crate::sys::spawn::in_child;

fn in_new_network_namespace(body: impl FnOnce(&mut Socket)) {
    if !skip::is_root() {
        return;
    }
    let ended = in_child(|| {
        crate::sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
        body(&mut open().unwrap());
    });
    assert_eq!(ended, Ended::Exited(0));
}

fn mapping(text: &str, to: &str) -> Mapping {
    Mapping { published: text.parse::<Published>().unwrap(), to: to.parse().unwrap() }
}

fn add(socket: &mut Socket, mappings: &[Mapping]) -> Result<(), Refusal> {
    let mut transaction = Transaction::new();
    mappings.iter().for_each(|one| add_mapping(&mut transaction, one));
    transaction.commit(socket)
}

const PEERS: [std::net::IpAddr; 2] = [
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)),
    std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];

fn bridge() -> Bridge<'static> {
    let subnets = ["10.0.0.0/24", "fd00::/64"].map(|text| text.parse().ok());
    Bridge {
        name: "br",
        masqueraded: true,
        closed: true,
        internal: true,
        open: true,
        subnets,
        tunnel: Some((7, &PEERS)),
    }
}

fn made(socket: &mut Socket) {
    let mut transaction = Transaction::new();
    remake(&mut transaction);
    let bridge = bridge();
    add_bridge(&mut transaction, &bridge);
    transaction.commit(socket).unwrap();
}

/// Output of `nft list ruleset`, if the tool is installed.
fn shown() -> Option<String> {
    let nft = skip::tool("nft", "nftables")?;
    let output = Command::new(nft).args(["list", "ruleset"]).output().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_existing_table_is_replaced() {
    in_new_network_namespace(|socket| {
        assert!(!is_whole(socket).unwrap());
        made(socket);
        assert!(is_whole(socket).unwrap());
        made(socket);
        let bridge = bridge();
        let mut transaction = Transaction::new();
        remove_bridge(&mut transaction, &bridge);
        transaction.commit(socket).unwrap();
    });
}

#[test]
fn nft_lists_all_rules_and_elements() {
    in_new_network_namespace(|socket| {
        made(socket);
        add(
            socket,
            &[
                mapping("8080:80", "10.0.0.2"),
                mapping("8080:80", "fd00::2"),
                mapping("127.0.0.1:53:53/udp", "10.0.0.2"),
                mapping("[::1]:53:53/udp", "fd00::2"),
                mapping("3000-3999:3000-3999", "10.0.0.2"),
                mapping("10.1.1.1:4000-4999:4000-4999/sctp", "10.0.0.2"),
                mapping("3000-3999:3000-3999", "fd00::2"),
                mapping("7000-7001:70-71", "10.0.0.2"),
            ],
        )
        .unwrap();
        let Some(text) = shown() else { return };
        for part in [
            "tcp . 8080 : 10.0.0.2 . 80",
            "tcp . 7001 : 10.0.0.2 . 71",
            "127.0.0.1 . udp . 53 : 10.0.0.2 . 53",
            "::1 . udp . 53 : fd00::2 . 53",
            "0.0.0.0/0 . tcp . 3000-3999 : 10.0.0.2",
            "10.1.1.1 . sctp . 4000-4999 : 10.0.0.2",
            "::/0 . tcp . 3000-3999 : fd00::2",
            "fib daddr type local jump published",
            "iifname . oifname @pairs accept",
            "elements = { \"br\" }",
            "elements = { 10.0.0.0/24 }",
            "elements = { fd00::/64 }",
            "ct status dnat ip saddr @subnets4 masquerade",
            "ct state established,related accept",
            "iifname @masqueraded oifname != @bridges masquerade",
            "iif != \"lo\" ip daddr 127.0.0.0/8 drop",
            "iif != \"lo\" ip saddr 127.0.0.0/8 drop",
            "oifname @bridges meta mark set",
            "elements = { 0.0.7.0 }",
            "elements = { 192.0.2.9 . 0.0.7.0 }",
            "elements = { ::1 . 0.0.7.0 }",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    });
}

#[test]
fn conflicts_change_nothing() {
    in_new_network_namespace(|socket| {
        made(socket);
        add(socket, &[mapping("80:80", "10.0.0.2"), mapping("1000-1999:1000-1999", "10.0.0.2")])
            .unwrap();
        let taken = [
            (mapping("80:81", "10.0.0.3"), Errno::EEXIST),
            (mapping("1500-2500:1500-2500", "10.0.0.3"), Errno::EEXIST),
        ];
        for (other, errno) in taken {
            let refusal = add(socket, &[mapping("90:90", "10.0.0.3"), other]).unwrap_err();
            // Request 0 begins the batch.
            assert_eq!((refusal.index, refusal.errno), (2, errno), "{refusal:?}");
        }
        assert_eq!(remove(socket, &["90:90"], Removal::Delete).unwrap_err().errno, Errno::ENOENT);
        remove(socket, &["80:80", "1000-1999:1000-1999"], Removal::Delete).unwrap();
    });
}

fn remove(socket: &mut Socket, ports: &[&str], removal: Removal) -> Result<(), Refusal> {
    let mut transaction = Transaction::new();
    for port in ports {
        remove_mapping(&mut transaction, &mapping(port, "10.0.0.2"), removal);
    }
    transaction.commit(socket)
}

#[test]
fn an_expired_port_can_be_published_again() {
    if Removal::of_this_kernel() == Removal::Delete {
        return skip::inapplicable("this kernel cannot change an element's timeout: Linux 6.12");
    }
    in_new_network_namespace(|socket| {
        made(socket);
        let ports = ["80:80", "1000-1999:1000-1999", "127.0.0.1:81:81", "90-91:190-191"];
        let all = |to| ports.map(|port| mapping(port, to));
        add(socket, &all("10.0.0.2")).unwrap();
        remove(socket, &ports, Removal::Expire).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        if let Some(text) = shown() {
            assert!(!text.contains("10.0.0.2"), "{text}");
        }
        // Expiring twice succeeds and restores nothing.
        remove(socket, &ports, Removal::Expire).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        add(socket, &all("10.0.0.3")).unwrap();
        // An element that another container owns in the meantime stays.
        let refusal = remove(socket, &ports[..1], Removal::Expire).unwrap_err();
        assert_eq!(refusal.errno, Errno::EEXIST);
    });
}

#[test]
fn a_table_without_its_rules_is_not_whole() {
    if skip::tool("nft", "nftables").is_none() {
        return;
    }
    in_new_network_namespace(|socket| {
        for flush in
            [&["flush", "table", "inet", "aril"][..], &["flush", "chain", "inet", "aril", "guard"]]
        {
            made(socket);
            assert!(is_whole(socket).unwrap());
            assert!(Command::new("nft").args(flush).status().unwrap().success());
            assert!(!is_whole(socket).unwrap());
        }
    });
}

#[test]
fn ten_thousand_ports_fit_one_transaction() {
    in_new_network_namespace(|socket| {
        made(socket);
        add(socket, &[mapping("10000-19999:20000-29999", "10.0.0.2")]).unwrap();
        assert_eq!(
            add(socket, &[mapping("19999:1", "10.0.0.3")]).unwrap_err().errno,
            Errno::EEXIST
        );
    });
}

#[test]
fn without_the_table_a_mapping_is_refused() {
    in_new_network_namespace(|socket| {
        let refusal = add(socket, &[mapping("80:80", "10.0.0.2")]).unwrap_err();
        assert_eq!(refusal.errno, Errno::ENOENT);
    });
}
