//! The configurations: `linux.resources` of a create, then of an update.

use serde_json::{Value, json};

pub struct Row {
    pub name: &'static str,
    /// Controllers without which there is nothing to see.
    pub needs: &'static [&'static str],
    pub create: Value,
    pub update: Value,
}

const MIB: i64 = 1 << 20;

fn row(name: &'static str, needs: &'static [&'static str], create: Value, update: Value) -> Row {
    Row { name, needs, create, update }
}

/// `disk`: major and minor number of a whole disk of the host.
pub fn rows(disk: Option<(u64, u64)>) -> Vec<Row> {
    let mut rows = [pids(), memory(), swap(), cpu(), cpuset(), hugetlb(), others(), mixed()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    rows.extend(unified());
    rows.extend(disk.map(io).into_iter().flatten());
    rows
}

fn pids() -> Vec<Row> {
    let pids = |name, before: i64, after: i64| {
        row(name, &["pids"], json!({"pids": {"limit": before}}), json!({"pids": {"limit": after}}))
    };
    vec![
        row("nothing at all", &[], json!({}), json!({})),
        pids("pids", 17, 33),
        pids("pids lowered", 100, 5),
        pids("pids lifted", 17, -1),
        pids("pids set late", -1, 5),
        pids("pids one", 1, 2),
    ]
}

fn memory() -> Vec<Row> {
    let memory = |name, before: Value, after: Value| {
        row(name, &["memory"], json!({"memory": before}), json!({"memory": after}))
    };
    vec![
        memory("memory raised", json!({"limit": 64 * MIB}), json!({"limit": 96 * MIB})),
        memory("memory lowered", json!({"limit": 64 * MIB}), json!({"limit": 48 * MIB})),
        memory("memory lifted", json!({"limit": 64 * MIB}), json!({"limit": -1})),
        memory("memory set late", json!({}), json!({"limit": 64 * MIB})),
        memory(
            "memory of no whole pages",
            json!({"limit": 67_108_865}),
            json!({"limit": 70_000_001}),
        ),
        memory("memory zero", json!({"limit": 0}), json!({"limit": 0})),
        memory("reservation", json!({"reservation": 32 * MIB}), json!({"reservation": 16 * MIB})),
        memory(
            "limit and reservation",
            json!({"limit": 64 * MIB, "reservation": 32 * MIB}),
            json!({"limit": 128 * MIB}),
        ),
        memory(
            "reservation kept",
            json!({"limit": 64 * MIB, "reservation": 32 * MIB}),
            json!({"reservation": 8 * MIB}),
        ),
        memory("unlimited from the start", json!({"limit": -1}), json!({"limit": 64 * MIB})),
        memory(
            "an update below what is used",
            json!({"limit": 64 * MIB}),
            json!({"limit": 4096, "checkBeforeUpdate": true}),
        ),
        memory(
            "an update above what is used",
            json!({"limit": 64 * MIB, "checkBeforeUpdate": true}),
            json!({"limit": 80 * MIB, "checkBeforeUpdate": true}),
        ),
        memory("swappiness", json!({"swappiness": 10}), json!({"limit": 64 * MIB})),
        memory("kernel memory", json!({"kernel": 32 * MIB}), json!({"limit": 64 * MIB})),
        memory("use of the hierarchy", json!({"useHierarchy": true}), json!({"limit": 64 * MIB})),
    ]
}

fn swap() -> Vec<Row> {
    let swap = |name, before: (i64, i64), after: Value| {
        let before = json!({"memory": {"limit": before.0 * MIB, "swap": before.1 * MIB}});
        row(name, &["memory"], before, json!({"memory": after}))
    };
    let both = |limit: i64, swap: i64| json!({"limit": limit * MIB, "swap": swap * MIB});
    vec![
        swap("no swap", (64, 64), both(96, 96)),
        swap("swap raised", (64, 96), both(128, 256)),
        swap("swap lowered", (128, 256), both(48, 64)),
        swap("swap alone", (64, 96), json!({"swap": 128 * MIB, "limit": 64 * MIB})),
        swap("swap lifted", (64, 96), json!({"limit": 64 * MIB, "swap": -1})),
        swap("swap lower than memory", (64, 32), json!({})),
        swap("swap and memory lifted", (64, 96), json!({"limit": -1, "swap": -1})),
        row(
            "unlimited swap",
            &["memory"],
            json!({"memory": {"limit": 64 * MIB, "swap": -1}}),
            json!({"memory": {"limit": 96 * MIB, "swap": -1}}),
        ),
        row(
            "all unlimited",
            &["memory"],
            json!({"memory": {"limit": -1, "swap": -1}}),
            json!({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}),
        ),
    ]
}

fn cpu() -> Vec<Row> {
    let cpu = |name, before: Value, after: Value| {
        row(name, &["cpu"], json!({"cpu": before}), json!({"cpu": after}))
    };
    let quota = |quota: i64, period: u64| json!({"quota": quota, "period": period});
    vec![
        cpu("shares", json!({"shares": 512}), json!({"shares": 2048})),
        cpu("shares at both ends", json!({"shares": 2}), json!({"shares": 262_144})),
        cpu("shares of an engine", json!({"shares": 1024}), json!({"shares": 10})),
        cpu("shares of many processors", json!({"shares": 102_400}), json!({"shares": 4096})),
        cpu("shares zero", json!({"shares": 0}), json!({"shares": 100})),
        cpu("quota and period", quota(50_000, 100_000), quota(20_000, 50_000)),
        cpu("several processors", quota(400_000, 100_000), quota(150_000, 100_000)),
        cpu("a fraction of a per cent", quota(12_345, 100_000), quota(1234, 50_000)),
        cpu("long periods", quota(123_456, 1_000_000), quota(1_000_000, 1_000_000)),
        cpu("quota alone", json!({"quota": 30_000}), json!({"quota": 40_000})),
        cpu("period alone", json!({"period": 50_000}), json!({"period": 20_000})),
        cpu("quota of a pair", quota(50_000, 200_000), json!({"quota": 80_000})),
        cpu("period of a pair", quota(50_000, 200_000), json!({"period": 100_000})),
        cpu("quota lifted", quota(50_000, 100_000), json!({"quota": -1})),
        cpu("quota unlimited", json!({"quota": -1}), quota(50_000, 100_000)),
        cpu("quota zero", json!({"quota": 0, "period": 0}), json!({"quota": 50_000})),
        cpu("quota too small", json!({"quota": 999}), json!({})),
        cpu("all of it", json!({"shares": 256, "quota": 25_000, "period": 50_000}), quota(0, 0)),
        cpu("idle", json!({"idle": 1}), json!({"idle": 0})),
        cpu(
            "burst",
            json!({"quota": 50_000, "burst": 10_000}),
            json!({"quota": 60_000, "burst": 20_000}),
        ),
    ]
}

fn cpuset() -> Vec<Row> {
    let cpuset = |name, before: Value, after: Value| {
        row(name, &["cpuset"], json!({"cpu": before}), json!({"cpu": after}))
    };
    vec![
        cpuset("processors", json!({"cpus": "0"}), json!({"cpus": "0-1"})),
        cpuset("other processors", json!({"cpus": "0,1"}), json!({"cpus": "1"})),
        cpuset("memory nodes", json!({"mems": "0"}), json!({"mems": "0"})),
        cpuset("processors and nodes", json!({"cpus": "1", "mems": "0"}), json!({"cpus": "0"})),
        cpuset("processors set late", json!({}), json!({"cpus": "0"})),
        cpuset("processors that are not there", json!({"cpus": "4000"}), json!({})),
    ]
}

fn hugetlb() -> Vec<Row> {
    let pages =
        |name, limits: Value| row(name, &["hugetlb"], json!({"hugepageLimits": limits}), json!({}));
    vec![
        pages("huge pages", json!([{"pageSize": "2MB", "limit": 4 * MIB}])),
        pages("no huge pages", json!([{"pageSize": "2MB", "limit": 0}])),
        pages("huge pages of no such size", json!([{"pageSize": "3MB", "limit": 3 * MIB}])),
    ]
}

/// What cgroup2 has no files for.
fn others() -> Vec<Row> {
    let network =
        |name, needs, value: Value| row(name, needs, json!({"network": value}), json!({}));
    vec![
        network("class of packets", &["net_cls"], json!({"classID": 1_048_577})),
        network(
            "priority of packets",
            &["net_prio"],
            json!({"priorities": [{"name": "lo", "priority": 5}]}),
        ),
        row(
            "realtime left out",
            &["cpu"],
            json!({"cpu": {"shares": 300}}),
            json!({"cpu": {"shares": 400}}),
        ),
    ]
}

/// As engines send them.
fn mixed() -> Vec<Row> {
    vec![
        row(
            "a container of docker",
            &["memory", "cpu", "pids"],
            json!({"memory": {"limit": 512 * MIB, "swap": 1024 * MIB}, "pids": {"limit": 100},
                "cpu": {"shares": 512, "quota": 150_000, "period": 100_000}, "blockIO": {}}),
            json!({"memory": {"limit": 256 * MIB, "swap": 512 * MIB},
                "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 50}}),
        ),
        row(
            "a container of kubernetes",
            &["memory", "cpu"],
            json!({"memory": {"limit": 128 * MIB, "swap": 128 * MIB},
                "cpu": {"shares": 102, "quota": 20_000, "period": 100_000}}),
            json!({"memory": {"limit": 200 * MIB, "swap": 200 * MIB},
                "cpu": {"shares": 204, "quota": 40_000, "period": 100_000}}),
        ),
        row(
            "a pinned container of kubernetes",
            &["memory", "cpu", "cpuset"],
            json!({"memory": {"limit": 128 * MIB}, "cpu": {"shares": 1024, "quota": 100_000,
                "period": 100_000, "cpus": "0-1", "mems": "0"}}),
            json!({"cpu": {"cpus": "1"}}),
        ),
        row(
            "a best-effort container",
            &["cpu"],
            json!({"cpu": {"shares": 2}}),
            json!({"cpu": {"shares": 2}, "memory": {}}),
        ),
    ]
}

fn unified() -> Vec<Row> {
    let files = |name, needs, before: Value, after: Value| {
        row(name, needs, json!({"unified": before}), json!({"unified": after}))
    };
    vec![
        files(
            "memory.high",
            &["memory"],
            json!({"memory.high": "50331648"}),
            json!({"memory.high": "max"}),
        ),
        files(
            "memory.low and memory.min",
            &["memory"],
            json!({"memory.low": "8388608", "memory.min": "4194304"}),
            json!({"memory.min": "0"}),
        ),
        files(
            "memory.max",
            &["memory"],
            json!({"memory.max": "67108864", "memory.swap.max": "0"}),
            json!({"memory.max": "max"}),
        ),
        files("memory.oom.group", &["memory"], json!({"memory.oom.group": "1"}), json!({})),
        files(
            "cpu.max",
            &["cpu"],
            json!({"cpu.max": "25000 50000", "cpu.weight": "42"}),
            json!({"cpu.max": "max 100000"}),
        ),
        files("cpu.idle", &["cpu"], json!({"cpu.idle": "1"}), json!({"cpu.idle": "0"})),
        files("pids.max", &["pids"], json!({"pids.max": "12"}), json!({"pids.max": "max"})),
        files("cpuset.cpus", &["cpuset"], json!({"cpuset.cpus": "0"}), json!({"cpuset.cpus": "1"})),
        files("hugetlb.2MB.max", &["hugetlb"], json!({"hugetlb.2MB.max": "4194304"}), json!({})),
        row(
            "unified wins",
            &["pids", "memory"],
            json!({"pids": {"limit": 5}, "memory": {"limit": 64 * MIB},
                "unified": {"pids.max": "6", "memory.max": "83886080"}}),
            json!({"pids": {"limit": 7}, "unified": {"pids.max": "8"}}),
        ),
        files("a controller that is not there", &[], json!({"nothing.max": "1"}), json!({})),
        files("a file that is not there", &["pids"], json!({"pids.nothing": "1"}), json!({})),
        files("a value that is none", &["pids"], json!({"pids.max": "many"}), json!({})),
    ]
}

fn io((major, minor): (u64, u64)) -> Vec<Row> {
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let throttle = |name, key: &str, before: u64, after: u64| {
        let of = |n: u64| {
            let mut io = json!({});
            io[key] = rate(n);
            json!({"blockIO": io})
        };
        row(name, IO, of(before), of(after))
    };
    let weight = |name, before: u64, after: u64| {
        let of = |n: u64| json!({"blockIO": {"weight": n}});
        row(name, IO, of(before), of(after))
    };
    vec![
        throttle("bytes read", "throttleReadBpsDevice", 1_048_576, 2_097_152),
        throttle("bytes written", "throttleWriteBpsDevice", 1_048_576, 524_288),
        throttle("reads", "throttleReadIOPSDevice", 100, 200),
        throttle("writes", "throttleWriteIOPSDevice", 100, 0),
        row(
            "all rates of a disk",
            IO,
            json!({"blockIO": {"throttleReadBpsDevice": rate(1_048_576),
                "throttleWriteBpsDevice": rate(2_097_152), "throttleReadIOPSDevice": rate(300),
                "throttleWriteIOPSDevice": rate(400)}}),
            json!({"blockIO": {"throttleWriteIOPSDevice": rate(500)}}),
        ),
        weight("io weight", 100, 500),
        weight("io weights at both ends", 10, 1000),
        weight("io weight of no meaning", 1001, 100),
        row(
            "a disk of no such number",
            IO,
            json!({"blockIO": {"throttleReadBpsDevice":
                [{"major": 250, "minor": 250, "rate": 1_048_576}]}}),
            json!({}),
        ),
    ]
}

/// The controller's name on cgroup2; v1 calls it blkio.
const IO: &[&str] = &["io"];
