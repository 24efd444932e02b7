//! Binds that show owners mapped, and mounts that cannot be.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use runtime_tests::{Call, Container, Runtime, View, on_the_host, skip, spec};
use serde_json::{Value, json};

/// Where the container's ids begin on the host.
const FIRST: u32 = 100_000;

fn supported() -> bool {
    let runtime = Runtime::under_test();
    let old = runtime.name == "runc" || runtime.version.contains(" 1.8");
    if old {
        skip::inapplicable(
            "id-mapped mounts came with runc 1.2, and crun 1.8 refuses these configs",
        );
    }
    !old
}

/// A container of a tree `source` with a file of root's, bound to /mnt.
fn container(view: View, options: &[&str]) -> (Container, PathBuf) {
    let c = Container::new(view);
    let source = c.directory("source");
    c.file("source/file", "text");
    let mount = spec::bind(&source, "/mnt", options);
    (c.mounting(mount), source)
}

fn mapped(mount: &mut Value, first: u32) {
    for field in ["uidMappings", "gidMappings"] {
        mount[field] = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
    }
}

fn last_mount(c: Container, change: impl FnOnce(&mut Value)) -> Container {
    c.edit(|spec| change(spec["mounts"].as_array_mut().expect("mounts").last_mut().expect("one")))
}

/// Runs the container in a mount namespace that this has prepared: `$1` is the tree.
fn run_behind(c: &Container, script: &str, source: &Path) -> Call {
    let source = source.display();
    let inner = format!("set -- {source} \"$@\"; {script}; shift; exec \"$@\"");
    c.run_call(&[]).in_shell(&format!("exec unshare -m sh -ec '{inner}' sh \"$@\""))
}

#[test]
fn mounts_with_own_mappings() {
    on_the_host(|view| {
        if !supported() {
            return;
        }
        let (c, source) = container(view, &[]);
        let c = last_mount(c, |mount| mapped(mount, 4000))
            .script("stat -c %u:%g /mnt /mnt/file; touch /mnt/new 2>&1; true");
        c.run().ok().prints("4000:4000\n4000:4000\n");
        // Root of the host has no id in the mapping, so nothing can be made.
        assert!(!source.join("new").exists());
        assert_eq!(fs::metadata(source.join("file")).expect("file").uid(), 0);
    });
}

#[test]
fn mounts_with_the_containers_mappings() {
    on_the_host(|view| {
        if !supported() {
            return;
        }
        let (c, source) = container(view, &["idmap"]);
        let c = c.in_user_namespace(FIRST);
        let c = c.script("stat -c %u:%g /mnt/file; touch /mnt/new");
        c.run().ok().prints("0:0\n");
        let made = fs::metadata(source.join("new")).expect("made");
        assert_eq!((made.uid(), made.gid()), (0, 0));
    });
}

/// `idmap` is about one mount, `ridmap` about those below, too.
#[test]
fn recursively() {
    on_the_host(|view| {
        if !supported() {
            return;
        }
        for (option, below) in [("idmap", "65534"), ("ridmap", "0")] {
            let (c, source) = container(view, &[option]);
            fs::create_dir(source.join("sub")).expect("a directory");
            let c = c.in_user_namespace(FIRST).script("stat -c %u /mnt/file /mnt/sub/file");
            let below = format!("0\n{below}\n");
            run_behind(&c, "mount -t tmpfs t $1/sub; touch $1/sub/file", &source)
                .ok()
                .prints(&below);
        }
    });
}

#[test]
fn recursively_without_a_user_namespace() {
    on_the_host(|view| {
        if !supported() {
            return;
        }
        for (option, below) in [("idmap", "0"), ("ridmap", "4000")] {
            let (c, source) = container(view, &[option]);
            fs::create_dir(source.join("sub")).expect("a directory");
            let c = last_mount(c, |mount| mapped(mount, 4000));
            let c = c.script("stat -c %u /mnt/file /mnt/sub/file");
            run_behind(&c, "mount -t tmpfs t $1/sub; touch $1/sub/file", &source)
                .ok()
                .prints(&format!("4000\n{below}\n"));
        }
    });
}

/// In a user namespace root's files are its root's, and what that makes is root's.
#[test]
fn id_mapped_tmpfs() {
    on_the_host(|view| {
        if !supported() {
            return;
        }
        let (c, source) = container(view, &["idmap"]);
        let c = c.in_user_namespace(FIRST).script("stat -c %u /mnt/file; touch /mnt/new");
        run_behind(&c, "mount -t tmpfs t $1; touch $1/file", &source).ok().prints("0\n");
        let (c, source) = container(view, &["ridmap"]);
        let c = last_mount(c, |mount| mapped(mount, 4000)).script("stat -c %u:%g /mnt/file");
        run_behind(&c, "mount -t tmpfs t $1; touch $1/file", &source).ok().prints("4000:4000\n");
    });
}

