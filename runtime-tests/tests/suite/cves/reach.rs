//! What containers write, and whether other users of the host can reach it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use runtime_tests::{Container, View, on_the_host, skip};

use super::paths::{tries, while_all_change_places};
use super::{Canary, SECRET};
use crate::diff::{does, layered};

const NOBODY: &str = "65534";
const MAKE: &str = "cp /bin/busybox /setuid; chmod 4755 /setuid";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

/// The set-user-ID programs below `directory` that an unprivileged user of the host can run.
#[track_caller]
fn reached(c: &Container, directory: &Path) -> String {
    let find = c.bare(Path::new("/usr/bin/find"), "find").stage(["user", NOBODY]).arg(directory);
    find.args(["-type", "f", "-perm", "-4000", "-executable"]).output().stdout
}

/// With a state root that exists and that everyone may search.
fn open_root(view: View, upper: &str) -> Option<Container> {
    let c = layered(view, upper)?;
    set_mode(&c.dir, 0o755);
    fs::create_dir(&c.root).expect("a state root");
    set_mode(&c.root, 0o755);
    Some(c)
}

#[track_caller]
fn is_out_of_reach(c: &Container) {
    // The test itself works.
    let own = c.directory("own");
    fs::copy("/bin/true", own.join("setuid")).expect("a copy");
    set_mode(&own.join("setuid"), 0o4755);
    assert!(reached(c, &own).ends_with("setuid\n"));
    fs::remove_dir_all(own).expect("remove");
    assert_eq!(reached(c, &c.dir), "");
}

/// CVE-2021-41091, in an existing state root.
#[test]
fn an_open_state_root_opens_no_container() {
    on_the_host(|view| {
        for umask in ["000", "022"] {
            let Some(c) = open_root(view, "ephemeral") else { return };
            c.run_call(&["-d"]).in_shell(&format!("umask {umask}; exec \"$@\"")).ok();
            does(&c, MAKE);
            assert!(c.root.join(&c.id).join("upper/setuid").exists());
            is_out_of_reach(&c);
            assert_eq!(mode(&c.root), 0o755, "it may be others' too");
        }
    });
}

/// Another user could replace the state of containers.
#[test]
fn a_state_root_that_others_write_to_is_refused() {
    on_the_host(|view| {
        let Some(c) = open_root(view, "ephemeral") else { return };
        for mode in [0o777, 0o1777] {
            set_mode(&c.root, mode);
            c.run().exits(1).says("other users can write to the directory").says("chmod go-w");
            assert!(c.left_in_root().is_empty());
        }
        nix::unistd::chown(&c.root, Some(65534.into()), None).expect("chown");
        set_mode(&c.root, 0o755);
        c.run().exits(1).says("belongs to user 65534");
        assert!(c.left_in_root().is_empty());
        nix::unistd::chown(&c.root, Some(0.into()), None).expect("chown");
    });
}

/// CVE-2021-41091, in a kept upper directory that exists.
#[test]
fn a_kept_upper_is_closed_or_refused() {
    on_the_host(|view| {
        let Some(c) = open_root(view, "./kept/") else { return };
        let kept = c.directory("kept");
        set_mode(&kept, 0o755);
        let c = c.script(MAKE);
        c.run_call(&[]).in_shell("umask 0; exec \"$@\"").ok();
        assert!(kept.join("upper/setuid").exists());
        is_out_of_reach(&c);
        // What is not Aril's alone is left as it is.
        fs::remove_dir_all(&kept).expect("remove");
        fs::create_dir_all(kept.join("photos")).expect("a directory");
        set_mode(&kept, 0o755);
        c.run().exits(1).says("other users of the host can reach /").says("chmod 700");
        assert_eq!((mode(&kept), fs::read_dir(&kept).expect("kept").count()), (0o755, 1));
        set_mode(&kept, 0o700);
        c.run().ok();
    });
}

/// CVE-2021-41091, in what `commit` and `export` write.
#[test]
fn layers_and_archives_are_closed() {
    on_the_host(|view| {
        let Some(c) = open_root(view, "ephemeral") else { return };
        c.run_detached();
        does(&c, MAKE);
        let open = |words: &[&str]| {
            c.call(words).in_shell("umask 0; exec \"$@\"").output().silent();
        };
        open(&["commit", &c.id, "layer"]);
        set_mode(&c.directory("empty"), 0o777);
        open(&["commit", &c.id, "empty"]);
        is_out_of_reach(&c);
        fs::write(c.path("old.tar"), "of before").expect("a file");
        for (verb, name) in [("commit", "new.tar"), ("export", "old.tar"), ("export", "all.tar")] {
            open(&[verb, &c.id, name]);
            assert_eq!(mode(&c.path(name)), 0o600, "{verb} {name}");
        }
        c.delete_by_force().ok();
        // Containers see the root as it was.
        let c = c
            .script("stat -c %a / && test -u /setuid")
            .annotated("io.aril.rootfs.layers", "rootfs:layer");
        c.run().ok().prints("755\n");
    });
}

