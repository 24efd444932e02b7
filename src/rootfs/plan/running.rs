//! Mounts for a container that runs: what is opened outside of it, and what is mounted inside.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::mounts::{self, destination, kind, read};
use super::{CgroupView, Input, Plan};
use crate::error::{Context, Error, Result};
use crate::rootfs::{Step, overlay};

/// File systems that have no path of the host among their parameters, which would be looked up in the
/// container.
const KINDS: [&str; 5] = ["tmpfs", "proc", "sysfs", "mqueue", "devpts"];

impl<'a> Input<'a> {
    /// For a container whose root is mounted already.
    pub fn of_running(bundle: &'a Path, rootfs: &'a Path) -> Self {
        Self {
            bundle,
            rootfs,
            overlay: overlay::plan::Input {
                layers: None,
                upper: None,
                show: None,
                root: rootfs,
                bundle,
                state_directory: bundle,
                privileged: false,
                uid_mappings: &[],
                gid_mappings: &[],
                owners: &[],
            },
            readonly: false,
            mounts: &[],
            extra: &[],
            fill: &[],
            devices: &[],
            masked_paths: &[],
            readonly_paths: &[],
            propagation: None,
            mount_namespace: true,
            callers: None,
            host_mounts: false,
            own_user_namespace: false,
            user_namespace: false,
            foreign_network: false,
            foreign_ipc: false,
            rootless: false,
            uid_mappings: &[],
            gid_mappings: &[],
            map_root: false,
            cgroup: CgroupView::Legacy(&[]),
            no_pivot: false,
            mount_label: None,
            kcore: false,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// In the host's view, as the container's user.
    pub outside: Vec<Step>,
    /// In the container's.
    pub inside: Vec<Step>,
    pub warnings: Vec<String>,
}

/// `mounts` of the input are added.
pub fn addition(input: &Input<'_>) -> Result<Addition> {
    let mut plan = Plan::default();
    let mut deferred = Vec::new();
    for (index, mount) in input.mounts.iter().enumerate() {
        let path = mount.destination().display();
        refuse(input.rootfs, mount)
            .and_then(|()| mounts::add(input, mount, &mut plan, &mut deferred))
            .context(|| format!("[{index}] {path}"))?;
    }
    let mut outside = Vec::new();
    for step in &mut plan.enter {
        match step {
            Step::Bind(bind) => {
                outside.push(Step::OpenSource(bind.source.clone()));
                bind.source.tree = Some(outside.len() - 1);
            }
            // It would be looked up in the container.
            Step::Mount(mount) => mount.instead = None,
            _ => {}
        }
    }
    plan.enter.extend(deferred.into_iter().map(Step::ReadonlyMount));
    Ok(Addition { outside, inside: plan.enter, warnings: plan.warnings })
}

fn refuse(rootfs: &Path, mount: &Mount) -> Result<()> {
    let (options, kind) = (read(mount), kind(mount));
    if destination(rootfs, mount)?.as_c_str() == c"/" {
        return Err(Error::config("the root of a running container stays as it is"));
    }
    if options.remount {
        return Err(Error::config("remount is not supported in a running container"));
    }
    if options.bind.is_none() && !KINDS.contains(&kind) {
        let text = format!("type {kind:?} is not supported in a running container");
        let hint = format!("bind mounts are, and {}", KINDS.join(", "));
        return Err(Error::config(text).hint(hint));
    }
    Ok(())
}

/// Unmounts the destinations, the last first: a later mount may be inside an earlier one.
pub fn removal(rootfs: &Path, mounts: &[Mount]) -> Result<Vec<Step>> {
    let unmount = |mount| destination(rootfs, mount).map(Step::Unmount);
    mounts.iter().rev().map(unmount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::plan::tests::{input, lines, mounts};

    #[test]
    fn sources_are_opened_outside() {
        let mut all = mounts(
            r#"[{"destination":"/a","type":"bind","source":"/x","options":["rbind"]},
                {"destination":"/b","type":"tmpfs","options":["ro"]},
                {"destination":"/bundle/rootfs/c","source":"y","options":["bind","ro"]}]"#,
        );
        let planned = addition(&input(&all)).unwrap();
        assert_eq!(lines(&planned.outside), "open /x\nopen /bundle/y\n");
        let inside = "bind /x on /a (rbind)\nmount tmpfs on /b (ro)\nbind /bundle/y on /c (bind,ro)\n\
            remount /b read-only\n";
        assert_eq!(lines(&planned.inside), inside);
        let trees = planned.inside.iter().filter_map(|step| match step {
            Step::Bind(bind) => bind.source.tree,
            _ => None,
        });
        assert_eq!(trees.collect::<Vec<_>>(), [0, 1]);
        let removed = lines(&removal(Path::new("/bundle/rootfs"), &all).unwrap());
        assert_eq!(removed, "unmount /c\nunmount /b\nunmount /a\n");
        all.truncate(1);
        for (json, text) in [
            (r#"{"destination":"/a","type":"overlay","options":["lowerdir=/b"]}"#, "\"overlay\""),
            (r#"{"destination":"/a","type":"cgroup"}"#, "\"cgroup\""),
            (r#"{"destination":"/a","options":["remount","ro"]}"#, "remount"),
            (r#"{"destination":"/.","source":"/y","options":["bind"]}"#, "the root"),
            (r#"{"destination":"/proc/x","source":"/y","options":["bind"]}"#, "inside /proc"),
        ] {
            let all = mounts(&format!("[{json}]"));
            let error = addition(&input(&all)).unwrap_err().to_string();
            assert!(error.starts_with("[0] /") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn nothing_of_the_host_is_looked_up_inside() {
        let sysfs = mounts(r#"[{"destination":"/a","type":"sysfs","options":["ro"]}]"#);
        let mut input = input(&sysfs);
        input.user_namespace = true;
        let planned = addition(&input).unwrap();
        let [Step::Mount(mount)] = planned.inside.as_slice() else { panic!("{planned:?}") };
        assert_eq!(mount.instead, None);
    }
}
