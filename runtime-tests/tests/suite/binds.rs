//! Bind mounts: how far they reach, whose mounts they follow, and which flags of the host they keep.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use runtime_tests::{Call, Container, View, on_the_host};
use serde_json::json;

const FIRST: u32 = 100_000;

fn writable(view: View) -> Container {
    Container::new(view).edit(|spec| spec["root"]["readonly"] = false.into())
}

fn bound(c: Container, source: &Path, destination: &str, options: &[&str]) -> Container {
    let source = source.to_str().expect("utf-8");
    let mount =
        json!({"destination": destination, "type": "bind", "source": source, "options": options});
    c.mounting(mount)
}

/// Runs the container in a mount namespace whose root is shared, prepared by `script`.
fn prepared(c: &Container, script: &str) -> Call {
    let inner = format!("mount --make-rprivate /; mount --make-rshared /; {script}; exec \"$@\"");
    c.run_call(&[]).in_shell(&format!("exec unshare -m sh -ec '{inner}' sh \"$@\""))
}

/// The flags of a mount point, as the container sees them.
fn flags_of(place: &str) -> String {
    format!("busybox awk '$5==\"{place}\"{{print $6}}' /proc/self/mountinfo")
}

#[test]
fn bind_and_rbind_add_up() {
    on_the_host(|view| {
        for options in
            [&["rbind", "rw", "bind"][..], &["bind", "rbind"], &["rbind", "nosuid", "bind"]]
        {
            let c = writable(view);
            let source = c.directory("source");
            fs::create_dir(source.join("sub")).expect("a directory");
            let c = bound(c, &source, "/mnt", options).args(["cat", "/mnt/sub/file"]);
            let below = source.join("sub");
            let script = format!("mount -t tmpfs t {0}; echo below > {0}/file", below.display());
            prepared(&c, &script).ok().prints("below\n");
        }
    });
}

/// Of bind mounts that say nothing of propagation.
#[test]
fn binds_follow_the_host_as_the_root_does() {
    on_the_host(|view| {
        // rootfsPropagation, then what the root, a bind from beside the rootfs, and another have.
        let private = ["", "", ""];
        let slave = ["master", "master", "master"];
        for user in [false, true] {
            for (propagation, [root, beside, other]) in
                [("", ["", "", "master"]), ("rprivate", private), ("rslave", slave)]
            {
                let c = writable(view);
                if !c.runtime.only_aril("runc 1.1 leaves binds from beside the rootfs slaves") {
                    return;
                }
                let (source, elsewhere) = (c.directory("source"), c.directory("elsewhere"));
                let c = bound(c, &source, "/beside", &["rbind"]);
                let c = bound(c, &elsewhere, "/other", &["rbind"]);
                let c = if user { c.in_user_namespace(FIRST) } else { c };
                let c = c
                    .edit(|spec| spec["linux"]["rootfsPropagation"] = propagation.into())
                    .script("busybox awk '$5==\"/\"||$5==\"/beside\"||$5==\"/other\"{sub(/:.*/,\"\",$7); sub(/-/,\"\",$7); print $5, $7}' /proc/self/mountinfo");
                let out = prepared(&c, &format!("mount -t tmpfs t {}", elsewhere.display())).ok();
                let mut lines: Vec<&str> = out.stdout.lines().map(str::trim_end).collect();
                lines.sort_unstable();
                let wanted =
                    [format!("/ {root}"), format!("/beside {beside}"), format!("/other {other}")];
                let wanted: Vec<&str> = wanted.iter().map(|line| line.trim_end()).collect();
                assert_eq!(lines, wanted, "{propagation:?}, user namespace: {user}");
            }
        }
    });
}

