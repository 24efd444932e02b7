//! Many up and down at once, and runtimes that are killed meanwhile. `make load-network` takes a thousand.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use runtime_tests::Container;
use serde_json::json;

use super::host::{Host, possible, sleeper};

/// As many as a bridge has ports, nearly.
fn many() -> usize {
    let wanted = std::env::var("ARIL_NETWORK_LOAD").ok();
    wanted.map_or(60, |text| text.parse().expect("ARIL_NETWORK_LOAD: a number"))
}

/// Calls that are under way at once.
const AT_ONCE: usize = 4;
const LOWEST_PORT: usize = 20_000;

struct Fleet {
    host: Host,
    /// Of whose bundles and state root all are.
    one: Container,
    /// What a call takes here.
    usual: Duration,
}

impl Fleet {
    fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.one.mark)
    }

    fn bundle(&self, number: usize) -> String {
        let dir = self.one.directory(&format!("b{number}"));
        let mut spec = self.one.spec.clone();
        spec["root"]["path"] = json!(self.one.rootfs());
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", self.one.mark, self.id(number)));
        fs::write(dir.join("config.json"), spec.to_string()).expect("config.json");
        dir.to_str().expect("utf-8").to_owned()
    }

    fn run(&self, number: usize) -> std::process::Child {
        let (bundle, id) = (self.bundle(number), self.id(number));
        let port = format!("{}:80", LOWEST_PORT + number);
        let args = ["run", "-d", "-b", &bundle, "--network", "bridge", "-p", &port, &id];
        self.host.start(&self.one, &args)
    }

    fn delete(&self, number: usize) -> std::process::Child {
        self.host.start(&self.one, &["delete", "--force", &self.id(number)])
    }

    /// Some calls at a time, each of which succeeds.
    fn each(
        &self,
        numbers: impl Iterator<Item = usize>,
        call: impl Fn(usize) -> std::process::Child,
    ) {
        let numbers: Vec<usize> = numbers.collect();
        for few in numbers.chunks(AT_ONCE) {
            let calls: Vec<_> = few.iter().map(|number| (number, call(*number))).collect();
            for (number, mut call) in calls {
                assert!(call.wait().expect("its end").success(), "number {number}");
            }
        }
    }

    /// A call that is killed, or has ended before.
    fn killed(&self, mut call: std::process::Child) {
        let random = RandomState::new().hash_one(call.id());
        std::thread::sleep(self.usual.mul_f64((random % 1000) as f64 / 1000.0));
        let _ = call.kill();
        call.wait().expect("its end");
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.host.call(&self.one, &["list", "-q"]).ok().stdout;
        listed.lines().map(str::to_owned).collect()
    }

    /// Whatever is still listed is deleted, after `reconcile` has had its say.
    fn has_an_end(&self) -> String {
        let said = self.host.call(&self.one, &["reconcile"]).ok().stdout;
        for id in self.ids() {
            self.host.call(&self.one, &["delete", "--force", &id]).ok();
        }
        self.host.has_nothing_left();
        assert_eq!(self.host.call(&self.one, &["reconcile"]).ok().stdout, "");
        said
    }
}

#[test]
fn many_come_and_go_and_some_are_killed() {
    if !possible() {
        return;
    }
    let many = many();
    let mut fleet = Fleet { host: Host::new(), one: sleeper(), usual: Duration::ZERO };
    fleet.each(0..1, |number| fleet.run(number));
    fleet.bundle(1);
    let started = Instant::now();
    fleet.each(1..2, |number| fleet.run(number));
    fleet.usual = started.elapsed();
    fleet.each(2..many, |number| fleet.run(number));
    let up = started.elapsed();
    let leases = fleet.host.leases();
    let unlike: std::collections::HashSet<&str> = leases.lines().collect();
    assert_eq!((unlike.len(), fleet.host.links()), (many, many));
    // A third of the ends is killed somewhere, and so is as many starts.
    fleet.each((0..many).filter(|n| n % 3 > 0), |number| fleet.delete(number));
    for number in (0..many).step_by(3) {
        fleet.killed(fleet.delete(number));
    }
    let first = fleet.has_an_end();
    for number in 0..many / 3 {
        fleet.killed(fleet.run(number));
    }
    let second = fleet.has_an_end();
    let lines = |text: &str| text.lines().count();
    eprintln!(
        "{many} up in {up:?}; reconciled after killed ends: {}, after killed starts: {}",
        lines(&first),
        lines(&second)
    );
}
