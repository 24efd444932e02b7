//! Compiles `linux.resources` to the files of cgroup v2.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::value::{bytes, cpuset, page_size, rdma, sorted, weight};
use super::{Absent, Guard, Write};
use crate::error::{Error, Result};

const DEFAULT_PERIOD: u64 = 100_000;

/// Returns the writes for cgroup v2.
///
/// # Errors
///
/// A value is out of range, or a key of `unified` is no file name.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(pids) = resources.pids() {
        writes.push(Write::new("pids", "pids.max", pids_max(pids.limit())));
    }
    if let Some(m) = resources.memory() {
        writes.extend(memory(m)?);
    }
    if let Some(b) = resources.block_io() {
        writes.extend(io(b)?);
    }
    if let Some(c) = resources.cpu() {
        writes.extend(cpu(c)?);
        writes.extend(cpuset(c));
    }
    for h in resources.hugepage_limits().iter().flatten() {
        writes.extend(hugetlb(h)?);
    }
    for (device, limit) in sorted(resources.rdma()) {
        writes.push(Write::new("rdma", "rdma.max", rdma(device, limit)));
    }
    for (key, value) in sorted(resources.unified()) {
        writes.push(unified(key, value)?);
    }
    settle_idle(&mut writes);
    Ok(writes)
}

/// Keeps the last `cpu.idle` and moves it to the front: the kernel rejects the weight of an idle cgroup, even if the
/// cgroup is about to leave that state.
fn settle_idle(writes: &mut Vec<Write>) {
    let Some(last) = writes.iter().rposition(|write| write.file == "cpu.idle") else { return };
    let idle = writes.remove(last);
    let is_idle = makes_idle(&idle.value);
    writes.retain(|write| {
        let is_weight = WEIGHTS.contains(&&*write.file);
        write.file != "cpu.idle" && !(is_idle && is_weight)
    });
    writes.insert(0, idle);
}

/// Files of a weight, which an idle cgroup does not have.
const WEIGHTS: [&str; 2] = ["cpu.weight", "cpu.weight.nice"];

fn makes_idle(value: &str) -> bool {
    value.trim() == "1"
}

/// Returns true for a weight that is left out because of `cpu.idle`.
pub fn gives_up_weight(resources: &LinuxResources) -> bool {
    let unified = |file: &str| resources.unified().as_ref().and_then(|unified| unified.get(file));
    let cpu = resources.cpu().as_ref();
    let is_idle = match unified("cpu.idle") {
        Some(value) => makes_idle(value),
        None => cpu.and_then(LinuxCpu::idle) == Some(1),
    };
    let shares = cpu.and_then(LinuxCpu::shares).and_then(cpu_weight);
    is_idle && (shares.is_some() || WEIGHTS.iter().any(|file| unified(file).is_some()))
}

/// Lists accepted settings for which cgroup v2 has no file, and which are left out.
pub fn ignored(resources: &LinuxResources) -> Vec<&'static str> {
    let cpu = resources.cpu().as_ref();
    let memory = resources.memory().as_ref();
    [
        (cpu.is_some_and(|c| c.realtime_runtime().is_some()), "cpu.realtimeRuntime"),
        (cpu.is_some_and(|c| c.realtime_period().is_some()), "cpu.realtimePeriod"),
        (memory.is_some_and(|m| m.swappiness().is_some()), "memory.swappiness"),
        (memory.is_some_and(|m| m.disable_oom_killer() == Some(true)), "memory.disableOOMKiller"),
        (memory.is_some_and(|m| m.kernel().is_some()), "memory.kernel"),
        (memory.is_some_and(|m| m.kernel_tcp().is_some()), "memory.kernelTCP"),
        (resources.network().is_some(), "network"),
        (
            resources.block_io().as_ref().is_some_and(|b| b.leaf_weight().is_some()),
            "blockIO.leafWeight",
        ),
    ]
    .into_iter()
    .filter_map(|(given, name)| given.then_some(name))
    .collect()
}