/// What the host's mount forbids, a container in a user namespace does not allow itself: the kernel
/// locks the flags, whether or not the container's user could reach the source.
#[test]
fn a_user_namespace_keeps_the_hosts_flags() {
    on_the_host(|view| {
        for reachable in [true, false] {
            for options in
                [&["rbind"][..], &["bind", "nosuid"], &["rbind", "ro"], &["rbind", "rprivate"]]
            {
                let c = writable(view);
                if !c.runtime.only_aril("runc 1.1 refuses some") {
                    return;
                }
                let private = c.directory("private");
                let source = c.directory("private/source");
                let c = bound(c, &source, "/mnt", options).in_user_namespace(FIRST);
                if !reachable {
                    fs::set_permissions(&private, fs::Permissions::from_mode(0o700))
                        .expect("chmod");
                }
                let c = c.edit(|spec| {
                    for set in ["bounding", "effective", "permitted"] {
                        let list =
                            spec["process"]["capabilities"][set].as_array_mut().expect("a set");
                        list.push("CAP_SYS_ADMIN".into());
                    }
                });
                // Nor may its root do so later.
                let c = c.script(&format!(
                    "mount -o remount,bind,rw,suid,dev,exec /mnt 2>/dev/null; {}",
                    flags_of("/mnt")
                ));
                let script = format!(
                    "mount -t tmpfs t {0}; mount -o remount,bind,ro,nosuid,nodev,noexec {0}",
                    source.display()
                );
                let out = prepared(&c, &script).ok();
                assert_eq!(
                    out.stdout.trim(),
                    "ro,nosuid,nodev,noexec,relatime",
                    "{options:?}, reachable: {reachable}"
                );
            }
            // To ask for the contrary is an error.
            let c = writable(view);
            let source = c.directory("source");
            let c = bound(c, &source, "/mnt", &["rbind", "rw"]).in_user_namespace(FIRST);
            let script =
                format!("mount -t tmpfs t {0}; mount -o remount,bind,ro {0}", source.display());
            prepared(&c, &script).output().exits(1).says("locked flags");
        }
    });
}

/// What a bind makes of the flags of its source, as runc since 1.2: an option that clears something is an
/// option like any other, so flags that none names are cleared; but for those of atime, which only a flag that
/// is set changes. In a user namespace locked flags stay, and asking to clear one is an error.
#[test]
fn flags_of_a_bind_are_its_options() {
    const LOCKED: &str = "operation not permitted";
    // Flags of the source, options of the bind; the flags without and with a user namespace.
    let rows = [
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind",
            "ro,noexec,nodiratime,relatime,nosymfollow",
            "=",
        ),
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind,dev",
            "rw,nodiratime,relatime",
            "ro,noexec,nodiratime,relatime",
        ),
        ("ro", "bind,nosuid,rprivate", "rw,nosuid,relatime", "ro,nosuid,relatime"),
        ("ro", "bind,rw,nosuid", "rw,nosuid,relatime", LOCKED),
        ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime", LOCKED),
        ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,noatime", "ro,nosuid,nodev,noexec,noatime"),
        ("nodev,nosymfollow", "bind,ro,symfollow", "ro,relatime", "ro,nodev,relatime"),
        ("nodev,nosymfollow", "bind,rw", "rw,relatime", "rw,nodev,relatime"),
        ("noatime", "bind,norelatime", "rw,noatime", "="),
        ("noatime", "bind,atime", "rw,noatime", "="),
        ("noatime,nodev", "bind,atime", "rw,noatime", LOCKED),
        ("strictatime", "bind,nostrictatime", "rw", "="),
        ("noatime", "bind,relatime", "rw,relatime", LOCKED),
        ("noatime", "bind,nodiratime", "rw,nodiratime,relatime", LOCKED),
        ("nodiratime", "bind,strictatime", "rw", LOCKED),
        ("noatime", "bind,nodiratime,strictatime", "rw,nodiratime", LOCKED),
        ("nodiratime", "bind,diratime", "rw,nodiratime,relatime", "="),
    ];
    on_the_host(|view| {
        for (host, options, plain, user) in rows {
            for (wanted, user) in [(plain, false), (if user == "=" { plain } else { user }, true)] {
                let c = writable(view);
                if !c.runtime.only_aril("runc 1.1 keeps other flags") {
                    return;
                }
                let source = c.directory("source");
                let c = bound(c, &source, "/mnt", &options.split(',').collect::<Vec<_>>());
                let c = if user { c.in_user_namespace(FIRST) } else { c };
                let c = c.script(&flags_of("/mnt"));
                let script = format!(
                    "mount -t tmpfs t {0}; mount -o remount,bind,{host} {0}",
                    source.display()
                );
                let out = prepared(&c, &script).output();
                if wanted == LOCKED {
                    let place = format!("error mounting {source:?} to rootfs at \"/mnt\"");
                    out.exits(1).says(&place).says("locked").says(LOCKED);
                    c.leaves_nothing();
                } else {
                    let out = out.ok();
                    assert_eq!(out.stdout.trim(), wanted, "{host} -> {options}, user: {user}");
                }
            }
        }
    });
}

/// As runc: callers of old wrote the rootfs before the destination.
#[test]
fn a_destination_below_the_rootfs_is_one_in_the_container() {
    on_the_host(|view| {
        let c = writable(view);
        let file = c.file("file", "bound");
        let destination = c.rootfs().join("mnt/file");
        let c = bound(c, &file, destination.to_str().expect("utf-8"), &["bind"]);
        c.args(["cat", "/mnt/file"]).run().ok().prints("bound");
    });
}

