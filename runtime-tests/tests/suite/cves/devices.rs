//! Devices that an image, or another container of a shared volume, has replaced.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use runtime_tests::spec::bind;
use runtime_tests::terminal::Receiver;
use runtime_tests::{Container, View, on_the_host, skip};
use serde_json::json;

use super::{Canary, writable};

/// Without a mount on /dev: the image's own directory is used. Its /dev/pts is a devpts all the same.
fn with_the_images_dev(view: View) -> Container {
    writable(Container::new(view)).edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let kept = |m: &serde_json::Value| {
            let destination = m["destination"].as_str().expect("a path");
            !destination.starts_with("/dev") || destination == "/dev/pts"
        };
        mounts.retain(kept);
    })
}

/// CVE-2026-41579, CVE-2026-47766: /dev itself is a symlink.
#[test]
fn dev_may_not_lead_outside() {
    on_the_host(|view| {
        let c = with_the_images_dev(view);
        if !c.runtime.only_aril("fixed in runc 1.5 and crun 1.28") {
            return;
        }
        let canary = Canary::of(&c);
        fs::remove_dir(c.rootfs().join("dev")).expect("rmdir");
        symlink(&canary.dir, c.rootfs().join("dev")).expect("a link");
        let _ = c.run();
        canary.is_untouched();
    });
}

/// CVE-2026-88264, CVE-2026-88265: /dev/console and /dev/null are links to a file of the host's; a
/// runtime made the one and took the other for its own, and gave it to the container's user.
#[test]
fn console_and_null_may_not_lead_outside() {
    on_the_host(|view| {
        for device in ["console", "null", "zero", "full", "tty", "ptmx", "stdin", "fd"] {
            let c = with_the_images_dev(view).edit(|spec| {
                spec["process"]["terminal"] = (device == "console").into();
                spec["process"]["user"] = json!({"uid": 1234, "gid": 1234});
            });
            if !c.runtime.only_aril("fixed after crun 1.29.1") {
                return;
            }
            let canary = Canary::of(&c);
            let up = "../".repeat(12);
            let dir = canary.dir.strip_prefix("/").expect("absolute").display();
            for file in ["file", "new"] {
                let link = c.rootfs().join("dev").join(device);
                let _ = fs::remove_file(&link);
                symlink(format!("{up}{dir}/{file}"), link).expect("a link");
                let path = c.path(file);
                let socket = (device == "console").then(|| Receiver::at(&path));
                let path = path.display().to_string();
                let flags: &[&str] =
                    if socket.is_some() { &["--console-socket", &path] } else { &[] };
                let _ = c.create_call(flags).output();
                canary.is_untouched();
                c.delete_by_force();
            }
        }
    });
}

/// CVE-2025-31133, CVE-2025-62161: the mask is a bind of /dev/null; in its place is a link, or a file
/// that says what the container likes.
#[test]
fn a_mask_is_made_of_null_or_not_at_all() {
    on_the_host(|view| {
        for fake in ["link", "file", "fifo", "other device"] {
            let c = with_the_images_dev(view).script("cat /secret; echo x > /secret");
            if !c.runtime.only_aril("fixed in runc 1.2.8") {
                return;
            }
            let canary = Canary::of(&c);
            fs::write(c.rootfs().join("secret"), "secret\n").expect("a file");
            let null = c.rootfs().join("dev/null");
            match fake {
                "link" => symlink("/proc/sysrq-trigger", &null).expect("a link"),
                "file" => fs::write(&null, "forged\n").expect("a file"),
                "fifo" => nix::unistd::mkfifo(&null, Mode::S_IRWXU).expect("fifo"),
                _ => {
                    let (kind, mode) = (SFlag::S_IFCHR, Mode::S_IRWXU);
                    mknod(&null, kind, mode, makedev(1, 7)).expect("mknod");
                }
            }
            let c = c.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/secret"]));
            let out = c.run();
            for shown in ["secret", "forged"] {
                assert!(!out.stdout.contains(shown), "{fake}: {out:?}");
            }
            let kept = fs::read_to_string(c.rootfs().join("secret")).expect("kept");
            assert_eq!(kept, "secret\n", "{fake}");
            canary.is_untouched();
        }
    });
}

