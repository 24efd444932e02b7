//! What pods cost besides the processes of their containers. `POD_COUNT=10 ENGINES=1 cargo test --test engines
//! cri::figures:: -- --nocapture` prints it.

use std::sync::Mutex;

use runtime_tests::protobuf::out;

use super::{NO_PAUSE, OUR_SHIM, OWN, Page, has_sandboxes, is_prepared, with_kubelet};

/// By which the processes of containers are told.
const APP: [&str; 2] = ["sleep", "4711"];

#[test]
fn pods() {
    cost_of_pods("cri::figures::pods", OUR_SHIM, 0);
}

#[test]
fn pods_without_a_pause_process() {
    if has_sandboxes() {
        cost_of_pods("cri::figures::pods_without_a_pause_process", NO_PAUSE, 1);
    }
}

/// `fewer`: processes of each pod.
fn cost_of_pods(name: &str, page: Page, fewer: usize) {
    if !is_prepared() {
        return;
    }
    let pods = std::env::var("POD_COUNT").map_or(2, |n| n.parse().expect("POD_COUNT: a number"));
    let seen = Mutex::new(Vec::new());
    with_kubelet(name, page, OWN, |kubelet, _daemon| {
        let ids: Vec<String> = (0..pods)
            .map(|number| {
                let pod = format!("pod{number}");
                let id = kubelet.pod(&pod);
                kubelet.run((&pod, &id), &format!("app{number}"), OWN, out(), &APP);
                id
            })
            .collect();
        let own: Vec<i32> =
            kubelet.place.processes().into_iter().filter(|pid| !is_app(*pid)).collect();
        let memory: u64 = own.iter().map(|pid| pss(*pid)).sum();
        eprintln!(
            "{:?}: {pods} pods have {} processes besides their containers', {} KB of PSS a pod",
            kubelet.place.driver,
            own.len(),
            memory / pods as u64,
        );
        let mut seen = seen.lock().expect("what was seen");
        seen.push(own.len());
        if let [theirs, ours] = seen[..] {
            assert_eq!(ours + fewer * pods, theirs, "processes of {pods} pods");
        }
        kubelet.place.note(format!("{pods} pods"));
        ids.iter().for_each(|id| kubelet.remove(id));
    });
}

fn is_app(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line == [APP[0], "\0", APP[1], "\0"].concat().as_bytes()
}

/// In KB.
fn pss(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
    value.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}
