//! Mounts a container's rootfs, as containerd describes it, on `<bundle>/rootfs` of the host, from before `create`
//! until after `delete`.

use std::path::{Path, PathBuf};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount as nix_mount, umount2};

use super::status::Status;
use super::wire::{Message, Writer};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::{Error, OsContext, Result};
use crate::path::{absolute, c_path};
use crate::rootfs::IdMap;
use crate::rootfs::options::Options;
use crate::rootfs::overlay::parent::mount_in_new_namespace;
use crate::rootfs::parent::id_map::{apply, user_namespace};
use crate::sys::mount::{
    ATTR_RDONLY, Attributes, Extent, mount_setattr, mount_setattr_idmap, move_mount, open_tree,
};
use crate::sys::open::open;

/// containerd.types.Mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    /// Path below the rootfs.
    pub target: String,
    pub options: Vec<String>,
}

impl Mount {
    /// Decodes a mount.
    ///
    /// # Errors
    ///
    /// The message cannot be decoded.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, Status> {
        let message = Message::parse(bytes)?;
        Ok(Self {
            kind: message.text(1)?.to_owned(),
            source: message.text(2)?.to_owned(),
            target: message.text(3)?.to_owned(),
            options: message.texts(4)?,
        })
    }

    /// Encodes the message.
    pub fn writer(&self) -> Writer {
        let writer =
            Writer::new().bytes(1, &self.kind).bytes(2, &self.source).bytes(3, &self.target);
        self.options.iter().fold(writer, |writer, option| writer.bytes(4, option))
    }
}

/// Returns the rootfs directory of a bundle.
pub fn directory(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// Mounts all of them, or none.
///
/// # Errors
///
/// The kernel rejects a mount, or a target leads out of the rootfs.
pub fn mount(bundle: &Path, mounts: &[Mount]) -> Result<()> {
    let rootfs = directory(bundle);
    for one in mounts {
        mount_one(&rootfs, one).inspect_err(|_| {
            // The first error is the one to report.
            let _ = unmount(bundle);
        })?;
    }
    Ok(())
}

/// Returns the directory in the rootfs that a mount covers. A file system that is mounted there already may have links
/// that lead out of it.
fn target_of(rootfs: &Path, mount: &Mount) -> Result<PathBuf> {
    if mount.target.is_empty() {
        return Ok(rootfs.to_owned());
    }
    let within = absolute(Path::new("/"), Path::new(&mount.target));
    let target = rootfs.join(within.strip_prefix("/").unwrap_or(&within));
    let real = |path: &Path| std::fs::canonicalize(path).os("realpath", path.display());
    let (real_rootfs, real_target) = (real(rootfs)?, real(&target)?);
    if !real_target.starts_with(&real_rootfs) {
        return Err(Error::config(format!(
            "mount target {}: leads out of the rootfs",
            mount.target
        )));
    }
    Ok(real_target)
}

fn mount_one(rootfs: &Path, mount: &Mount) -> Result<()> {
    let target = target_of(rootfs, mount)?;
    let (id_map, options) = id_map_of(&mount.options)?;
    let options = Options::parse(options);
    if let Some(map) = id_map {
        return mount_mapped(mount, &target, &options, &map);
    }
    let failed = |errno| {
        let what = format!("{} on {}", mount.source, target.display());
        Error::os("mount", what, errno).context("failed to mount rootfs component".to_owned())
    };
    let bind = options.bind.is_some() || mount.kind == "bind";
    let mut flags = MsFlags::from_bits_retain(options.flags as _);
    if bind {
        let tree = options.bind == Some(Extent::Tree);
        let bind = MsFlags::MS_BIND | if tree { MsFlags::MS_REC } else { MsFlags::empty() };
        nix_mount(Some(mount.source.as_str()), &target, NONE, bind, NONE).map_err(failed)?;
        if !flags.is_empty() {
            // A bind mount gets its flags by a second call only.
            flags |= MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            nix_mount(NONE, &target, NONE, flags, NONE).map_err(failed)?;
        }
        return Ok(());
    }
    let (directory, data) = shortened(&options.data);
    let kind = Some(mount.kind.as_str());
    let _within = directory.map(CurrentDirectory::enter).transpose()?;
    nix_mount(Some(mount.source.as_str()), &target, kind, flags, Some(data.as_str()))
        .map_err(failed)
}

const NONE: Option<&str> = None;

/// Parses the mapping that containerd 2 requests by `uidmap=` and `gidmap=`, as containerd's own mount code does:
/// triplets *container id:host id:count*, separated by commas. The second value is the options without them.
fn id_map_of(options: &[String]) -> Result<(Option<IdMap>, Vec<&str>)> {
    let (mut uids, mut gids, mut rest) = (None, None, Vec::new());
    for option in options {
        match option.split_once('=') {
            Some(("uidmap", value)) => uids = Some(ranges(option, value)?),
            Some(("gidmap", value)) => gids = Some(ranges(option, value)?),
            _ => rest.push(option.as_str()),
        }
    }
    match (uids, gids) {
        (None, None) => Ok((None, rest)),
        (Some(uids), Some(gids)) => Ok((Some(IdMap { extent: Extent::One, uids, gids }), rest)),
        _ => Err(Error::config("mount options uidmap and gidmap: one is missing, both are needed")),
    }
}

fn ranges(option: &str, value: &str) -> Result<Vec<[u32; 3]>> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    let range = |text: &str| {
        let mut parts = text.split(':');
        let range = [number(parts.next())?, number(parts.next())?, number(parts.next())?];
        (parts.next().is_none() && range[2] > 0).then_some(range)
    };
    value.split(',').map(range).collect::<Option<Vec<_>>>().ok_or_else(|| {
        Error::config(format!(
            "mount option {option}: expected CONTAINER-ID:HOST-ID:COUNT, comma separated"
        ))
    })
}

