//! A pod whose shim is killed, while containerd looks or not: what it says afterwards is true, nothing runs on, and the
//! pod can be removed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::host;
use runtime_tests::protobuf::out;

use super::client::named;
use super::{
    Kubelet, NO_PAUSE, OUR_SHIM, OWN, Page, SHARED, has_sandboxes, is_prepared, with_kubelet,
};
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
