//! What containers find at /etc/hosts, /etc/resolv.conf and /etc/hostname.

use runtime_tests::Container;
use serde_json::json;

use super::host::{Host, address, annotate, possible, sleeper};

/// The address that a hosts file has for a name, as a C library looks it up.
fn lookup(hosts: &str, name: &str) -> Option<String> {
    let lines = hosts.lines().filter(|line| !line.starts_with('#'));
    let mut found = lines.filter(|line| line.split_whitespace().skip(1).any(|word| word == name));
    found.next().and_then(|line| line.split_whitespace().next()).map(str::to_owned)
}

#[track_caller]
fn cat(host: &Host, container: &Container, path: &str) -> String {
    host.call(container, &["exec", &container.id, "cat", path]).ok().stdout
}

fn hosts(host: &Host, container: &Container) -> String {
    cat(host, container, "/etc/hosts")
}

fn named(hostname: &str) -> Container {
    let mut container = sleeper();
    container.spec["hostname"] = json!(hostname);
    container
}

#[test]
fn neighbours_know_each_other() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    let both = ["create", "n7", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];
    host.network(&tool, &both).ok();
    let on = ["--network", "bridge:n7"];
    let (a, b) = (named("first"), named("second"));
    host.run(&a, &on);
    host.run(&b, &on);
    let at = |container: &Container| Some(address(&host, container, true).to_string());
    for reader in [&a, &b] {
        let text = hosts(&host, reader);
        assert_eq!(lookup(&text, &a.id), at(&a), "{text}");
        assert_eq!(lookup(&text, &b.id), at(&b), "{text}");
        assert_eq!((lookup(&text, "first"), lookup(&text, "second")), (at(&a), at(&b)));
        assert_eq!(lookup(&text, "localhost").as_deref(), Some("127.0.0.1"));
        assert!(text.contains(&address(&host, &a, false).to_string()), "{text}");
    }
    assert_eq!(cat(&host, &a, "/etc/hostname"), "first\n");
    // A hostname that another has already means oneself, and a name of one's own stays one's own.
    let c = named("first");
    host.run(&c, &["--network", "bridge:n7", "--add-host", "db:192.0.2.9"]);
    let text = hosts(&host, &c);
    assert_eq!((lookup(&text, "first"), lookup(&text, &a.id)), (at(&c), at(&a)), "{text}");
    assert_eq!(lookup(&text, "db").as_deref(), Some("192.0.2.9"));
    let text = hosts(&host, &a);
    assert_eq!((lookup(&text, "first"), lookup(&text, &c.id)), (at(&a), at(&c)), "{text}");
    assert_eq!(lookup(&text, "db"), None);
    // Who goes is forgotten, by those with a file of their own too; who comes takes the place.
    host.delete(&b);
    let d = named("fourth");
    host.run(&d, &on);
    for reader in [&a, &c, &d] {
        let text = hosts(&host, reader);
        assert_eq!((lookup(&text, &b.id), lookup(&text, "second")), (None, None), "{text}");
        assert_eq!(lookup(&text, "fourth"), at(&d), "{text}");
    }
    // Nobody's to change, and nothing of it in the image.
    host.call(&a, &["exec", &a.id, "sh", "-c", "echo x >> /etc/hosts"]).output().says("Read-only");
    for file in ["hosts", "resolv.conf", "hostname"] {
        let mount_point = a.rootfs().join("etc").join(file);
        assert_eq!(std::fs::read(&mount_point).unwrap_or_default(), b"", "{file}");
    }
    for container in [&a, &c, &d] {
        host.delete(container);
    }
    assert_eq!(host.sh("find /run/aril/@network/hosts -type f"), "");
    host.network(&tool, &["rm", "n7"]).ok();
    assert_eq!(
        host.sh("ls /run/aril/@network/hosts /run/aril/@network/leases | grep n7 || true"),
        ""
    );
    host.has_nothing_left();
}

#[test]
fn a_pod_has_a_name_for_each() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let first = host.sleeper(&["--network", "bridge"]);
    let sharing = format!("container:{}", first.id);
    let mut second = sleeper();
    second.root = first.root.clone();
    host.run(&second, &["--network", &sharing]);
    let own = Some(address(&host, &first, true).to_string());
    let text = hosts(&host, &first);
    assert_eq!((lookup(&text, &first.id), lookup(&text, &second.id)), (own.clone(), own.clone()));
    assert_eq!(hosts(&host, &second), text);
    host.delete(&first);
    let text = hosts(&host, &second);
    assert_eq!((lookup(&text, &first.id), lookup(&text, &second.id)), (None, own), "{text}");
    host.delete(&second);
    host.has_nothing_left();
}