/// The same while it changes.
#[test]
fn a_null_that_changes_masks_with_null() {
    on_the_host(|view| {
        let c = writable(Container::new(view))
            .script("grep ' /secret ' /proc/self/mountinfo | cut -d' ' -f4,9; cat /secret");
        if !c.runtime.only_aril("fixed in runc 1.2.8") {
            return;
        }
        fs::hard_link(c.rootfs().join("bin/sh"), c.rootfs().join("bin/cut")).expect("busybox");
        fs::write(c.rootfs().join("secret"), "secret\n").expect("a file");
        let dev = c.directory("dev");
        let (null, other) = (dev.join("null"), dev.join("other"));
        let (kind, mode) = (SFlag::S_IFCHR, Mode::S_IRWXU);
        mknod(&null, kind, mode, makedev(1, 3)).expect("mknod");
        symlink("/proc/sysrq-trigger", &other).expect("a link");
        let c = c.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| !m["destination"].as_str().expect("a path").starts_with("/dev"));
            spec["linux"]["maskedPaths"] = json!(["/secret"]);
        });
        let c = c.mounting(bind(&dev, "/dev", &["rw"]));
        super::paths::while_they_change_places(&null, &other, || {
            for n in 0..super::paths::tries() {
                let out = c.run();
                assert!(
                    !out.stdout.contains("secret\nsecret") && !out.stdout.contains("sysrq"),
                    "{n}: {out:?}"
                );
            }
        });
    });
}

/// CVE-2025-52565: the terminal is bound onto /dev/console, and /dev/pts is somebody else's volume: the
/// multiplexer in it finds the devpts beside it, and the names of its terminals are links.
#[test]
fn a_terminal_is_the_one_that_was_opened() {
    on_the_host(|view| {
        let c = writable(Container::new(view)).script("sleep 1000").edit(|spec| {
            spec["process"]["terminal"] = true.into();
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/dev/pts");
        });
        if !c.runtime.only_aril("fixed in runc 1.2.8") {
            return;
        }
        let volume = c.directory("volume");
        fs::create_dir(volume.join("pts")).expect("a directory");
        let (kind, mode) = (SFlag::S_IFCHR, Mode::from_bits_truncate(0o666));
        mknod(&volume.join("ptmx"), kind, mode, makedev(5, 2)).expect("mknod");
        for n in 0..4 {
            symlink("/proc/sys/kernel/core_pattern", volume.join(n.to_string())).expect("a link");
        }
        let devpts = json!({"destination": "/dev/pts/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"]});
        let c = c.mounting(bind(&volume, "/dev/pts", &["rw"])).mounting(devpts);
        let socket = Receiver::at(&c.path("console"));
        let path = c.path("console").display().to_string();
        let out = c.create_call(&["--console-socket", &path]).output();
        if out.code == Some(0) {
            let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", c.pid()));
            let mounts = mounts.expect("its mounts");
            let console: Vec<&str> =
                mounts.lines().filter(|line| line.contains(" /dev/console ")).collect();
            let terminals = console.iter().all(|line| line.contains(" - devpts "));
            assert!(terminals, "{console:?}");
        } else {
            out.says("is not a devpts");
        }
        drop(socket);
    });
}

/// On cgroup v1 without the devices hierarchy there is no place for the rules, and a container, which may
/// make device nodes, would open any device of the host.
#[test]
fn without_a_device_controller_nothing_starts() {
    on_the_host(|view| {
        let mounted = "/sys/fs/cgroup/devices";
        if view.is_v2() || !std::path::Path::new(mounted).join("devices.list").exists() {
            skip::inapplicable("no devices hierarchy of cgroup v1 is mounted here");
            return;
        }
        let c = Container::new(view).args(["echo", "started"]);
        let without =
            format!("exec unshare --mount sh -c 'umount {mounted} && exec \"$@\"' sh \"$@\"");
        let out = c.run_call(&[]).in_shell(&without).output();
        assert!(out.code != Some(0) && out.stdout.is_empty(), "{out:?}");
        out.says("mountpoint for devices not found");
        if c.runtime.is_aril() {
            let lenient = Container::new(view).args(["echo", "started"]).edit(|spec| {
                let all = json!([{"allow": true, "access": "rwm"}]);
                spec["linux"]["resources"]["devices"] = all;
            });
            lenient.run_call(&[]).in_shell(&without).ok().prints("started\n");
        }
        c.leaves_nothing();
    });
}
