//! A rootfs of layers: the image stays as it is, the host's mount table too.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, View, in_each_view, on_the_host, skip};
use serde_json::{Value, json};

const LAYERS: &str = "io.aril.rootfs.layers";
const UPPER: &str = "io.aril.rootfs.upper";
const SHOW: &str = "io.aril.rootfs.show";

/// With these annotations and a root that may be written, if the runtime knows them.
fn overlay(view: View, annotations: &[(&str, &str)]) -> Option<Container> {
    let c = Container::new(view);
    let known = c.runtime.only_aril("layers by annotation are its own");
    known.then(|| {
        let c = c.edit(|spec| spec["root"]["readonly"] = false.into());
        annotations.iter().fold(c, |c, (key, value)| c.annotated(key, value))
    })
}

/// All that a write to the tree would change.
fn picture(tree: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let meta = entry.path().symlink_metadata().expect("stat");
            lines.push(format!(
                "{} {:o} {}:{} {} {}.{}",
                entry.path().display(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    lines.sort();
    lines
}

/// The mounts of the host that are not another test's.
fn mounts(mark: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let others = |line: &&str| !line.contains("aril-test") || line.contains(mark);
    table.lines().filter(others).map(str::to_owned).collect()
}

#[test]
fn the_image_is_left_as_it_is() {
    in_each_view(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let c = c.script(
            "echo new > /etc/new; echo more >> /etc/passwd; rm /bin/wc; chmod 700 /etc; \
             rm -r /var; mkdir /var; cat /etc/new; tail -n 1 /etc/passwd; test ! -e /bin/wc",
        );
        let before = picture(&c.rootfs());
        c.run().ok().prints("new\nmore\n");
        assert_eq!(picture(&c.rootfs()), before);
        c.leaves_nothing();
        // Ephemeral: the next one begins anew.
        c.args(["test", "-e", "/etc/new"]).run().exits(1);
    });
}

#[test]
fn a_read_only_root_is_read_only_and_its_mount_points_are_made() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "tmpfs")]) else { return };
        let source = c.directory("source");
        let c = c
            .edit(|spec| spec["root"]["readonly"] = true.into())
            .mounting(runtime_tests::spec::bind(&source, "/made/for/it", &[]))
            .script("touch /made/for/it/x; touch /x 2> /dev/null || echo refused");
        c.run().ok().prints("refused\n");
        assert!(source.join("x").exists() && !c.rootfs().join("made").exists());
    });
}

#[test]
fn later_layers_cover_earlier_ones() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(LAYERS, "rootfs:app:config")]) else { return };
        for (layer, file, text) in [
            ("app", "etc/app", "app"),
            ("app", "etc/both", "app"),
            ("config", "etc/both", "config"),
        ] {
            fs::create_dir_all(c.path(layer).join("etc")).expect("a layer");
            fs::write(c.path(layer).join(file), format!("{text}\n")).expect("a file");
        }
        // What docker and others write for a deleted file.
        nix::sys::stat::mknod(
            &c.path("config").join("etc/group"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            0,
        )
        .expect("a whiteout");
        let c = c.script("cat /etc/app /etc/both; test ! -e /etc/group");
        c.run().ok().prints("app\nconfig\n");
        let list = json!([c.rootfs(), c.path("app"), c.path("config")]).to_string();
        let c = c.annotated(LAYERS, &list);
        c.run().ok().prints("app\nconfig\n");
    });
}

#[test]
fn verbs_see_the_same_root() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let c = c.sleeper();
        c.create();
        c.start();
        c.exec(["sh", "-c", "echo here > /file"]).ok();
        c.exec(["cat", "/file"]).ok().prints("here\n");
        let upper = c.root.join(&c.id).join("upper");
        assert_eq!(fs::read_to_string(upper.join("file")).expect("the upper file"), "here\n");
        let record = fs::read_to_string(c.root.join(&c.id).join("state.json")).expect("a record");
        let record: Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(record["overlay"]["lowers"], json!([c.rootfs()]));
        assert_eq!(record["overlay"]["upper"]["kind"], "ephemeral");
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

#[test]
fn a_kept_upper_stays_and_has_one_user() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "./kept")]) else { return };
        let c = c.script("echo x >> /file; wc -l < /file");
        c.run().ok().prints("1\n");
        c.run().ok().prints("2\n");
        let c = c.sleeper();
        c.run_detached();
        let second = c.call(["run", "-b", c.dir.to_str().expect("utf-8"), "second"]).output();
        let taken = format!("already in use by container {}", c.id);
        second.exits(1).says(&taken).says("kept");
        assert_eq!(c.left_in_root().len(), 1);
        c.delete_by_force().ok();
        assert_eq!(fs::read_to_string(c.path("kept/upper/file")).expect("kept"), "x\nx\n");
    });
}