#[test]
fn resolvers() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let resolv = |container: &Container| cat(&host, container, "/etc/resolv.conf");
    // The host's own file in this host's mount namespace.
    host.sh(
        "printf 'nameserver 192.0.2.53\\nnameserver 127.0.0.53\\nsearch a.example\\n' > /run/r \
             && mount --bind /run/r \"$(readlink -f /etc/resolv.conf)\"",
    );
    let a = host.sleeper(&["--network", "bridge"]);
    assert_eq!(resolv(&a), "nameserver 192.0.2.53\nsearch a.example\n");
    let mut b = sleeper();
    annotate(&mut b, "io.aril.network", "bridge");
    annotate(&mut b, "io.aril.network.dns", "192.0.2.99");
    annotate(&mut b, "io.aril.network.dns-search", "b.example");
    host.run(&b, &[]);
    assert_eq!(resolv(&b), "nameserver 192.0.2.99\nsearch b.example\n");
    // Nobody but the host can ask at its loopback: systemd-resolved says whom it asks itself.
    host.sh("echo 'nameserver 127.0.0.53' > /run/r");
    let c = sleeper();
    let said = host.run_call(&c, &["--network", "bridge"]).ok().stderr;
    assert!(said.contains("--dns"), "{said:?}");
    assert_eq!(resolv(&c), "");
    host.sh("mkdir -p /run/systemd/resolve && \
             echo 'nameserver 192.0.2.54' > /run/systemd/resolve/resolv.conf");
    let d = host.sleeper(&["--network", "bridge"]);
    assert_eq!(resolv(&d), "nameserver 192.0.2.54\n");
    // On the host's network the host's loopback is the container's.
    let e = host.sleeper(&["--network", "host"]);
    assert_eq!(resolv(&e), "nameserver 127.0.0.53\n");
    for container in [&a, &b, &c, &d, &e] {
        host.delete(container);
    }
    host.has_nothing_left();
}

#[test]
fn a_mount_of_the_config_goes_before() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let mut c = sleeper();
    let own = c.path("own-hosts");
    std::fs::write(&own, "192.0.2.1 mine\n").expect("a file");
    c.spec["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": "/etc/hosts", "type": "bind", "source": own, "options": ["bind", "ro"]
    }));
    host.run(&c, &["--network", "bridge"]);
    assert_eq!(hosts(&host, &c), "192.0.2.1 mine\n");
    host.delete(&c);
    for (flag, bad, why) in [
        ("--dns", "x", "invalid address of a DNS server \"x\""),
        ("--add-host", "db", "invalid host \"db\""),
        ("--dns-search", "a/b", "invalid search domain \"a/b\""),
    ] {
        let c = sleeper();
        host.run_call(&c, &["--network", "bridge", flag, bad]).output().exits(1).says(why);
    }
    let c = sleeper();
    host.run_call(&c, &["--dns", "192.0.2.1"])
        .output()
        .exits(1)
        .says("needs a network with name resolution");
    host.has_nothing_left();
}

#[test]
fn a_hostname_adds_no_line_to_anybodys_hosts() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let on = ["--network", "bridge"];
    let reader = named("reader");
    host.run(&reader, &on);
    let lines = || {
        let text = hosts(&host, &reader);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = lines();
    for bad in ["a\n192.0.2.66 bank.example", "a\rb", "a b", "a\tb", "a#b", "a\u{85}b", "\n"] {
        let c = named(bad);
        host.run_call(&c, &on).output().exits(1).says("invalid hostname");
        // Without a network, too, and as the domain name.
        let c = named(bad);
        let out = host.run_call(&c, &[]).output();
        assert!(bad == "a#b" || out.stderr.contains("invalid hostname"), "{bad:?}: {out:?}");
        let mut c = sleeper();
        c.spec["domainname"] = json!(bad);
        let out = host.run_call(&c, &on).output();
        assert!(bad == "a#b" || out.stderr.contains("invalid domainname"), "{bad:?}: {out:?}");
        host.call(&c, &["delete", "--force", &c.id]).output();
        let c = sleeper();
        let entry = format!("{bad}:192.0.2.66");
        let out = host.run_call(&c, &[&on[..], &["--add-host", &entry]].concat()).output();
        out.exits(1).says("invalid host");
    }
    assert_eq!(lines(), before);
    host.delete(&reader);
    host.has_nothing_left();
}
