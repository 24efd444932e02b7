//! `mounts`, a verb of crun's: mounts that are added to a running container, and removed from it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use runtime_tests::{Container, Output, View, in_each_view, on_the_host};
use serde_json::{Value, json};

const FIRST: u32 = 100_000;

/// A running container with a writable root, or nothing for a runtime without the verb.
fn running(view: View, user: bool, make: impl FnOnce(Container) -> Container) -> Option<Container> {
    let c = Container::new(view).edit(|spec| spec["root"]["readonly"] = false.into()).sleeper();
    if !c.runtime.only_aril("the verb is crun's") {
        return None;
    }
    let c = make(if user { c.in_user_namespace(FIRST) } else { c });
    c.run_detached();
    Some(c)
}

fn change(c: &Container, action: &str, mounts: &Value) -> Output {
    let file = c.file("mounts.json", &mounts.to_string());
    c.call(["mounts", action, &c.id, file.to_str().expect("utf-8")]).output()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// How the container sees its mounts: place, flags, type.
fn mounted(c: &Container) -> String {
    c.exec(["sh", "-c", "cut -d' ' -f5,6,9- /proc/self/mountinfo"]).ok().stdout
}

#[test]
fn come_and_go() {
    in_each_view(|view| {
        for user in [false, true] {
            let Some(c) = running(view, user, |c| c) else { return };
            let source = c.directory("source");
            c.file("source/file", "of the host");
            // What the container has there is never bound.
            fs::create_dir_all(c.rootfs().join(source.strip_prefix("/").expect("absolute")))
                .expect("a directory");
            let before = mounted(&c);
            let list = json!([
                bind(&source, "/mnt/new/place", &["bind", "ro", "nosuid"]),
                {"destination": "/srv", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nodev", "size=64k"]},
                bind(&source.join("file"), "/mnt/file", &["rbind"]),
            ]);
            change(&c, "add", &list).silent();
            c.exec(["cat", "/mnt/new/place/file", "/mnt/file"])
                .ok()
                .prints("of the hostof the host");
            let after = mounted(&c);
            for line in ["/mnt/new/place ro,nosuid", "/srv ro,nodev", "/mnt/file rw"] {
                assert!(after.lines().any(|own| own.starts_with(line)), "{line}: {after}");
            }
            c.exec(["touch", "/mnt/new/place/x"]).exits(1).says("Read-only file system");
            change(&c, "remove", &list).silent();
            assert_eq!(mounted(&c), before, "user namespace: {user}");
            assert_eq!(fs::read_dir(&source).expect("the source").count(), 1);
            change(&c, "remove", &json!([{"destination": "/srv"}]))
                .exits(1)
                .says("not a mount point");
        }
    });
}

#[test]
fn come_all_or_none() {
    on_the_host(|view| {
        for user in [false, true] {
            let Some(c) = running(view, user, |c| c) else { return };
            let source = c.directory("source");
            let before = mounted(&c);
            let first = bind(&source, "/mnt", &["bind"]);
            let tmpfs = json!({"destination": "/var/t", "type": "tmpfs", "options": ["mode=700"]});
            let refused = |last: Value, text: &str| {
                let list = json!([first.clone(), tmpfs.clone(), last]);
                let out = change(&c, "add", &list).exits(1).says(text);
                let last = out.stderr.lines().last().expect("a line");
                assert!(last.contains(text), "{out:?}");
                assert_eq!(mounted(&c), before, "{text}");
            };
            let bogus = json!({"destination": "/srv", "type": "tmpfs", "options": ["size=bogus"]});
            refused(bogus, "size=bogus");
            refused(bind(&source.join("missing"), "/srv", &["bind"]), "no such file or directory");
            refused(bind(&source, "/proc/self", &["bind"]), "inside /proc");
            refused(bind(&source, "/", &["bind"]), "the root of a running container");
            // Its layers would be looked up in the container.
            let overlay =
                json!({"destination": "/srv", "type": "overlay", "options": ["lowerdir=/a:/b"]});
            refused(overlay, "type \"overlay\" is not supported");
            c.call(["mounts", "add", &c.id, "no-file"]).output().exits(1).says("no-file");
            change(&c, "add", &json!({"mounts": []})).exits(1).says("mounts must be an array");
            change(&c, "swap", &json!([])).exits(1).says("unknown action \"swap\"");
        }
        let Some(c) = running(view, false, |c| c.args(["true"])) else { return };
        c.wait_for("stopped");
        change(&c, "add", &json!([])).exits(1).says("not running");
        let source = c.directory("source");
        c.delete().ok();
        let create = Container::new(view).sleeper();
        create.create();
        change(&create, "add", &json!([bind(&source, "/mnt", &["bind", "ro"])])).silent();
        create.start();
        assert!(mounted(&create).contains("/mnt ro"));
    });
}

/// A source that the container's user cannot reach, and owners that are mapped.
#[test]
fn sources_are_opened_by_the_caller() {
    on_the_host(|view| {
        let mapped = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
        let Some(c) = running(view, true, |c| c) else { return };
        let closed = c.directory("closed");
        let source = c.directory("closed/source");
        c.file("closed/source/file", "reached");
        chown(&closed, Some(4321), Some(4321)).expect("chown");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
        let mut as_root = bind(&source, "/srv", &["bind"]);
        as_root["uidMappings"] = mapped.clone();
        as_root["gidMappings"] = mapped;
        let list = json!([bind(&source, "/mnt", &["rbind"]), as_root]);
        change(&c, "add", &list).silent();
        let owners = c.exec(["stat", "-c", "%u", "/mnt/file", "/srv/file"]).ok();
        owners.prints("65534\n0\n");
    });
}

/// Locked flags of the host's mount hold, and nothing that the container mounts arrives on the host.
#[test]
fn the_hosts_mounts_stay_the_hosts() {
    on_the_host(|view| {
        for user in [false, true] {
            let c = Container::new(view).edit(|spec| {
                for set in ["bounding", "effective", "permitted"] {
                    let list = spec["process"]["capabilities"][set].as_array_mut().expect("a set");
                    list.push("CAP_SYS_ADMIN".into());
                }
            });
            if !c.runtime.only_aril("the verb is crun's") {
                return;
            }
            let c = c.sleeper();
            let c = if user { c.in_user_namespace(FIRST) } else { c };
            let source = c.directory("source");
            c.directory("source/sub");
            let list =
                c.file("mounts.json", &json!([bind(&source, "/mnt", &["rbind"])]).to_string());
            let script = format!(
                "mount --make-rprivate /; mount --make-rshared /; mount -t tmpfs t {0}; mkdir {0}/sub
                 mount -o remount,bind,ro,nosuid,nodev,noexec {0}
                 aril=\"$1 $2 $3\"; \"$@\" </dev/null >/dev/null
                 $aril mounts add {id} {list}
                 $aril exec {id} sh -c \"mount -o remount,bind,rw,suid,dev,exec /mnt 2>/dev/null
                    grep \\\" /mnt \\\" /proc/self/mountinfo | cut -d\\\" \\\" -f6
                    mount -t tmpfs inside /mnt/sub && grep -c inside /proc/self/mountinfo\"
                 grep -c inside /proc/self/mountinfo || true
                 $aril delete --force {id}",
                source.display(),
                id = c.id,
                list = list.display()
            );
            let call = c
                .run_call(&["-d"])
                .in_shell(&format!("exec unshare -m sh -ec '{script}' sh \"$@\""));
            let out = call.ok();
            let flags = if user { "ro,nosuid,nodev,noexec,relatime" } else { "rw,relatime" };
            assert_eq!(out.stdout, format!("{flags}\n1\n0\n"), "user namespace: {user}");
        }
    });
}