/// The container's root decides who owns `/`.
#[test]
fn a_layer_belongs_to_no_user_of_the_host() {
    on_the_host(|view| {
        let Some(c) = open_root(view, "ephemeral") else { return };
        c.run_detached();
        does(&c, &format!("{MAKE}; busybox chown 65534 /"));
        c.call(["commit", &c.id, "layer"]).output().exits(1).says("user 65534 owns");
        assert!(!c.path("layer").exists() && !c.path(".layer.new").exists());
        c.call(["commit", &c.id, "layer.tar"]).output().silent();
    });
}

#[test]
fn a_rootfs_is_not_shown_to_other_users() {
    on_the_host(|view| {
        let Some(c) = open_root(view, "ephemeral") else { return };
        fs::rename(c.rootfs(), c.path("image")).expect("rename");
        fs::create_dir(c.rootfs()).expect("a rootfs");
        let c =
            c.annotated("io.aril.rootfs.layers", "image").annotated("io.aril.rootfs.show", "true");
        c.run().exits(1).says("show the rootfs").says("can reach /");
        c.leaves_nothing();
    });
}

/// The more, the more of them change just when they are looked at.
const PAIRS: usize = 40;

/// CVE-2018-15664: a directory becomes a link to one of the host while the container is read.
#[test]
fn a_container_that_changes_shows_nothing_of_the_host() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        let canary = Canary::of(&c);
        c.run_detached();
        let links = format!("busybox ln -s {} /link$i", canary.dir.display());
        does(
            &c,
            &format!(
                "for i in $(busybox seq {PAIRS}); do mkdir /d$i; echo > /d$i/file; {links}; done"
            ),
        );
        let root = PathBuf::from(format!("/proc/{}/root", c.pid()));
        let pair = |n| (root.join(format!("d{n}")), root.join(format!("link{n}")));
        let pairs: Vec<_> = (1..=PAIRS).map(pair).collect();
        while_all_change_places(&pairs, || {
            for _ in 0..tries().div_ceil(6) {
                let _ = fs::remove_dir_all(c.path("layer"));
                // Each may fail of what has changed.
                for words in [
                    &["export", "--pause=false", &c.id, "all.tar"][..],
                    &["commit", "--pause=false", &c.id, "layer.tar"],
                    &["commit", "--pause=false", &c.id, "layer"],
                ] {
                    let _ = c.call(words).output();
                }
                let listed = c.verb("diff").stdout;
                // Links of a layer lead there for those who follow them.
                let plain = |n: &usize| !c.path(&format!("layer/d{n}")).is_symlink();
                let copied = |n| fs::read(c.path(&format!("layer/d{n}/file"))).unwrap_or_default();
                let layer = (1..=PAIRS).filter(plain).flat_map(copied).collect();
                for (name, bytes) in [
                    ("layer", layer),
                    ("all.tar", fs::read(c.path("all.tar")).unwrap_or_default()),
                    ("layer.tar", fs::read(c.path("layer.tar")).unwrap_or_default()),
                    ("diff", listed.into_bytes()),
                ] {
                    let seen = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
                    assert!(!seen, "{name} has what is in a file of the host");
                }
            }
        });
        canary.is_untouched();
    });
}

/// CVE-2019-14271: what reads a container enters no root of its own and loads none of its libraries.
#[test]
fn nothing_of_a_container_runs_while_it_is_read() {
    on_the_host(|view| {
        let Some(c) = layered(view, "ephemeral") else { return };
        let Some(strace) = skip::tool("strace", "strace") else { return };
        c.run_detached();
        does(
            &c,
            "mkdir -p /lib /etc; echo x > /lib/libnss_files.so.2; echo 'passwd: files' > /etc/nsswitch.conf",
        );
        for words in [
            &["export", &c.id, "all.tar"][..],
            &["commit", &c.id, "layer.tar"],
            &["commit", &c.id, "layer"],
            &["diff", &c.id],
        ] {
            let calls = c.path("calls/traced");
            let traced = format!(
                "exec {} -f -qq -o {} -e trace=chroot,pivot_root,execve,execveat,mmap \"$@\"",
                strace.display(),
                calls.display()
            );
            c.call(words).in_shell(&traced).ok();
            let text = fs::read_to_string(calls).expect("a trace");
            let entered = |line: &&str| line.contains("chroot(") || line.contains("pivot_root(");
            let program = |line: &&str| line.contains("execve");
            let loaded =
                |line: &&str| line.contains("PROT_EXEC") && !line.contains("MAP_ANONYMOUS");
            assert_eq!(text.lines().filter(entered).count(), 0, "{words:?}: {text}");
            assert_eq!(text.lines().filter(program).count(), 1, "{words:?}: {text}");
            assert_eq!(text.lines().filter(loaded).count(), 0, "{words:?}: {text}");
        }
    });
}
