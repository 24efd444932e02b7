//! `commit`: the layer over the same lowers is what the container saw.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::{Container, View, on_the_host, skip};

use crate::diff::{does, layered};

/// Of everything that a layer can hold. What is deep and long is made by a loop.
const CHANGES: &str = "
    echo more:x:1:1::/:/bin/sh >> /etc/passwd
    rm /etc/group
    rm -r /var; mkdir /var; echo new > /var/new
    rm -r /mnt; echo file > /mnt
    rm /old; mkdir /old; echo x > /old/inside
    busybox ln -s /etc/shadow /link
    busybox ln /etc/passwd /again
    busybox mknod /tmp/fifo p
    echo secret > /root/file; busybox chown 12:34 /root/file; chmod 4711 /root/file
    busybox truncate -s 5000000 /tmp/sparse; echo end >> /tmp/sparse
    touch -d @-86399 /tmp/early
    echo odd > \"$(printf '/tmp/a\\nb')\"
    cd /tmp; i=0; while [ $i -lt 200 ]; do mkdir deep-directory-$i; cd deep-directory-$i; i=$((i+1)); done; echo x > f";

const ATTRIBUTES: [(&str, &str); 2] = [
    ("security.capability", "0x0100000200040000000000000000000000000000"),
    ("user.note", "0x000a3d"),
];

/// What a tool of the package attr prints.
#[track_caller]
fn attr(tool: &str, args: &[&str], file: &Path) -> Option<String> {
    let out = Command::new(skip::tool(tool, "attr")?).args(args).arg(file).output().expect(tool);
    assert!(out.status.success(), "{tool} {args:?}: {out:?}");
    Some(String::from_utf8(out.stdout).expect("text"))
}

fn changed(view: View, upper: &str) -> Option<Container> {
    let c = layered(view, upper)?;
    fs::create_dir_all(c.rootfs().join("var/lib/old")).expect("a directory");
    fs::write(c.rootfs().join("old"), "text").expect("a file");
    fs::write(c.rootfs().join("mnt/kept"), "text").expect("a file");
    c.run_detached();
    does(&c, CHANGES);
    if upper == "ephemeral" {
        let file = c.root.join(&c.id).join("upper/root/file");
        for (name, value) in ATTRIBUTES {
            attr("setfattr", &["-n", name, "-v", value], &file);
        }
    }
    Some(c)
}

/// Everything that a container sees, as bytes.
#[track_caller]
fn seen(c: &Container) -> Vec<u8> {
    let to = c.path("seen.tar");
    c.call(["export", &c.id, to.to_str().expect("utf-8")]).ok();
    fs::read(to).expect("an archive")
}

/// The entries of two archives that are not the same.
#[track_caller]
fn assert_same(c: &Container, one: &[u8], other: &[u8]) {
    if one == other {
        return;
    }
    let list = |name: &str, bytes: &[u8]| {
        fs::write(c.path(name), bytes).expect("a file");
        let out = Command::new("tar")
            .args(["--full-time", "-tvf"])
            .arg(c.path(name))
            .output()
            .expect("tar");
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = (list("one.tar", one), list("other.tar", other));
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>()
    };
    panic!("not the same: {:#?} and {:#?}", only(&one, &other), only(&other, &one));
}

/// A header for the nanoseconds, they, and the root's own header.
const ROOT: usize = 3 * 512;

#[test]
fn a_directory_is_a_layer() {
    on_the_host(|view| {
        for upper in ["ephemeral", "tmpfs"] {
            let Some(c) = changed(view, upper) else { return };
            let was = seen(&c);
            c.call(["commit", &c.id, "layer"]).output().silent();
            assert_eq!(c.status(), "running");
            let gone = fs::symlink_metadata(c.path("layer/etc/group")).expect("a whiteout");
            assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
            assert!(
                fs::metadata(c.path("layer/tmp/sparse")).expect("a file").blocks() < 1000,
                "holes"
            );
            c.call(["commit", &c.id, "layer"]).output().exits(1).says("is not empty");
            let time =
                |path: PathBuf| fs::metadata(path).map(|meta| (meta.mtime(), meta.mtime_nsec()));
            if let Ok(root) = time(c.root.join(&c.id).join("upper")) {
                assert_eq!(time(c.path("layer")).expect("a layer"), root);
            }
            c.delete_by_force().ok();
            let c = c
                .annotated("io.aril.rootfs.layers", "rootfs:layer")
                .annotated("io.aril.rootfs.upper", "ephemeral");
            c.create();
            assert!(c.verb("diff").ok().stdout.is_empty(), "nothing on top");
            // But the time of the new upper directory's root, which comes first.
            assert_same(&c, &was[ROOT..], &seen(&c)[ROOT..]);
            c.delete_by_force().ok();
        }
    });
}

