//! Limits of `update`: a document, or flags.

use std::path::PathBuf;

use clap::Arg;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources,
};

use super::command::Resources;
use super::given::{Given, usage};
use super::{options, table, value};
use crate::error::{OsContext, Result};

const BYTES: &str = "a size such as 512m, or -1 for no limit";

pub fn flags() -> Vec<Arg> {
    let value = table::value;
    let mut flags = vec![
        value(
            "resources",
            "FILE",
            "Read all limits from this JSON file (-: stdin); other flags are ignored",
        )
        .short('r'),
    ];
    flags.extend(limit_flags());
    flags.extend([
        value("kernel-memory", "SIZE", "").hide(true),
        value("kernel-memory-tcp", "SIZE", "").hide(true),
        value("l3-cache-schema", "SCHEMA", "Cache to use, by resctrl: L3:0=f;1=f"),
        value("mem-bw-schema", "SCHEMA", "Memory bandwidth, by resctrl: MB:0=20;1=70"),
    ]);
    flags
}

/// Flags of limits by Docker's names; runc's are aliases.
pub fn limit_flags() -> Vec<Arg> {
    let value = table::value;
    vec![
        value("blkio-weight", "N", "Relative weight of block I/O, 1 to 1000"),
        value("cpu-period", "USECS", "Period of the CPU quota"),
        value("cpu-quota", "USECS", "CPU time in each period (-1: unlimited)"),
        value("cpu-burst", "USECS", "Unused CPU time that may be used later"),
        value("cpu-shares", "N", "Relative weight of CPU time").alias("cpu-share"),
        value("cpus", "N", "Limit of CPU time, in processors, such as 1.5"),
        value("cpu-rt-period", "USECS", "Period of the realtime quota"),
        value("cpu-rt-runtime", "USECS", "Realtime CPU time in each period"),
        value("cpuset-cpus", "LIST", "CPUs to run on, such as 0-2,7"),
        value("cpuset-mems", "LIST", "Memory nodes to use"),
        value("cpu-idle", "0|1", "Run only when the CPU is idle"),
        value("memory", "SIZE", "Memory limit, such as 512m (-1: unlimited)").short('m'),
        value("memory-reservation", "SIZE", "Memory that is not reclaimed first"),
        value("memory-swap", "SIZE", "Limit of memory and swap together (-1: unlimited)"),
        value("pids-limit", "N", "Maximum number of processes (-1: unlimited)").alias("pids"),
    ]
}

/// Reads the options of `update`.
///
/// # Errors
///
/// An option has an invalid value.
pub fn read(given: &Given) -> Result<Resources> {
    match given.text("resources")?.filter(|path| !path.is_empty()) {
        Some(path) if path == "-" => Ok(Resources::Stdin),
        Some(path) => {
            Ok(Resources::File(std::path::absolute(PathBuf::from(path)).os("getcwd", "")?))
        }
        None => Ok(Resources::Flags {
            limits: Box::new(limits(given)?),
            rdt: rdt(given)?,
            ignored: ignored(given),
        }),
    }
}

/// Limits of kernel memory, which Linux 5.4 removed.
fn ignored(given: &Given) -> Vec<&'static str> {
    let names = ["kernel-memory", "kernel-memory-tcp"];
    names.into_iter().filter(|name| given.raw(name).is_some()).collect()
}

pub(super) fn limits(given: &Given) -> Result<LinuxResources> {
    let mut limits = LinuxResources::default();
    limits.set_memory(Some(memory(given)?));
    limits.set_cpu(Some(cpu(given)?));
    let weight = given.parsed("blkio-weight", |text| text.parse::<u16>().ok(), "a number")?;
    if let Some(weight) = weight {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        limits.set_block_io(Some(io));
    }
    if let Some(limit) = given.parsed("pids-limit", value::integer, "a number")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        limits.set_pids(Some(pids));
    }
    Ok(limits)
}

/// An empty schema is the same as none.
fn rdt(given: &Given) -> Result<Option<Box<LinuxIntelRdt>>> {
    let schema = |name| {
        let text = given.text(name)?.filter(|schema| !schema.is_empty());
        Result::Ok(text)
    };
    let (cache, bandwidth) = (schema("l3-cache-schema")?, schema("mem-bw-schema")?);
    if cache.is_none() && bandwidth.is_none() {
        return Ok(None);
    }
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_l3_cache_schema(cache).set_mem_bw_schema(bandwidth);
    Ok(Some(Box::new(rdt)))
}

fn memory(given: &Given) -> Result<LinuxMemory> {
    let bytes = |name| given.parsed(name, value::bytes, BYTES);
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes("memory")?)
        .set_reservation(bytes("memory-reservation")?)
        .set_swap(bytes("memory-swap")?);
    Ok(memory)
}

fn cpu(given: &Given) -> Result<LinuxCpu> {
    let integer = |name| given.parsed(name, value::integer, "a number");
    let natural = |name| {
        let parse = |text: &str| value::integer(text).and_then(|n| u64::try_from(n).ok());
        given.parsed(name, parse, "a number, not negative")
    };
    let (mut quota, mut period) = (integer("cpu-quota")?, natural("cpu-period")?);
    if let Some(milli) = given.parsed("cpus", options::thousandths, "a number such as 1.5")? {
        if quota.is_some() || period.is_some() {
            return Err(usage("--cpus cannot be used together with --cpu-quota or --cpu-period"));
        }
        (quota, period) = (i64::try_from(milli * 100).ok(), Some(100_000));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(natural("cpu-shares")?)
        .set_quota(quota)
        .set_period(period)
        .set_burst(natural("cpu-burst")?)
        .set_realtime_period(natural("cpu-rt-period")?)
        .set_realtime_runtime(integer("cpu-rt-runtime")?)
        .set_idle(integer("cpu-idle")?)
        .set_cpus(given.text("cpuset-cpus")?)
        .set_mems(given.text("cpuset-mems")?);
    Ok(cpu)
}