fn pids_max(limit: i64) -> String {
    match limit {
        ..0 => "max".to_owned(),
        // A container without any process cannot start.
        0 => "1".to_owned(),
        n => n.to_string(),
    }
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Write>> {
    let limit = bytes("memory limit", memory.limit())?;
    let swap = bytes("memory+swap limit", memory.swap())?;
    let checked = memory.check_before_update() == Some(true);
    let guard = |what, limit: Option<i64>, usage| {
        let limit = limit.filter(|l| *l > 0 && checked)?.unsigned_abs();
        Some(Guard { what, limit, usage })
    };
    let mut writes = Vec::new();
    // Swap first: the kernel then never sees a limit whose excess it may still swap out.
    if let Some(max) = swap_max(swap, limit)? {
        let nothing_special = max <= 0;
        let write = Write::new("memory", "memory.swap.max", number_or_max(max));
        writes.push(Write {
            guard: guard("memory+swap limit", swap, &["memory.current", "memory.swap.current"]),
            ..write.or_nothing_if(nothing_special)
        });
    }
    if let Some(limit) = limit {
        writes.push(Write {
            guard: guard("memory limit", Some(limit), &["memory.current"]),
            ..Write::new("memory", "memory.max", number_or_max(limit))
        });
    }
    if let Some(low) = bytes("memory reservation", memory.reservation())? {
        writes.push(Write::new("memory", "memory.low", number_or_max(low)));
    }
    Ok(writes)
}

/// Converts the limit: cgroup v2 limits swap alone, the specification limits memory and swap together.
fn swap_max(swap: Option<i64>, limit: Option<i64>) -> Result<Option<i64>> {
    match (swap, limit) {
        // As on v1, removing the one limit removes the other.
        (None, Some(-1)) => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(-1), _) => Ok(Some(-1)),
        (Some(swap), Some(-1)) => Ok(Some(swap)),
        (Some(_), None) => Err(Error::config("unable to set swap limit without memory limit")),
        (Some(swap), Some(limit)) if swap < limit => {
            Err(Error::config("memory+swap limit should be >= memory limit"))
        }
        (Some(swap), Some(limit)) => Ok(Some(swap - limit)),
    }
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn cpu(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu", "cpu.idle", idle));
    }
    if let Some(weight) = cpu.shares().and_then(cpu_weight) {
        writes.push(Write::new("cpu", "cpu.weight", weight));
    }
    if let Some(burst) = cpu.burst() {
        // A burst beyond the quota in force is rejected until the quota is raised.
        let write = Write::new("cpu", "cpu.max.burst", burst);
        writes.push(write.again().or_nothing_if(burst == 0));
    }
    let quota = cpu.quota().filter(|q| *q != 0);
    let period = cpu.period().filter(|p| *p != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or(-1, |q| q.max(-1));
        let value = format!("{} {}", number_or_max(quota), period.unwrap_or(DEFAULT_PERIOD));
        writes.push(Write::new("cpu", "cpu.max", value));
    }
    Ok(writes)
}

/// Maps shares 2, 1024, 262144 to weights 1, 100, 10000: a quadratic function through the three points in logarithms.
pub(super) fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

fn io(block: &LinuxBlockIo) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(w) = weight(block.weight())? {
        let other = Write::new("io", "io.weight", io_weight(w));
        writes.push(Write::new("io", "io.bfq.weight", w).instead(other));
    }
    for device in block.weight_device().iter().flatten() {
        let Some(w) = weight(device.weight())? else { continue };
        let name = format!("{}:{}", device.major(), device.minor());
        let other = Write::new("io", "io.weight", format!("{name} {}", io_weight(w)));
        writes.push(Write::new("io", "io.bfq.weight", format!("{name} {w}")).instead(other));
    }
    writes.extend(io_max(block).into_iter().map(|v| Write::new("io", "io.max", v)));
    Ok(writes)
}

