//! Limits under load: what goes beyond them is stopped, and said.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::linux::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use runtime_tests::container::{PATIENCE, wait_until};
use runtime_tests::{Container, View, host, in_each_view};
use serde_json::{Value, json};

const MEMORY: u64 = 16 << 20;

fn limited(view: View, resources: Value) -> Container {
    Container::new(view).edit(|spec| {
        let all = spec["linux"]["resources"].as_object_mut().expect("resources");
        all.extend(resources.as_object().expect("resources").clone());
    })
}

fn memory_hog(view: View) -> Container {
    limited(view, json!({"memory": {"limit": MEMORY}})).args(["tail", "/dev/zero"])
}

/// One sample of `events --stats`.
fn usage(c: &Container) -> Value {
    let out = c.call(["events", "--stats", &c.id]).ok();
    let line: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:#?}"));
    line["data"].clone()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_memory_hog_is_killed_and_the_reason_told() {
    in_each_view(|view| {
        if !view.controls("memory") {
            return;
        }
        let c = memory_hog(view);
        let out = c.run().exits(137);
        if c.runtime.is_aril() {
            out.says("container init was OOM-killed").says(&format!("the limit is {MEMORY} bytes"));
        }
        c.leaves_nothing();
    });
}

/// By an exec, and of a container that is started or entered too late.
#[test]
fn a_memory_hog_of_an_exec_is_named() {
    in_each_view(|view| {
        if !view.controls("memory") {
            return;
        }
        let c = memory_hog(view);
        if !c.runtime.only_aril("others say nothing") {
            return;
        }
        c.create();
        let hog = &c.spec["process"]["args"];
        let hog: Vec<&str> =
            hog.as_array().expect("args").iter().filter_map(Value::as_str).collect();
        let why = format!("for want of memory: the limit is {MEMORY} bytes");
        c.exec(hog).exits(137).says(&why);
        c.kill("KILL");
        c.wait_for("stopped");
        c.verb("start").exits(1).says("cannot start a container that has stopped").says(&why);
    });
}

#[test]
fn a_memory_hog_is_an_event() {
    in_each_view(|view| {
        if !view.controls("memory") {
            return;
        }
        let c = memory_hog(view);
        c.create();
        let events = c.call(["events", "--interval", "1h", &c.id]).spawn();
        // Of v1 it is told by a descriptor, of v2 by a watch: seen from outside either way.
        let pid = events.child.id();
        wait_until("events to watch", || {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| {
                let link = link.display().to_string();
                link.contains("inotify") || link.contains("eventfd")
            })
        });
        c.start();
        let out = events.wait().ok();
        let oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"", c.id);
        assert!(out.stdout.lines().any(|line| line.starts_with(&oom)), "{out:#?}");
        c.wait_for("stopped");
    });
}

/// By the kernel's own count of time, which no other load of the host can stretch.
#[test]
fn a_processor_hog_stays_within_its_quota() {
    const PERIODS: f64 = 100.0; // 10 s
    const QUOTA_NS: f64 = 30_000_000.0;
    in_each_view(|view| {
        if !view.controls("cpu") || !(view.is_v2() || view.controls("cpuacct")) {
            return;
        }
        // With the most shares it uses up its quota however busy the host is.
        let c =
            limited(view, json!({"cpu": {"quota": 30_000, "period": 100_000, "shares": 262_144}}))
                .script("while :; do :; done & while :; do :; done");
        c.run_detached();
        let before = usage(&c)["cpu"].clone();
        let since = |now: &Value, field: &str| {
            let of = |sample: &Value| sample["throttling"][field].as_f64().unwrap_or(0.0);
            of(now) - of(&before)
        };
        let mut now = before.clone();
        let start = Instant::now();
        // What others leave of the host may be less than the quota, for a time.
        while since(&now, "periods") < PERIODS || since(&now, "throttledPeriods") == 0.0 {
            assert!(start.elapsed() < PATIENCE, "no periods, or never held: {now}");
            std::thread::sleep(Duration::from_millis(200));
            now = usage(&c)["cpu"].clone();
        }
        let total = |sample: &Value| number(&sample["usage"]["total"]);
        // The period that is under way has been granted, too.
        let granted = (since(&now, "periods") + 1.0) * QUOTA_NS;
        let used = total(&now) - total(&before);
        eprintln!("{:.2} % of the quota in the view {view:?}", used / granted * 100.0);
        assert!(used <= granted * 1.03, "used {used} ns of {granted}: {now}");
        let throttled = since(&now, "throttledPeriods") / since(&now, "periods");
        if throttled > 0.99 {
            assert!(used >= granted * 0.97, "used {used} ns of {granted}: {now}");
        }
    });
}

#[test]
fn a_fork_bomb_stops_at_its_limit() {
    const LIMIT: u64 = 40;
    in_each_view(|view| {
        if !view.controls("pids") {
            return;
        }
        let c = limited(view, json!({"pids": {"limit": LIMIT}}))
            .script("bomb() { bomb & bomb & sleep 1000; }; while :; do bomb; done 2> /dev/null");
        c.run_detached();
        let dir = c.cgroup("pids");
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let held = || read("pids.events").split_whitespace().nth(1).is_some_and(|n| n != "0");
        wait_until("the bomb to be held", || {
            let current: u64 = read("pids.current").trim().parse().expect("a number");
            assert!(current <= LIMIT, "{current} processes");
            held()
        });
        let out = c.delete_by_force();
        out.ok();
        c.leaves_nothing();
    });
}