/// Mounts with owners that the map converts: the lower layers of an overlay, whose upper directory the snapshotter has
/// given to the mapped root (Linux 5.19), otherwise the source itself.
fn mount_mapped(mount: &Mount, target: &Path, options: &Options, map: &IdMap) -> Result<()> {
    let failed = |error: Error| error.context("failed to mount rootfs component".to_owned());
    let place = open(target, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", target.display())?;
    let tree = match mount.kind.as_str() {
        "overlay" => mapped_overlay(mount, target, options, map).map_err(failed)?,
        kind if kind == "bind" || options.bind.is_some() => {
            mapped_bind(Path::new(&mount.source), options, map).map_err(failed)?
        }
        kind => {
            let text = format!("mount options uidmap and gidmap: not supported for type {kind:?}");
            return Err(Error::config(text));
        }
    };
    move_mount(tree.as_fd(), place.as_fd()).os("move_mount", target.display()).map_err(failed)
}

fn mapped_bind(source: &Path, options: &Options, map: &IdMap) -> Result<OwnedFd> {
    let extent = options.bind.unwrap_or(Extent::One);
    let tree = open_tree(None, &c_path("mount source", source)?, extent)
        .os("open_tree", source.display())?;
    let map = IdMap { extent, uids: map.uids.clone(), gids: map.gids.clone() };
    apply(tree.as_fd(), source, &map)?;
    if let Some(change) = options.change() {
        mount_setattr(tree.as_fd(), Extent::One, change).os("mount_setattr", source.display())?;
    }
    Ok(tree)
}

/// Maps the layers at the target in a separate mount namespace, which the host does not see: before Linux 6.15
/// overlayfs accepts no detached mount.
fn mapped_overlay(mount: &Mount, target: &Path, options: &Options, map: &IdMap) -> Result<OwnedFd> {
    let lower = options.data.iter().find_map(|option| option.strip_prefix("lowerdir="));
    let layers: Vec<&Path> = lower.into_iter().flat_map(|l| l.split(':')).map(Path::new).collect();
    let common = common(&layers).ok_or_else(|| {
        Error::config("id-mapped overlay: its layers have no directory in common")
    })?;
    let (source, at) = (c_path("layers", &common)?, c_path("rootfs", target)?);
    let data = relative(&options.data, &layers, &common);
    let flags = MsFlags::from_bits_retain(options.flags as _);
    let namespace = user_namespace(map)?;
    let assemble = || {
        let layers = mapped_layers(&source, namespace.as_fd())?;
        let place = open(target, OFlag::O_PATH | OFlag::O_DIRECTORY).during("open rootfs")?;
        move_mount(layers.as_fd(), place.as_fd()).during("move_mount layers")?;
        nix::unistd::chdir(at.as_c_str()).during("chdir layers")?;
        nix_mount(
            Some(mount.source.as_str()),
            at.as_c_str(),
            Some("overlay"),
            flags,
            Some(data.as_str()),
        )
        .during("mount overlay")?;
        open_tree(None, &at, Extent::One).during("open_tree overlay")
    };
    mount_in_new_namespace(assemble).map_err(|fault: Fault| {
        let what = format!("{} on {}", common.display(), target.display());
        let error = Error::os(fault.call, what, fault.errno);
        match fault.errno {
            Errno::EINVAL | Errno::ENOSYS => error.hint(
                "id-mapped overlay layers need Linux 5.19 and a file system that supports id-mapped mounts",
            ),
            _ => error,
        }
    })
}

fn mapped_layers(common: &std::ffi::CStr, namespace: BorrowedFd<'_>) -> ChildResult<OwnedFd> {
    let tree = open_tree(None, common, Extent::One).during("open_tree layers")?;
    mount_setattr_idmap(tree.as_fd(), Extent::One, namespace)
        .during("mount_setattr (MOUNT_ATTR_IDMAP)")?;
    let read_only = Attributes { set: ATTR_RDONLY, ..Attributes::default() };
    mount_setattr(tree.as_fd(), Extent::One, read_only).during("mount_setattr layers")?;
    Ok(tree)
}

/// Mounts with options that fit in a page, the kernel's limit. The options of an overlay with many layers are shorter
/// if the common directory of the layers is the current directory.
fn shortened(options: &[String]) -> (Option<PathBuf>, String) {
    const PAGE: usize = 4096;
    let data = options.join(",");
    let lower = |option: &String| option.strip_prefix("lowerdir=").map(str::to_owned);
    let Some(layers) = options.iter().find_map(lower).filter(|_| data.len() >= PAGE) else {
        return (None, data);
    };
    let layers: Vec<&Path> = layers.split(':').map(Path::new).collect();
    let Some(common) = common(&layers) else { return (None, data) };
    (Some(common.clone()), relative(options, &layers, &common))
}

/// Formats the options with paths of layers relative to the directory `common`.
fn relative(options: &[String], layers: &[&Path], common: &Path) -> String {
    let short: Vec<String> = layers
        .iter()
        .map(|layer| layer.strip_prefix(common).unwrap_or(layer).display().to_string())
        .collect();
    let short = format!("lowerdir={}", short.join(":"));
    let rest = options.iter().map(|o| if o.starts_with("lowerdir=") { &short } else { o });
    rest.cloned().collect::<Vec<_>>().join(",")
}

/// Returns the nearest common directory.
fn common(layers: &[&Path]) -> Option<PathBuf> {
    let mut common = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(common) && *layer != common) {
        common = common.parent()?;
    }
    common.is_absolute().then(|| common.to_owned())
}