/// Returns one line for each device, because io.max takes all four limits at once.
fn io_max(block: &LinuxBlockIo) -> Vec<String> {
    let mut devices: BTreeMap<(i64, i64), String> = BTreeMap::new();
    let mut add = |key: &str, throttles: &Option<Vec<LinuxThrottleDevice>>| {
        for t in throttles.iter().flatten() {
            let line = devices
                .entry((t.major(), t.minor()))
                .or_insert_with(|| format!("{}:{}", t.major(), t.minor()));
            let rate = if t.rate() == 0 { "max".to_owned() } else { t.rate().to_string() };
            line.push_str(&format!(" {key}={rate}"));
        }
    };
    add("rbps", block.throttle_read_bps_device());
    add("wbps", block.throttle_write_bps_device());
    add("riops", block.throttle_read_iops_device());
    add("wiops", block.throttle_write_iops_device());
    devices.into_values().collect()
}

/// Maps 10..=1000 to 1..=10000, and values below 10 to 1.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

fn hugetlb(limit: &LinuxHugepageLimit) -> Result<[Write; 2]> {
    let size = page_size(limit.page_size())?;
    let value = number_or_max(limit.limit());
    Ok([
        Write::new("hugetlb", format!("hugetlb.{size}.max"), &value),
        Write::new("hugetlb", format!("hugetlb.{size}.rsvd.max"), value).or_nothing(),
    ])
}

