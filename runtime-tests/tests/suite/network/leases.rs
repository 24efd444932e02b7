//! Who holds what, and that nothing is left.

use std::time::{Duration, Instant};

use runtime_tests::skip;

use super::host::{Host, namespace_of, possible, sleeper, tcp};

#[test]
fn conflicts_name_who_was_first() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let flags = [
        "--network",
        "bridge",
        "--publish",
        "80:80,2000-2999:2000-2999",
        "--network-address",
        "10.213.0.9",
    ];
    let first = host.sleeper(&flags);
    for (flags, text) in [
        (&["--network-address", "10.213.0.9"][..], "address 10.213.0.9 is in use by container"),
        (&["--publish", "80:81"], "port 80:81/tcp: already published by container"),
        (&["--publish", "2500-3500:2500-3500"], "already published by container"),
    ] {
        let second = sleeper();
        let out = host.run_call(&second, &[&["--network", "bridge"], flags].concat()).output();
        assert_ne!(out.code, Some(0), "{flags:?}");
        let text = format!("{text} {}", first.id);
        assert!(out.stderr.contains(&text), "{flags:?}: {}", out.stderr);
    }
    assert_eq!(host.leases().lines().count(), 1);
    host.delete(&first);
    host.has_nothing_left();
    // What was taken is free again.
    let third = host.sleeper(&flags);
    host.delete(&third);
    host.has_nothing_left();
}

#[test]
fn a_full_network_says_so() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let tool = sleeper();
    host.network(&tool, &["create", "tiny", "--subnet", "10.77.0.0/29"]).ok();
    let all: Vec<_> = (0..5).map(|_| host.sleeper(&["--network", "bridge:tiny"])).collect();
    let one_more = sleeper();
    let out = host.run_call(&one_more, &["--network", "bridge:tiny"]).output();
    assert!(out.stderr.contains("no free address: 5 of 10.77.0.0/29"), "{}", out.stderr);
    host.delete(&all[2]);
    host.run(&one_more, &["--network", "bridge:tiny"]);
    for container in all.iter().chain([&one_more]) {
        host.delete(container);
    }
    host.has_nothing_left();
}

#[test]
fn leases_of_those_who_are_gone_are_reclaimed() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let first =
        host.sleeper(&["--network", "bridge", "--network-address", "10.213.0.9", "-p", "80:80"]);
    // Not deleted: somebody threw its state away.
    let _ = first.kill("KILL");
    let (state, aside) = (first.root.join(&first.id), first.path("aside"));
    std::fs::rename(&state, &aside).expect("out of the way");
    let second =
        host.sleeper(&["--network", "bridge", "--network-address", "10.213.0.9", "-p", "80:81"]);
    let to = "127.0.0.1:80".parse().expect("an address");
    assert!(tcp(&host.namespace(), to, &namespace_of(&second), 81).is_some());
    // Whoever comes back gives up nothing that is not his any more.
    std::fs::rename(&aside, &state).expect("back in its place");
    host.delete(&first);
    assert_eq!(host.leases().lines().count(), 1);
    host.delete(&second);
    host.has_nothing_left();
}

#[test]
fn reconcile_takes_back_what_nobody_holds() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let first = host.sleeper(&["--network", "bridge", "-p", "80:80"]);
    let living = host.sleeper(&["--network", "bridge", "-p", "90:90"]);
    let (state, aside) = (first.root.join(&first.id), first.path("aside"));
    std::fs::rename(&state, &aside).expect("out of the way");
    let said = host.call(&living, &["reconcile"]).ok().stdout;
    assert!(said.contains(&format!("its container {} is gone", first.id)), "{said}");
    assert_eq!(host.leases().lines().count(), 1);
    std::fs::rename(&aside, &state).expect("back in its place");
    host.delete(&first);
    if skip::which("nft").is_some() {
        host.sh("nft flush ruleset");
        let said = host.call(&living, &["reconcile"]).ok().stdout;
        assert!(said.contains("flushed"), "{said}");
        let to = "127.0.0.1:90".parse().expect("an address");
        assert!(tcp(&host.namespace(), to, &namespace_of(&living), 90).is_some());
    }
    host.delete(&living);
    host.has_nothing_left();
}

