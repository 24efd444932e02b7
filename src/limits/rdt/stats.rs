//! Reads limits and usage of a resctrl group, in the terms of runc's `events`.

use std::path::Path;

use serde::Serialize;

use super::{Group, Resctrl};
use crate::error::{Context, Error, OsContext, Result};

/// Limits and usage of a group. Fields are empty for what the host does not support.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// Cache line in the schemata of the default group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema_root: Option<String>,
    /// Cache line in the schemata of the container's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Bandwidth of each monitored cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Occupancy of each monitored cache.
    pub cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct CacheInfo {
    pub cbm_mask: String,
    pub min_cbm_bits: u64,
    pub num_closids: u64,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct BandwidthInfo {
    /// Granularity in percent.
    pub bandwidth_gran: u64,
    pub delay_linear: u64,
    /// Minimum in percent.
    pub min_bandwidth: u64,
    pub num_closids: u64,
}

/// Transferred bytes since the group was created. `None` if the kernel reports `Unavailable`.
#[derive(Debug, PartialEq, Serialize)]
pub struct Bandwidth {
    pub mbm_total_bytes: Option<u64>,
    pub mbm_local_bytes: Option<u64>,
}

/// Occupied bytes of a cache.
#[derive(Debug, PartialEq, Serialize)]
pub struct Occupancy {
    pub llc_occupancy: Option<u64>,
}

/// Reads the statistics of the whole group, or of the container's monitoring group if it has one.
///
/// # Errors
///
/// A file of resctrl cannot be read or is not a number.
pub fn read(group: &Group, host: &Resctrl) -> Result<Stats> {
    read_in(group, &host.root.join("info"), &host.root).context(|| "intelRdt".to_owned())
}

fn read_in(group: &Group, info: &Path, root: &Path) -> Result<Stats> {
    let lines = lines(&group.path)?;
    let of_root = self::lines(root)?;
    let mut stats = Stats::default();
    let cache = info.join("L3");
    if cache.exists() {
        stats.l3_cache_info = Some(CacheInfo {
            cbm_mask: text(&cache.join("cbm_mask"))?,
            min_cbm_bits: number(&cache.join("min_cbm_bits"))?,
            num_closids: number(&cache.join("num_closids"))?,
        });
        stats.l3_cache_schema_root = line(&of_root, "L3");
        stats.l3_cache_schema = line(&lines, "L3");
    }
    let bandwidth = info.join("MB");
    if bandwidth.exists() {
        stats.mem_bw_info = Some(BandwidthInfo {
            bandwidth_gran: number(&bandwidth.join("bandwidth_gran"))?,
            delay_linear: number(&bandwidth.join("delay_linear"))?,
            min_bandwidth: number(&bandwidth.join("min_bandwidth"))?,
            num_closids: number(&bandwidth.join("num_closids"))?,
        });
        stats.mem_bw_schema_root = line(&of_root, "MB");
        stats.mem_bw_schema = line(&lines, "MB");
    }
    stats.schemata = lines;
    let monitoring = info.join("L3_MON");
    if monitoring.exists() {
        let features = text(&monitoring.join("mon_features"))?;
        monitored(group.monitor.as_ref().unwrap_or(&group.path), &features, &mut stats)?;
    }
    Ok(stats)
}

fn monitored(group: &Path, features: &str, stats: &mut Stats) -> Result<()> {
    let has = |feature: &str| features.lines().any(|line| line == feature);
    let (total, local) = (has("mbm_total_bytes"), has("mbm_local_bytes"));
    let data = group.join("mon_data");
    let entries = std::fs::read_dir(&data).os("open", data.display())?.flatten();
    let mut caches: Vec<_> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"mon_L3_"))
        .map(|entry| entry.path())
        .collect();
    caches.sort();
    let mut bandwidths = Vec::new();
    let mut occupancies = Vec::new();
    for cache in caches {
        let counter = |there: bool, name: &str| match there {
            true => counter(&cache.join(name)),
            false => Ok(None),
        };
        if total || local {
            bandwidths.push(Bandwidth {
                mbm_total_bytes: counter(total, "mbm_total_bytes")?,
                mbm_local_bytes: counter(local, "mbm_local_bytes")?,
            });
        }
        if has("llc_occupancy") {
            occupancies.push(Occupancy { llc_occupancy: counter(true, "llc_occupancy")? });
        }
    }
    stats.mbm_stats = (total || local).then_some(bandwidths);
    stats.cmt_stats = has("llc_occupancy").then_some(occupancies);
    Ok(())
}

