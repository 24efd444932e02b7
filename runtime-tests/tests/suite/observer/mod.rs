//! The same bundle under the runtime and under a peer: the program inside must see the same, line
//! by line. See `docs/observer.md`.

mod kinds;
mod variations;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use runtime_tests::terminal::{self, Receiver};
use runtime_tests::{Container, Runtime, View, in_each_view};

/// A difference that stands: a line of the peer's that reads otherwise in ours.
struct Accepted {
    /// The ways into the container; if empty, all.
    ways: &'static [Way],
    /// How the line begins.
    lines: &'static [&'static str],
    /// What of it differs; if empty, ours is longer.
    peer: &'static str,
    ours: &'static str,
    reason: &'static str,
}

const COPIED: &str = "runc copies a foreground process's streams through pipes of its own; aril \
                      passes on the caller's descriptors";
const MODE: &str = "later runc and aril pass the mode of an existing target as an option of the \
                    new file system, where mountinfo shows it; 1.1.5 changes the mode afterwards";

const SOURCE: &str = "the name of the source is that of the host's mount: aril binds the \
                      container's cgroup instead of waiting for a new mount of the hierarchy";
const SLAVE: &str = "runc makes the mount that the rootfs is on private, for its pivot, before it \
                     binds: what comes from that mount hears nothing of the host's any more; aril \
                     pivots into a detached tree and need not, so that all binds are alike";

const NODE: &str = "in a user namespace runc leaves the flags of the host's /dev on the nodes that it \
                    binds; crun and aril add nosuid and noexec";

/// The one table of differences between the peer (Debian's runc 1.1.5) and aril.
const ACCEPTED: &[Accepted] = &[
    Accepted {
        ways: &[Way::Run, Way::Exec],
        lines: &["fd 0 "],
        peer: "pipe flags 0 0",
        ours: "/dev/null flags 2 0",
        reason: COPIED,
    },
    Accepted {
        ways: &[Way::Exec],
        lines: &["fd 0 "],
        peer: "pipe flags 0 0",
        ours: "/dev/null flags 0 0",
        reason: COPIED,
    },
    Accepted {
        ways: &[Way::Run, Way::Exec],
        lines: &["fd 1 "],
        peer: "pipe flags 1 0",
        ours: "/tmp/MARK/calls/N.out flags 1 0",
        reason: COPIED,
    },
    Accepted {
        ways: &[Way::Run, Way::Exec],
        lines: &["fd 2 "],
        peer: "pipe flags 1 0",
        ours: "/tmp/MARK/calls/N.err flags 1 0",
        reason: COPIED,
    },
    Accepted {
        ways: &[],
        lines: &["mount /proc/", "mount /sys/", "mount /masked-directory "],
        peer: " ro,relatime private tmpfs tmpfs ro",
        ours: " ro,relatime private tmpfs tmpfs ro,size=4k,nr_inodes=1",
        reason: "later runc limits the empty file system over a masked directory to one block and \
                 one inode, and so does aril",
    },
    Accepted {
        ways: &[],
        lines: &["mount /sys/fs/cgroup [0] / rw,nosuid,nodev,noexec,relatime private tmpfs"],
        peer: " / rw,",
        ours: " / ro,",
        reason: "1.1.5 leaves the directory of the v1 hierarchies writable where the spec says \
                 ro; later ones and aril do not",
    },
    Accepted {
        ways: &[],
        lines: &["mount /sys/fs/cgroup "],
        peer: " cgroup2 cgroup ",
        ours: " cgroup2 none ",
        reason: SOURCE,
    },
    Accepted {
        ways: &[],
        lines: &["mount /sys/fs/cgroup "],
        peer: " cgroup2 cgroup ",
        ours: " cgroup2 cgroup2 ",
        reason: SOURCE,
    },
    Accepted {
        ways: &[],
        lines: &["mount /sys/fs/cgroup/systemd "],
        peer: " cgroup systemd ",
        ours: " cgroup cgroup ",
        reason: "the name of the source of a named hierarchy has no meaning",
    },
    Accepted { ways: &[], lines: &["mount /mnt ["], peer: "", ours: ",mode=755", reason: MODE },
    Accepted { ways: &[], lines: &["mount /mnt ["], peer: "", ours: ",mode=1707", reason: MODE },
    Accepted {
        ways: &[],
        lines: &["file /mnt "],
        peer: "40755 5:6",
        ours: "41700 5:6",
        reason: "1.1.5 overwrites the mode that the mount's options ask for with the target's",
    },
    Accepted {
        ways: &[],
        lines: &["mount /proc/"],
        peer: " /null ro,",
        ours: " /null rw,",
        reason: "a mask is a bind of /dev/null: whether /dev was read-only by then says nothing \
                 about the device behind it",
    },
    Accepted {
        ways: &[],
        lines: &["status Groups "],
        peer: " 8 10 20",
        ours: " 8 10 10 20",
        reason: "later runc, crun and aril set a group that the config names twice as it is named",
    },
    Accepted {
        ways: &[],
        lines: &["mount /dev/", "mount /proc/"],
        peer: " rw,relatime private devtmpfs ",
        ours: " rw,nosuid,noexec,relatime private devtmpfs ",
        reason: NODE,
    },
    Accepted {
        ways: &[],
        lines: &["mount /dev/", "mount /proc/"],
        peer: " rw,nosuid,relatime private devtmpfs ",
        ours: " rw,nosuid,noexec,relatime private devtmpfs ",
        reason: NODE,
    },
    Accepted {
        ways: &[],
        lines: &["mount /dev/", "mount /proc/"],
        peer: " rw,nosuid master devtmpfs ",
        ours: " rw,nosuid,noexec master devtmpfs ",
        reason: NODE,
    },
    Accepted {
        ways: &[],
        lines: &["device /dev/mqueue "],
        peer: "41777 0:65534",
        ours: "41777 0:0",
        reason: "the kernel makes the queues for whoever makes the IPC namespace: aril gives them to \
                 the container's root whole, runc leaves the group outside",
    },
    Accepted {
        ways: &[Way::Exec, Way::ExecTerminal],
        lines: &["keyring "],
        peer: ";3f130000;",
        ours: ";3f130008;",
        reason: "in a user namespace exec does not find init's keyring and makes one: runc leaves \
                 its permissions, aril lets it be searched as init's is",
    },
    Accepted {
        ways: &[],
        lines: &[
            "mount /mnt [0] /",
            "mount /tmp/file [0] /",
            "mount /new/place/file [0] /",
            "mount /etc/passwd [0] /tmp/MARK/",
            "mount /etc/group [0] /tmp/MARK/",
        ],
        peer: " private ext4 ",
        ours: " master ext4 ",
        reason: SLAVE,
    },
    Accepted {
        ways: &[],
        lines: &["mount /mnt [0] /"],
        peer: " shared ext4 ",
        ours: " shared+master ext4 ",
        reason: SLAVE,
    },
    Accepted {
        ways: &[],
        lines: &["cgroup /sys/fs/cgroup/cpu.weight: "],
        peer: " 20",
        ours: " 59",
        reason: "the formula of runc 1.3.2: see resources/differences.rs",
    },
    Accepted {
        ways: &[],
        lines: &["mount / [0] "],
        peer: " ro,relatime private ",
        ours: " ro,relatime shared ",
        reason: "rootfsPropagation shared: later runc and aril apply it to the new root after the \
                 pivot, 1.1.5 does not",
    },
];

