//! The same limits under the runtime and under a peer: what can be set in the container's cgroup
//! reads the same afterwards, file by file, or both refuse.

mod differences;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runtime_tests::{Container, Runtime, User, View, host, in_each_view, skip};
use serde_json::json;

use table::Row;

/// Who makes the cgroup, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Cgroupfs,
    Systemd,
    RootlessCgroupfs,
    RootlessSystemd,
}

impl Driver {
    fn is_systemds(self) -> bool {
        matches!(self, Self::Systemd | Self::RootlessSystemd)
    }
}

/// What one row comes to: files and their texts, after each of the two calls, or a refusal.
type Settings = BTreeMap<String, String>;
type Outcome = [Result<Settings, String>; 2];

/// The values below are of the cgroup itself: what happens in it, and orders to it, are not.
fn is_setting(name: &str) -> bool {
    const NONE: [&str; 14] = [
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.kill",
        "cgroup.event_control",
        "tasks",
        "memory.reclaim",
        "memory.peak",
        "memory.swap.peak",
        "memory.force_empty",
        "memory.pressure_level",
        "memory.oom_control",
        "cpuacct.usage",
        "cpuset.memory_pressure",
        "blkio.reset_stats",
    ];
    let counts = [".pressure", ".failcnt", "max_usage_in_bytes", ".stat"];
    !NONE.contains(&name) && !counts.iter().any(|end| name.ends_with(end))
}

/// All settings of these cgroups.
fn settings(cgroups: &[(String, PathBuf)]) -> Settings {
    let mut found = Settings::new();
    for (hierarchy, dir) in cgroups {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_str().expect("utf-8").to_owned();
            let mode = entry.metadata().expect("metadata");
            let writable = mode.is_file() && mode.permissions().mode() & 0o200 != 0;
            if writable
                && is_setting(&name)
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                found.insert(format!("{hierarchy}{name}"), text.trim_end().to_owned());
            }
        }
    }
    found
}

/// The directories, each behind what its settings are to be called.
fn cgroups(view: View, pid: i32) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let roots = host::hierarchies();
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next().expect("names"), fields.next().expect("a path"));
        let root = match names {
            "" => roots.iter().find(|root| root.join("cgroup.controllers").exists()),
            _ if view.is_v2() => continue,
            names => roots.iter().find(|root| {
                names.split(',').any(|name| root.ends_with(name.trim_start_matches("name=")))
            }),
        };
        if let Some(root) = root {
            let name = if names.is_empty() { String::new() } else { format!("{names}/") };
            all.push((name, root.join(path.trim_start_matches('/'))));
        }
    }
    all
}

/// A whole disk, whose rates can be limited.
fn disk() -> Option<(u64, u64)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let real = disks.filter(|entry| entry.path().join("device").exists());
    let text = real.into_iter().find_map(|d| fs::read_to_string(d.path().join("dev")).ok())?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn container(runtime: &'static Runtime, view: View, driver: Driver, row: usize) -> Container {
    let c = Container::of(runtime, view).sleeper();
    match driver {
        Driver::Cgroupfs => c,
        Driver::Systemd => c.by_systemd("system.slice"),
        Driver::RootlessCgroupfs => {
            let user = User::delegated(&c);
            c.rootless(&user)
        }
        Driver::RootlessSystemd => {
            let user = User::of_systemd(row % 2 == 1).expect("looked for before");
            c.by_systemd("user.slice").rootless(&user)
        }
    }
}

