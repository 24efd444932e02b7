//! Twenty calls that begin at the same moment and need the same thing, which is not there yet: a volume, a
//! network, layers, cgroup parents. And two that cannot both have it: an id, a cgroup.

use std::fs;
use std::path::PathBuf;

use runtime_tests::{Call, Container, Output, View, host, in_each_view, on_the_host, skip};

use super::network::host::{Host, possible, sleeper};

const CALLS: usize = 20;
const ROUNDS: usize = 2;

fn image(view: View) -> Option<Container> {
    let c = Container::new(view);
    (c.runtime.only_aril("options of its own") && skip::tool("flock", "util-linux").is_some())
        .then_some(c)
}

/// The calls, all let go by one lock.
#[track_caller]
fn at_once(c: &Container, calls: impl IntoIterator<Item = Call>) -> Vec<Output> {
    let path = c.file("start", "");
    let lock = fs::File::open(&path).expect("the lock");
    lock.lock().expect("flock");
    let script = format!("flock -s {} true; exec \"$@\"", path.display());
    let calls: Vec<_> = calls.into_iter().map(|call| call.in_shell(&script).spawn()).collect();
    // They are all on their way; the last need not have come so far.
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(lock);
    calls.into_iter().map(runtime_tests::Running::wait).collect()
}

fn ids(c: &Container) -> Vec<String> {
    (0..CALLS).map(|n| format!("{}-{n}", c.id)).collect()
}

/// `run --rootfs` by each id.
#[track_caller]
fn all_run(c: &Container, options: &[&str], script: &str) -> Vec<Output> {
    let rootfs = c.rootfs().display().to_string();
    let calls = ids(c).into_iter().map(|id| {
        let words = [&["run", "--rootfs", &rootfs], options, &[&id, "--", "sh", "-c", script]];
        c.call(words.concat()).env("ARIL_VOLUMES", c.path("volumes"))
    });
    at_once(c, calls)
}

/// A volume is filled once, and no container sees a partly filled one.
#[test]
fn the_first_use_of_a_volume() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let data = c.rootfs().join("data/deep");
        fs::create_dir_all(&data).expect("data");
        for n in 0..50 {
            fs::write(data.join(format!("file-{n}")), "content\n").expect("a file");
        }
        for round in 0..ROUNDS {
            let volume = format!("v{round}:/data");
            let look = "ls /data/deep | wc -l; cat /data/deep/file-* | wc -l";
            for out in all_run(&c, &["-v", &volume], look) {
                assert_eq!(out.ok().stdout, "50\n50\n");
            }
        }
        c.leaves_nothing();
    });
}

#[test]
fn the_first_use_of_layers() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        for round in 0..ROUNDS {
            let layer = c.directory(&format!("layer-{round}"));
            fs::write(layer.join("from-the-layer"), "seen\n").expect("a file");
            let options = ["--layer", layer.to_str().expect("utf-8"), "-v", "/tmp:/no/such/place"];
            for out in all_run(&c, &options, "cat /from-the-layer; echo x > /own") {
                assert_eq!(out.ok().stdout, "seen\n");
            }
            assert!(!c.rootfs().join("no").exists() && !layer.join("own").exists());
        }
        c.leaves_nothing();
    });
}

/// A rootfs without layers, which lacks a mount point.
#[test]
fn the_first_use_of_a_rootfs() {
    in_each_view(|view| {
        for _ in 0..ROUNDS {
            let first = Container::new(view);
            if skip::tool("flock", "util-linux").is_none() || !first.runtime.is_aril() {
                return;
            }
            let rootfs = first.rootfs();
            let bind =
                runtime_tests::spec::bind(&first.directory("source"), "/deep/in/the/image", &[]);
            let all: Vec<_> = (0..CALLS)
                .map(|_| {
                    let c = Container::new(view).args(["true"]).mounting(bind.clone());
                    c.edit(|spec| spec["root"]["path"] = rootfs.to_str().expect("utf-8").into())
                })
                .collect();
            for out in at_once(&first, all.iter().map(|c| c.run_call(&[]))) {
                out.silent();
            }
        }
    });
}

