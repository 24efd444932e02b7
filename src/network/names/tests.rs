use super::*;
use crate::spec::annotation::NETWORK;

fn planned(pairs: &[(&str, &str)], mounts: &[Mount]) -> Result<Option<Names>> {
    plan(&NamesRequest {
        extensions: &Extensions::of(pairs),
        hostname: Some("h"),
        mounts,
        mount_namespace: true,
        impossible: &[],
    })
}

fn mount(at: &str) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(at.into());
    mount
}

const BRIDGE: (&str, &str) = (NETWORK, "bridge");

#[test]
fn only_networks_with_name_resolution_have_names() {
    for network in ["bridge", "bridge:n", "container:a", "host", "pasta"] {
        let names = planned(&[(NETWORK, network)], &[]).unwrap().unwrap();
        assert_eq!(names.places, PLACES, "{network}");
        assert_eq!(names.on_the_host, network == "host");
    }
    for network in ["none", "ns:/n"] {
        assert_eq!(planned(&[(NETWORK, network)], &[]).unwrap(), None, "{network}");
    }
    assert_eq!(planned(&[], &[]).unwrap(), None);
    let refused = planned(&[(NETWORK_DNS, "10.0.0.1")], &[]).unwrap_err().to_string();
    assert!(refused.contains("needs a network"), "{refused}");
}

#[test]
fn a_mount_of_the_config_has_precedence() {
    let names = planned(&[BRIDGE], &[mount("/etc/hosts/"), mount("/etc/ssl")]).unwrap().unwrap();
    assert_eq!(names.places, [RESOLVER, HOSTNAME]);
    assert_eq!(planned(&[BRIDGE], &[mount("/etc")]).unwrap().unwrap().places.len(), 0);
    assert_eq!(names.mounts(Path::new("/s"))[0].source(), &Some("/s/resolv.conf".into()));
}

#[test]
fn requested_servers_and_hosts_are_written() {
    let asked = [
        BRIDGE,
        (NETWORK_DNS, "10.0.0.1,fd00::1"),
        (NETWORK_DNS_SEARCH, "a.example"),
        (NETWORK_HOSTS, "db:10.0.0.9,six:fd00::9,b=[fd00::8]"),
    ];
    let names = planned(&asked, &[]).unwrap().unwrap();
    let (text, has_server) = names.resolver_text("nameserver 192.0.2.1\noptions edns0\n", "");
    let wanted = "nameserver 10.0.0.1\nnameserver fd00::1\nsearch a.example\noptions edns0\n";
    assert_eq!((text.as_str(), has_server), (wanted, true));
    let hosts = format!("{LOOPBACK}10.1.0.2 h\n10.0.0.9 db\nfd00::9 six\nfd00::8 b\n");
    assert_eq!(names.hosts_text(&["10.1.0.2".parse().unwrap()]), hosts);
    for (key, bad) in [
        (NETWORK_DNS, "x"),
        (NETWORK_DNS_SEARCH, "a b"),
        (NETWORK_HOSTS, "a"),
        (NETWORK_HOSTS, "a:b"),
        (NETWORK_HOSTS, "a\nb:10.0.0.1"),
    ] {
        let refused = planned(&[BRIDGE, (key, bad)], &[]).unwrap_err().to_string();
        assert!(refused.contains("invalid"), "{key}={bad}: {refused}");
    }
}

#[test]
fn unreachable_resolvers_are_left_out() {
    let stub = "# a comment\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    let upstream = "nameserver 192.0.2.7\nnameserver ::1\n";
    let inside = planned(&[BRIDGE], &[]).unwrap().unwrap();
    let (text, has_server) = inside.resolver_text(stub, upstream);
    assert_eq!(
        (text.as_str(), has_server),
        ("nameserver 192.0.2.7\noptions edns0 trust-ad\n", true)
    );
    assert!(!inside.resolver_text(stub, "").1);
    let host = planned(&[(NETWORK, "host")], &[]).unwrap().unwrap();
    assert!(host.resolver_text(stub, upstream).0.starts_with("nameserver 127.0.0.53\n"));
}

#[test]
fn lines_keep_their_position() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut text = LOOPBACK.to_owned();
    let add = |text: &mut String, address: &str, names: &str| {
        let (at, line) = insertion(text, ip(address), &names.split(' ').collect::<Vec<_>>());
        assert_eq!(line.len() % GRAIN, 0);
        text.replace_range(at..(at + line.len()).min(text.len()), &line);
        at
    };
    let first = add(&mut text, "10.0.0.2", "a h");
    let second = add(&mut text, "10.0.0.3", "b");
    assert!(is_taken(&text, "h", &[]) && is_taken(&text, "b", &[]));
    assert!(!is_taken(&text, "10.0.0.3", &[]) && !is_taken(&text, "h", &[ip("10.0.0.2")]));
    let lines = lines_of(&text, ip("10.0.0.2"), None);
    assert_eq!(lines, [(first, GRAIN)]);
    assert_eq!(lines_of(&text, ip("10.0.0.2"), Some("h")), []);
    let length = text.len();
    text.replace_range(first..first + GRAIN, &blank(GRAIN));
    assert_eq!(text.len(), length);
    assert_eq!(lines_of(&text, ip("10.0.0.3"), Some("b")), [(second, GRAIN)]);
    // The free line is too short.
    let long = "x".repeat(70);
    assert_eq!(add(&mut text, "10.0.0.4", &long), length);
    assert_eq!(add(&mut text, "10.0.0.5", "c"), first);
}

#[test]
fn a_name_is_one_word_of_one_line() {
    for hostname in
        ["a\nb", "a\n10.0.0.1 c", "a b", "a\tb", "a#b", "a\r", "\u{85}", "a\0", "\u{e9}"]
    {
        let refused = plan(&NamesRequest {
            extensions: &Extensions::of(&[BRIDGE]),
            hostname: Some(hostname),
            mounts: &[],
            mount_namespace: true,
            impossible: &[],
        });
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("invalid hostname"), "{hostname:?}: {refused}");
    }
    // Whatever the names contain, one line is added, with no further words.
    let names = ["a\n192.0.2.1 bank.example", "b c\t#d\r"];
    let (_, line) = insertion(LOOPBACK, "10.0.0.2".parse().unwrap(), &names);
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert_eq!(line.split_whitespace().count(), 3, "{line:?}");
    assert!(!line.contains('#'), "{line:?}");
}