#[test]
fn a_flushed_filter_is_made_again() {
    if !possible() || skip::tool("nft", "nftables").is_none() {
        return;
    }
    let host = Host::new();
    let first = host.sleeper(&["--network", "bridge", "-p", "8080:80"]);
    let to = "127.0.0.1:8080".parse().expect("an address");
    let reachable = || tcp(&host.namespace(), to, &namespace_of(&first), 80).is_some();
    assert!(reachable());
    for (flags, flush) in [
        (&[][..], "nft flush ruleset"),
        (&["-p", "9090:90"], "nft flush ruleset"),
        // The rules alone: nobody is refused an element.
        (&[], "nft flush table inet aril"),
        (&["-p", "9090:90"], "nft flush table inet aril"),
    ] {
        host.sh(flush);
        assert!(!reachable());
        let next = host.sleeper(&[&["--network", "bridge"], flags].concat());
        assert!(reachable(), "{flags:?}");
        host.delete(&next);
    }
    host.delete(&first);
    host.has_nothing_left();
    // A container whose element was flushed away is deleted all the same.
    let last = host.sleeper(&["--network", "bridge", "-p", "8080:80"]);
    host.sh("nft flush ruleset");
    host.delete(&last);
    assert_eq!(host.leases(), "");
}

/// A container that has ended and is kept has no address and no port any more.
#[test]
fn released_at_the_end() {
    if !possible() {
        return;
    }
    let host = Host::new();
    let c = sleeper().script("exit 4");
    let rootfs = c.rootfs().display().to_string();
    let bundle = c.dir.display().to_string();
    let net = ["--network", "bridge", "-p", "8080:80"];
    let detached = |last: &[&str]| {
        let words = [&["run", "-d", "--rootfs", &rootfs], &net[..], &[&c.id, "--"], last].concat();
        host.call(&c, &words).ok();
    };
    let reconcile = || host.call(&c, &["reconcile"]).ok().stdout;
    let kept = "it has ended, and was kept";
    detached(&["sh", "-c", "exit 3"]);
    host.call(&c, &["wait", &c.id]).output().exits(3);
    host.has_nothing_left();
    assert!(c.status() == "stopped" && reconcile().contains(kept));
    // Its port is another's, whom its deletion does not touch.
    let other = host.sleeper(&net);
    host.call(&c, &["delete", &c.id]).ok();
    let to = "127.0.0.1:8080".parse().expect("an address");
    assert!(tcp(&host.namespace(), to, &namespace_of(&other), 80).is_some());
    host.delete(&other);
    // In the foreground.
    c.write_config();
    let words = [&["run", "--keep", "-b", &bundle], &net[..], &[&c.id]].concat();
    host.call(&c, &words).output().exits(4);
    host.has_nothing_left();
    host.delete(&c);
    // Nobody was left to do it.
    let words = [&["run", "-d", "--rootfs", &rootfs], &net[..], &[&c.id, "--", "sleep", "1000"]];
    host.call(&c, &words.concat()).ok();
    host.sh(&format!("pkill -KILL -f '^aril-monitor {} {} '", c.root.display(), c.id));
    c.kill("KILL").ok();
    c.wait_for("stopped");
    assert_eq!(host.leases().lines().count(), 1);
    let out = reconcile();
    assert!(out.contains("removed network") && !out.contains(kept), "{out}");
    host.has_nothing_left();
    assert!(reconcile().contains(kept));
    host.delete(&c);
    host.has_nothing_left();
}

/// Killed at any moment, a run leaves what `delete --force` finds.
#[test]
fn killed_at_any_moment() {
    if !possible() {
        return;
    }
    let host = Host::new();
    // The bridge is there: the moments are those of a container.
    host.delete(&host.sleeper(&["--network", "bridge"]));
    let started = Instant::now();
    host.delete(&host.sleeper(&["--network", "bridge", "-p", "80:80"]));
    let whole = started.elapsed();
    let container = sleeper();
    container.write_config();
    for n in 0..40_u32 {
        let mut call = host.spawn(&container, &["--network", "bridge", "-p", "80:80"]);
        std::thread::sleep(whole * n / 40 + Duration::from_micros(100));
        let _ = call.kill();
        call.wait().expect("its end");
        host.delete(&container);
        assert_eq!(host.leases(), "", "killed after {n}/40 of {whole:?}");
    }
    // Nor is any port still taken.
    host.delete(&host.sleeper(&["--network", "bridge", "-p", "80:80"]));
    host.has_nothing_left();
}