#[test]
fn a_full_upper_is_the_programs_own_trouble() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "tmpfs:1m")]) else { return };
        let c = c.script(
            "head -c 4000000 /dev/zero > /big 2> /dev/null && exit 9; \
             echo > /more 2> /dev/null && exit 8; rm /big && echo fine > /more && cat /more",
        );
        c.run().ok().prints("fine\n");
    });
}

/// With the container's state on the same file system: all that ends a container goes on to work, and
/// what cannot says why and leaves nothing.
#[test]
fn a_full_disk_stops_nothing_but_writing() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let Some(unshare) = skip::tool("unshare", "util-linux") else { return };
        let c = c.sleeper();
        c.write_config();
        fs::create_dir(c.path("disk")).expect("a folder");
        // In a mount namespace of the shell: the disk is in no other table.
        let script = r#"
            mount -t tmpfs -o size=1m disk disk
            aril() { "$RUNTIME" --root "$PWD/disk/state" --allow-annotation 'io.aril.rootfs.upper' "$@"; }
            aril run --detach --bundle . $ID
            aril exec $ID sh -c 'yes > /big || echo full; yes > /more || mkdir /folder'
            aril state $ID | grep -o '"running"'
            aril diff $ID
            aril commit $ID disk/layer 2>&1 | grep -o 'no space left on device'
            aril run --detach --bundle . second 2>&1 | grep -o 'no space left on device'
            aril update --pids-limit 77 $ID 2>&1 | grep -o 'no space left on device'
            aril pause $ID; aril resume $ID
            ls -A disk disk/state
            aril exec $ID sh -c 'rm /big; echo fine > /more; cat /more; yes > /big' 2> /dev/null || true
            aril delete --force $ID
            ls -A disk/state; aril list -q"#;
        let out = c
            .bare(&unshare, "unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec", script])
            .env("RUNTIME", &c.runtime.path)
            .env("ID", &c.id)
            .output();
        let no_space = "no space left on device\n".repeat(3);
        out.prints(&format!(
            "full\n\"running\"\nA /big\nA /folder\nA /more\n{no_space}disk:\nstate\n\ndisk/state:\n{}\nfine\n",
            c.id
        ));
        c.leaves_nothing();
    });
}

/// In a mount namespace of the shell, with the state and a kept upper on a disk of its own, which counts
/// projects if `mount` says so.
fn on_a_disk(c: &Container, mount: &str, script: &str) -> Option<String> {
    let unshare = skip::tool("unshare", "util-linux")?;
    skip::tool("mkfs.ext4", "e2fsprogs")?;
    c.write_config();
    fs::create_dir_all(c.path("disk")).expect("a folder");
    let prepare = r#"
        truncate -s 32M image; mkfs.ext4 -q -O quota,project -E quotatype=prjquota image
        mount -o loop,$MOUNT image disk 2> /dev/null || { echo no such disk; exit; }
        aril() { "$RUNTIME" --root "$PWD/disk/state" --allow-annotation 'io.aril.rootfs.upper' "$@"; }"#;
    let out = c
        .bare(&unshare, "unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", &format!("{prepare}\n{script}")])
        .env("RUNTIME", &c.runtime.path)
        .env("ID", &c.id)
        .env("MOUNT", mount)
        .ok();
    if out.stdout.starts_with("no such disk") {
        skip::inapplicable(
            "the kernel mounts no ext4 with quotas: no loop devices, or no quota_v2",
        );
        return None;
    }
    Some(out.stdout)
}

/// More than there may be, less than there may be, and what `df` says of it.
const FILL: &str = "yes > /big 2> /dev/null; echo $(($(stat -c %s /big) / 900000)); rm /big
    echo fine > /small; cat /small; df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";

/// `repquota` of Debian's quota need not be there: usage is seen by what can be written.
#[test]
fn quota_limits_the_upper_directory() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral:1m")]) else { return };
        let c = c.script(FILL);
        // Two at once have projects of their own; the second fills nothing of the first's.
        let script = r#"
            aril run --bundle . $ID
            sed -i "s,/$ID\",/one\"," config.json
            aril run --detach --bundle . --upper ephemeral:2m one > /dev/null
            sed -i "s,/one\",/$ID\"," config.json
            aril run --bundle . two
            aril delete --force one
            ls -A disk/state"#;
        let Some(seen) = on_a_disk(&c, "prjquota", script) else { return };
        assert_eq!(seen, "1\nfine\n1024\n".repeat(2));
        c.leaves_nothing();
    });
}

