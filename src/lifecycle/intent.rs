//! The record of intent, which lists the effects of a create before the first one.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use super::prepare::{ContainerRequest, Prepared, Settled};
use crate::error::Result;
use crate::hook::Point;
use crate::id::HostPid;
use crate::namespace::Kind;
use crate::spec;
use crate::state::{Phase, Record, Settings, boot_id};
use crate::time::rfc3339;

/// Returns the record of intent: the effects that create is about to have.
pub(super) fn intent(request: &ContainerRequest, prepared: &Prepared) -> Result<Record> {
    let Prepared { plan, settled, .. } = prepared;
    let Settled { config, grant, ids, .. } = settled;
    let mut annotations = config.spec.annotations().clone().unwrap_or_default();
    // Aril's report. A report of the config could be false.
    annotations.remove(spec::annotation::LANDLOCK_ENFORCED);
    if let Some(ruleset) = plan.script.landlock() {
        let enforced = format!("version {}: {}", ruleset.version, ruleset.restricts());
        annotations.insert(spec::annotation::LANDLOCK_ENFORCED.to_owned(), enforced);
    }
    let labels = labels(&annotations, &plan.bundle);
    Ok(Record {
        aril_version: crate::state::VERSION,
        phase: Phase::Creating,
        id: plan.id.to_string(),
        init_process_pid: HostPid(0),
        init_process_start: 0,
        boot: boot_id()?,
        deleted_at_end: false,
        created: rfc3339(SystemTime::now()),
        cgroup_paths: plan.cgroup.paths.clone(),
        namespace_paths: Default::default(),
        rootless: request.rootless_cgroups,
        systemd_cgroup: request.systemd.is_some(),
        intel_rdt: plan.rdt.as_ref().map(|rdt| rdt.group.clone()),
        private_pid_namespace: plan.namespaces.is_new(Kind::Pid),
        has_hooks: [Point::Poststart, Point::Poststop]
            .iter()
            .any(|point| !plan.script.hooks.at(*point).is_empty()),
        bundle: plan.bundle.clone(),
        network: None,
        annotations: annotations.into_iter().collect(),
        grant: grant.clone(),
        overlay: plan.script.overlay().map(|overlay| overlay.layers.clone()),
        root_mount: None,
        ids: ids.as_ref().map(|ids| ids.claim),
        config: Settings { rootfs: plan.rootfs.clone(), labels },
    })
}

/// Returns labels as runc has them, which node agents read. `bundle` is set by Aril: an annotation of that name would lead
/// tools of root to a directory of the annotation's author.
fn labels(annotations: &HashMap<String, String>, bundle: &Path) -> Vec<String> {
    const BUNDLE: &str = "bundle=";
    let mut labels: Vec<_> = annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.retain(|label| !label.starts_with(BUNDLE));
    labels.push(format!("{BUNDLE}{}", bundle.display()));
    labels.sort();
    labels
}