/// The row under this runtime. systemd may still be writing when a call has ended: settings are
/// looked at until they are `settled`.
fn outcome(
    runtime: &'static Runtime,
    view: View,
    driver: Driver,
    (n, row): (usize, &Row),
    settled: impl Fn(usize, &Settings) -> bool,
) -> Outcome {
    let c = container(runtime, view, driver, n).edit(|spec| {
        let all = spec["linux"]["resources"].as_object_mut().expect("resources");
        all.extend(row.create.as_object().expect("resources").clone());
    });
    let pid_file = c.path("pid").display().to_string();
    let created = c.create_call(&["--pid-file", &pid_file]).output();
    assert_ne!(created.code, Some(125), "the test's own surroundings: {created:#?}");
    if created.code != Some(0) {
        return [Err(created.stderr.clone()), Err(created.stderr)];
    }
    let pid = fs::read_to_string(&pid_file).expect("a pid").parse().expect("a pid");
    let dirs = cgroups(view, pid);
    let look = |call| {
        let patience = if driver.is_systemds() { Duration::from_secs(3) } else { Duration::ZERO };
        let start = Instant::now();
        loop {
            let found = settings(&dirs);
            if settled(call, &found) || start.elapsed() >= patience {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let before = look(0);
    let request = c.file("update.json", &row.update.to_string()).display().to_string();
    let updated = c.call(["update", "-r", &request, &c.id]).output();
    let after = match updated.code {
        Some(0) if host::is_gone(pid) => Err("killed by what was set".to_owned()),
        Some(0) => Ok(look(1)),
        _ => Err(updated.stderr),
    };
    c.delete_by_force().ok();
    if runtime.is_aril() {
        // A scope of systemd's has no place of the fixture's own where it would be missed.
        let left: Vec<_> = dirs.iter().filter(|(_, dir)| dir.exists()).collect();
        assert!(left.is_empty(), "{}: left behind: {left:?}", row.name);
    } else {
        // Drop asks whether the runtime under test leaves anything.
        host::scrub(&c.mark);
    }
    [Ok(before), after]
}

/// The row under both: whether it makes a container, and how they differ.
fn compare(
    peer: &'static Runtime,
    view: View,
    driver: Driver,
    row: (usize, &Row),
) -> (bool, String) {
    const CALLS: [&str; 2] = ["create", "update"];
    let theirs = outcome(peer, view, driver, row, |_, _| true);
    let between = |call: usize, theirs: &Settings, ours: &Settings| {
        differences::between(row.1, peer, CALLS[call] == "update", theirs, ours)
    };
    let ours = outcome(Runtime::under_test(), view, driver, row, |call, ours| {
        theirs[call].as_ref().map_or(true, |theirs| between(call, theirs, ours).is_empty())
    });
    let mut text = String::new();
    for call in 0..CALLS.len() {
        let heading = format!("{} ({})", row.1.name, CALLS[call]);
        match (&theirs[call], &ours[call]) {
            (Ok(theirs), Ok(ours)) => {
                for line in between(call, theirs, ours) {
                    let _ = writeln!(text, "{heading}: {line}");
                }
            }
            (Ok(_), Err(why)) if !differences::refused_by_us_alone(row.1) => {
                let _ = writeln!(text, "{heading}: only ours refuses: {why}");
            }
            (Err(why), Ok(_)) => {
                let _ = writeln!(text, "{heading}: only the peer refuses: {why}");
            }
            (Err(_), Err(_)) | (Ok(_), Err(_)) => {}
        }
    }
    (ours[0].is_ok(), text)
}

/// The rows of a table that are compared as a sample: every third, and with `WHOLE_TABLE` all.
fn sample() -> usize {
    if std::env::var_os("WHOLE_TABLE").is_some() { 1 } else { 3 }
}

/// Every row of whose controllers the view has all, `step` rows apart.
fn compare_all(view: View, driver: Driver, step: usize) {
    let Some(peer) = Runtime::peer() else { return };
    let here = |row: &Row| row.needs.iter().all(|name| has(view, name));
    let rows: Vec<Row> = table::rows(disk()).into_iter().filter(here).collect();
    let queue: Mutex<VecDeque<_>> = Mutex::new(rows.iter().enumerate().step_by(step).collect());
    let compared = queue.lock().expect("a lock").len();
    let differences = Mutex::new(String::new());
    let made = AtomicUsize::new(0);
    let next = || queue.lock().expect("a lock").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(row) = next() {
                    let found = catch_unwind(|| compare(peer, view, driver, row));
                    let failed = |_| (false, format!("{}: failed\n", row.1.name));
                    let (ok, found) = found.unwrap_or_else(failed);
                    made.fetch_add(usize::from(ok), Ordering::Relaxed);
                    differences.lock().expect("a lock").push_str(&found);
                }
            });
        }
    });
    let differences = differences.into_inner().expect("a lock");
    let made = made.into_inner();
    eprintln!("{compared} configurations compared ({made} made), {driver:?} in the view {view:?}");
    assert!(
        differences.is_empty(),
        "in the view {view:?}, by {driver:?}, unlike {}:\n{differences}",
        peer.version
    );
    // Of the rows a dozen are there to be refused, and on v1 all of `unified`.
    assert!(made * 3 >= compared, "{made} of {compared} make a container at all");
}

fn has(view: View, controller: &str) -> bool {
    view.controls(controller) || (controller == "io" && view.controls("blkio"))
}

/// With a systemd of the host's own that makes cgroups where the tests can see them.
fn systemd_runs() -> bool {
    let runs = std::path::Path::new("/run/systemd/system").is_dir();
    if !runs {
        skip::inapplicable("systemd does not run here: make vm-test has a host where it does");
    }
    runs
}

#[test]
fn limits_by_cgroupfs() {
    in_each_view(|view| compare_all(view, Driver::Cgroupfs, sample()));
}

#[test]
fn limits_by_systemd() {
    in_each_view(|view| {
        if systemd_runs() {
            compare_all(view, Driver::Systemd, sample());
        }
    });
}

#[test]
fn rootless_by_cgroupfs() {
    in_each_view(|view| {
        if view.is_v2() {
            compare_all(view, Driver::RootlessCgroupfs, sample());
        }
    });
}

#[test]
fn rootless_by_systemd() {
    in_each_view(|view| {
        if view.is_v2() && systemd_runs() && User::of_systemd(false).is_some() {
            compare_all(view, Driver::RootlessSystemd, sample());
        }
    });
}

/// systemd keeps whole percents, so that another quota would change with the next property that is set.
#[test]
fn the_quota_is_the_one_that_systemd_keeps() {
    in_each_view(|view| {
        if !systemd_runs() || !has(view, "cpu") {
            return;
        }
        let row = Row {
            name: "a fraction of a percent",
            needs: &["cpu"],
            create: json!({"cpu": {"quota": 500_000, "period": 900_000}}),
            update: json!({"cpu": {"quota": 12_345, "period": 100_000}}),
        };
        let ours = outcome(Runtime::under_test(), view, Driver::Systemd, (0, &row), |_, _| true);
        for (settings, expected) in ours.into_iter().zip(["504000", "13000"]) {
            let settings = settings.expect("limits that are taken");
            let is_quota = |file: &str| file == "cpu.max" || file.ends_with("cpu.cfs_quota_us");
            let quota = settings.iter().find(|(file, _)| is_quota(file)).expect("a quota").1;
            assert_eq!(quota.split(' ').next(), Some(expected), "{settings:?}");
        }
    });
}

#[test]
fn sixty_of_them() {
    assert!(table::rows(Some((8, 0))).len() >= 60);
    let rows = table::rows(None);
    let names: std::collections::BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "each has a name of its own");
}