/// As crun; runc refuses.
#[test]
fn a_bind_may_take_the_place_of_the_rootfs() {
    on_the_host(|view| {
        for user in [false, true] {
            let c = writable(view);
            if !c.runtime.only_aril("runc refuses it") {
                return;
            }
            let other = c.directory("other");
            let rootfs = c.rootfs();
            let c = c.edit(|spec| {
                let root = json!({"destination": "/", "type": "bind", "source": other, "options": ["bind"]});
                spec["mounts"].as_array_mut().expect("mounts").insert(0, root);
            });
            let c = if user { c.in_user_namespace(FIRST) } else { c };
            let copy = format!("cp -a {}/. {}", rootfs.display(), other.display());
            let c = c.script("touch /here && ls /dev/null /proc/self/status");
            prepared(&c, &copy).ok().prints("/proc/self/status");
            assert!(other.join("here").exists() && !rootfs.join("here").exists());
        }
        let c = writable(view).mounting(json!({"destination": "/", "type": "tmpfs"}));
        c.run().exits(1).says("is on the top of rootfs");
    });
}

/// The source of a bind is what an earlier mount of the list has put there.
#[test]
fn a_source_may_lie_in_an_earlier_mount() {
    on_the_host(|view| {
        for kind in ["plain", "user", "mapped", "tmpfs"] {
            let c = writable(view);
            if !c.runtime.only_aril("runc 1.1 has no id-mapped mounts") {
                return;
            }
            let source = c.directory("source");
            c.directory("source/x");
            c.file("source/x/file", "here");
            let earlier = c.rootfs().join("mnt").join(if kind == "tmpfs" { "" } else { "x" });
            let c = match kind {
                "tmpfs" => c.mounting(json!({"destination": "/mnt", "type": "tmpfs"})),
                _ => bound(c, &source, "/mnt", &["bind"]),
            };
            let c = bound(c, &earlier, "/final", &["bind"]);
            let c =
                if kind == "plain" || kind == "mapped" { c } else { c.in_user_namespace(FIRST) };
            let c = c.edit(|spec| {
                let last = spec["mounts"].as_array_mut().expect("mounts").last_mut().expect("one");
                for field in ["uidMappings", "gidMappings"] {
                    if kind == "mapped" {
                        last[field] = json!([{"containerID": 0, "hostID": 4000, "size": 65536}]);
                    }
                }
            });
            match kind {
                "tmpfs" => c.script("touch /mnt/new; ls /final").run().ok().prints("new\n"),
                "mapped" => c.script("stat -c %u /final/file").run().ok().prints("4000\n"),
                _ => c.args(["cat", "/final/file"]).run().ok().prints("here"),
            };
        }
    });
}

/// The file is made where the link leads, inside the rootfs.
#[test]
fn a_dangling_link_of_the_image_is_a_mount_point() {
    on_the_host(|view| {
        for (link, name, made) in [
            ("/usr/share/zone/A", "etc/localtime", "usr/share/zone/A"),
            ("../zone/B", "etc/localtime", "zone/B"),
            ("../../../../../zone/C", "etc/localtime", "zone/C"),
        ] {
            let c = writable(view);
            if !c.runtime.only_aril("runc 1.1 refuses") {
                return;
            }
            let file = c.file("file", "bound");
            std::os::unix::fs::symlink(link, c.rootfs().join(name)).expect("a link");
            let c = bound(c, &file, &format!("/{name}"), &["bind", "ro"]);
            let c = c.args(["cat", &format!("/{name}")]);
            c.run().ok().prints("bound");
            assert!(c.rootfs().join(made).is_file(), "{made}");
        }
    });
}

/// Files that devices and the terminal are bound on stay in an image without a mount on /dev.
#[test]
fn placeholders_in_an_image_are_closed() {
    on_the_host(|view| {
        let c = writable(view);
        if !c.runtime.only_aril("runc 1.1 leaves 0666") {
            return;
        }
        let c = c.in_user_namespace(FIRST).edit(|spec| {
            spec["mounts"].as_array_mut().expect("mounts").retain(|m| m["destination"] == "/proc");
        });
        let c = c.args(["true"]);
        c.run().ok();
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            let meta = fs::symlink_metadata(c.rootfs().join("dev").join(name)).expect("a file");
            assert_eq!(meta.permissions().mode() & 0o7777, 0, "{name}");
        }
    });
}