/// One bridge, one table of rules, an address each, and names of all.
#[test]
fn the_first_use_of_a_network() {
    if !possible() || skip::tool("flock", "util-linux").is_none() {
        return;
    }
    for name in ["bridge", "bridge:n1"] {
        let net = Host::new();
        let c = sleeper();
        if name != "bridge" {
            net.network(&c, &["create", "n1", "--subnet", "10.79.0.0/24"]).ok();
        }
        let rootfs = c.rootfs().display().to_string();
        let calls = ids(&c).into_iter().enumerate().map(|(n, id)| {
            let port = format!("{}:80", 9000 + n);
            let words = [
                "run",
                "-d",
                "--rootfs",
                &rootfs,
                "--network",
                name,
                "-p",
                &port,
                &id,
                "--",
                "sleep",
                "1000",
            ];
            net.call(&c, &words)
        });
        for out in at_once(&c, calls) {
            out.ok();
        }
        let mut addresses = Vec::new();
        for id in ids(&c) {
            let hosts = net.call(&c, &["exec", &id, "cat", "/etc/hosts"]).ok().stdout;
            for other in ids(&c) {
                let lines =
                    hosts.lines().filter(|line| line.split_whitespace().any(|w| w == other));
                assert_eq!(lines.count(), 1, "{other} in the hosts of {id}: {hosts}");
            }
            let own = hosts.lines().find(|line| line.split_whitespace().any(|w| w == id));
            addresses.push(own.expect("a line").split_whitespace().next().map(str::to_owned));
        }
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), CALLS);
        assert_eq!(net.links(), CALLS);
        let calls = ids(&c).into_iter().map(|id| net.call(&c, &["delete", "--force", &id]));
        for out in at_once(&c, calls) {
            out.ok();
        }
        net.has_nothing_left();
        c.leaves_nothing();
    }
}

/// Parent cgroups that do not exist yet, and that another create may be about to remove.
#[test]
fn cgroup_parents() {
    in_each_view(|view| {
        let Some(first) = image(view) else { return };
        for round in 0..ROUNDS {
            let all: Vec<_> = (0..CALLS)
                .map(|n| {
                    // Half of them fail behind their cgroup.
                    let program = if n % 2 == 0 { "true" } else { "no-such-program" };
                    let c = Container::new(view).args([program]);
                    let path = format!("/{}/deep/{round}/below/{}", first.mark, c.id);
                    c.edit(|spec| spec["linux"]["cgroupsPath"] = path.into())
                })
                .collect();
            let outputs = at_once(&first, all.iter().map(|c| c.run_call(&[])));
            for (n, out) in outputs.into_iter().enumerate() {
                match n % 2 {
                    0 => drop(out.silent()),
                    _ => drop(out.exits(127).says("executable file not found in $PATH")),
                }
            }
        }
        // A runtime removes what it made for a container; a parent may belong to another container.
        let left = host::cgroups(&first.mark);
        assert!(left.iter().all(|dir| !dir.ends_with(&first.id)), "{left:?}");
        left.iter().for_each(|dir| fs::remove_dir(dir).expect("an empty cgroup"));
    });
}

/// One has the cgroup; the others say so, and leave it alone.
#[test]
fn simultaneous_creates_share_no_cgroup() {
    in_each_view(|view| {
        let Some(first) = image(view) else { return };
        for exists in [false, true] {
            let path = format!("/{}/shared", first.mark);
            let all: Vec<_> = (0..CALLS)
                .map(|_| {
                    let c = Container::new(view).sleeper();
                    c.edit(|spec| spec["linux"]["cgroupsPath"] = path.clone().into())
                })
                .collect();
            if exists {
                all[0].run_detached();
                all[0].delete_by_force().ok();
                for hierarchy in host::hierarchies() {
                    let _ = fs::create_dir(hierarchy.join(&first.mark).join("shared"));
                }
            }
            let outputs = at_once(&first, all.iter().map(|c| c.create_call(&[])));
            let (won, lost): (Vec<_>, Vec<_>) =
                outputs.into_iter().partition(|out| out.code == Some(0));
            assert_eq!(won.len(), 1, "{won:#?}");
            for out in lost {
                out.exits(1).says("container's cgroup is not empty");
            }
            let winner = all.iter().find(|c| !c.left_in_root().is_empty()).expect("a winner");
            winner.start();
            assert_eq!(winner.call(["ps", "--format", "json", &winner.id]).ok().stdout.trim(), {
                format!("[{}]", winner.pid())
            });
            winner.delete_by_force().ok();
            let left: Vec<PathBuf> = host::cgroups(&first.mark);
            assert!(!left.iter().any(|dir| dir.ends_with("shared")), "{left:?}");
        }
    });
}

#[test]
fn simultaneous_creates_of_one_id_leave_one_container() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let c = c.sleeper();
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        for verb in [&["create"][..], &["run", "-d"], &["run", "-d", "--rootfs"]] {
            let rootfs = c.rootfs().display().to_string();
            let bare = verb.contains(&"--rootfs");
            let rest = if bare { [rootfs.as_str(), &c.id] } else { ["--bundle", bundle] };
            let last: &[&str] = if bare { &["--", "sleep", "1000"] } else { &[&c.id] };
            let calls = (0..CALLS).map(|_| c.call([verb, &rest[..], last].concat()));
            let outputs = at_once(&c, calls);
            let won = outputs.iter().filter(|out| out.code == Some(0)).count();
            assert_eq!(won, 1, "{outputs:#?}");
            for out in outputs.into_iter().filter(|out| out.code != Some(0)) {
                out.exits(1).says("container with given ID already exists");
            }
            let status = if verb[0] == "create" { "created" } else { "running" };
            assert_eq!(c.status(), status);
            c.delete_by_force().ok();
            c.leaves_nothing();
        }
    });
}
