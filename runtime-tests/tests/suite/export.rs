//! `export`: the archive has what the container sees, and any tar reads it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::{Container, View, in_each_view, on_the_host, skip};

fn sleeper(view: View) -> Option<Container> {
    let c = Container::new(view).sleeper().edit(|spec| spec["root"]["readonly"] = false.into());
    c.runtime.only_aril("export is a command of its own").then_some(c)
}

/// What the host's tar makes of an archive.
#[track_caller]
fn unpacked(c: &Container, archive: &Path) -> Option<PathBuf> {
    let tar = skip::tool("tar", "tar")?;
    let to = c.directory("unpacked");
    let mut call = Command::new(tar);
    call.args(["--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(archive)
        .arg("-C")
        .arg(&to);
    let out = call.output().expect("tar");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    Some(to)
}

/// Everything that is to be kept of an entry.
fn look(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let content = match meta.file_type() {
        kind if kind.is_symlink() => format!("{:?}", fs::read_link(path).expect("a link")),
        kind if kind.is_file() => format!("{:?}", fs::read(path).expect("a file")),
        _ => String::new(),
    };
    let size = if meta.is_dir() { 0 } else { meta.size() };
    format!(
        "{:o} {}:{} {size} {}.{:09} {:x} {content}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.rdev(),
    )
}

/// A rootfs with everything that a tar can get wrong.
fn fill(root: &Path) -> Vec<&'static [u8]> {
    let long =
        b"a-long-directory/0123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789/a-file-of-a-long-name-that-the-old-header-has-no-place-for";
    let path = |name: &[u8]| root.join(std::ffi::OsStr::from_bytes(name));
    fs::create_dir_all(path(long).parent().expect("a parent")).expect("directories");
    fs::write(path(long), "long").expect("a file");
    fs::write(path(b"a\nb \\ \xff"), "odd").expect("a file");
    fs::write(path(b"empty"), "").expect("a file");
    fs::set_permissions(path(b"empty"), fs::Permissions::from_mode(0o4711)).expect("chmod");
    std::os::unix::fs::chown(path(b"empty"), Some(3_000_000), Some(7)).expect("chown");
    fs::set_permissions(path(b"empty"), fs::Permissions::from_mode(0o4711)).expect("chmod");
    fs::write(path(b"block"), [b'x'; 1024]).expect("a file");
    fs::hard_link(path(b"block"), path(b"again")).expect("a link");
    symlink("/etc/passwd", path(b"absolute")).expect("a link");
    symlink("x".repeat(150), path(b"far")).expect("a link");
    let sparse = fs::File::create(path(b"sparse")).expect("a file");
    sparse.set_len(3 << 20).expect("truncate");
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (3 << 20) - 3).expect("write");
    let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
    fs::File::open(path(b"block")).expect("a file").set_modified(old).expect("utimens");
    for (name, args) in
        [("fifo", &["p"][..]), ("null", &["c", "1", "3"]), ("disk", &["b", "7", "300"])]
    {
        let made = Command::new("mknod").arg(root.join(name)).args(args).status().expect("mknod");
        assert!(made.success());
    }
    let names: [&[u8]; 12] = [
        long,
        b"a\nb \\ \xff",
        b"empty",
        b"block",
        b"again",
        b"absolute",
        b"far",
        b"sparse",
        b"fifo",
        b"null",
        b"disk",
        b"etc/passwd",
    ];
    names.to_vec()
}

#[test]
fn everything_is_in_it() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let names = fill(&c.rootfs());
        let _socket =
            std::os::unix::net::UnixListener::bind(c.rootfs().join("socket")).expect("bind");
        c.run_detached();
        let archive = c.path("all.tar");
        let file = archive.to_str().expect("utf-8");
        let out = c.call(["export", &c.id, file]).ok().says("/socket of container");
        assert_eq!(out.stderr.lines().count(), 1, "{out:?}");
        let again = c.path("again.tar");
        c.call(["export", &c.id, again.to_str().expect("utf-8")]).ok();
        assert_eq!(
            fs::read(&archive).expect("tar"),
            fs::read(again).expect("tar"),
            "the same bytes"
        );
        let Some(to) = unpacked(&c, &archive) else { return };
        for name in names {
            let name = std::ffi::OsStr::from_bytes(name);
            assert_eq!(look(&to.join(name)), look(&c.rootfs().join(name)), "{name:?}");
        }
        let inode = |name: &str| fs::metadata(to.join(name)).expect("a file").ino();
        assert_eq!(inode("again"), inode("block"), "two names of one file");
        assert!(!to.join("socket").exists());
        assert_eq!(fs::read_dir(to.join("proc")).expect("proc").count(), 0, "no mounts");
        c.delete_by_force().ok();
    });
}

