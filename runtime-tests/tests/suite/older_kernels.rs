//! A kernel that does not have the newer system calls: what the runtime does instead means the same,
//! seen from inside the container. What Linux 5.10 has, the floor, is needed, and said to be.

use std::collections::BTreeSet;
use std::fs;

use runtime_tests::spec::bind;
use runtime_tests::{Container, View, in_each_view};
use serde_json::{Value, json};

/// Mounts of every kind: a new file system, a copied-up one, binds of a directory, of a file and of a
/// tree, changed and not, propagation.
fn with_mounts(c: Container) -> Container {
    fs::write(c.rootfs().join("mnt/kept"), "text").expect("a file");
    let source = c.directory("source");
    fs::write(source.join("file"), "text").expect("a file");
    let tmpfs = |place: &str, options: Value| json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options});
    c.mounting(tmpfs("/mnt", json!(["tmpcopyup", "noexec", "size=64k", "mode=0751"])))
        .mounting(tmpfs("/new/place", json!(["ro", "noatime", "uid=8"])))
        .mounting(bind(&source, "/var", &["ro", "nodev", "rprivate"]))
        .mounting(bind(&source.join("file"), "/tmp/file", &["noexec"]))
        .mounting(bind(&source, "/srv", &["rslave", "rshared"]))
        .edit(|spec| spec["root"]["readonly"] = false.into())
}

fn seen(view: View, without: &str, make: impl Fn(Container) -> Container) -> BTreeSet<String> {
    let c = make(Container::new(view)).args(["probe"]);
    // A filter that forbids nothing, too, so that there is one in both.
    let text = c.run_call(&[]).stage(["without", without]).ok().stdout;
    let own = format!("/{} ", c.id);
    text.replace(&c.cgroups_path(), "/CGROUP")
        .replace(&c.mark, "MARK")
        .replace(&own, "/ID ")
        .replace(&format!("_ses.{}", c.id), "_ses.ID")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn the_same_without(calls: &str, make: impl Fn(Container) -> Container) {
    in_each_view(|view| {
        if !Container::new(view).runtime.only_aril("others are compared with themselves elsewhere")
        {
            return;
        }
        let with = seen(view, "", &make);
        let without = seen(view, calls, &make);
        let only: Vec<_> = with.symmetric_difference(&without).collect();
        assert!(only.is_empty(), "in the view {view:?}, without {calls}: {only:#?}");
    });
}

macro_rules! without {
    ($($name:ident: $calls:expr, $make:expr;)*) => {$(
        #[test]
        fn $name() {
            the_same_without($calls, $make);
        }
    )*};
}

without! {
    mount_setattr: "mount_setattr", with_mounts;
    mount_setattr_in_a_user_namespace: "mount_setattr",
        |c| with_mounts(c).in_user_namespace(100_000);
    smaller_ones: "faccessat2,statx,pidfd_getfd,memfd_create", with_mounts;
    several_at_once: "mount_setattr,faccessat2,statx", with_mounts;
}

#[test]
fn missing_kernel_features_are_named() {
    runtime_tests::on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("it needs less") {
            return;
        }
        for call in
            ["clone3", "close_range", "open_tree", "fsopen", "fsmount", "openat2", "move_mount"]
        {
            let out = c.run_call(&[]).stage(["without", call]).output();
            out.exits(1).says("function not implemented").says("hint: Linux 5.10 or later");
            c.leaves_nothing();
        }
    });
}

#[test]
fn recursive_options_without_mount_setattr() {
    runtime_tests::on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("its words") {
            return;
        }
        let source = c.directory("source");
        let c = c.mounting(bind(&source, "/mnt", &["rro"]));
        let out = c.run_call(&[]).stage(["without", "mount_setattr"]).output();
        out.exits(1).says("/mnt").says("recursive mount options need Linux 5.12");
        c.leaves_nothing();
    });
}
