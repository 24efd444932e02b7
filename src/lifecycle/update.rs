//! `update`: changes the resource limits of a container.

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::Value;

use super::{inspect, kill};
use crate::cgroup::{self, Version};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::limits::rdt;
use crate::state::{Record, Slot, Store, observe};

/// Sets new limits. If the kernel rejects one, the old limits are restored. On success the stored config has the new limits,
/// on which later updates build. Device rules are unchanged. `warn` gets a message for limits that exclude each other.
///
/// # Errors
///
/// The container does not run or has left its cgroup, a value is invalid, or the kernel rejects it.
pub fn update(
    store: &Store,
    id: &ContainerId,
    asked: &LinuxResources,
    schemas: Option<&LinuxIntelRdt>,
    warn: &dyn Fn(&str),
) -> Result<()> {
    let slot = store.lock(id)?;
    let mut record = inspect::record(&slot, id)?;
    let _live = observe(&slot, &record)?.into_created().ok_or_else(kill::not_running)?;
    refuse_left(&record)?;
    let config = inspect::stored_config(&slot)?;
    let linux = config.spec.linux().as_ref();
    let before = linux.and_then(|l| l.resources().clone()).unwrap_or_default();
    let after = cgroup::update::merge(&before, asked);
    crate::time::step("merge the limits");
    let version = Version::of(&record.cgroup_paths);
    cgroup::plan::contradiction(version, &after).iter().for_each(|text| warn(text));
    let document = with_limits(&config.bytes, &after, schemas)?;
    let changed = set(&record, &after)
        .and_then(|()| schemas.map_or(Ok(()), |rdt| set_schemas(&slot, &mut record, id, rdt)))
        .and_then(|()| slot.write_config(&document));
    crate::time::step("write the limits");
    changed.inspect_err(|_| {
        // Report the rejected limit, not the failed restore.
        let _ = set(&record, &before);
    })
}

/// Rejects a container that has left its cgroup: the limits would have no effect.
fn refuse_left(record: &Record) -> Result<()> {
    match cgroup::layout::left(&record.cgroup_paths, record.init_process_pid.0)? {
        None => Ok(()),
        Some((own, there)) => Err(Error::state(format!(
            "cannot update container {}: it has left its cgroup {} and is in {}",
            record.id,
            own.display(),
            there.display()
        ))),
    }
}

fn set(record: &Record, resources: &LinuxResources) -> Result<()> {
    let paths = &record.cgroup_paths;
    let by_systemd = record.systemd_cgroup.then(|| cgroup::systemd::properties::kept(resources));
    let resources = by_systemd.as_ref().unwrap_or(resources);
    let limits = cgroup::plan::limits(Version::of(paths), resources)?;
    cgroup::parent::check_usage(paths, &limits)?;
    if by_systemd.is_some() {
        // `cpu.idle` first: the kernel rejects the weight of an idle cgroup.
        cgroup::systemd::parent::set(paths, &limits)?;
    }
    cgroup::parent::set(paths, &limits)
}

/// Creates a resctrl group with the container's id for a container without one, as runc does.
fn set_schemas(
    slot: &Slot,
    record: &mut Record,
    id: &ContainerId,
    rdt: &LinuxIntelRdt,
) -> Result<()> {
    let host = rdt::parent::find()?;
    rdt::parent::check(host.as_ref(), rdt)?;
    let Some(host) = host else { return Ok(()) };
    if let Some(group) = &record.intel_rdt {
        return rdt::parent::change(group, &host, rdt);
    }
    let plan = rdt::plan(rdt::RdtRequest { id: id.as_str(), rdt, host: Some(&host) })?;
    record.intel_rdt = Some(plan.group.clone());
    slot.write(record)?;
    let joined = rdt::parent::prepare(&plan).and_then(|made| {
        rdt::parent::join(&plan.group, record.init_process_pid).inspect_err(|_| made.undo())
    });
    joined.or_else(|refused| {
        record.intel_rdt = None;
        slot.write(record)?;
        Err(refused)
    })
}

/// Returns the config with these limits. Unknown fields are kept.
fn with_limits(
    config: &[u8],
    resources: &LinuxResources,
    schemas: Option<&LinuxIntelRdt>,
) -> Result<Vec<u8>> {
    let unreadable = |e| Error::system(format!("change the stored config: {e}"));
    let mut document: Value = serde_json::from_slice(config).map_err(unreadable)?;
    let limits = serde_json::to_value(resources).map_err(unreadable)?;
    let stored = &mut document["linux"]["resources"];
    for field in cgroup::update::FIELDS {
        if let Some(stored) = stored.as_object_mut() {
            // Names of fields match in any case.
            stored.retain(|name, _| !name.eq_ignore_ascii_case(field));
        }
        if let Some(value) = limits.get(field) {
            stored[field] = value.clone();
        }
    }
    let schemas = schemas.into_iter().flat_map(|rdt| {
        [("l3CacheSchema", rdt.l3_cache_schema()), ("memBwSchema", rdt.mem_bw_schema())]
    });
    for (field, schema) in schemas {
        if let Some(schema) = schema {
            document["linux"]["intelRdt"][field] = schema.as_str().into();
        }
    }
    serde_json::to_vec(&document).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rest_of_the_config_stays() {
        let config = json!({"ociVersion": "1.0.0", "future": 1, "linux": {"resources": {
            "devices": [{"allow": false, "access": "rwm", "new": 2}],
            "memory": {"limit": 5}, "pids": {"limit": 6}}}});
        let limits = serde_json::from_value(json!({"memory": {"limit": 7}})).unwrap();
        let changed = with_limits(config.to_string().as_bytes(), &limits, None).unwrap();
        let mut changed: Value = serde_json::from_slice(&changed).unwrap();
        let resources = changed["linux"]["resources"].take();
        assert_eq!(resources["devices"], config["linux"]["resources"]["devices"]);
        assert_eq!(resources["memory"], json!({"limit": 7}));
        assert_eq!(resources.get("pids"), None);
        assert_eq!(changed["future"], 1);
        let rdt = serde_json::from_value(json!({"memBwSchema": "MB:0=10"})).unwrap();
        let empty = with_limits(br#"{"linux":{}}"#, &limits, Some(&rdt)).unwrap();
        let text = String::from_utf8(empty).unwrap();
        assert!(text.contains(r#""memory":{"limit":7}"#), "{text}");
        assert!(text.contains(r#""intelRdt":{"memBwSchema":"MB:0=10"}"#), "{text}");
    }
}