#[test]
fn attributes_are_kept() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let Some(setfattr) = skip::tool("setfattr", "attr") else { return };
        let file = c.rootfs().join("etc/passwd");
        for (name, value) in [("user.note", "0x00010a3d"), ("trusted.note", "0x31")] {
            let set = Command::new(&setfattr).args(["-n", name, "-v", value]).arg(&file).status();
            if !set.expect("setfattr").success() {
                return skip::inapplicable("the temporary directory has no extended attributes");
            }
        }
        c.run_detached();
        c.call(["export", &c.id, "all.tar"]).ok();
        let Some(to) = unpacked(&c, &c.path("all.tar")) else { return };
        let out = Command::new("getfattr")
            .args(["-e", "hex", "-d", "-m", "-", "etc/passwd"])
            .current_dir(to)
            .output()
            .expect("getfattr");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            text.contains("user.note=0x00010a3d\ntrusted")
                || text.contains("trusted.note=0x31\nuser"),
            "{text}"
        );
        c.delete_by_force().ok();
    });
}

#[test]
fn export_freezes_and_thaws_the_container() {
    in_each_view(|view| {
        let Some(c) = sleeper(view) else { return };
        c.run_detached();
        // The archive waits for a reader: the pipe is full, so the container stands still.
        let pipe = c.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let export = c.call(["export", &c.id, pipe.to_str().expect("utf-8")]).spawn();
        // For both, so that it waits for nobody.
        let reader = fs::File::options().read(true).write(true).open(&pipe).expect("an end");
        c.wait_for("paused");
        // Killed, as hard as can be: somebody thaws it all the same.
        export.signal(nix::sys::signal::Signal::SIGKILL);
        drop(export.wait());
        c.wait_for("running");
        drop(reader);
        c.call(["export", &c.id, "x.tar"]).output().silent();
        assert_eq!(c.status(), "running");
        c.verb("pause").ok();
        c.call(["export", &c.id, "x.tar"]).output().silent();
        assert_eq!(c.status(), "paused", "as it was found");
        c.delete_by_force().ok();
    });
}

#[test]
fn stopped_container_is_exported() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        fs::write(c.rootfs().join("mine"), "text").expect("a file");
        c.create();
        c.call(["export", &c.id, "created.tar"]).output().silent();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.call(["export", &c.id, "stopped.tar"]).output().silent();
        let read = |name: &str| fs::read(c.path(name)).expect("an archive");
        assert_eq!(read("created.tar"), read("stopped.tar"));
        c.delete_by_force().ok();
        c.call(["export", &c.id, "none.tar"]).output().exits(1).says("container does not exist");
        assert!(!c.path("none.tar").exists());
    });
}

#[test]
fn export_in_a_user_namespace_maps_owners() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        let c = c.in_user_namespace(200_000);
        std::os::unix::fs::chown(c.rootfs().join("etc"), Some(200_008), Some(200_009))
            .expect("chown");
        c.run_detached();
        c.call(["export", &c.id, "all.tar"]).output().silent();
        let Some(to) = unpacked(&c, &c.path("all.tar")) else { return };
        let meta = fs::metadata(to.join("etc")).expect("etc");
        assert_eq!((meta.uid(), meta.gid()), (8, 9), "the container's own ids");
        c.delete_by_force().ok();
    });
}

#[test]
fn refusals() {
    on_the_host(|view| {
        let Some(c) = sleeper(view) else { return };
        c.run_detached();
        let out = c.call(["export", &c.id, "/missing/x.tar"]).output().exits(1);
        out.says("/missing/.x.tar.new: no such file or directory");
        let full = c.call(["export", &c.id, "/dev/full"]).output().exits(1);
        full.says("write the archive: no space left on device");
        assert_eq!(c.status(), "running");
        c.delete_by_force().ok();
    });
}
