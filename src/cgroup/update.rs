//! Merges the limits of an `update` into the limits that the container has. Pure.
//!
//! The rules are runc's, on which engines rely: some absent fields keep their value, and others are forgotten. A
//! forgotten limit stays in force, because nothing is written for it, but the next update does not write it again.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};

/// Fields of `linux.resources` that an update changes.
pub const FIELDS: [&str; 5] = ["memory", "cpu", "blockIO", "pids", "unified"];

/// Merges the limits. Other fields, such as devices, stay as stored.
pub fn merge(stored: &LinuxResources, asked: &LinuxResources) -> LinuxResources {
    let mut merged = stored.clone();
    merged
        .set_memory(memory(*stored.memory(), *asked.memory()))
        .set_cpu(cpu(stored.cpu().as_ref(), asked.cpu().as_ref()))
        .set_block_io(block_io(stored.block_io().as_ref(), asked.block_io().as_ref()))
        .set_pids(*asked.pids())
        .set_unified(asked.unified().clone());
    merged
}

fn memory(stored: Option<LinuxMemory>, asked: Option<LinuxMemory>) -> Option<LinuxMemory> {
    let Some(asked) = asked else { return stored };
    let before = stored.unwrap_or_default();
    let lifted = asked.limit() == Some(-1) && matches!(asked.swap(), None | Some(0));
    let swap = if lifted { Some(-1) } else { asked.swap() };
    let check = asked.check_before_update().or(before.check_before_update());
    let mut memory = before;
    memory
        .set_limit(asked.limit().or(before.limit()))
        .set_swap(swap.or(before.swap()))
        .set_reservation(asked.reservation().or(before.reservation()))
        .set_check_before_update(check);
    Some(memory)
}