/// Calls `act` with another current directory: the process has one thread.
struct CurrentDirectory;

impl CurrentDirectory {
    fn enter(directory: PathBuf) -> Result<Self> {
        nix::unistd::chdir(&directory).os("chdir", directory.display())?;
        Ok(Self)
    }
}

impl Drop for CurrentDirectory {
    fn drop(&mut self) {
        // The root always exists.
        let _ = nix::unistd::chdir("/");
    }
}

/// Unmounts everything that is mounted there. A missing mount or bundle is no error.
///
/// # Errors
///
/// The kernel rejects the unmount.
pub fn unmount(bundle: &Path) -> Result<()> {
    let rootfs = directory(bundle);
    // A bundle belongs to the engine, but file systems in its rootfs do not.
    let nofollow = MntFlags::UMOUNT_NOFOLLOW;
    loop {
        let result = match umount2(&rootfs, nofollow) {
            // Another process uses it now: it is unmounted when that ends.
            Err(Errno::EBUSY) => umount2(&rootfs, nofollow | MntFlags::MNT_DETACH),
            other => other,
        };
        match result {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(Error::os("umount", rootfs.display(), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_survives_the_wire() {
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["index=off".into(), "lowerdir=/a:/b".into()],
        };
        assert_eq!(Mount::parse(&mount.writer().finish()).unwrap(), mount);
    }

    #[test]
    fn many_layers_are_told_from_where_they_are() {
        let layers: Vec<String> =
            (0..128).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let options = ["upperdir=/u".into(), format!("lowerdir={}", layers.join(":"))];
        let (directory, data) = shortened(&options);
        assert_eq!(directory.unwrap(), Path::new("/var/lib/containerd/snapshots"));
        assert!(data.starts_with("upperdir=/u,lowerdir=0/fs:1/fs:"), "{data}");
        assert!(data.len() < 4096);
        let few = ["lowerdir=/a/b:/a/c".to_owned()];
        assert_eq!(shortened(&few), (None, few[0].clone()));
        assert_eq!(common(&[Path::new("/a/b"), Path::new("/a/b/c")]).unwrap(), Path::new("/a"));
    }

    #[test]
    fn a_target_stays_in_the_rootfs() {
        let dir = std::env::temp_dir().join(format!("aril-target-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("a")).unwrap();
        std::os::unix::fs::symlink("/", dir.join("out")).unwrap();
        let at = |target: &str| {
            let [kind, source] = [String::new(), String::new()];
            target_of(&dir, &Mount { kind, source, target: target.into(), options: vec![] })
        };
        assert_eq!(at("").unwrap(), dir);
        assert!(at("/../a").unwrap().ends_with("a"));
        assert!(at("out/etc").unwrap_err().to_string().contains("leads out of the rootfs"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn maps_of_a_user_namespaced_pod() {
        let of = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            let (map, rest) = id_map_of(&options)?;
            Ok::<_, Error>((map, rest.join(" ")))
        };
        let (map, rest) =
            of(&["index=off", "uidmap=0:65536:10,10:5:1", "gidmap=0:7:3", "lowerdir=/a:/b"])
                .unwrap();
        let map = map.unwrap();
        assert_eq!((map.uids, map.gids), (vec![[0, 65536, 10], [10, 5, 1]], vec![[0, 7, 3]]));
        assert_eq!(rest, "index=off lowerdir=/a:/b");
        assert!(of(&["ro"]).unwrap().0.is_none());
        for wrong in ["uidmap=", "uidmap=0:1", "uidmap=0:1:0", "uidmap=0:1:2:3", "uidmap=a:1:2"] {
            let refused = of(&[wrong, "gidmap=0:1:2"]).unwrap_err().to_string();
            assert!(refused.contains(wrong), "{refused}");
        }
        assert!(of(&["uidmap=0:1:2"]).unwrap_err().to_string().contains("one is missing"));
    }

    #[test]
    fn nothing_mounted_is_fine() {
        unmount(Path::new("/nonexistent/bundle")).unwrap();
    }
}
