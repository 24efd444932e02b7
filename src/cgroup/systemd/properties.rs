//! Converts limits, planned as writes to the kernel's files, to properties of a unit.
//!
//! systemd then writes the same values, also when it realizes the cgroup again, so it never restores other values.
//! Limits without a property are in the files alone.

use oci_spec::runtime::LinuxResources;

use super::{Property, Value};
use crate::cgroup::Write;

/// Accuracy of CPUQuota=.
const QUOTA_STEP: u64 = 10_000;
const SECOND: u64 = 1_000_000;

/// Returns the limits with the quota that systemd will write: a whole percent, rounded up. With another one in
/// the kernel's file, the next property that is set or a reload of systemd would change the limit.
pub fn kept(resources: &LinuxResources) -> LinuxResources {
    let mut kept = resources.clone();
    let mut cpu = kept.cpu().clone();
    if let Some(cpu) = &mut cpu {
        let quota = Quota { quota: cpu.quota(), period: cpu.period() };
        cpu.set_quota(quota.kept());
    }
    kept.set_cpu(cpu);
    kept
}

/// Adds properties. A later one of the same name replaces an earlier one.
pub fn of_writes<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut quota = Quota::default();
    for write in writes {
        let value = &*write.value;
        match &*write.file {
            "cpu.max" => {
                Quota::of_v2(value).properties().into_iter().for_each(|p| set(&mut properties, p))
            }
            // An idle unit has the weight 0, and systemd writes cpu.idle = 1 whenever it realizes the unit. The kernel
            // replaces a weight of 0 by the default weight.
            "cpu.idle" if value == "0" => {
                let weights = ["CPUWeight", "CPUShares"];
                if !properties.iter().any(|p: &Property| weights.contains(&&*p.name)) {
                    set(&mut properties, Property::new("CPUWeight", 100_u64));
                }
            }
            "cpu.cfs_quota_us" => quota.quota = value.parse().ok(),
            "cpu.cfs_period_us" => quota.period = value.parse().ok(),
            file => one(file, value).into_iter().for_each(|p| set(&mut properties, p)),
        }
    }
    quota.properties().into_iter().for_each(|p| set(&mut properties, p));
    properties
}

/// Returns true if this file may have another value after systemd has written the files that it knows. Before it has
/// realized the unit, systemd may also disable a controller and enable it again because another unit has ended; that
/// loses values that only Aril has written (`io.max`, `cpu.max.burst`).
pub fn disagrees(write: &Write) -> bool {
    match &*write.file {
        // Files of controllers that systemd does not know.
        "rdma.max" | "misc.max" => false,
        file if file.starts_with("hugetlb.") => false,
        "cpu.max" => !Quota::of_v2(&write.value).survives(),
        "cpu.idle" => write.value != "0" && write.value != "1",
        file => one(file, &write.value).is_none(),
    }
}

/// Returns true for a memory limit that the setup may exceed, by a generous estimate.
pub fn is_tight(write: &Write) -> bool {
    const SET_UP: u64 = 16 << 20;
    let hard = ["memory.max", "memory.high", "memory.limit_in_bytes"].contains(&&*write.file);
    hard && amount(&write.value).is_some_and(|limit| limit < SET_UP)
}

/// Adds a property, or replaces the one of the same name.
pub fn set(properties: &mut Vec<Property>, property: Property) {
    properties.retain(|p| p.name != property.name);
    properties.push(property);
}

/// Converts a file that corresponds to one property.
fn one(file: &str, value: &str) -> Option<Property> {
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "memory.limit_in_bytes" => "MemoryLimit",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.shares" => "CPUShares",
        "blkio.weight" => "BlockIOWeight",
        // 0 stands for cpu.idle = 1 since systemd 252. Older versions write 0, or nothing.
        "cpu.idle" => {
            return (value == "1").then(|| Property::new("CPUWeight", 0_u64).recent());
        }
        "cpuset.cpus" => return Some(Property::new("AllowedCPUs", mask(value)?)),
        "cpuset.mems" => return Some(Property::new("AllowedMemoryNodes", mask(value)?)),
        // For scopes since systemd 253.
        "memory.oom.group" => {
            let policy = if value == "1" { "kill" } else { "continue" };
            return Some(Property::new("OOMPolicy", policy).recent());
        }
        _ => return None,
    };
    let amount = amount(value)?;
    // The kernel decides about values that systemd would reject.
    let refused = amount == 0 && matches!(name, "MemoryMax" | "MemoryHigh" | "TasksMax");
    (!refused).then(|| Property::new(name, amount))
}

