//! Limits of config.json, read back by another implementation: the crate cgroups-rs, which shares no code with the runtime
//! or with these tests. The kernel's files, as cgroups-rs reads them, have the requested values, and so has `events`.

use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuacct::CpuAcctController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::hugetlb::HugeTlbController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::{Controller, MaxValue};
use runtime_tests::{Container, View, in_each_view};
use serde_json::{Value, json};

const MEMORY: i64 = 96 << 20;
const RESERVATION: i64 = 48 << 20;
const PIDS: i64 = 23;
const PERIOD: u64 = 50_000;
const QUOTA: i64 = 20_000;
const SHARES: u64 = 700;
const HUGE_PAGES: u64 = 8 << 20;

fn limited(view: View) -> Container {
    Container::new(view).sleeper().edit(|spec| {
        let limits = [
            ("memory", "memory", json!({"limit": MEMORY, "reservation": RESERVATION})),
            ("pids", "pids", json!({"limit": PIDS})),
            ("cpu", "cpu", json!({"shares": SHARES, "quota": QUOTA, "period": PERIOD})),
            ("hugetlb", "hugepageLimits", json!([{"pageSize": "2MB", "limit": HUGE_PAGES}])),
        ];
        for (controller, field, value) in limits {
            if view.controls(controller) {
                spec["linux"]["resources"][field] = value;
            }
        }
        if view.controls("cpuset") {
            spec["linux"]["resources"]["cpu"]["cpus"] = json!("0");
            spec["linux"]["resources"]["cpu"]["mems"] = json!("0");
        }
    })
}

/// Prints one sample of the container's statistics.
fn events(c: &Container) -> Value {
    let out = c.call(["events", "--stats", &c.id]).ok();
    serde_json::from_str::<Value>(&out.stdout).expect("json")["data"].take()
}

#[test]
fn another_implementation_reads_the_limits() {
    let tried = std::cell::Cell::new(0);
    in_each_view(|view| {
        let c = limited(view);
        c.run_detached();
        let (events, v2) = (events(&c), view.is_v2());
        let place = |controller: &str| view.controls(controller).then(|| c.cgroup(controller));
        let found = [
            place("memory").map(|path| memory(&MemController::new(path, v2), &events)),
            place("pids").map(|path| pids(&PidController::new(path, v2), &events, &c)),
            place("cpu").map(|path| cpu(&CpuController::new(path, v2), v2)),
            place("cpuset").map(|path| cpuset(&CpuSetController::new(path, v2))),
            place("hugetlb").map(|path| huge_pages(&HugeTlbController::new(path, v2), &events)),
            place("cpuacct").map(|path| cpu_time(&CpuAcctController::new(path), &c)),
        ];
        tried.set(tried.get() + found.iter().flatten().count());
    });
    assert!(tried.get() > 0 || !runtime_tests::skip::is_root(), "no controller was compared");
}

fn memory(read: &MemController, events: &Value) {
    let found = read.memory_stat();
    // The latter is memory.low on version 2.
    assert_eq!((found.limit_in_bytes, found.soft_limit_in_bytes), (MEMORY, RESERVATION));
    let usage = &events["memory"]["usage"];
    assert_eq!(usage["limit"], MEMORY, "{usage}");
    assert!(found.usage_in_bytes > 0 && usage["usage"].as_i64() <= Some(MEMORY), "{usage}");
}

fn pids(read: &PidController, events: &Value, c: &Container) {
    assert_eq!(read.get_pid_max().expect("pids.max"), MaxValue::Value(PIDS));
    let current = read.get_pid_current().expect("pids.current");
    assert_eq!(events["pids"], json!({"current": current, "limit": PIDS}));
    let processes: Vec<i64> = read.procs().iter().map(|pid| pid.pid as i64).collect();
    assert_eq!(processes, [i64::from(c.pid())]);
}

fn cpu(read: &CpuController, v2: bool) {
    assert_eq!(read.cfs_period().expect("the period"), PERIOD);
    assert_eq!(read.cfs_quota().expect("the quota"), QUOTA);
    if !v2 {
        // Version 2 has weights, and runtimes differ on the conversion.
        assert_eq!(read.shares().expect("cpu.shares"), SHARES);
    }
}

fn cpuset(read: &CpuSetController) {
    let found = read.cpuset();
    assert_eq!((found.cpus, found.mems), (vec![(0, 0)], vec![(0, 0)]));
}

fn huge_pages(read: &HugeTlbController, events: &Value) {
    assert!(read.size_supported("2MB"), "{:?}", read.get_sizes());
    assert_eq!(read.limit_in_bytes("2MB").expect("the limit"), HUGE_PAGES);
    let usage = read.usage_in_bytes("2MB").expect("the usage");
    let reported = &events["hugetlb"]["2MB"];
    // As in runc, a usage of 0 is omitted.
    assert!(reported.is_object() && reported["usage"].as_u64().unwrap_or(0) == usage, "{events}");
}

/// CPU time only grows: one reading of cgroups-rs lies between two of the runtime.
fn cpu_time(read: &CpuAcctController, c: &Container) {
    let total = || events(c)["cpu"]["usage"]["total"].as_u64().expect("nanoseconds");
    let (before, between, after) = (total(), read.cpuacct().usage, total());
    assert!(0 < before && before <= between && between <= after, "{before} {between} {after}");
}