impl Accepted {
    /// What the peer's line may read in ours.
    fn applied(&self, way: Way, line: &str) -> Option<String> {
        let here = self.ways.is_empty() || self.ways.contains(&way);
        let ours = match self.peer.is_empty() {
            true => format!("{line}{}", self.ours),
            false => line.replacen(self.peer, self.ours, 1),
        };
        (here && self.lines.iter().any(|start| line.starts_with(start))).then_some(ours)
    }
}

/// How the probe gets to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    CreateStart,
    Exec,
    Terminal,
    ExecTerminal,
}

/// The container made by `make` looks the same from inside under both runtimes, in each view.
#[track_caller]
fn same(way: Way, make: impl Fn(Container) -> Container) {
    same_by(way, |runtime, view| observe(runtime, view, way, &make));
}

/// The same for `run` with flags.
#[track_caller]
fn same_with(flags: &[&str], make: impl Fn(Container) -> Container) {
    same_by(Way::Run, |runtime, view| {
        let container = prepare(make(Container::of(runtime, view))).args(["probe"]);
        lines(&container.observed(|c| c.run_call(flags).ok().stdout))
    });
}

#[track_caller]
fn same_by(way: Way, observe: impl Fn(&'static Runtime, View) -> BTreeSet<String>) {
    in_each_view(|view| {
        let Some(peer) = Runtime::peer() else { return };
        let look = || {
            let theirs = observe(peer, view);
            let ours = observe(Runtime::under_test(), view);
            assert!(theirs.len() > 100, "the probe says little: {theirs:#?}");
            compare(way, &theirs, &ours)
        };
        let mut differences = look();
        if !differences.is_empty() {
            // The host may have changed in between: a module that is loaded makes devices.
            differences = look();
        }
        assert!(
            differences.is_empty(),
            "in the view {view:?} the container sees (- {}, + {}):\n{differences}",
            peer.version,
            Runtime::under_test().version
        );
    });
}

fn compare(way: Way, theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> String {
    let mut only_ours: BTreeSet<&String> = ours.difference(theirs).collect();
    let mut text = String::new();
    for line in theirs.difference(ours) {
        let mut readings = ACCEPTED.iter().filter_map(|entry| entry.applied(way, line));
        if !readings.any(|reading| only_ours.remove(&reading)) {
            let _ = writeln!(text, "- {line}");
        }
    }
    for line in only_ours {
        let _ = writeln!(text, "+ {line}");
    }
    text
}

fn observe(
    runtime: &'static Runtime,
    view: View,
    way: Way,
    make: &impl Fn(Container) -> Container,
) -> BTreeSet<String> {
    let mut container = prepare(make(Container::of(runtime, view)));
    let text = match way {
        Way::Run => container.args(["probe"]).observed(|c| c.run().ok().stdout),
        Way::CreateStart => container.args(["probe"]).observed(|c| {
            c.create();
            c.start();
            c.wait_for("stopped");
            fs::read_to_string(c.path("calls/0.out")).expect("the container's output")
        }),
        Way::Exec => container.sleeper().observed(|c| {
            c.run_detached();
            c.exec(["probe"]).ok().stdout
        }),
        Way::Terminal => {
            container.spec["process"]["terminal"] = true.into();
            container.spec["process"]["consoleSize"] =
                serde_json::json!({"height": 31, "width": 97});
            container.args(["probe"]).observed(|c| {
                let socket = Receiver::at(&c.path("console"));
                let path = c.path("console").display().to_string();
                c.run_call(&["-d", "--console-socket", &path]).ok();
                terminal::read_to_end(&socket.take().fds[0])
            })
        }
        Way::ExecTerminal => container.sleeper().observed(|c| {
            c.run_detached();
            let socket = Receiver::at(&c.path("console"));
            let path = c.path("console").display().to_string();
            c.call(["exec", "-t", "-d", "--console-socket", &path, &c.id, "probe"]).ok();
            terminal::read_to_end(&socket.take().fds[0])
        }),
    };
    lines(&text)
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| without_host_options(line).to_owned()).collect()
}

/// cgroup2 has one super block, and a mount of it in the host's cgroup namespace, as runc 1.1 makes one,
/// takes the host's options away: what a container sees of them depends on who ran before.
fn without_host_options(line: &str) -> &str {
    match line.starts_with("mount ") && line.contains(" cgroup2 ") {
        true => line.strip_suffix(",nsdelegate,memory_recursiveprot").unwrap_or(line),
        false => line,
    }
}

/// Tells the probe which namespaces are the host's.
fn prepare(container: Container) -> Container {
    fs::write(container.rootfs().join("etc/host-namespaces"), own_namespaces()).expect("a file");
    container
}

trait Observed {
    fn observed(self, look: impl Fn(&Container) -> String) -> String;
}

impl Observed for Container {
    /// What was seen, without the names that are this container's own.
    fn observed(self, look: impl Fn(&Container) -> String) -> String {
        let own = format!("/{} ", self.id);
        look(&self)
            .replace(&self.cgroups_path(), "/CGROUP")
            .replace(&self.dir.display().to_string(), "/tmp/MARK")
            .replace(&self.mark, "MARK")
            .replace(&own, "/ID ")
            .replace("calls/0.", "calls/N.")
            .replace("calls/1.", "calls/N.")
            .replace(&format!("_ses.{}", self.id), "_ses.ID")
            .replace("\r\n", "\n")
    }
}

fn own_namespaces() -> String {
    let mut text = String::new();
    for entry in fs::read_dir("/proc/self/ns").expect("/proc/self/ns").flatten() {
        let link = fs::read_link(entry.path()).expect("a link");
        let _ = writeln!(text, "{} {}", entry.file_name().display(), link.display());
    }
    text
}

#[test]
fn every_accepted_difference_has_a_reason() {
    for entry in ACCEPTED {
        assert!(!entry.lines.is_empty() && entry.reason.len() > 20, "{:?}", entry.lines);
    }
}

#[test]
fn a_difference_is_shown_with_its_side() {
    let set = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
    let compare = |theirs: &[&str], ours: &[&str]| compare(Way::Terminal, &set(theirs), &set(ours));
    assert_eq!(compare(&["a 1", "b 1"], &["a 1", "b 2"]), "- b 1\n+ b 2\n");
    let (peer, ours) = ("file /mnt 40755 5:6", "file /mnt 41700 5:6");
    assert_eq!(compare(&[peer], &[ours]), "", "in the table");
    assert_ne!(compare(&[ours], &[peer]), "", "but not the other way round");
    assert_ne!(compare(&[peer], &[]), "", "nor if ours lacks the line");
    assert_ne!(compare(&["fd 2 pipe flags 1 0"], &["fd 1 /tmp/MARK/calls/N.out flags 1 0"]), "");
}
