//! Paths of an image, or of a volume that somebody else changes meanwhile, that lead outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use runtime_tests::spec::bind;
use runtime_tests::{Container, on_the_host};
use serde_json::json;

use super::{Canary, writable};

/// Starts per race in the ordinary suite; `ARIL_RACES` asks for more.
pub(super) fn tries() -> usize {
    std::env::var("ARIL_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

/// Runs `body` while the two names change places.
pub(super) fn while_they_change_places(a: &Path, b: &Path, body: impl FnOnce()) {
    while_all_change_places(&[(a.to_owned(), b.to_owned())], body);
}

/// The same of many pairs.
pub(super) fn while_all_change_places(pairs: &[(PathBuf, PathBuf)], body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (a, b) in pairs {
                    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE)
                        .expect("exchange");
                }
            }
        });
        // Even if the body fails, or the scope would never end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

/// CVE-2018-19837, CVE-2019-18837: a symlink of the image in a mount's target.
#[test]
fn a_link_in_a_target_stays_inside() {
    on_the_host(|view| {
        let c = writable(Container::new(view)).script("ls /mnt; cat /inside/file");
        let canary = Canary::of(&c);
        let up = format!("../../../../../../../../..{}", canary.dir.display());
        symlink(&up, c.rootfs().join("mnt/up")).expect("a link");
        symlink(&canary.dir, c.rootfs().join("mnt/absolute")).expect("a link");
        symlink("/proc/self/root", c.rootfs().join("mnt/magic")).expect("a link");
        let source = c.directory("source");
        let file = c.file("source-file", "text");
        let c = c.mounting(bind(&source, "/mnt/up/a", &[]));
        let c = c.mounting(bind(&source, "/mnt/absolute/b", &[]));
        let c = c.mounting(bind(&file, "/mnt/up/file", &[]));
        let c = c.mounting(json!({"destination": "/mnt/absolute", "type": "tmpfs"}));
        let _ = c.run();
        canary.is_untouched();
        let magic = bind(&source, &format!("/mnt/magic{}/c", canary.dir.display()), &[]);
        let c = c.mounting(magic);
        let _ = c.run();
        canary.is_untouched();
    });
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2024-5154: a directory of a shared volume becomes a symlink
/// between being looked at and being mounted on, or made in.
#[test]
fn a_target_that_changes_stays_inside() {
    on_the_host(|view| {
        let script = format!("grep -c {} /proc/self/mountinfo; ls /probe", "canary-of");
        let c = writable(Container::new(view)).script(&script);
        let canary = Canary::of(&c);
        let volume = c.directory("volume");
        let (a, b) = (volume.join("a"), volume.join("b"));
        fs::create_dir(&a).expect("a directory");
        // In the container's view and in the host's: both lead to the canary.
        symlink(&canary.dir, &b).expect("a link");
        let source = c.directory("source");
        let c = c.mounting(bind(&volume, "/volume", &["rw"]));
        let c = c.mounting(bind(&source, "/volume/a/deep/er", &[]));
        let c = c.mounting(bind(&source.join("../volume"), "/volume/a/../a/x", &[]));
        let c = c.mounting(json!({"destination": "/volume/a", "type": "tmpfs"}));
        while_they_change_places(&a, &b, || {
            for n in 0..tries() {
                let _ = c.run_call(&[]).output();
                let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
                assert!(!mounts.contains(&c.mark), "{n}: {mounts}");
            }
        });
        canary.is_untouched();
    });
}

/// CVE-2024-21626's way through `exec`, and the working directory that is made when it is missing.
#[test]
fn a_working_directory_that_changes_stays_inside() {
    on_the_host(|view| {
        let c = writable(Container::new(view)).edit(|spec| {
            spec["process"]["cwd"] = "/volume/a/made/deeper".into();
        });
        let canary = Canary::of(&c);
        let volume = c.directory("volume");
        let (a, b) = (volume.join("a"), volume.join("b"));
        fs::create_dir(&a).expect("a directory");
        symlink(&canary.dir, &b).expect("a link");
        let c = c.mounting(bind(&volume, "/volume", &["rw"]));
        while_they_change_places(&a, &b, || {
            for _ in 0..tries() {
                let _ = c.run_call(&[]).output();
            }
        });
        canary.is_untouched();
    });
}

/// CVE-2025-31133's class: what is to be masked is a link that changes.
#[test]
fn a_masked_path_that_changes_masks_nothing_outside() {
    on_the_host(|view| {
        let c = writable(Container::new(view));
        let canary = Canary::of(&c);
        let volume = c.directory("volume");
        let (a, b) = (volume.join("a"), volume.join("b"));
        fs::write(&a, "a").expect("a file");
        symlink(canary.file(), &b).expect("a link");
        let c = c.mounting(bind(&volume, "/volume", &["rw"])).edit(|spec| {
            spec["linux"]["maskedPaths"] = json!(["/volume/a"]);
            spec["linux"]["readonlyPaths"] = json!(["/volume/a"]);
        });
        while_they_change_places(&a, &b, || {
            for _ in 0..tries() {
                let _ = c.run_call(&[]).output();
            }
        });
        canary.is_untouched();
        assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mounts").contains(&c.mark));
    });
}
