//! `kill -9` of the daemon, of shims and of the runtime, at moments that nobody chose. Afterwards what
//! containerd says is true, and everything can be removed. `KILLS=500` makes more starts.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Runtime, host};

use crate::containerd::{Containerd, Shim, with_containerd};
use crate::private::{Daemon, Place};

const WORKERS: u32 = 4;

#[test]
fn whoever_is_killed() {
    with_containerd("kills::whoever_is_killed", Shim::Aril, |containerd, daemon| {
        let starts = std::env::var("KILLS").map_or(40, |n| n.parse().expect("KILLS: a number"));
        let daemon = Mutex::new(Some(daemon));
        let (next, over, kills) = (AtomicU32::new(0), AtomicBool::new(false), Kills::default());
        std::thread::scope(|scope| {
            let worker = || {
                // Until each kind was hit, but not for ever.
                let wanted = |number| number < starts || number < starts * 10 && !kills.all();
                let number = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| wanted(*n));
                while let Some(number) = number() {
                    start_one(containerd, number);
                }
            };
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            let killer = scope.spawn(|| {
                let restart = || containerd.start();
                kill_until(&over, containerd.place, restart, &daemon, &kills);
            });
            let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            over.store(true, Ordering::Relaxed);
            killer.join().expect("the killer");
            assert!(ended.iter().all(Result::is_ok), "a worker failed");
        });
        eprintln!("{next:?} starts; killed (daemon, shims, runtime): {kills:?}");
        assert!(kills.all(), "not all were hit: {kills:?}");
        // Again: the last one may have been killed while it learned of the others.
        drop(daemon.into_inner().expect("the daemon"));
        let daemon = containerd.start();
        remove_all(containerd);
        // A shim that was never asked for a container waits, for longer while there is a daemon.
        drop(daemon);
        let processes = || our_processes(containerd.place);
        wait_long("the end of all shims", || processes().concat());
        let left = |dir: &str| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let state = left("/run/containerd/runc/default");
        assert!(state.is_empty(), "{state:?}");
        // Of a shim that is killed before containerd has connected to it, containerd forgets the
        // bundle and asks nobody to clean up: its socket goes with the next container that does.
        let _daemon = containerd.start();
        containerd.run(&["--rm"], "last", &["true"]).ok();
        wait_long("an empty directory of sockets", || left("/run/containerd/s"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("io.containerd.runtime.v2.task"), "{mounts}");
    });
}

/// Of the daemon, of shims, of the runtime.
#[derive(Debug, Default)]
pub struct Kills([AtomicU32; 3]);

impl Kills {
    pub fn all(&self) -> bool {
        (0..3).all(|kind| self.of(kind) > 0)
    }

    fn of(&self, kind: usize) -> u32 {
        self.0[kind].load(Ordering::Relaxed)
    }
}

/// Half of them end by themselves. That a start fails is in the nature of the thing; that it hangs
/// is not: the call's own time-out would say so.
fn start_one(containerd: &Containerd, number: u32) {
    let args: &[&str] = if number.is_multiple_of(2) { &["true"] } else { &["sleep", "1000"] };
    containerd.run(&["-d"], &format!("c{number}"), args);
}

pub fn kill_until(
    over: &AtomicBool,
    place: &Place,
    restart: impl Fn() -> Daemon,
    daemon: &Mutex<Option<Daemon>>,
    kills: &Kills,
) {
    for kind in [2, 1, 2, 0, 2, 1].into_iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let random = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos() / 100;
        std::thread::sleep(Duration::from_millis(u64::from(random % 60)));
        if kind == 0 {
            let mut daemon = daemon.lock().expect("the daemon");
            daemon.take().expect("a daemon").kill();
            *daemon = Some(restart());
            kills.0[kind].fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let [shims, runtimes] = our_processes(place);
        let victims = match kind {
            1 => shims,
            _ if runtimes.is_empty() => next_calls(place),
            _ => runtimes,
        };
        if let Some(pid) = victims.get(random as usize % victims.len().max(1)) {
            let killed = kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok();
            kills.0[kind].fetch_add(killed.into(), Ordering::Relaxed);
        }
    }
}

/// The next calls of the runtime that shims of this test make: they last for milliseconds, less than
/// [`our_processes`] takes, which reads three files of each process. This looks at the names of new ones.
fn next_calls(place: &Place) -> Vec<i32> {
    const LOOKS: u32 = 200;
    let before: HashSet<i32> = host::pids().collect();
    let is_call = |pid: &i32| {
        program(*pid) == Runtime::under_test().path && host::is_marked(*pid, place.mark())
    };
    let look = || host::pids().filter(|pid| !before.contains(pid)).filter(is_call).collect();
    let mut looks = (0..LOOKS).map(|_| look()).filter(|calls: &Vec<i32>| !calls.is_empty());
    looks.next().unwrap_or_default()
}

/// The runtime runs from a copy of itself: what it is called by is what tells.
fn program(pid: i32) -> PathBuf {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(name))
}

/// The shims of this test, and the runtime's calls.
pub fn our_processes(place: &Place) -> [Vec<i32>; 2] {
    let runtime = &Runtime::under_test().path;
    let shim = runtime.with_file_name("containerd-shim-aril-v2");
    let all: Vec<(i32, PathBuf)> =
        place.processes().into_iter().map(|pid| (pid, program(pid))).collect();
    [&shim, runtime].map(|file| {
        all.iter().filter(|(_, program)| program == file).map(|(pid, _)| *pid).collect()
    })
}

/// What is said to run does, what is said to have ended has; and all of it can be removed.
fn remove_all(containerd: &Containerd) {
    let ctr = &containerd.ctr;
    for line in ctr.ask(&["task", "ls"]).lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, pid, status] = words[..] else { panic!("{line:?}") };
        let pid: i32 = pid.parse().expect("a pid");
        match status {
            "STOPPED" => assert!(pid == 0 || host::is_gone(pid), "{line}"),
            "RUNNING" => {
                // One that ends by itself may have done so since.
                assert!(!host::is_gone(pid) || containerd.status(id) == "STOPPED", "{line}");
                ctr.run(&["task", "kill", "-s", "SIGKILL", id]);
                wait_until("the end", || containerd.status(id) != "RUNNING");
            }
            // Killed between create and start.
            "CREATED" => drop(ctr.run(&["task", "kill", "-s", "SIGKILL", id])),
            other => panic!("{other}: {line}"),
        }
        ctr.run(&["task", "rm", "-f", id]);
    }
    assert_eq!(ctr.ask(&["task", "ls", "-q"]), "");
    for id in ctr.ask(&["containers", "ls", "-q"]).lines() {
        ctr.run(&["containers", "rm", id]).ok();
    }
}

/// For nothing to be left.
pub fn wait_long<T: Debug>(what: &str, left: impl Fn() -> Vec<T>) {
    // A shim that was never asked for a container waits for a minute.
    const PATIENCE: Duration = Duration::from_secs(300);
    let start = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}: {left:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
