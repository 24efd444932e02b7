//! What shims cost, and whether they keep up. `POD_COUNT=100 PROBE_SECONDS=60 cargo test --test shim figures::
//! -- --nocapture` prints figures; so does `SHIM=containerd-shim-runc-v2 RUNTIME=runc` before it.

use std::fs;
use std::time::{Duration, Instant};

use runtime_tests::{Container, View};

use crate::place::{Place, Shim, Streams, place_for};
use crate::wire::{Client, out};

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name}: {n}")))
}

/// Of a process and of all that it has reaped: a shim adopts the runtime's calls and the probes.
fn cpu_ms(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 =
        rest.split(' ').skip(11).take(4).map(|n| n.parse::<u64>().expect("ticks")).sum();
    ticks * 10
}

/// A field of its memory in KB, such as its proportional set size.
fn memory_of(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let value = text.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    value.split_whitespace().next().expect("a number").parse().expect("a number")
}

const PSS: &str = "Pss:";
/// Without what it shares with other shims, which come and go.
const OWN: &str = "Pss_Anon:";

/// One probe as a kubelet makes it: false if it was lost.
fn probe(client: &mut Client, shim: &Shim, name: &str) -> bool {
    let process = serde_json::json!({
        "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
    });
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    let request = shim.exec(name).any(7, kind, process.to_string().as_bytes());
    let run = || {
        client.call("Exec", request)?;
        client.call("Start", shim.exec(name))?;
        let status = client.call("Wait", shim.exec(name))?.number(1);
        client.call("Delete", shim.exec(name))?;
        Ok::<u64, crate::wire::Refused>(status)
    };
    run().is_ok_and(|status| status == 0)
}

/// Two probes a second in each pod, all pods at once: none is lost.
#[test]
fn probes() {
    let (pods, seconds) = (setting("POD_COUNT", 3), setting("PROBE_SECONDS", 2));
    let sleeper = || place_for(Container::new(View::Host).sleeper());
    let places: Option<Vec<Place>> = (0..pods).map(|_| sleeper()).collect();
    let Some(places) = places else { return };
    let mut shims: Vec<Shim> = places.iter().map(Place::start).collect();
    for shim in &mut shims {
        shim.run(&Streams::default());
    }
    let cpu = |shims: &[Shim]| shims.iter().map(|shim| cpu_ms(shim.pid)).sum::<u64>();
    let (before, start) = (cpu(&shims), Instant::now());
    let good: u32 = std::thread::scope(|scope| {
        let probing = |(number, shim): (usize, &Shim)| {
            let mut client = Client::connect(&shim.socket);
            // Spread over the second, as those of a node are.
            let first = start + Duration::from_millis(number as u64 * 500 / u64::from(pods));
            let mut good = 0;
            for round in 0..seconds * 2 {
                let due = first + Duration::from_millis(500) * round;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                good += u32::from(probe(&mut client, shim, &format!("p{round}")));
            }
            good
        };
        let threads: Vec<_> =
            shims.iter().enumerate().map(|pod| scope.spawn(move || probing(pod))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a pod's probes")).sum()
    });
    let (spent, took) = (cpu(&shims) - before, start.elapsed());
    eprintln!(
        "{pods} pods, {good} probes in {:.1} s: {spent} ms of cpu time, {:.2} ms each",
        took.as_secs_f64(),
        spent as f64 / f64::from(good.max(1)),
    );
    assert_eq!(good, pods * seconds * 2, "probes were lost");
    let total: u64 = shims.iter().map(|shim| memory_of(shim.pid, PSS)).sum();
    eprintln!("{} KB of PSS for each of {pods} shims", total / u64::from(pods));
    shims.into_iter().for_each(Shim::finish);
}

/// A second container in a pod costs its shim next to nothing.
#[test]
fn memory() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let memory = |pid| [PSS, OWN].map(|field| memory_of(pid, field));
    let [alone, own_alone] = memory(shim.pid);
    let bundle = place.another_bundle("second");
    let request = shim.request_for("second", &bundle, &Streams::default(), place.options());
    shim.client.ok("Create", request);
    shim.client.ok("Start", out().bytes(1, "second"));
    let [both, own_both] = memory(shim.pid);
    eprintln!("{alone} KB of PSS for a pod of one container, {both} KB with a second one");
    if place.is_aril() {
        assert!(own_both <= own_alone + 200, "{own_alone} KB, then {own_both} KB");
    }
    shim.client.ok("Kill", out().bytes(1, "second").number(3, 9));
    shim.client.ok("Wait", out().bytes(1, "second"));
    shim.client.ok("Delete", out().bytes(1, "second"));
    shim.finish();
}