#[test]
fn a_kept_upper_keeps_its_limit() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "./disk/kept/:1m")]) else { return };
        let c =
            c.script("echo x >> /file; yes > /big 2> /dev/null; stat -c %s /big; wc -l < /file");
        let script = r#"
            aril run --bundle . $ID | sed 's/^[0-9]\{6,7\}$/full/'
            aril run --bundle . --upper ./disk/kept/:2m $ID | sed 's/^[0-9]\{7\}$/more/'
            mkdir -p disk/old/upper/file disk/mine
            aril run --bundle . --upper ./disk/old/:1m $ID 2>&1 | grep -o 'would not count'
            lsattr -pd disk/kept disk/mine | tr -s ' ' | cut -d ' ' -f 2
            chattr -p 7 disk/mine && chattr +P disk/mine
            aril run --bundle . --upper ./disk/mine/:1m $ID 2>&1 | grep -o 'project 7 of the file system'
            ls -A disk/state"#;
        let Some(seen) = on_a_disk(&c, "prjquota", script) else { return };
        assert_eq!(seen, "full\n1\nmore\n2\nwould not count\n0\n0\nproject 7 of the file system\n");
        c.leaves_nothing();
    });
}

/// Refused before anything is made, in words that say what would do.
#[test]
fn a_limit_that_nothing_would_hold_is_refused() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral:1m")]) else { return };
        let Some(unshare) = skip::tool("unshare", "util-linux") else { return };
        let c = c.args(["true"]);
        c.write_config();
        fs::create_dir(c.path("memory")).expect("a folder");
        let script = "mount -t tmpfs memory memory; \
            \"$RUNTIME\" --root memory/state --allow-annotation=io.aril.rootfs.* \
            run --bundle . c; echo $?; ls -A memory/state";
        let out = c
            .bare(&unshare, "unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec", &format!("set +e; {script}")])
            .env("RUNTIME", &c.runtime.path)
            .output();
        out.says("limit the size of the upper directory: the file system of ")
            .says(" has no project quotas")
            .says("tmpfs:SIZE")
            .prints("1\n");
        let off =
            "aril run --bundle . $ID 2>&1 | grep -o 'has no project quotas'; ls -A disk/state";
        if let Some(seen) = on_a_disk(&c, "noquota", off) {
            assert_eq!(seen, "has no project quotas\n");
        }
        c.leaves_nothing();
    });
}

#[test]
fn one_image_serves_all_ranges_of_ids() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let image = c.rootfs();
        fs::write(image.join("etc/secret"), "for root\n").expect("a file");
        fs::set_permissions(image.join("etc/secret"), fs::Permissions::from_mode(0o600))
            .expect("chmod");
        let mut c = c.script(
            "stat -c '%u:%g' /etc/secret /etc /; cat /etc/secret; \
             echo changed >> /etc/secret; echo > /new; stat -c %u /new",
        );
        let before = picture(&image);
        for first in [300_000, 400_000] {
            c = c.edit(|spec| {
                let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
                let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
                if !namespaces.contains(&json!({"type": "user"})) {
                    namespaces.push(json!({"type": "user"}));
                }
                spec["linux"]["uidMappings"] = map.clone();
                spec["linux"]["gidMappings"] = map;
            });
            fs::set_permissions(&c.dir, fs::Permissions::from_mode(0o755)).expect("chmod");
            c.run().ok().prints("0:0\n0:0\n0:0\nfor root\n0\n");
            assert_eq!(picture(&image), before, "{first}");
        }
        c.leaves_nothing();
    });
}

#[test]
fn a_hundred_containers_and_no_mount_on_the_host() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let c = c.sleeper();
        let before = mounts(&c.mark);
        let own = c.cgroups_path();
        let bundle = |number: usize| {
            let bundle = c.directory(&format!("bundle-{number}"));
            let mut spec = c.spec.clone();
            spec["root"]["path"] = json!(c.rootfs());
            spec["linux"]["cgroupsPath"] = json!(format!("{own}-{number}"));
            let text = serde_json::to_vec(&spec).expect("json");
            fs::write(bundle.join("config.json"), text).expect("a config");
            bundle
        };
        for number in 0..100 {
            let bundle = bundle(number);
            c.call(["run", "-d", "-b", bundle.to_str().expect("utf-8"), &format!("n{number}")])
                .ok();
        }
        let during = mounts(&c.mark);
        for number in 0..100 {
            c.call(["delete", "--force", &format!("n{number}")]).ok();
        }
        assert_eq!(during, before);
        assert_eq!(mounts(&c.mark), before);
    });
}

