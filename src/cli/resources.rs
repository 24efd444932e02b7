//! The limits that `update` is asked for: a document, or flags.

use std::path::PathBuf;

use clap::Arg;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources,
};

use super::command::Resources;
use super::given::Given;
use super::{table, value};
use crate::error::{OsContext, Result};

const BYTES: &str = "a size such as 512m, or -1 for no limit";

pub fn flags() -> Vec<Arg> {
    let value = table::value;
    vec![
        value("resources", "FILE", "take all from this JSON file (- is stdin), and no other flag")
            .short('r'),
        value("blkio-weight", "N", "weight of block I/O, 10 to 1000"),
        value("cpu-period", "USECS", "the period that the CPU quota is for"),
        value("cpu-quota", "USECS", "CPU time in each period; -1 for no limit"),
        value("cpu-burst", "USECS", "unused CPU time that may be used later"),
        value("cpu-share", "N", "weight among others that want the CPU"),
        value("cpu-rt-period", "USECS", "the period that the realtime quota is for"),
        value("cpu-rt-runtime", "USECS", "realtime CPU time in each period"),
        value("cpuset-cpus", "LIST", "the CPUs to run on, such as 0-2,7"),
        value("cpuset-mems", "LIST", "the memory nodes to use"),
        value("cpu-idle", "0|1", "run only when nobody else wants to"),
        value("memory", "SIZE", "limit of memory, such as 512m; -1 for none"),
        value("memory-reservation", "SIZE", "memory that is left to it when others need some"),
        value("memory-swap", "SIZE", "limit of memory and swap together; -1 for none"),
        value("pids-limit", "N", "the most processes; -1 for no limit"),
        value("kernel-memory", "SIZE", "").hide(true),
        value("kernel-memory-tcp", "SIZE", "").hide(true),
        value("l3-cache-schema", "SCHEMA", "the cache to use, by resctrl: L3:0=f;1=f"),
        value("mem-bw-schema", "SCHEMA", "memory bandwidth, by resctrl: MB:0=20;1=70"),
    ]
}

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

/// Linux has not had them since 5.4.
fn ignored(given: &Given) -> Vec<&'static str> {
    let names = ["kernel-memory", "kernel-memory-tcp"];
    names.into_iter().filter(|name| given.raw(name).is_some()).collect()
}

fn limits(given: &Given) -> Result<LinuxResources> {
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

/// An empty schema is none.
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
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(natural("cpu-share")?)
        .set_quota(integer("cpu-quota")?)
        .set_period(natural("cpu-period")?)
        .set_burst(natural("cpu-burst")?)
        .set_realtime_period(natural("cpu-rt-period")?)
        .set_realtime_runtime(integer("cpu-rt-runtime")?)
        .set_idle(integer("cpu-idle")?)
        .set_cpus(given.text("cpuset-cpus")?)
        .set_mems(given.text("cpuset-mems")?);
    Ok(cpu)
}