fn cpu(stored: Option<&LinuxCpu>, asked: Option<&LinuxCpu>) -> Option<LinuxCpu> {
    let (before, asked) = (stored.cloned().unwrap_or_default(), asked.cloned().unwrap_or_default());
    // SCHED_IDLE has no weight.
    let is_idle = before.idle() == Some(1);
    let kept_shares = if asked.idle().is_some() || is_idle { None } else { before.shares() };
    let bandwidth = match (asked.quota(), asked.period()) {
        (None, None) => (None, None),
        // One half of a pair: the other half is the one in force.
        (quota, period) => (quota.or(before.quota()), period.or(before.period())),
    };
    let mut cpu = asked.clone();
    cpu.set_shares(asked.shares().or(kept_shares))
        .set_quota(bandwidth.0)
        .set_period(bandwidth.1)
        .set_realtime_runtime(asked.realtime_runtime().or(before.realtime_runtime()))
        .set_realtime_period(asked.realtime_period().or(before.realtime_period()));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_io(stored: Option<&LinuxBlockIo>, asked: Option<&LinuxBlockIo>) -> Option<LinuxBlockIo> {
    let Some(asked) = asked else { return stored.cloned() };
    let before = stored.cloned().unwrap_or_default();
    let throttle = |of: fn(&LinuxBlockIo) -> &Option<Vec<_>>| upserted(of(&before), of(asked));
    let mut io = LinuxBlockIo::default();
    io.set_weight(asked.weight().or(before.weight()))
        .set_leaf_weight(asked.leaf_weight().or(before.leaf_weight()))
        .set_weight_device(upserted(before.weight_device(), asked.weight_device()))
        .set_throttle_read_bps_device(throttle(LinuxBlockIo::throttle_read_bps_device))
        .set_throttle_write_bps_device(throttle(LinuxBlockIo::throttle_write_bps_device))
        .set_throttle_read_iops_device(throttle(LinuxBlockIo::throttle_read_iops_device))
        .set_throttle_write_iops_device(throttle(LinuxBlockIo::throttle_write_iops_device));
    Some(io)
}

trait OfDevice: Copy {
    fn device(&self) -> (i64, i64);
}

impl OfDevice for LinuxWeightDevice {
    fn device(&self) -> (i64, i64) {
        (self.major(), self.minor())
    }
}

impl OfDevice for LinuxThrottleDevice {
    fn device(&self) -> (i64, i64) {
        (self.major(), self.minor())
    }
}

/// Replaces the stored setting of each device by the requested one.
fn upserted<T: OfDevice>(stored: &Option<Vec<T>>, asked: &Option<Vec<T>>) -> Option<Vec<T>> {
    let Some(asked) = asked else { return stored.clone() };
    let mut all = stored.clone().unwrap_or_default();
    for new in asked {
        match all.iter().position(|old| old.device() == new.device()) {
            Some(first) => {
                all[first] = *new;
                // If the config names a device twice, the last setting counts.
                let mut index = 0;
                all.retain(|old| {
                    index += 1;
                    index <= first + 1 || old.device() != new.device()
                });
            }
            None => all.push(*new),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn merged(stored: Value, asked: Value) -> Value {
        let parse = |value| serde_json::from_value::<LinuxResources>(value).unwrap();
        serde_json::to_value(merge(&parse(stored), &parse(asked))).unwrap()
    }

    #[test]
    fn kept_where_absent() {
        let stored = json!({
            "memory": {"limit": 1, "swap": 2, "reservation": 3, "swappiness": 4,
                "checkBeforeUpdate": true},
            "cpu": {"shares": 5, "realtimeRuntime": 6, "realtimePeriod": 7},
            "blockIO": {"weight": 8, "leafWeight": 9},
            "devices": [{"allow": false, "access": "rwm"}],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        });
        assert_eq!(merged(stored.clone(), json!({})), stored);
        let nothing = json!({"memory": {}, "cpu": {}, "blockIO": {}, "devices": []});
        assert_eq!(merged(stored.clone(), nothing), stored);
        assert_eq!(merged(stored.clone(), json!({"memory": null, "cpu": null})), stored);
    }

    #[test]
    fn forgotten_where_absent() {
        let stored = json!({
            "cpu": {"burst": 1, "idle": 0, "cpus": "0", "mems": "0", "quota": 2, "period": 3},
            "pids": {"limit": 4},
            "unified": {"memory.high": "5"},
        });
        assert_eq!(merged(stored, json!({})), json!({}));
    }

    #[test]
    fn quota_and_period_are_a_pair() {
        let stored = json!({"cpu": {"quota": 2000, "period": 3000}});
        let with = |asked| merged(stored.clone(), json!({ "cpu": asked }))["cpu"].clone();
        assert_eq!(with(json!({"quota": 9})), json!({"quota": 9, "period": 3000}));
        assert_eq!(with(json!({"period": 9})), json!({"quota": 2000, "period": 9}));
        assert_eq!(with(json!({"quota": -1, "period": 1})), json!({"quota": -1, "period": 1}));
        assert_eq!(with(json!({"shares": 1})), json!({"shares": 1}));
    }

    #[test]
    fn an_unlimited_memory_has_unlimited_swap() {
        let stored = json!({"memory": {"limit": 100, "swap": 200}});
        let with = |asked| merged(stored.clone(), json!({ "memory": asked }))["memory"].clone();
        assert_eq!(with(json!({"limit": -1})), json!({"limit": -1, "swap": -1}));
        assert_eq!(with(json!({"limit": -1, "swap": 0})), json!({"limit": -1, "swap": -1}));
        assert_eq!(with(json!({"limit": -1, "swap": 7})), json!({"limit": -1, "swap": 7}));
        assert_eq!(with(json!({"limit": 150})), json!({"limit": 150, "swap": 200}));
    }

    #[test]
    fn idle_drops_the_shares() {
        let stored = json!({"cpu": {"shares": 512}});
        let with = |asked| merged(stored.clone(), json!({ "cpu": asked }))["cpu"].clone();
        assert_eq!(with(json!({"idle": 1})), json!({"idle": 1}));
        assert_eq!(with(json!({"idle": 0, "shares": 7})), json!({"idle": 0, "shares": 7}));
        assert_eq!(with(json!({"quota": 7})), json!({"shares": 512, "quota": 7}));
        let idle = json!({"cpu": {"shares": 512, "idle": 1}});
        assert_eq!(merged(idle, json!({"cpu": {"quota": 7}})), json!({"cpu": {"quota": 7}}));
    }

    #[test]
    fn a_device_that_stands_twice_is_one() {
        let device = |minor: i64, rate: u64| json!({"major": 8, "minor": minor, "rate": rate});
        let stored = [device(0, 1), device(1, 2), device(0, 3), device(0, 4)];
        let stored = json!({"blockIO": {"throttleReadBpsDevice": stored}});
        let asked = json!({"blockIO": {"throttleReadBpsDevice": [device(0, 5)]}});
        let expected = [device(0, 5), device(1, 2)];
        let expected = json!({"blockIO": {"throttleReadBpsDevice": expected}});
        assert_eq!(merged(stored, asked), expected);
    }

    #[test]
    fn devices_are_upserted() {
        let device = |minor: i64, rate: u64| json!({"major": 8, "minor": minor, "rate": rate});
        let stored = json!({"blockIO": {"throttleReadBpsDevice": [device(0, 1), device(1, 2)]}});
        let asked = json!({"blockIO": {"throttleReadBpsDevice": [device(1, 3), device(2, 4)],
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}});
        assert_eq!(
            merged(stored, asked),
            json!({"blockIO": {
                "throttleReadBpsDevice": [device(0, 1), device(1, 3), device(2, 4)],
                "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}})
        );
    }
}
