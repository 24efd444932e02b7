//! Facts about the host that a plan depends on. They are read once before compiling, without root privileges.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstat;
use nix::unistd::{AccessFlags, faccessat};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use crate::cgroup;
use crate::error::{Error, OsContext, Result};
use crate::fs::Root;
use crate::fs::process::in_user_namespace;
use crate::identity::{self, SecurityModules};
use crate::network::names::PLACES;
use crate::path::absolute;
use crate::rootfs::overlay::plan::lowers_of;
use crate::rootfs::parent::inherited::{self, CallersNamespace};
use crate::spec::{Extensions, has_namespace};
use crate::sys::open::open;
use crate::sys::process::capget;
use crate::{limits, namespace};

/// systemd instance that creates the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Systemd {
    System,
    User,
}

#[derive(Debug)]
pub struct HostFacts {
    /// Canonical path of the rootfs.
    pub rootfs: PathBuf,
    /// Owner of each layer of the rootfs, if the container has a user namespace.
    pub layer_owners: Vec<u32>,
    pub cgroups: cgroup::Layout,
    /// systemd for `--systemd-cgroup`.
    pub systemd: Option<cgroup::systemd::Manager>,
    pub namespaces: namespace::plan::Facts,
    pub process: ProcessFacts,
    /// True if the runtime is in a user namespace, where device nodes cannot be created.
    pub in_user_namespace: bool,
    pub kcore: bool,
    /// Mount namespace of the caller, for a config without one.
    pub callers_mounts: Option<CallersNamespace>,
    /// Files such as /etc/hosts that are missing in the rootfs and cannot be created; read if the container has a network.
    pub no_place_for: Vec<&'static str>,
    /// resctrl file system, if the config has `linux.intelRdt`.
    pub resctrl: Option<limits::rdt::Resctrl>,
}

/// Facts that a process depends on.
#[derive(Debug)]
pub struct ProcessFacts {
    pub security: SecurityModules,
    /// True if the runtime's effective user is not root.
    pub rootless: bool,
    pub setgroups_allowed: bool,
    /// Permitted capabilities of the runtime.
    pub capabilities: u64,
}

impl HostFacts {
    /// Reads the facts.
    ///
    /// # Errors
    ///
    /// The rootfs is invalid, or a fact cannot be read.
    pub fn gather(
        spec: &Spec,
        extensions: &Extensions,
        bundle: &Path,
        systemd: Option<Systemd>,
    ) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let namespaces = linux.and_then(|l| l.namespaces().as_deref()).unwrap_or(&[]);
        let sets_sysctls =
            linux.is_some_and(|l| l.sysctl().as_ref().is_some_and(|s| !s.is_empty()));
        let moves_devices =
            linux.is_some_and(|l| l.net_devices().as_ref().is_some_and(|d| !d.is_empty()));
        let cgroups_path = linux.and_then(|l| l.cgroups_path().as_deref());
        let process = spec.process();
        let in_user_namespace = in_user_namespace();
        let rootfs = rootfs(spec, bundle)?;
        Ok(Self {
            callers_mounts: (!has_namespace(spec, LinuxNamespaceType::Mount))
                .then(|| inherited::examine(&rootfs, in_user_namespace))
                .transpose()?,
            layer_owners: layer_owners(spec, extensions, &rootfs, bundle)?,
            no_place_for: no_place_for(spec, extensions, &rootfs)?,
            rootfs,
            cgroups: cgroup::Layout::observe(cgroups_path)?,
            systemd: systemd
                .map(|systemd| cgroup::systemd::parent::find(systemd == Systemd::User))
                .transpose()?,
            namespaces: namespace::parent::facts(namespaces, sets_sysctls || moves_devices)?,
            process: ProcessFacts::gather(process.iter(), in_user_namespace),
            in_user_namespace,
            kcore: Path::new("/proc/kcore").exists(),
            resctrl: match linux.and_then(|l| l.intel_rdt().as_ref()) {
                Some(_) => limits::rdt::parent::find()?,
                None => None,
            },
        })
    }
}