/// To other users of the host.
fn close(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[test]
fn overlay_is_shown_at_rootfs_on_request() {
    on_the_host(|view| {
        let layers = [(LAYERS, "image"), (SHOW, "true")];
        let Some(c) = overlay(view, &layers) else { return };
        close(&c.dir);
        fs::rename(c.rootfs(), c.path("image")).expect("rename");
        fs::create_dir(c.rootfs()).expect("an empty rootfs");
        let c = c.script("echo inside > /file; sleep 1000");
        c.run_detached();
        wait_until("the file", || c.rootfs().join("file").exists());
        assert!(c.rootfs().join("bin/busybox").exists());
        c.delete_by_force().ok();
        assert_eq!(fs::read_dir(c.rootfs()).expect("rootfs").count(), 0);
        c.leaves_nothing();
    });
}

/// And is not for ever where the state that tells of it is lost.
#[test]
fn shown_overlay_without_state_is_reconciled() {
    on_the_host(|view| {
        let layers = [(LAYERS, "image"), (SHOW, "true")];
        let Some(c) = overlay(view, &layers) else { return };
        close(&c.dir);
        fs::rename(c.rootfs(), c.path("image")).expect("rename");
        fs::create_dir(c.rootfs()).expect("an empty rootfs");
        let c = c.sleeper();
        c.run_detached();
        let pid = c.pid();
        c.call(["reconcile"]).ok().prints("");
        fs::rename(&c.root, c.path("gone")).expect("rename");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        wait_until("its end", || runtime_tests::host::is_gone(pid));
        assert!(c.rootfs().join("bin").exists());
        let told = c.call(["reconcile"]).ok().stdout;
        assert!(told.contains("whose state is gone"), "{told}");
        assert_eq!(fs::read_dir(c.rootfs()).expect("rootfs").count(), 0);
        // Only the state says whose cgroup it is.
        fs::rename(c.path("gone"), &c.root).expect("rename");
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

#[test]
fn invalid_layers_are_refused_and_leave_nothing() {
    on_the_host(|view| {
        for (key, value, text) in [
            (LAYERS, "missing", "missing: no such file or directory"),
            (LAYERS, "rootfs::x", "the name of a directory is empty"),
            (LAYERS, "config.json", "not a directory"),
            (UPPER, "nothing", "want ephemeral, tmpfs"),
            (UPPER, "/no/such/parent", "/no/such/parent: no such file or directory"),
            (UPPER, "./rootfs/inside", "overlaps with layer"),
            (UPPER, "ephemeral:0", "want a size such as 64m"),
            (SHOW, "true", "the rootfs has no layers"),
        ] {
            let Some(c) = overlay(view, &[(key, value)]) else { return };
            c.run().exits(1).says(text);
            c.leaves_nothing();
        }
    });
}

#[test]
fn a_deep_tree_is_removed() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let c = c.script(
            "cd /; d=d/d/d/d/d; d=$d/$d/$d/$d/$d; d=$d/$d; i=0; \
             while [ $i -lt 30 ]; do mkdir -p $d && cd $d || exit 1; i=$((i+1)); done 2>&1",
        );
        c.run().ok();
        c.leaves_nothing();
    });
}

/// At whatever moment the runtime dies, the image is unharmed and delete --force finds the rest.
#[test]
fn killed_at_any_moment() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "ephemeral")]) else { return };
        let c = c.script("echo > /file; rm /bin/wc; sleep 1000");
        let before = picture(&c.rootfs());
        let table = mounts(&c.mark);
        let mut delay = Duration::ZERO;
        while delay < Duration::from_millis(60) {
            let mut call = c.run_call(&["-d"]).spawn();
            std::thread::sleep(delay);
            if !call.ended() {
                call.signal(Signal::SIGKILL);
            }
            call.wait();
            c.delete_by_force().ok();
            c.leaves_nothing();
            delay += Duration::from_micros(1500);
        }
        assert_eq!(picture(&c.rootfs()), before);
        assert_eq!(mounts(&c.mark), table);
    });
}

/// As after a reboot that took the state root: layers and a kept upper do not depend on it.
#[test]
fn lost_state_root_leaves_layers_unharmed() {
    on_the_host(|view| {
        let Some(c) = overlay(view, &[(UPPER, "./kept")]) else { return };
        let before = picture(&c.rootfs());
        let c = c.script("echo x >> /file; sleep 1000");
        c.run_detached();
        wait_until("the file", || c.path("kept/upper/file").exists());
        let pid = c.pid();
        fs::rename(&c.root, c.path("gone")).expect("rename");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        wait_until("its end", || runtime_tests::host::is_gone(pid));
        let c = c.script("cat /file");
        c.run().ok().prints("x\n");
        assert_eq!(picture(&c.rootfs()), before);
    });
}
