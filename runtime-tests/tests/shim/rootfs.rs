//! The rootfs that a Create hands over as mounts, and what a shim takes from config.json on its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use runtime_tests::{Container, View};
use serde_json::json;

use crate::place::{Place, Streams, place_for};
use crate::wire::{Out, out};

const FIRST: u32 = 300_000;

fn mount(kind: &str, source: &str, options: &[String]) -> Out {
    let mount = out().bytes(1, kind).bytes(2, source);
    options.iter().fold(mount, |mount, option| mount.bytes(4, option))
}

/// Two layers below a directory of snapshots, which belong to root, and an upper of the mapped root's.
fn layers(place: &Place) -> [String; 3] {
    let path = |name: &str| place.container.path(&format!("snapshots/{name}"));
    fs::create_dir_all(path("1")).expect("a layer");
    fs::rename(place.container.rootfs(), path("1/fs")).expect("the rootfs as a layer");
    fs::create_dir(place.container.rootfs()).expect("the place of the rootfs");
    for name in ["2/fs", "3/fs", "3/work"] {
        fs::create_dir_all(path(name)).expect("a layer");
    }
    fs::write(path("2/fs/root-file"), "of root").expect("a file of the layer");
    fs::set_permissions(path("2/fs/root-file"), PermissionsExt::from_mode(0o600)).expect("chmod");
    for name in ["3/fs", "3/work"] {
        chown(path(name), Some(FIRST), Some(FIRST)).expect("chown");
    }
    ["1/fs", "2/fs", "3"].map(|name| path(name).display().to_string())
}

/// As the pods of Kubernetes with `hostUsers: false` (containerd 2): the layers stay root's on disk.
#[test]
fn layers_are_mapped_for_a_user_namespace() {
    let script = "stat -c '%u %g' /bin /root-file /etc; cat /root-file; echo new > /new";
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    let container = Container::new(View::Host).script(script);
    let container = container.namespace(json!({"type": "user"})).edit(|spec| {
        spec["root"]["readonly"] = false.into();
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    let Some(place) = place_for(container) else { return };
    let [lower, upper_lower, snapshot] = layers(&place);
    let mut shim = place.start();
    let log = place.container.path("said");
    let stdout = format!("file://{}", log.display());
    let options = [
        "index=off".to_owned(),
        format!("workdir={snapshot}/work"),
        format!("upperdir={snapshot}/fs"),
        format!("lowerdir={upper_lower}:{lower}"),
        format!("uidmap=0:{FIRST}:65536"),
        format!("gidmap=0:{FIRST}:65536"),
    ];
    let streams = Streams { stderr: stdout.clone(), stdout, ..Streams::default() };
    let request = shim.request(&streams).bytes(3, mount("overlay", "overlay", &options).0);
    shim.client.ok("Create", request);
    let init = shim.init();
    shim.client.ok("Start", init);
    assert_eq!(shim.wait(""), 0, "{}", fs::read_to_string(&log).unwrap_or_default());
    shim.finish();
    assert_eq!(fs::read_to_string(log).expect("the log"), "0 0\n0 0\n0 0\nof root");
    let owner = |path: String| fs::symlink_metadata(path).expect("a file").uid();
    assert_eq!(owner(format!("{snapshot}/fs/new")), FIRST);
    assert_eq!(owner(format!("{upper_lower}/root-file")), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&place.container.mark), "a mount is left");
}

/// A snapshot of one layer alone is a bind mount.
#[test]
fn a_bound_rootfs_is_mapped_for_a_user_namespace() {
    let script = "stat -c %u /bin; touch /x 2>/dev/null || echo read-only";
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    let container = Container::new(View::Host).script(script);
    let container = container.namespace(json!({"type": "user"})).edit(|spec| {
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    let Some(place) = place_for(container) else { return };
    let [lower, ..] = layers(&place);
    let mut shim = place.start();
    let log = place.container.path("said");
    let stdout = format!("file://{}", log.display());
    let maps = [format!("uidmap=0:{FIRST}:65536"), format!("gidmap=0:{FIRST}:65536")];
    let options = [&["ro".to_owned(), "rbind".to_owned()][..], &maps[..]].concat();
    // One mapping alone is an error, and leaves nothing.
    let request = shim.request(&Streams::default());
    let refused = request.clone().bytes(3, mount("bind", &lower, &options[..3]).0);
    let refused = shim.client.refused("Create", refused);
    assert!(refused.text.contains("uidmap and gidmap"), "{}", refused.text);
    let streams = Streams { stderr: stdout.clone(), stdout, ..Streams::default() };
    let request = shim.request(&streams).bytes(3, mount("bind", &lower, &options).0);
    shim.client.ok("Create", request);
    let init = shim.init();
    shim.client.ok("Start", init);
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!(fs::read_to_string(log).expect("the log"), "0\nread-only\n");
}

/// Docker tells a shim that it knows by name nothing of its cgroup driver but by the path.
#[test]
fn a_path_of_systemds_is_recognised() {
    for (path, expected) in [("system.slice:docker:0123", true), ("/docker/0123", false)] {
        let edit = |spec: &mut serde_json::Value| spec["linux"]["cgroupsPath"] = path.into();
        let Some(place) = place_for(Container::new(View::Host).edit(edit)) else { return };
        let words = place.container.path("words");
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexit 1\n", words.display());
        let script = place.container.file("recorder", &script);
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("chmod");
        let mut shim = place.start();
        let (id, dir) = (shim.id().to_owned(), place.container.dir.clone());
        let options = place.options_with(&script);
        let create = shim.request_for(&id, &dir, &Streams::default(), options);
        shim.client.refused("Create", create);
        let words = fs::read_to_string(words).expect("the words of a call");
        assert_eq!(words.contains("--systemd-cgroup"), expected, "{words}");
        let init = shim.init();
        shim.client.send("Shutdown", init);
        runtime_tests::container::wait_until("its end", || runtime_tests::host::is_gone(shim.pid));
    }
}
