//! Compiles `linux.resources` to the files of cgroup v1.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources,
    LinuxThrottleDevice,
};

use super::value::{bytes, cpuset, page_size, rdma, sorted, weight};
use super::{Guard, Write};
use crate::error::{Error, Result};

/// Returns the writes before the first process joins: a cpuset without CPUs admits no process, and a realtime process
/// is admitted only with realtime runtime.
pub fn before_join(resources: &LinuxResources) -> Vec<Write> {
    let Some(cpu) = resources.cpu() else { return Vec::new() };
    let mut writes = cpuset(cpu);
    if let Some(period) = cpu.realtime_period().filter(|p| *p != 0) {
        writes.push(Write::new("cpu", "cpu.rt_period_us", period).again());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|r| *r != 0) {
        writes.push(Write::new("cpu", "cpu.rt_runtime_us", runtime));
    }
    writes
}

/// Returns the writes for cgroup v1.
///
/// # Errors
///
/// A value is out of range, or `unified` is set.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::config("invalid configuration: cannot use unified on cgroup v1"));
    }
    let mut writes = Vec::new();
    if let Some(m) = resources.memory() {
        writes.extend(memory(m)?);
    }
    if let Some(c) = resources.cpu() {
        writes.extend(cpu(c)?);
    }
    if let Some(p) = resources.pids() {
        let max = match p.limit() {
            ..0 => "max".to_owned(),
            n => n.max(1).to_string(),
        };
        writes.push(Write::new("pids", "pids.max", max));
    }
    if let Some(b) = resources.block_io() {
        writes.extend(blkio(b)?);
    }
    for h in resources.hugepage_limits().iter().flatten() {
        writes.extend(hugetlb(h)?);
    }
    if let Some(n) = resources.network() {
        writes.extend(network(n));
    }
    for (device, limit) in sorted(resources.rdma()) {
        writes.push(Write::new("rdma", "rdma.max", rdma(device, limit)));
    }
    Ok(writes)
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Write>> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = bytes("memory limit", memory.limit())?;
    let swap = bytes("memory+swap limit", memory.swap())?;
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        return Err(Error::config("memory+swap limit should be >= memory limit"));
    }
    let mut writes = Vec::new();
    if let Some(limit) = limit {
        let guard = Guard {
            what: "memory limit",
            limit: limit.unsigned_abs(),
            usage: &["memory.usage_in_bytes"],
        };
        let guarded = limit > 0 && memory.check_before_update() == Some(true);
        // The kernel rejects it above the memory+swap limit in force; it is then written after that limit.
        writes.push(Write {
            guard: guarded.then_some(guard),
            ..Write::new("memory", "memory.limit_in_bytes", limit).again()
        });
    }
    match (swap, limit) {
        (Some(swap), _) => {
            writes.push(Write::new("memory", SWAP, swap).or_nothing_if(swap == -1));
        }
        // Removing the one limit removes the other.
        (None, Some(-1)) => writes.push(Write::new("memory", SWAP, -1).or_nothing()),
        (None, _) => {}
    }
    if let Some(soft) = bytes("memory reservation", memory.reservation())? {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", soft));
    }
    if let Some(tcp) = bytes("kernel TCP memory limit", memory.kernel_tcp())? {
        writes.push(Write::new("memory", "memory.kmem.tcp.limit_in_bytes", tcp));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
    // Engines send -1, in an unsigned number, for "not set".
    if let Some(swappiness) = memory.swappiness().filter(|s| *s != u64::MAX) {
        if swappiness > 100 {
            let text =
                format!("invalid memory swappiness value: {swappiness} (valid range is 0-100)");
            return Err(Error::config(text));
        }
        writes.push(Write::new("memory", "memory.swappiness", swappiness));
    }
    Ok(writes)
}

fn cpu(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    // First: the kernel rejects the shares of an idle cgroup.
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        // The kernel would clamp it without an error.
        match shares {
            1 => return Err(Error::config("the minimum allowed cpu-shares is 2")),
            262_145.. => return Err(Error::config("the maximum allowed cpu-shares is 262144")),
            _ if cpu.idle() == Some(1) => {}
            _ => writes.push(Write::new("cpu", "cpu.shares", shares)),
        }
    }
    // Period and burst are rejected while they contradict the quota in force.
    if let Some(burst) = cpu.burst() {
        let write = Write::new("cpu", "cpu.cfs_burst_us", burst);
        writes.push(write.again().or_nothing_if(burst == 0));
    }
    if let Some(period) = cpu.period().filter(|p| *p != 0) {
        writes.push(Write::new("cpu", "cpu.cfs_period_us", period).again());
    }
    if let Some(quota) = cpu.quota().filter(|q| *q != 0) {
        writes.push(Write::new("cpu", "cpu.cfs_quota_us", quota));
    }
    Ok(writes)
}

fn blkio(block: &LinuxBlockIo) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(w) = weight(block.weight())? {
        let other = Write::new("blkio", "blkio.bfq.weight", w);
        writes.push(Write::new("blkio", "blkio.weight", w).instead(other));
    }
    if let Some(w) = weight(block.leaf_weight())? {
        writes.push(Write::new("blkio", "blkio.leaf_weight", w));
    }
    for d in block.weight_device().iter().flatten() {
        let name = format!("{}:{}", d.major(), d.minor());
        if let Some(w) = weight(d.weight())? {
            let value = format!("{name} {w}");
            let other = Write::new("blkio", "blkio.bfq.weight_device", &value);
            writes.push(Write::new("blkio", "blkio.weight_device", value).instead(other));
        }
        if let Some(w) = weight(d.leaf_weight())? {
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", format!("{name} {w}")));
        }
    }
    let mut throttle = |file: &'static str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for t in devices.iter().flatten() {
            let value = format!("{}:{} {}", t.major(), t.minor(), t.rate());
            writes.push(Write::new("blkio", file, value));
        }
    };
    throttle("blkio.throttle.read_bps_device", block.throttle_read_bps_device());
    throttle("blkio.throttle.write_bps_device", block.throttle_write_bps_device());
    throttle("blkio.throttle.read_iops_device", block.throttle_read_iops_device());
    throttle("blkio.throttle.write_iops_device", block.throttle_write_iops_device());
    Ok(writes)
}