/// Major and minor of the disk that a file's bytes are on, if it is one that can be limited.
fn disk_of(path: &std::path::Path) -> Option<(u64, u64)> {
    let device = fs::metadata(path).ok()?.st_dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let own = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if own.join("partition").exists() { own.parent()?.to_owned() } else { own };
    let text = fs::read_to_string(whole.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A file of zeros that no memory holds.
fn cold_file(path: &std::path::Path, bytes: usize) {
    let mut file = fs::File::create(path).expect("a file");
    file.write_all(&vec![7; bytes]).expect("bytes");
    file.sync_all().expect("on the disk");
    // SAFETY: takes no pointer.
    let forgot = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(forgot, 0);
}

#[test]
fn a_disk_hog_stays_within_its_rate() {
    const RATE: usize = 1 << 20;
    const BYTES: usize = 3 * RATE;
    in_each_view(|view| {
        if !view.controls(if view.is_v2() { "io" } else { "blkio" }) {
            return;
        }
        let c = Container::new(view);
        let file = c.rootfs().join("cold");
        cold_file(&file, BYTES);
        let Some((major, minor)) = disk_of(&file) else {
            runtime_tests::skip::inapplicable("the tests' files are on no disk of their own");
            return;
        };
        let rate = json!([{"major": major, "minor": minor, "rate": RATE}]);
        let c = c.args(["cat", "/cold"]).edit(|spec| {
            spec["linux"]["resources"]["blockIO"] = json!({"throttleReadBpsDevice": rate});
        });
        // A host that is slow for other reasons only takes longer.
        let start = Instant::now();
        let out = c.run().ok();
        let took = start.elapsed();
        assert_eq!(out.stdout.len(), BYTES);
        let least = Duration::from_secs_f64(0.9 * (BYTES - RATE) as f64 / RATE as f64);
        eprintln!("{BYTES} bytes in {took:?} in the view {view:?}");
        assert!(took >= least, "{BYTES} bytes in {took:?} with {RATE} a second");
    });
}

/// While limits change, what is denied stays denied, and what is allowed, allowed.
#[test]
fn the_device_filter_has_no_gap() {
    in_each_view(|view| {
        let c = Container::new(view)
            .script(
                "mknod /tmp/kmem c 1 1; i=0; while [ ! -e /tmp/stop ]; do \
                 (: < /tmp/kmem) 2> /dev/null && echo gap; : < /dev/zero || echo lost; \
                 i=$((i + 1)); done; echo $i rounds",
            )
            .edit(|spec| {
                spec["root"]["readonly"] = false.into();
                let list = json!(runtime_tests::spec::FOURTEEN);
                spec["process"]["capabilities"] =
                    json!({"bounding": list, "effective": list, "permitted": list});
                if view.controls("pids") {
                    spec["linux"]["resources"]["pids"] = json!({"limit": 100});
                }
            });
        c.run_detached();
        let said = || fs::read_to_string(c.path("calls/0.out")).expect("the container's output");
        for limit in 50..60 {
            if view.controls("pids") {
                c.call(["update", "--pids-limit", &limit.to_string(), &c.id]).ok();
            } else {
                c.call(["update", &c.id]).ok();
            }
        }
        fs::write(c.rootfs().join("tmp/stop"), "").expect("a file");
        wait_until("the container's end", || said().contains("rounds"));
        assert!(!said().contains("gap") && !said().contains("lost"), "{}", said());
        assert!(!said().starts_with("0 rounds"));
        c.wait_for("stopped");
    });
}

#[test]
fn many_containers_leave_their_parent_as_it_was() {
    const CYCLES: usize = 500;
    in_each_view(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("older runcs leave cgroups that are busy for an instant") {
            return;
        }
        let root = host::hierarchies().into_iter().find(|r| r.join("cgroup.controllers").exists());
        let Some(root) = root else { return };
        let parent = root.join(&c.mark);
        fs::create_dir_all(&parent).expect("a cgroup");
        let stat = || {
            let text = fs::read_to_string(parent.join("cgroup.stat")).expect("cgroup.stat");
            let count = |name: &str| -> u64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.expect(name).trim().parse().expect("a number")
            };
            (count("nr_descendants "), count("nr_dying_descendants "))
        };
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8").to_owned();
        // One shell for all: it is the runtime that is asked, not the test.
        let script = format!(
            "i=0; while [ $i -lt {CYCLES} ]; do i=$((i + 1)); \
             \"$@\" create -b {bundle} {id} && \"$@\" delete --force {id} || exit 1; done",
            id = c.id
        );
        let before = stat();
        c.call([] as [&str; 0]).in_shell(&script).patient(Duration::from_secs(1800)).ok();
        // The kernel lets go of the last ones when it has time for it.
        wait_until("the dying", || stat() == before);
        assert_eq!(stat(), (0, before.1));
    });
}