#[test]
fn starts_may_share_missing_mount_points() {
    on_the_host(|view| {
        const STARTS: usize = 6;
        let c = writable(view).args(["true"]);
        if !c.runtime.only_aril("runc fails") {
            return;
        }
        let file = c.file("file", "bound");
        let many = (0..40).fold(c, |c, n| bound(c, &file, &format!("/mp/d{n}/f{n}"), &["bind"]));
        // In the image's /dev, where symlinks and nodes are made, too.
        let c = many.edit(|spec| {
            spec["mounts"]
                .as_array_mut()
                .expect("mounts")
                .retain(|m| !m["destination"].as_str().expect("a path").starts_with("/dev"));
            spec["linux"]["maskedPaths"] = json!([]);
            spec["linux"]["readonlyPaths"] = json!([]);
        });
        // A bundle each, for a cgroup each.
        let bundle = |n: usize| {
            let mut spec = c.spec.clone();
            spec["root"]["path"] = json!(c.rootfs());
            spec["linux"]["cgroupsPath"] = json!(format!("{}-{n}", c.cgroups_path()));
            let bundle = c.directory(&format!("bundle{n}"));
            fs::write(bundle.join("config.json"), spec.to_string()).expect("config.json");
            bundle
        };
        for round in 0..3 {
            let _ = fs::remove_dir_all(c.rootfs().join("mp"));
            let _ = fs::remove_dir_all(c.rootfs().join("dev"));
            let start = |n| {
                let id = format!("{}-{round}-{n}", c.id);
                c.call(["run", "-b", bundle(n).to_str().expect("utf-8"), &id]).spawn()
            };
            let started: Vec<_> = (0..STARTS).map(start).collect();
            for one in started {
                one.wait().ok();
            }
        }
    });
}

/// As /var/run is one.
#[test]
fn a_bundle_may_be_behind_a_symlink() {
    on_the_host(|view| {
        let mut c = writable(view).args(["true"]);
        c.write_config();
        std::os::unix::fs::symlink(&c.dir, c.path("link")).expect("a link");
        let link = c.path("link");
        for bundle in [link.clone(), link.join("rootfs/../"), link.join("calls/..")] {
            c.call(["run", "-b", bundle.to_str().expect("utf-8"), &c.id]).ok();
        }
        // A state root, too.
        std::os::unix::fs::symlink(c.directory("real"), c.path("root")).expect("a link");
        c.root = c.path("root");
        c.run_call(&["--pid-file", link.join("pid").to_str().expect("utf-8")]).ok();
        assert!(c.path("pid").exists());
    });
}

/// crun's options: Podman has the first for files such as /etc/localtime.
#[test]
fn symlinks_are_copied_or_bound_themselves() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("these are crun's options") {
            return;
        }
        c.file("file", "host");
        std::os::unix::fs::symlink("nowhere/target", c.path("dangling")).expect("a link");
        std::os::unix::fs::symlink("file", c.path("link")).expect("a link");
        let shown = "if [ -L /mnt/x ]; then readlink /mnt/x; else cat /mnt/x; fi";
        for (source, options, wanted) in [
            ("link", &["rbind", "ro", "copy-symlink"][..], "file\n"),
            ("dangling", &["bind", "copy-symlink"], "nowhere/target\n"),
            ("file", &["rbind", "ro", "copy-symlink"], "host"),
            ("link", &["bind"], "host"),
            ("link", &["bind", "src-nofollow"], "file\n"),
            ("file", &["bind", "src-nofollow"], "host"),
        ] {
            for user in [false, true] {
                let c = writable(view);
                let c = if user { c.in_user_namespace(FIRST) } else { c };
                c.file("file", "host");
                std::os::unix::fs::symlink("nowhere/target", c.path("dangling")).expect("a link");
                std::os::unix::fs::symlink("file", c.path("link")).expect("a link");
                let source = c.path(source);
                let c = bound(c, &source, "/mnt/x", options).script(shown);
                c.run().ok().prints(wanted);
                // And again, where it has been made.
                c.run().ok().prints(wanted);
            }
        }
        // Another link is there already.
        let c = writable(view);
        std::os::unix::fs::symlink("nowhere/target", c.path("dangling")).expect("a link");
        std::os::unix::fs::symlink("elsewhere", c.rootfs().join("mnt/x")).expect("a link");
        let source = c.path("dangling");
        let c = bound(c, &source, "/mnt/x", &["bind", "copy-symlink"]);
        c.run().exits(1).says("file exists");
        // A target that is a link: what it leads to stays.
        let c = writable(view);
        let file = c.file("file", "host");
        fs::write(c.rootfs().join("mnt/target"), "image").expect("a file");
        std::os::unix::fs::symlink("target", c.rootfs().join("mnt/x")).expect("a link");
        let c = bound(c, &file, "/mnt/x", &["bind", "dest-nofollow"]);
        c.script("cat /mnt/x /mnt/target").run().ok().prints("hostimage");
    });
}
