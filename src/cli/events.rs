//! Lines that `events` prints.

use serde::Serialize;

use super::output::compact;
use crate::cgroup::stats::Stats;
use crate::lifecycle::events::Event;
use crate::limits::rdt;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

/// Engines expect the last two fields even if they are empty.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    stats: &'a Stats,
    intel_rdt: &'a rdt::stats::Stats,
    network_interfaces: Option<()>,
}

pub fn line(id: &str, event: &Event) -> String {
    let line = match event {
        Event::Stats(sample) => Line {
            kind: "stats",
            id,
            data: Some(Data {
                stats: &sample.cgroup,
                intel_rdt: &sample.intel_rdt,
                network_interfaces: None,
            }),
        },
        Event::Oom => Line { kind: "oom", id, data: None },
    };
    compact(&line) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_container() {
        let zeros = "{\"limit\":0,\"failcnt\":0}";
        assert_eq!(
            line("x", &Event::Stats(Box::default())),
            format!(
                "{{\"type\":\"stats\",\"id\":\"x\",\"data\":{{\
                 \"cpu\":{{\"usage\":{{\"kernel\":0,\"user\":0}},\"throttling\":{{}}}},\
                 \"cpuset\":{{\"cpu_exclusive\":0,\"mem_hardwall\":0,\"mem_exclusive\":0,\
                 \"memory_migrate\":0,\"memory_spread_page\":0,\"memory_spread_slab\":0,\
                 \"memory_pressure\":0,\"sched_load_balance\":0,\"sched_relax_domain_level\":0}},\
                 \"memory\":{{\"usage\":{zeros},\"swap\":{zeros},\"kernel\":{zeros},\
                 \"kernelTCP\":{zeros}}},\
                 \"pids\":{{}},\"blkio\":{{}},\"hugetlb\":{{}},\
                 \"intel_rdt\":{{}},\"network_interfaces\":null}}}}\n"
            )
        );
    }

    #[test]
    fn out_of_memory() {
        assert_eq!(line("x", &Event::Oom), "{\"type\":\"oom\",\"id\":\"x\"}\n");
    }
}