fn unified(key: &str, value: &str) -> Result<Write> {
    if key.contains('/') {
        let text = format!("unified resource {key:?} must be a file name (no slashes)");
        return Err(Error::config(text));
    }
    let Some((controller, _)) = key.split_once('.').filter(|(c, p)| !c.is_empty() && !p.is_empty())
    else {
        let text = format!("unified resource {key:?} must be in the form CONTROLLER.PARAMETER");
        // In crun's words, too, which its tests look for.
        return Err(Error::config(text).hint(format!(
            "a key is the name of a cgroup v2 file, such as memory.high: the specified key has not \
             the form CONTROLLER.VALUE `{key}`"
        )));
    };
    let write = Write::new(controller.to_owned(), key.to_owned(), value);
    Ok(Write { unified: true, absent: Absent::Refuse, ..write })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resources(value: serde_json::Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    fn lines(value: serde_json::Value) -> Vec<String> {
        let writes = writes(&resources(value)).unwrap();
        writes.iter().map(|w| w.to_string()["cgroup: ".len()..].to_owned()).collect()
    }

    fn refusal(value: serde_json::Value) -> String {
        writes(&resources(value)).unwrap_err().to_string()
    }

    #[test]
    fn shares_to_weight() {
        for (shares, weight) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (10, Some(4)),
            (100, Some(17)),
            (512, Some(59)),
            (1024, Some(100)),
            (2048, Some(174)),
            (4096, Some(303)),
            (10_240, Some(639)),
            (102_400, Some(4429)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn cpu_files() {
        let all = json!({"cpu": {"shares": 1024, "quota": 50000, "period": 20000, "burst": 1000,
            "cpus": "0-1", "mems": "0"}});
        assert_eq!(
            lines(all),
            [
                "cpu.weight = 100",
                "cpu.max.burst = 1000",
                "cpu.max = 50000 20000",
                "cpuset.cpus = 0-1",
                "cpuset.mems = 0",
            ]
        );
        assert_eq!(lines(json!({"cpu": {"quota": 5000}})), ["cpu.max = 5000 100000"]);
        assert_eq!(lines(json!({"cpu": {"quota": -1}})), ["cpu.max = max 100000"]);
        assert_eq!(lines(json!({"cpu": {"period": 5000}})), ["cpu.max = max 5000"]);
        assert!(
            lines(json!({"cpu": {"quota": 0, "period": 0, "shares": 0, "cpus": ""}})).is_empty()
        );
        assert_eq!(lines(json!({"cpu": {"idle": 1, "shares": 512}})), ["cpu.idle = 1"]);
        assert_eq!(
            lines(json!({"cpu": {"idle": 0, "shares": 512}})),
            ["cpu.idle = 0", "cpu.weight = 59"]
        );
        assert_eq!(lines(json!({"cpu": {"burst": 0}})), ["cpu.max.burst = 0 (if there)"]);
    }

    #[test]
    fn an_idle_cgroup_has_no_weight() {
        let unified = |map: serde_json::Value| lines(json!({ "unified": map }));
        assert_eq!(unified(json!({"cpu.idle": "1", "cpu.weight": "8"})), ["cpu.idle = 1"]);
        assert_eq!(
            unified(json!({"cpu.idle": "0", "cpu.weight": "8"})),
            ["cpu.idle = 0", "cpu.weight = 8"]
        );
        let both = |cpu: serde_json::Value, map: serde_json::Value| {
            let r = json!({"cpu": cpu, "unified": map, "pids": {"limit": 3}});
            (lines(r.clone()), gives_up_weight(&resources(r)))
        };
        let idle = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
        // The map has precedence over the field.
        assert_eq!(
            both(json!({"idle": 1, "shares": 1024}), json!({"cpu.idle": "0"})),
            (idle(&["cpu.idle = 0", "pids.max = 3", "cpu.weight = 100"]), false)
        );
        assert_eq!(
            both(json!({"shares": 1024}), json!({"cpu.idle": "1", "cpu.weight.nice": "3"})),
            (idle(&["cpu.idle = 1", "pids.max = 3"]), true)
        );
        assert!(both(json!({"idle": 1}), json!({"cpu.weight": "8"})).1);
        assert!(!both(json!({"idle": 1, "shares": 0}), json!({})).1);
    }

    #[test]
    fn a_burst_waits_for_its_quota() {
        let writes = writes(&resources(json!({"cpu": {"quota": 5000, "burst": 9}}))).unwrap();
        assert_eq!(writes.iter().map(|w| w.again).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn memory_and_swap() {
        let l = |m: serde_json::Value| lines(json!({ "memory": m }));
        assert_eq!(l(json!({"limit": 100})), ["memory.max = 100"]);
        assert_eq!(
            l(json!({"limit": 100, "swap": 150, "reservation": 50})),
            ["memory.swap.max = 50", "memory.max = 100", "memory.low = 50"]
        );
        assert_eq!(
            l(json!({"limit": 100, "swap": 100})),
            ["memory.swap.max = 0 (if there)", "memory.max = 100"]
        );
        assert_eq!(
            l(json!({"limit": 100, "swap": -1})),
            ["memory.swap.max = max (if there)", "memory.max = 100"]
        );
        assert_eq!(
            l(json!({"limit": -1})),
            ["memory.swap.max = max (if there)", "memory.max = max"]
        );
        assert_eq!(l(json!({"limit": -1, "swap": 7})), ["memory.swap.max = 7", "memory.max = max"]);
        assert_eq!(l(json!({"swap": -1})), ["memory.swap.max = max (if there)"]);
        assert_eq!(l(json!({"reservation": -1})), ["memory.low = max"]);
        assert!(l(json!({"limit": 0, "swap": 0, "reservation": 0})).is_empty());
    }

    #[test]
    fn memory_refusals() {
        for (memory, text) in [
            (json!({"swap": 5}), "unable to set swap limit without memory limit"),
            (json!({"limit": 10, "swap": 5}), "memory+swap limit should be >= memory limit"),
            (json!({"limit": -2}), "invalid memory limit: -2"),
            (json!({"limit": 1, "swap": -7}), "invalid memory+swap limit: -7"),
        ] {
            assert_eq!(refusal(json!({ "memory": memory })), text);
        }
    }

    #[test]
    fn check_before_update_guards_the_limits_only() {
        let r = json!({"memory": {"limit": 10, "swap": 15, "reservation": 5,
            "checkBeforeUpdate": true}});
        let guards: Vec<_> = writes(&resources(r)).unwrap().iter().map(|w| w.guard).collect();
        let usage = &["memory.current", "memory.swap.current"];
        let both = Guard { what: "memory+swap limit", limit: 15, usage };
        let limit = Guard { what: "memory limit", limit: 10, usage: &["memory.current"] };
        assert_eq!(guards, [Some(both), Some(limit), None]);
        let r = json!({"memory": {"limit": -1, "checkBeforeUpdate": true}});
        assert!(writes(&resources(r)).unwrap().iter().all(|w| w.guard.is_none()));
    }

    #[test]
    fn pids_zero_is_one() {
        let l = |n: i64| lines(json!({"pids": {"limit": n}}));
        assert_eq!(l(0), ["pids.max = 1"]);
        assert_eq!(l(-1), ["pids.max = max"]);
        assert_eq!(l(17), ["pids.max = 17"]);
    }

    #[test]
    fn block_io() {
        let block = json!({"blockIO": {
            "weight": 10, "leafWeight": 500,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 0}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
        }});
        assert_eq!(
            lines(block),
            [
                "io.bfq.weight = 10 (or io.weight = 1)",
                "io.bfq.weight = 8:0 1000 (or io.weight = 8:0 10000)",
                "io.max = 8:0 rbps=1000 wiops=7",
                "io.max = 8:16 wbps=max",
            ]
        );
        assert!(lines(json!({"blockIO": {"weight": 0}})).is_empty());
        assert_eq!(
            lines(json!({"blockIO": {"weight": 5}})),
            ["io.bfq.weight = 5 (or io.weight = 1)"]
        );
        assert_eq!(
            refusal(json!({"blockIO": {"weight": 1001}})),
            "invalid blkio weight: 1001 (valid range is 1-1000)"
        );
    }

    #[test]
    fn huge_pages_and_rdma() {
        let r = json!({
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}},
        });
        assert_eq!(
            lines(r),
            [
                "hugetlb.2MB.max = 4194304",
                "hugetlb.2MB.rsvd.max = 4194304 (if there)",
                "rdma.max = mlx4_0 hca_object=1",
                "rdma.max = mlx5_1 hca_handle=3 hca_object=10000",
            ]
        );
        for size in ["2M", "MB", "2MB/../../x", ""] {
            let text = refusal(json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]}));
            assert!(text.starts_with("invalid hugepage size"), "{text}");
        }
    }

    #[test]
    fn unified_comes_last_and_in_order() {
        let r = json!({
            "unified": {"memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2", "cpu.weight": "7"},
            "cpu": {"shares": 1024},
        });
        assert_eq!(
            lines(r),
            [
                "cpu.weight = 100",
                "cpu.weight = 7",
                "io.max = 8:0 rbps=1; 8:16 rbps=2",
                "memory.high = 5"
            ]
        );
        assert_eq!(
            refusal(json!({"unified": {"a/b.c": "1"}})),
            "unified resource \"a/b.c\" must be a file name (no slashes)"
        );
        assert_eq!(
            refusal(json!({"unified": {"memory": "1"}})),
            "unified resource \"memory\" must be in the form CONTROLLER.PARAMETER"
        );
    }

    #[test]
    fn what_cgroup2_leaves_out() {
        let r = json!({"memory": {"swappiness": 3, "disableOOMKiller": true, "kernel": 1},
            "network": {"classID": 1}, "cpu": {"realtimeRuntime": 1}});
        assert_eq!(
            ignored(&resources(r)),
            [
                "cpu.realtimeRuntime",
                "memory.swappiness",
                "memory.disableOOMKiller",
                "memory.kernel",
                "network"
            ]
        );
    }
}