/// No kernel maps an overlay mount, in a user namespace or not; its layers can be. Where only what is
/// below the source refuses, a bind of the source alone is none of its business.
#[test]
fn id_mapped_overlay() {
    const OVERLAY: &str = "mount -t overlay -o lowerdir=$1/a:$1/b o $1/overlay";
    on_the_host(|view| {
        for (own, option) in
            [(false, "idmap"), (false, "ridmap"), (true, "idmap"), (true, "ridmap")]
        {
            let (c, tree) = container(view, &[option]);
            if !c.runtime.only_aril("the words are ours") {
                return;
            }
            for dir in ["a", "b", "overlay"] {
                fs::create_dir(tree.join(dir)).expect("a directory");
            }
            c.file("source/a/file", "text");
            let overlay = tree.join("overlay");
            let of = |c: Container, source: &Path| {
                let c = last_mount(c, |mount| {
                    mount["source"] = source.to_str().expect("utf-8").into();
                    if own {
                        mapped(mount, 4000);
                    }
                });
                let c = if own { c } else { c.in_user_namespace(FIRST) };
                c.script("stat -c %u /mnt/file")
            };
            let c = of(c, &overlay);
            run_behind(&c, OVERLAY, &tree)
                .output()
                .exits(1)
                .says(&format!("error mounting {overlay:?} to rootfs at \"/mnt\""))
                .says(&format!("mount_setattr {} (MOUNT_ATTR_IDMAP)", overlay.display()))
                .says("an overlay mount cannot be id-mapped");
            c.leaves_nothing();
            // One of its layers, instead.
            let c = of(c, &tree.join("a"));
            let shown = if own { "4000\n" } else { "0\n" };
            run_behind(&c, OVERLAY, &tree).ok().prints(shown);
            if option == "idmap" {
                let c = of(c, &tree);
                run_behind(&c, OVERLAY, &tree).ok().prints(shown);
            }
        }
    });
}

/// Layers that are put together after they were mapped: an overlay with owners shown otherwise.
#[test]
fn the_layers_of_an_overlay() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("others have no layers") {
            return;
        }
        let c = c.in_user_namespace(FIRST).script("stat -c %u:%g /bin /mnt; touch /mnt/new");
        let c = c.edit(|spec| spec["root"]["readonly"] = false.into());
        let c = c.annotated("io.aril.rootfs.upper", "ephemeral");
        c.run().ok().prints("0:0\n0:0\n");
        c.leaves_nothing();
    });
}

#[test]
fn mount_options_idmap_and_ridmap() {
    on_the_host(|view| {
        let (c, source) = container(view, &["idmap=uids=@0-7-1#8-9-1;gids=@0-5-1"]);
        if !c.runtime.only_aril("crun 1.8 reads relative mappings otherwise") {
            return;
        }
        let c = c.in_user_namespace(FIRST).script("stat -c %u:%g /mnt/file");
        c.run().ok().prints("7:5\n");
        chown(source.join("file"), Some(8), Some(0)).expect("chown");
        c.run().ok().prints("9:5\n");
    });
}

#[test]
fn mappings_of_a_joined_user_namespace() {
    on_the_host(|view| {
        let first = Container::new(view).in_user_namespace(FIRST).sleeper();
        if !first.runtime.only_aril("runc 1.1.5 wants the mappings repeated") {
            return;
        }
        first.run_detached();
        let path = format!("/proc/{}/ns/user", first.pid());
        let (c, _) = container(view, &["idmap"]);
        let c = c.in_user_namespace(FIRST).namespace(json!({"type": "user", "path": path}));
        let c = c.script("stat -c %u:%g /mnt/file").edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        });
        c.run().ok().prints("0:0\n");
    });
}

/// Never silently unmapped: the error names the mount that refuses, wherever in the tree it is.
#[test]
fn mounts_that_the_kernel_cannot_map_are_refused() {
    on_the_host(|view| {
        let (c, source) = container(view, &["ridmap"]);
        if !c.runtime.only_aril("the words are ours") {
            return;
        }
        for dir in ["a", "b", "overlay"] {
            fs::create_dir(source.join(dir)).expect("a directory");
        }
        let c = c.in_user_namespace(FIRST);
        let place = |name: &str| source.join(name).display().to_string();
        let refused = |script: &str, name: &str, reason: &str| {
            run_behind(&c, script, &source)
                .output()
                .exits(1)
                .says(&format!("error mounting {source:?} to rootfs at \"/mnt\""))
                .says(&format!("mount_setattr {} (MOUNT_ATTR_IDMAP)", place(name)))
                .says(reason);
            c.leaves_nothing();
        };
        refused(
            "mount -t tmpfs t $1/a; mount -t proc p $1/b",
            "b",
            "proc, cannot be id-mapped on this kernel",
        );
        refused(
            "mount -t overlay -o lowerdir=$1/a:$1/b o $1/overlay",
            "overlay",
            "an overlay mount cannot be id-mapped",
        );
    });
}

#[test]
fn idmap_without_mappings_is_refused() {
    on_the_host(|view| {
        let (c, _) = container(view, &["idmap"]);
        if !c.runtime.only_aril("the words are ours") {
            return;
        }
        c.run().exits(1).says("id-mapped mounts must have both uid and gid mappings specified");
        c.leaves_nothing();
    });
}