fn lines(group: &Path) -> Result<Vec<String>> {
    Ok(text(&group.join("schemata"))?.lines().map(|line| line.trim().to_owned()).collect())
}

fn line(lines: &[String], name: &str) -> Option<String> {
    let named = |line: &&String| line.split(':').next().is_some_and(|found| found.trim() == name);
    lines.iter().find(named).cloned()
}

fn text(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).os("read", file.display())?;
    Ok(text.trim().to_owned())
}

fn number(file: &Path) -> Result<u64> {
    let text = text(file)?;
    text.parse().map_err(|_| Error::system(format!("{} is not a number: {text}", file.display())))
}

/// Reads a counter. The kernel reports `Unavailable` or `Error` until the hardware has a value, which is `None`.
fn counter(file: &Path) -> Result<Option<u64>> {
    Ok(text(file)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;

    /// Directory with the layout of resctrl, with a group and its monitoring group.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let name = format!("aril-resctrl-stats-{name}-{}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            tree.write("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n");
            tree.write("gold/schemata", "    L3:0=000ff;1=fffff\n    MB:0= 20;1=100\n");
            tree
        }

        fn write(&self, file: &str, text: &str) {
            let file = self.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn read(&self, monitor: Option<&str>) -> Result<Value> {
            let group = Group {
                path: self.0.join("gold"),
                own: false,
                monitor: monitor.map(|name| self.0.join(name)),
            };
            let host = Resctrl { root: self.0.clone(), groups: Vec::new() };
            read(&group, &host).map(|stats| serde_json::to_value(stats).unwrap())
        }

        fn with_counters(&self, group: &str) {
            for (file, text) in [
                ("mon_L3_00/llc_occupancy", "4096\n"),
                ("mon_L3_00/mbm_total_bytes", "300\n"),
                ("mon_L3_00/mbm_local_bytes", "100\n"),
                ("mon_L3_01/llc_occupancy", "0\n"),
                ("mon_L3_01/mbm_total_bytes", "Unavailable\n"),
                ("mon_L3_01/mbm_local_bytes", "7\n"),
                ("mon_PERF_PKG_00/core_energy", "1.5\n"),
            ] {
                self.write(&format!("{group}/mon_data/{file}"), text);
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn all_that_the_host_has() {
        let tree = Tree::new("all");
        for (file, text) in [
            ("L3/cbm_mask", "fffff\n"),
            ("L3/min_cbm_bits", "2\n"),
            ("L3/num_closids", "16\n"),
            ("MB/bandwidth_gran", "10\n"),
            ("MB/delay_linear", "1\n"),
            ("MB/min_bandwidth", "10\n"),
            ("MB/num_closids", "8\n"),
            ("L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
        ] {
            tree.write(&format!("info/{file}"), text);
        }
        tree.with_counters("gold/mon_groups/c1");
        let expected = json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=000ff;1=fffff",
            "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10,
                            "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 20;1=100",
            "schemata": ["L3:0=000ff;1=fffff", "MB:0= 20;1=100"],
            "mbm_stats": [{"mbm_total_bytes": 300, "mbm_local_bytes": 100},
                          {"mbm_total_bytes": null, "mbm_local_bytes": 7}],
            "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 0}],
        });
        assert_eq!(tree.read(Some("gold/mon_groups/c1")).unwrap(), expected);
        let missing = tree.read(None).unwrap_err().to_string();
        let data = tree.0.join("gold/mon_data");
        let data = data.display();
        assert_eq!(missing, format!("intelRdt: open {data}: no such file or directory"));
        tree.with_counters("gold");
        assert_eq!(tree.read(None).unwrap(), expected, "without one of its own, the group's");
    }

    #[test]
    fn nothing_of_what_the_host_has_not_got() {
        let tree = Tree::new("none");
        let schemata = json!(["L3:0=000ff;1=fffff", "MB:0= 20;1=100"]);
        assert_eq!(tree.read(None).unwrap(), json!({"schemata": schemata}));
        tree.write("info/L3_MON/mon_features", "llc_occupancy\n");
        tree.with_counters("gold");
        assert_eq!(
            tree.read(None).unwrap(),
            json!({"schemata": schemata, "cmt_stats": [{"llc_occupancy": 4096},
                                                       {"llc_occupancy": 0}]})
        );
        assert_eq!(serde_json::to_value(Stats::default()).unwrap(), json!({}));
    }
}