fn hugetlb(limit: &LinuxHugepageLimit) -> Result<[Write; 2]> {
    let size = page_size(limit.page_size())?;
    let file = format!("hugetlb.{size}.limit_in_bytes");
    let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
    Ok([
        Write::new("hugetlb", file, limit.limit()),
        Write::new("hugetlb", reserved, limit.limit()).or_nothing(),
    ])
}

fn network(network: &LinuxNetwork) -> Vec<Write> {
    let class = network.class_id().filter(|c| *c != 0);
    let class = class.map(|c| Write::new("net_cls", "net_cls.classid", c));
    let priorities = network.priorities().iter().flatten().map(|p| {
        Write::new("net_prio", "net_prio.ifpriomap", format!("{} {}", p.name(), p.priority()))
    });
    class.into_iter().chain(priorities).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resources(value: serde_json::Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    fn text(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|w| w.to_string()["cgroup: ".len()..].to_owned()).collect()
    }

    fn lines(value: serde_json::Value) -> Vec<String> {
        text(&writes(&resources(value)).unwrap())
    }

    fn refusal(value: serde_json::Value) -> String {
        writes(&resources(value)).unwrap_err().to_string()
    }

    #[test]
    fn memory_goes_first_and_again_after_swap() {
        let r = resources(json!({"memory": {"limit": 100, "swap": 200}}));
        let writes = writes(&r).unwrap();
        assert_eq!(
            text(&writes),
            ["memory.limit_in_bytes = 100", "memory.memsw.limit_in_bytes = 200"]
        );
        assert!(writes[0].again && !writes[1].again);
    }

    #[test]
    fn memory_files() {
        let r = json!({"memory": {"limit": -1, "reservation": 5, "kernel": 9, "kernelTCP": 6,
            "swappiness": 0, "disableOOMKiller": true}});
        assert_eq!(
            lines(r),
            [
                "memory.limit_in_bytes = -1",
                "memory.memsw.limit_in_bytes = -1 (if there)",
                "memory.soft_limit_in_bytes = 5",
                "memory.kmem.tcp.limit_in_bytes = 6",
                "memory.oom_control = 1",
                "memory.swappiness = 0",
            ]
        );
        assert!(lines(json!({"memory": {"swappiness": u64::MAX}})).is_empty());
        assert_eq!(
            refusal(json!({"memory": {"swappiness": 101}})),
            "invalid memory swappiness value: 101 (valid range is 0-100)"
        );
        assert_eq!(
            refusal(json!({"memory": {"limit": 9, "swap": 8}})),
            "memory+swap limit should be >= memory limit"
        );
    }

    #[test]
    fn cpu_files() {
        let r = json!({"cpu": {"shares": 512, "quota": 5000, "period": 10000, "burst": 3, "idle": 0,
            "realtimePeriod": 1000000, "realtimeRuntime": 950000, "cpus": "0", "mems": "0"}});
        assert_eq!(
            lines(r.clone()),
            [
                "cpu.idle = 0",
                "cpu.shares = 512",
                "cpu.cfs_burst_us = 3",
                "cpu.cfs_period_us = 10000",
                "cpu.cfs_quota_us = 5000",
            ]
        );
        assert_eq!(lines(json!({"cpu": {"idle": 1, "shares": 512}})), ["cpu.idle = 1"]);
        assert_eq!(
            text(&before_join(&resources(r))),
            [
                "cpuset.cpus = 0",
                "cpuset.mems = 0",
                "cpu.rt_period_us = 1000000",
                "cpu.rt_runtime_us = 950000",
            ]
        );
        assert_eq!(refusal(json!({"cpu": {"shares": 1}})), "the minimum allowed cpu-shares is 2");
        assert_eq!(
            refusal(json!({"cpu": {"shares": 262145}})),
            "the maximum allowed cpu-shares is 262144"
        );
    }

    #[test]
    fn the_other_controllers() {
        let r = json!({
            "pids": {"limit": 0},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                "weightDevice": [{"major": 8, "minor": 0, "weight": 20, "leafWeight": 30}]},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 0}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx": {"hcaHandles": 2}},
        });
        assert_eq!(
            lines(r),
            [
                "pids.max = 1",
                "blkio.weight = 500 (or blkio.bfq.weight = 500)",
                "blkio.weight_device = 8:0 20 (or blkio.bfq.weight_device = 8:0 20)",
                "blkio.leaf_weight_device = 8:0 30",
                "blkio.throttle.read_bps_device = 8:0 9",
                "hugetlb.1GB.limit_in_bytes = 0",
                "hugetlb.1GB.rsvd.limit_in_bytes = 0 (if there)",
                "net_cls.classid = 1048577",
                "net_prio.ifpriomap = eth0 5",
                "rdma.max = mlx hca_handle=2",
            ]
        );
    }

    #[test]
    fn unified_is_for_cgroup2() {
        assert_eq!(
            refusal(json!({"unified": {"memory.high": "1"}})),
            "invalid configuration: cannot use unified on cgroup v1"
        );
    }
}
