//! `diff`: what a container changed, and nothing that it did not.

use std::fs;

use runtime_tests::{Container, View, on_the_host};
use serde_json::{Value, json};

/// A container that runs, with a layer of its own for what it writes.
pub fn layered(view: View, upper: &str) -> Option<Container> {
    let c = Container::new(view).sleeper();
    let c = c.edit(|spec| {
        spec["root"]["readonly"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().expect("a set");
            set.extend(
                ["CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_DAC_OVERRIDE"].map(Value::from),
            );
        }
    });
    let known = c.runtime.only_aril("layers are an option of its own");
    known.then(|| c.annotated("io.aril.rootfs.upper", upper))
}

#[track_caller]
pub fn does(c: &Container, script: &str) {
    c.exec(["sh", "-ec", script]).ok();
}

#[track_caller]
fn listed(c: &Container) -> Vec<String> {
    let out = c.verb("diff").ok();
    out.stdout.lines().map(str::to_owned).collect()
}

fn fill(c: &Container) {
    for directory in ["lib/deep/er", "gone/with", "opaque", "same/inside"] {
        fs::create_dir_all(c.rootfs().join(directory)).expect("a directory");
    }
    for file in
        ["lib/deep/er/file", "gone/with/it", "opaque/old", "same/inside/file", "replaced", "first"]
    {
        fs::write(c.rootfs().join(file), file).expect("a file");
    }
}

const CHANGES: &str = "
    echo more >> /lib/deep/er/file
    rm -r /gone /replaced
    mkdir /replaced; echo x > /replaced/by
    rm -r /opaque; mkdir /opaque; echo new > /opaque/new
    echo a > \"$(printf '/odd\\nname')\"
    mkdir -p /new/in/side; echo n > /new/in/side/file
    busybox ln -s nowhere /new/link
    busybox ln /first /second
    : >> /same/inside/file";

const LISTED: &[&str] = &[
    "C /first",
    "D /gone",
    "C /lib",
    "C /lib/deep",
    "C /lib/deep/er",
    "C /lib/deep/er/file",
    "A /new",
    "A /new/in",
    "A /new/in/side",
    "A /new/in/side/file",
    "A /new/link",
    "A /odd\\nname",
    "C /opaque",
    "A /opaque/new",
    "D /opaque/old",
    "C /replaced",
    "A /replaced/by",
    "A /second",
];

#[test]
fn changed_files_are_listed() {
    on_the_host(|view| {
        for upper in ["ephemeral", "tmpfs", "./kept/"] {
            let Some(c) = layered(view, upper) else { return };
            fill(&c);
            c.run_detached();
            assert!(listed(&c).is_empty(), "{upper}: {:?}", listed(&c));
            does(&c, CHANGES);
            assert_eq!(listed(&c), LISTED, "{upper}");
            c.kill("KILL").ok();
            c.wait_for("stopped");
            if upper == "tmpfs" {
                c.verb("diff").exits(1).says("was in memory, and is gone");
            } else {
                assert_eq!(listed(&c), LISTED, "{upper}, stopped");
            }
            c.delete_by_force().ok();
        }
    });
}

#[test]
fn over_several_layers() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        fill(&c);
        let above = c.directory("above/lib");
        fs::write(above.join("own"), "x").expect("a file");
        fs::write(c.path("above/first"), "of another").expect("a file");
        let c = c.annotated("io.aril.rootfs.layers", "rootfs:above");
        c.run_detached();
        assert!(listed(&c).is_empty(), "{:?}", listed(&c));
        does(&c, "rm /first /lib/own; touch -d @7 /lib/deep; chmod 700 /etc");
        assert_eq!(listed(&c), ["C /etc", "D /first", "C /lib", "C /lib/deep", "D /lib/own"]);
        c.delete_by_force().ok();
    });
}

/// Metadata alone is a change; a time that was put back does not hide one of the content.
#[test]
fn the_smallest_changes() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        for name in ["mode", "owner", "time", "content", "nothing"] {
            fs::write(c.rootfs().join(name), "0123").expect("a file");
            let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
            fs::File::open(c.rootfs().join(name))
                .expect("a file")
                .set_modified(old)
                .expect("utimens");
        }
        c.run_detached();
        does(
            &c,
            "chmod 600 /mode; busybox chown 7 /owner; touch /time; touch -d @1000 /nothing
             echo -n 4567 > /content; touch -d @1000 /content",
        );
        assert_eq!(listed(&c), ["C /content", "C /mode", "C /owner", "C /time"]);
        c.delete_by_force().ok();
    });
}

#[test]
fn json_lists_attributes() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        c.run_detached();
        does(
            &c,
            "echo hello > /tmp/file; busybox chown 3:4 /tmp/file; chmod 4750 /tmp/file; rm /etc/group",
        );
        let out = c.call(["diff", "--format", "json", &c.id]).ok();
        let found: Value = serde_json::from_str(&out.stdout).expect("json");
        let of = |path: &str| {
            let list = found.as_array().expect("a list");
            list.iter()
                .find(|f| f["path"] == path)
                .unwrap_or_else(|| panic!("{path}: {out:?}"))
                .clone()
        };
        assert_eq!(of("/etc/group"), json!({"kind": "deleted", "path": "/etc/group"}));
        let file = of("/tmp/file");
        assert_eq!(file["kind"], "added");
        assert_eq!(
            (&file["type"], &file["mode"], &file["size"]),
            (&json!("file"), &json!("4750"), &json!(6))
        );
        assert_eq!((&file["uid"], &file["gid"]), (&json!(3), &json!(4)));
        assert_eq!(of("/tmp")["kind"], "changed");
        c.delete_by_force().ok();
    });
}

#[test]
fn diff_without_layers_is_refused() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("diff is a command of its own") {
            return;
        }
        c.run_detached();
        let out = c.verb("diff").exits(1);
        out.clone().says("itself, not to a layer");
        out.says("--upper ephemeral");
        c.call(["commit", &c.id, "x.tar"]).output().exits(1).says("itself, not to a layer");
        assert!(!c.path("x.tar").exists());
        c.delete_by_force().ok();
    });
}