/// Converts a limit; no limit is the largest number.
fn amount(value: &str) -> Option<u64> {
    match value.trim() {
        "max" | "-1" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Merges the two files of v1, one for each half.
#[derive(Default)]
struct Quota {
    /// Negative: no quota.
    quota: Option<i64>,
    period: Option<u64>,
}

impl Quota {
    /// Parses `QUOTA PERIOD`, or QUOTA alone.
    fn of_v2(value: &str) -> Self {
        let mut parts = value.split_whitespace();
        let quota = parts.next().and_then(|q| q.parse().ok());
        Self { quota: quota.or(Some(-1)), period: parts.next().and_then(|p| p.parse().ok()) }
    }

    /// Returns microseconds, systemd's default if there are none.
    fn period(&self) -> u64 {
        const DEFAULT: u64 = 100_000;
        self.period.filter(|p| *p > 0).unwrap_or(DEFAULT)
    }

    /// Returns microseconds in each second, rounded up to whole percents, if there is a limit. `u64::MAX` is none.
    fn share(&self) -> Option<u64> {
        let quota = self.quota.filter(|quota| *quota > 0)?.unsigned_abs();
        let exact = u128::from(quota) * u128::from(SECOND) / u128::from(self.period());
        let exact = u64::try_from(exact).unwrap_or(u64::MAX);
        Some(exact.checked_next_multiple_of(QUOTA_STEP).unwrap_or(u64::MAX))
    }

    /// Returns the quota that systemd makes of the share.
    fn kept(&self) -> Option<i64> {
        let Some(share) = self.share().filter(|share| *share != u64::MAX) else {
            return self.quota;
        };
        let quota = u128::from(share) * u128::from(self.period()) / u128::from(SECOND);
        i64::try_from(quota).ok().or(self.quota)
    }

    /// Returns true if systemd converts the share back to the same values: it accepts no half percents, no period
    /// without a quota, and no period below a millisecond or above a second.
    fn survives(&self) -> bool {
        const MILLISECOND: i64 = 1_000;
        if self.share().is_none() {
            return self.period() == Self::default().period();
        }
        let periods = MILLISECOND.unsigned_abs()..=SECOND;
        periods.contains(&self.period())
            && self.quota.is_some_and(|quota| quota >= MILLISECOND)
            && self.kept() == self.quota
    }

    fn properties(&self) -> Vec<Property> {
        let mut properties = Vec::new();
        if let Some(period) = self.period {
            properties.push(Property::new("CPUQuotaPeriodUSec", period));
        }
        if self.quota.is_some() || self.period.is_some() {
            let share = self.share().unwrap_or(u64::MAX);
            properties.push(Property::new("CPUQuotaPerSecUSec", share));
        }
        properties
    }
}

/// Converts a list such as `0-3,7` to a bit mask, the lowest byte first. The kernel rejects invalid lists.
fn mask(list: &str) -> Option<Value> {
    const LAST: usize = 8191; // The kernel has no more CPUs than that.
    let mut bytes: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > LAST {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    (!bytes.is_empty()).then(|| Value::bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cgroup::{Version, plan};

    fn properties(version: Version, resources: serde_json::Value) -> Vec<String> {
        let writes = plan::limits(version, &serde_json::from_value(resources).unwrap()).unwrap();
        of_writes(&writes).iter().map(Property::to_string).collect()
    }

    fn v2(resources: serde_json::Value) -> Vec<String> {
        properties(Version::V2, resources)
    }

    #[test]
    fn memory_and_pids() {
        let r = json!({"memory": {"limit": 100, "swap": 150, "reservation": 50},
            "pids": {"limit": 0}});
        assert_eq!(v2(r), ["TasksMax=1", "MemorySwapMax=50", "MemoryMax=100", "MemoryLow=50"]);
        let none = json!({"memory": {"limit": -1}, "pids": {"limit": -1}});
        assert_eq!(v2(none), ["TasksMax=infinity", "MemorySwapMax=infinity", "MemoryMax=infinity"]);
    }

    #[test]
    fn the_quota_is_rounded_up() {
        let quota = |cpu: serde_json::Value| v2(json!({ "cpu": cpu })).join(" ");
        assert_eq!(
            quota(json!({"quota": 50000, "period": 100000})),
            "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=500000"
        );
        assert_eq!(
            quota(json!({"quota": 12345, "period": 100000})),
            "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=130000"
        );
        assert_eq!(
            quota(json!({"quota": -1})),
            "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=infinity"
        );
        assert_eq!(
            properties(Version::V1, json!({"cpu": {"quota": 5000, "period": 20000}})),
            ["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=250000"]
        );
        assert_eq!(
            quota(json!({"quota": i64::MAX, "period": 1})),
            "CPUQuotaPeriodUSec=1 CPUQuotaPerSecUSec=infinity"
        );
    }

    #[test]
    fn files_get_the_quota_that_systemd_keeps() {
        let of = |cpu: serde_json::Value| {
            let resources = serde_json::from_value(json!({ "cpu": cpu })).unwrap();
            let writes = plan::limits(Version::V2, &kept(&resources)).unwrap();
            assert!(!writes.iter().any(disagrees), "{cpu}");
            writes.iter().map(|write| write.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(json!({"quota": 500_000, "period": 900_000})), ["504000 900000"]);
        assert_eq!(of(json!({"quota": 12_345})), ["13000 100000"]);
        assert_eq!(of(json!({"quota": 50_000, "period": 100_000})), ["50000 100000"]);
        assert_eq!(of(json!({"quota": 3333, "period": 33_333})), ["3333 33333"]);
        assert_eq!(of(json!({"quota": -1})), ["max 100000"]);
        assert!(of(json!({"quota": 0, "period": 0})).is_empty());
        let most = json!({"cpu": {"quota": i64::MAX, "period": 1}});
        let most: LinuxResources = serde_json::from_value(most).unwrap();
        assert_eq!(kept(&most), most);
    }

    #[test]
    fn cpus_are_a_mask() {
        let cpus = |cpus: &str| v2(json!({"cpu": {"cpus": cpus}})).join(" ");
        assert_eq!(cpus("0-1"), "AllowedCPUs=[0x03]");
        assert_eq!(cpus("0,9-11"), "AllowedCPUs=[0x01 0x0e]");
        for no_list in ["3-1", "x", "1-", "99999", ","] {
            assert_eq!(cpus(no_list), "", "{no_list}");
        }
        assert_eq!(v2(json!({"cpu": {"mems": "0"}})), ["AllowedMemoryNodes=[0x01]"]);
    }

    #[test]
    fn idle_is_a_weight() {
        assert_eq!(v2(json!({"cpu": {"idle": 1, "shares": 512}})), ["CPUWeight=0"]);
        assert_eq!(v2(json!({"cpu": {"idle": 0, "shares": 512}})), ["CPUWeight=59"]);
        assert_eq!(v2(json!({"cpu": {"idle": 0}})), ["CPUWeight=100"]);
        let both = json!({"cpu": {"shares": 512}, "unified": {"cpu.idle": "0"}});
        assert_eq!(v2(both), ["CPUWeight=59"]);
    }

    #[test]
    fn unified_overrides() {
        let r = json!({"memory": {"limit": 100}, "unified": {
            "memory.max": "200", "memory.high": "max", "memory.min": "7", "memory.oom.group": "1",
            "cpu.max": "max 50000", "cpu.weight": "5", "cpuset.cpus": "0", "pids.max": "9",
            "io.max": "8:0 rbps=1", "hugetlb.2MB.max": "0"}});
        let mut seen = v2(r);
        seen.sort();
        assert_eq!(
            seen,
            [
                "AllowedCPUs=[0x01]",
                "CPUQuotaPerSecUSec=infinity",
                "CPUQuotaPeriodUSec=50000",
                "CPUWeight=5",
                "MemoryHigh=infinity",
                "MemoryMax=200",
                "MemoryMin=7",
                "OOMPolicy=\"kill\"",
                "TasksMax=9",
            ]
        );
    }

    #[test]
    fn where_systemd_would_write_something_else() {
        let disagreed = |resources: serde_json::Value| -> Vec<String> {
            let resources = serde_json::from_value(resources).unwrap();
            let writes = plan::limits(Version::V2, &resources).unwrap();
            let disagreed = writes.iter().filter(|w| disagrees(w));
            disagreed.map(|w| w.file.clone().into_owned()).collect()
        };
        let usual = json!({"memory": {"limit": 100, "swap": 100, "reservation": 50},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 7}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.high": "max", "memory.oom.group": "1"}});
        assert!(disagreed(usual).is_empty());
        let lost = json!({"cpu": {"burst": 5},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}});
        assert_eq!(disagreed(lost), ["io.max", "cpu.max.burst"]);
        let unusual = json!({"cpu": {"quota": 12345}, "blockIO": {"weight": 10},
            "unified": {"memory.max": "1G", "memory.zswap.max": "0", "pids.max": "0"}});
        assert_eq!(
            disagreed(unusual),
            ["io.bfq.weight", "cpu.max", "memory.max", "memory.zswap.max", "pids.max"]
        );
        for (value, survives) in [
            ("max 100000", true),
            ("max", true),
            ("max 50000", false),
            ("50000 100000", true),
            ("200000 100000", true),
            ("10000 30000", false),
            ("500 1000", false),
            ("2000000 2000000", false),
        ] {
            assert_eq!(Quota::of_v2(value).survives(), survives, "{value}");
        }
    }

    #[test]
    fn v1_names() {
        let r = json!({"memory": {"limit": 100, "reservation": 5}, "cpu": {"shares": 7},
            "blockIO": {"weight": 10}, "pids": {"limit": 3}});
        assert_eq!(
            properties(Version::V1, r),
            ["MemoryLimit=100", "CPUShares=7", "TasksMax=3", "BlockIOWeight=10"]
        );
    }
}
