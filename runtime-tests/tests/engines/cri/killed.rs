//! A pod whose shim is killed, while containerd looks or not: what it says afterwards is true, nothing runs on, and the
//! pod can be removed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::host;
use runtime_tests::protobuf::out;

use super::client::named;
use super::{
    Kubelet, NO_PAUSE, OUR_SHIM, OWN, Page, SHARED, has_sandboxes, is_prepared, with_kubelet,
};
use crate::kills::{Kills, kill_until, wait_long};
use crate::private::Driver;

#[test]
fn with_a_pause_process() {
    killed("cri::killed::with_a_pause_process", OUR_SHIM, OWN);
}

#[test]
fn without() {
    if has_sandboxes() {
        killed("cri::killed::without", NO_PAUSE, OWN);
    }
}

#[test]
fn with_shared_processes() {
    if has_sandboxes() {
        killed("cri::killed::with_shared_processes", NO_PAUSE, SHARED);
    }
}

fn killed(name: &str, page: Page, pids: u64) {
    if !is_prepared() {
        return;
    }
    with_kubelet(name, page, pids, |kubelet, daemon| {
        if kubelet.place.driver == Driver::Own {
            // Not all versions of it would pass.
            return kubelet.place.note("killed");
        }
        let pod = Pod::run(kubelet, "seen", pids);
        pod.lose_shim();
        pod.has_ended();
        let pod = Pod::run(kubelet, "unseen", pids);
        drop(daemon);
        pod.lose_shim();
        let _daemon = kubelet.start();
        pod.has_ended();
        kubelet.place.note("killed");
    });
}

/// `kill -9` of the daemon, of shims and of the runtime while pods come and go. `KILLS=500` makes more of them.
#[test]
fn at_random() {
    if has_sandboxes() {
        at_random_moments("cri::killed::at_random", NO_PAUSE);
    }
}

#[test]
fn at_random_with_a_pause_process() {
    at_random_moments("cri::killed::at_random_with_a_pause_process", OUR_SHIM);
}

fn at_random_moments(name: &str, page: Page) {
    if !is_prepared() {
        return;
    }
    let pods = std::env::var("KILLS").map_or(20, |n| n.parse().expect("KILLS: a number"));
    with_kubelet(name, page, OWN, |kubelet, daemon| {
        kubelet.place.note("killed");
        if kubelet.place.driver == Driver::Own {
            return;
        }
        let daemon = Mutex::new(Some(daemon));
        let (over, kills) = (AtomicBool::new(false), Kills::default());
        std::thread::scope(|scope| {
            let killer = scope
                .spawn(|| kill_until(&over, kubelet.place, || kubelet.start(), &daemon, &kills));
            for number in 0..pods * 10 {
                if number >= pods && kills.all() {
                    break;
                }
                // That one fails is in the nature of the thing.
                let _ = try_pod(kubelet, &format!("pod{number}"), number % 2);
            }
            over.store(true, Ordering::Relaxed);
            killer.join().expect("the killer");
        });
        eprintln!("{pods} pods; killed (daemon, shims, runtime): {kills:?}");
        assert!(kills.all(), "not all were hit: {kills:?}");
        drop(daemon.into_inner().expect("the daemon"));
        let _daemon = kubelet.start();
        for pod in kubelet.cri.ok("ListPodSandbox", out()).all(1) {
            kubelet.remove(&pod.text(1));
        }
        wait_long("the end of all", || kubelet.place.lines());
        // Whose removal sweeps what nobody has been told of.
        kubelet.remove(&kubelet.pod("last"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("io.containerd.sandbox"), "{mounts}");
        // Network namespaces are containerd's own: it forgets the one that it makes when it is killed.
        for netns in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let _ = umount2(&netns.path(), MntFlags::MNT_DETACH);
            std::fs::remove_file(netns.path()).expect("a network namespace");
        }
    });
}

/// A pod of one container, whatever becomes of it; a half of them is removed again.
fn try_pod(kubelet: &Kubelet, name: &str, keep: u32) -> Result<(), String> {
    let cri = &kubelet.cri;
    let request = out().bytes(1, kubelet.pod_config(name).0).bytes(2, kubelet.handler());
    let pod = cri.call("RunPodSandbox", request)?.text(1);
    let create =
        kubelet.creation((name, &pod), "c", out().number(2, OWN), out(), &["sleep", "1000"]);
    let id = cri.call("CreateContainer", create)?.text(1);
    cri.call("StartContainer", named(&id))?;
    if keep == 0 {
        cri.call("StopPodSandbox", named(&pod))?;
        cri.call("RemovePodSandbox", named(&pod))?;
    }
    Ok(())
}

struct Pod<'a> {
    kubelet: &'a Kubelet<'a>,
    id: String,
    containers: [String; 2],
    /// The shim, and all others.
    processes: (i32, Vec<i32>),
}

impl<'a> Pod<'a> {
    fn run(kubelet: &'a Kubelet<'a>, name: &str, pids: u64) -> Self {
        let id = kubelet.pod(name);
        let run =
            |container: &str| kubelet.run((name, &id), container, pids, out(), &["sleep", "1000"]);
        let containers = [run("first"), run("second")];
        let is_shim = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("containerd-shim") && line.contains("-socket")
        };
        let (shims, others): (Vec<i32>, Vec<i32>) =
            kubelet.place.processes().into_iter().partition(is_shim);
        assert_eq!(shims.len(), 1, "one shim");
        Self { kubelet, id, containers, processes: (shims[0], others) }
    }

    fn lose_shim(&self) {
        kill(Pid::from_raw(self.processes.0), Signal::SIGKILL).expect("kill");
    }

    fn has_ended(&self) {
        let Kubelet { cri, .. } = self.kubelet;
        wait_until("the end of all", || self.processes.1.iter().all(|pid| host::is_gone(*pid)));
        for id in &self.containers {
            wait_until("exited, or unknown", || self.kubelet.status(id).number(3) >= 2);
        }
        wait_until("a pod that is not ready", || {
            cri.ok("PodSandboxStatus", named(&self.id)).message(1).number(3) == 1
        });
        self.kubelet.remove(&self.id);
    }
}