/// As any tool applies a layer: deletions first, then the rest, by Debian's tar.
fn apply(layer: &Path, root: &Path) {
    let out = Command::new("tar")
        .arg("--quoting-style=literal")
        .arg("-tf")
        .arg(layer)
        .output()
        .expect("tar");
    let names = String::from_utf8_lossy(&out.stdout).into_owned();
    for name in names.lines().map(Path::new) {
        let file = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = |file: &str| root.join(name.with_file_name(file));
        let gone = match file.strip_prefix(".wh.") {
            Some(file) => hidden(file),
            // A directory in the place of a file, or the other way round.
            None => match fs::symlink_metadata(root.join(name)) {
                Ok(meta)
                    if meta.is_dir()
                        == names.lines().any(|n| Path::new(n) == name && n.ends_with('/')) =>
                {
                    continue;
                }
                Ok(_) => root.join(name),
                Err(_) => continue,
            },
        };
        match fs::symlink_metadata(&gone).expect("what is deleted was there").is_dir() {
            true => fs::remove_dir_all(gone).expect("rm"),
            false => fs::remove_file(gone).expect("rm"),
        }
    }
    let out = Command::new("tar")
        .args([
            "--warning=no-timestamp",
            "--xattrs",
            "--xattrs-include=*",
            "--exclude=.wh.*",
            "-xpf",
        ])
        .arg(layer)
        .arg("-C")
        .arg(root)
        .output()
        .expect("tar");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}

#[test]
fn an_archive_is_an_oci_layer() {
    on_the_host(|view| {
        let Some(c) = changed(view, "ephemeral") else { return };
        let was = seen(&c);
        c.call(["commit", &c.id, "layer.tar"]).output().silent();
        // By a pipe, the same.
        c.call(["commit", &c.id, "-"]).in_shell("\"$@\" > piped.tar").output().silent();
        let read = |name: &str| fs::read(c.path(name)).expect("an archive");
        assert!(read("layer.tar") == read("piped.tar"));
        c.delete_by_force().ok();
        let copy = Command::new("cp").arg("-a").arg(c.rootfs()).arg(c.path("copy")).status();
        assert!(copy.expect("cp").success());
        apply(&c.path("layer.tar"), &c.path("copy"));
        let c = c.edit(|spec| {
            spec["root"]["path"] = "copy".into();
            spec["annotations"].as_object_mut().expect("annotations").clear();
        });
        c.create();
        assert_same(&c, &was, &seen(&c));
        c.delete_by_force().ok();
    });
}

#[test]
fn other_tools_read_it() {
    on_the_host(|view| {
        let Some(umoci) = skip::tool("umoci", "umoci") else { return };
        let Some(c) = changed(view, "ephemeral") else { return };
        c.call(["export", &c.id, "base.tar"]).ok();
        c.call(["commit", &c.id, "layer.tar"]).ok();
        c.delete_by_force().ok();
        let umoci = |args: &[&str]| {
            let out = Command::new(&umoci).args(args).current_dir(&c.dir).output().expect("umoci");
            assert!(out.status.success(), "umoci {args:?}: {out:?}");
        };
        umoci(&["init", "--layout", "image"]);
        umoci(&["new", "--image", "image:x"]);
        let base = Command::new("tar")
            .arg("-cf")
            .arg(c.path("lower.tar"))
            .arg("-C")
            .arg(c.rootfs())
            .arg(".")
            .status();
        assert!(base.expect("tar").success());
        umoci(&["raw", "add-layer", "--image", "image:x", "lower.tar"]);
        umoci(&["raw", "add-layer", "--image", "image:x", "layer.tar"]);
        umoci(&["raw", "unpack", "--image", "image:x", "unpacked"]);
        let at = |name: &str| -> PathBuf { c.path("unpacked").join(name) };
        assert_eq!(fs::read_to_string(at("var/new")).expect("a file"), "new\n");
        assert!(!at("etc/group").exists() && !at("var/lib").exists());
        assert!(at("old").is_dir() && at("mnt").is_file());
        let file = fs::metadata(at("root/file")).expect("a file");
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4711, 12, 34));
        let Some(dump) = attr("getfattr", &["-dm-", "-ehex"], &at("root/file")) else { return };
        for (name, value) in ATTRIBUTES {
            assert!(dump.contains(&format!("{name}={value}\n")), "{dump}");
        }
    });
}

#[test]
fn commit_in_a_user_namespace_maps_owners() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        let c = c.in_user_namespace(200_000);
        c.run_detached();
        does(&c, "echo x > /tmp/mine; busybox chown 5:6 /tmp/mine; rm /etc/group");
        c.call(["commit", &c.id, "layer"]).output().silent();
        let mine = fs::metadata(c.path("layer/tmp/mine")).expect("a file");
        assert_eq!((mine.uid(), mine.gid()), (5, 6), "the container's own ids");
        assert_eq!(fs::metadata(c.path("layer/tmp")).expect("tmp").uid(), 0);
        c.delete_by_force().ok();
    });
}

#[test]
fn failed_commit_leaves_nothing() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        c.run_detached();
        does(&c, "echo x > /tmp/file");
        c.call(["commit", &c.id, "/dev/full"]).output().exits(1).says("no space left on device");
        does(&c, "echo x > /tmp/.wh.hidden");
        let out = c.call(["commit", &c.id, "layer.tar"]).output().exits(1);
        out.says("in a layer archive the prefix .wh. marks a deleted file");
        c.call(["commit", &c.id, "/missing/layer"])
            .output()
            .exits(1)
            .says("no such file or directory");
        assert_eq!(c.status(), "running", "it goes on");
        let names: Vec<_> =
            fs::read_dir(&c.dir).expect("own directory").flatten().map(|e| e.file_name()).collect();
        let left = names.iter().filter(|name| name.to_string_lossy().contains("layer"));
        assert_eq!(left.count(), 0, "{names:?}");
        c.call(["commit", &c.id, "layer"]).ok();
        assert!(c.path("layer/tmp/.wh.hidden").exists(), "a directory can keep any name");
        c.delete_by_force().ok();
    });
}
