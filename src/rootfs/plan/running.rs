//! Plans mounts for a running container: steps that open sources outside of it, and steps that mount inside.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::mounts::{self, destination, kind, read};
use super::{CgroupView, Plan, RootfsRequest};
use crate::error::{Context, Error, Result};
use crate::rootfs::{Step, overlay};

/// Types of file systems without a parameter that is a path of the host, which would be looked up in the container.
const KINDS: [&str; 5] = ["tmpfs", "proc", "sysfs", "mqueue", "devpts"];

impl<'a> RootfsRequest<'a> {
    /// Returns the request for a container whose root is mounted already.
    pub fn of_running(bundle: &'a Path, rootfs: &'a Path) -> Self {
        Self {
            bundle,
            rootfs,
            overlay: overlay::plan::OverlayRequest {
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

/// Steps that add mounts to a running container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// Steps in the host's mount namespace, as the container's user.
    pub sources: Vec<Step>,
    /// Steps in the container's mount namespace.
    pub mounts: Vec<Step>,
    pub warnings: Vec<String>,
}

/// Plans the mounts of the request.
///
/// # Errors
///
/// A mount is invalid, or not supported in a running container.
pub fn addition(request: &RootfsRequest<'_>) -> Result<Addition> {
    let mut plan = Plan::default();
    let mut deferred = Vec::new();
    for (index, mount) in request.mounts.iter().enumerate() {
        let path = mount.destination().display();
        refuse(request.rootfs, mount)
            .and_then(|()| mounts::add(request, mount, &mut plan, &mut deferred))
            .context(|| format!("[{index}] {path}"))?;
    }
    let mut sources = Vec::new();
    for step in &mut plan.enter {
        match step {
            Step::Bind(bind) => {
                sources.push(Step::OpenSource(bind.source.clone()));
                bind.source.tree = Some(sources.len() - 1);
            }
            // The path would be looked up in the container.
            Step::Mount(mount) => mount.fallback = None,
            _ => {}
        }
    }
    plan.enter.extend(deferred.into_iter().map(Step::ReadonlyMount));
    Ok(Addition { sources, mounts: plan.enter, warnings: plan.warnings })
}

fn refuse(rootfs: &Path, mount: &Mount) -> Result<()> {
    let (options, kind) = (read(mount), kind(mount));
    if destination(rootfs, mount)?.as_c_str() == c"/" {
        return Err(Error::config("the root of a running container cannot be replaced"));
    }
    if options.remount {
        return Err(Error::config("remount is not supported in a running container"));
    }
    if options.bind.is_none() && !KINDS.contains(&kind) {
        let text = format!("type {kind:?} is not supported in a running container");
        let hint = format!("supported are bind mounts and the types {}", KINDS.join(", "));
        return Err(Error::config(text).hint(hint));
    }
    Ok(())
}

/// Plans the removal of mounts, in reverse order: a later mount may be in an earlier one.
///
/// # Errors
///
/// A destination is invalid.
pub fn removal(rootfs: &Path, mounts: &[Mount]) -> Result<Vec<Step>> {
    let unmount = |mount| destination(rootfs, mount).map(Step::Unmount);
    mounts.iter().rev().map(unmount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::plan::tests::{lines, mounts, request};

    #[test]
    fn sources_are_opened_outside() {
        let mut all = mounts(
            r#"[{"destination":"/a","type":"bind","source":"/x","options":["rbind"]},
                {"destination":"/b","type":"tmpfs","options":["ro"]},
                {"destination":"/bundle/rootfs/c","source":"y","options":["bind","ro"]}]"#,
        );
        let planned = addition(&request(&all)).unwrap();
        assert_eq!(lines(&planned.sources), "open /x\nopen /bundle/y\n");
        let inside = "bind /x on /a (rbind)\nmount tmpfs on /b (ro)\nbind /bundle/y on /c (bind,ro)\n\
            remount /b read-only\n";
        assert_eq!(lines(&planned.mounts), inside);
        let trees = planned.mounts.iter().filter_map(|step| match step {
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
            let error = addition(&request(&all)).unwrap_err().to_string();
            assert!(error.starts_with("[0] /") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn nothing_of_the_host_is_looked_up_inside() {
        let sysfs = mounts(r#"[{"destination":"/a","type":"sysfs","options":["ro"]}]"#);
        let mut request = request(&sysfs);
        request.user_namespace = true;
        let planned = addition(&request).unwrap();
        let [Step::Mount(mount)] = planned.mounts.as_slice() else { panic!("{planned:?}") };
        assert_eq!(mount.fallback, None);
    }
}
