//! A procfs that is none, or in which a name leads elsewhere than it says.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::spec::bind;
use runtime_tests::{Container, on_the_host};
use serde_json::json;

use super::{Canary, writable};

const LABELS: [&str; 6] = [
    "/proc/self/attr/exec",
    "/proc/self/attr/apparmor/exec",
    "/proc/thread-self/attr/exec",
    "/proc/self",
    "/proc/1/attr/current",
    "/proc/sys/kernel/core_pattern",
];

/// CVE-2019-16884: an image's volume over /proc.
#[test]
fn nothing_but_procfs_on_proc() {
    on_the_host(|view| {
        for destination in ["/proc", "/proc/", "/x/../proc", "//proc"] {
            let c = Container::new(view);
            let source = c.directory("source");
            fs::create_dir_all(source.join("self/attr")).expect("a directory");
            let canary = source.join("self/attr/exec");
            fs::write(&canary, "").expect("a file");
            let c = c.mounting(bind(&source, destination, &[]));
            let out = c.run();
            assert_ne!(out.code, Some(0), "{destination}: {out:?}");
            assert_eq!(fs::read_to_string(&canary).expect("the file"), "", "{destination}");
            let c = Container::new(view);
            let tmpfs = json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
            let c = c.mounting(tmpfs);
            let out = c.run();
            assert_ne!(out.code, Some(0), "{destination}: {out:?}");
            if c.runtime.is_aril() {
                out.says("not of type proc");
            }
        }
    });
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc or /sys is a symlink.
#[test]
fn proc_and_sys_are_directories_of_their_own() {
    on_the_host(|view| {
        for name in ["proc", "sys"] {
            for absolute in [true, false] {
                let c = writable(Container::new(view)).script("cat /proc/self/mountinfo");
                let canary = Canary::of(&c);
                fs::remove_dir(c.rootfs().join(name)).expect("rmdir");
                let up = "../".repeat(12);
                let outside = canary.dir.strip_prefix("/").expect("absolute").display();
                let target =
                    if absolute { canary.dir.clone() } else { format!("{up}{outside}").into() };
                symlink(target, c.rootfs().join(name)).expect("a link");
                let out = c.run();
                assert_ne!(out.code, Some(0), "{name}: {out:?}");
                out.says("must be mounted on ordinary directory");
                canary.is_untouched();
                c.leaves_nothing();
            }
            let c = writable(Container::new(view));
            fs::remove_dir(c.rootfs().join(name)).expect("rmdir");
            fs::create_dir(c.rootfs().join("elsewhere")).expect("a directory");
            symlink("/elsewhere", c.rootfs().join(name)).expect("a link");
            c.run().says("must be mounted on ordinary directory");
        }
    });
}

/// CVE-2025-52881, CVE-2025-62596: something else of procfs, or of the host, in the place of what the
/// runtime writes labels, sysctls and scores to.
#[test]
fn nothing_is_put_over_what_we_write_to() {
    on_the_host(|view| {
        for destination in LABELS {
            let fixture = Container::new(view);
            let canary = Canary::of(&fixture);
            for source in [canary.file(), "/proc/self/sched".into(), "/proc/sysrq-trigger".into()] {
                let c = Container::new(view).mounting(bind(&source, destination, &["rw"]));
                let out = c.run();
                assert_ne!(out.code, Some(0), "{destination} {source:?}: {out:?}");
            }
            canary.is_untouched();
        }
    });
}

/// The same by a volume in which /proc/sys's names are links: the value lands in the container's own
/// namespace or nowhere.
#[test]
fn a_sysctl_lands_in_its_namespace() {
    on_the_host(|view| {
        let ttl = "/proc/sys/net/ipv4/ip_default_ttl";
        let before = fs::read_to_string(ttl).expect("the host's");
        let c = Container::new(view).script(&format!("cat {ttl}; cat /proc/self/oom_score_adj"));
        let canary = Canary::of(&c);
        // Behind the procfs that will be mounted: what a runtime would find that wrote too early.
        let fake = c.rootfs().join("proc/sys/net/ipv4");
        fs::create_dir_all(&fake).expect("a directory");
        symlink(canary.file(), fake.join("ip_default_ttl")).expect("a link");
        fs::create_dir_all(c.rootfs().join("proc/self")).expect("a directory");
        symlink(canary.file(), c.rootfs().join("proc/self/oom_score_adj")).expect("a link");
        let c = c.edit(|spec| {
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
            spec["process"]["oomScoreAdj"] = 777.into();
        });
        assert_eq!(c.run().ok().stdout, "77\n777\n");
        canary.is_untouched();
        assert_eq!(fs::read_to_string(ttl).expect("the host's"), before);
    });
}

/// CVE-2023-25809: without a cgroup namespace the hierarchy is a bind of the host's, and stays read-only.
#[test]
fn a_read_only_hierarchy_is_read_only() {
    runtime_tests::in_each_view(|view| {
        for bound in [true, false] {
            let c = Container::new(view).script(
                "find /sys/fs/cgroup -type d 2>/dev/null | head -40 | \
                 while read d; do mkdir $d/escape && echo made $d; \
                 echo 0 > $d/cgroup.procs && echo written $d; done 2>/dev/null; true",
            );
            let find = c.rootfs().join("bin/find");
            fs::hard_link(c.rootfs().join("bin/sh"), find).expect("busybox");
            let c = if bound { c.without_namespace("cgroup") } else { c };
            assert_eq!(c.run().ok().stdout, "", "without a cgroup namespace: {bound}");
        }
    });
}