impl ProcessFacts {
    /// Reads the facts for these processes: the container's, or that of an exec.
    pub fn gather<'a>(
        processes: impl Iterator<Item = &'a Process> + Clone,
        in_user_namespace: bool,
    ) -> Self {
        Self {
            security: identity::parent::security_modules(processes),
            rootless: !nix::unistd::geteuid().is_root(),
            setgroups_allowed: !in_user_namespace || setgroups_allowed(),
            // Without an answer the kernel refuses the call later.
            capabilities: capget().map_or(u64::MAX, |sets| sets.permitted),
        }
    }
}

/// Checks the rootfs. It must be a directory without symlinks in its path, because a symlink could name another directory
/// when it is used.
fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::config("root must be specified"))?;
    let path = absolute(bundle, root.path());
    let what = || format!("invalid rootfs {}", path.display());
    let real = path.canonicalize().os("stat", path.display()).map_err(|e| e.context(what()))?;
    // The bundle's path may have symlinks, as /var/run. The path in the config may not.
    let within = |bundle: PathBuf| absolute(&bundle, root.path()) == real;
    let relative = root.path().is_relative();
    if real != path && !(relative && bundle.canonicalize().is_ok_and(within)) {
        return Err(Error::config(format!(
            "invalid rootfs: not an absolute path, or a symlink: {} is {}",
            path.display(),
            real.display()
        ))
        .hint("write the path without symlinks in root.path, and call with such a --bundle"));
    }
    let path = real;
    if path == Path::new("/") {
        return Err(Error::config("invalid rootfs: / is the host's own root")
            .hint("a container needs a root directory of its own"));
    }
    if !path.is_dir() {
        return Err(Error::os("open", path.display(), Errno::ENOTDIR).context(what()));
    }
    Ok(path)
}

fn layer_owners(
    spec: &Spec,
    extensions: &Extensions,
    root: &Path,
    bundle: &Path,
) -> Result<Vec<u32>> {
    let mapped = spec.linux().as_ref().is_some_and(|l| l.uid_mappings().is_some());
    let lowers = if mapped { lowers_of(extensions, root, bundle)? } else { None };
    let owner = |lower: &PathBuf| {
        let found = std::fs::metadata(lower).os("stat", lower.display());
        found.map(|metadata| metadata.uid()).map_err(|e| e.context("read the layers"))
    };
    lowers.iter().flatten().map(owner).collect()
}

fn no_place_for(spec: &Spec, extensions: &Extensions, rootfs: &Path) -> Result<Vec<&'static str>> {
    let Extensions { network, layers, upper, .. } = extensions;
    // Missing directories are created in the topmost layer.
    if network.is_none() || layers.is_some() || upper.is_some() {
        return Ok(Vec::new());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = Root::new(open(rootfs, flags).os("open", rootfs.display())?);
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let etc = root.open(c"/etc", directory).or_else(|_| root.open(c"/", directory));
    let etc = etc.os("open", rootfs.join("etc").display())?;
    // A read-only file system answers so, too.
    let refused = faccessat(&etc, c".", AccessFlags::W_OK, AtFlags::empty()).err();
    let theirs = || fstat(&etc).is_ok_and(|stat| is_mapped(spec, stat.st_uid));
    if refused.is_none() || (refused == Some(Errno::EACCES) && theirs()) {
        return Ok(Vec::new());
    }
    let missing = |place: &&str| {
        CString::new(*place).is_ok_and(|p| root.open(&p, libc::O_PATH | libc::O_CLOEXEC).is_err())
    };
    Ok(PLACES.into_iter().filter(missing).collect())
}

/// Returns true if the owner of the file has an id in the container's user namespace.
fn is_mapped(spec: &Spec, owner: u32) -> bool {
    let mappings = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_deref());
    let of = |m: &LinuxIdMapping| owner.checked_sub(m.host_id()).is_some_and(|n| n < m.size());
    mappings.unwrap_or_default().iter().any(of)
}

fn setgroups_allowed() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() == "allow")
}
