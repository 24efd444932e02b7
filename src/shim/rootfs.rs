//! The mounts that make a container's rootfs, as containerd hands them over: on `<bundle>/rootfs` of
//! the host, from before `create` until after `delete`.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as nix_mount, umount2};

use super::status::Status;
use super::wire::{Message, Writer};
use crate::error::{Error, OsContext, Result};
use crate::path::absolute;
use crate::rootfs::options::Options;

/// containerd.types.Mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    /// Below the rootfs.
    pub target: String,
    pub options: Vec<String>,
}

impl Mount {
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, Status> {
        let message = Message::parse(bytes)?;
        Ok(Self {
            kind: message.text(1)?.to_owned(),
            source: message.text(2)?.to_owned(),
            target: message.text(3)?.to_owned(),
            options: message.texts(4)?,
        })
    }

    pub fn writer(&self) -> Writer {
        let writer =
            Writer::new().bytes(1, &self.kind).bytes(2, &self.source).bytes(3, &self.target);
        self.options.iter().fold(writer, |writer, option| writer.bytes(4, option))
    }
}

pub fn directory(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// All of them, or none.
pub fn mount(bundle: &Path, mounts: &[Mount]) -> Result<()> {
    let rootfs = directory(bundle);
    for one in mounts {
        mount_one(&rootfs, one).inspect_err(|_| {
            // The first failure is the one to tell of.
            let _ = unmount(bundle);
        })?;
    }
    Ok(())
}

/// Where in the rootfs a mount goes. What is mounted there already may have links that lead out of it.
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
    let options = Options::parse(mount.options.iter().map(String::as_str));
    let failed = |errno| {
        let what = format!("{} on {}", mount.source, target.display());
        Error::os("mount", what, errno).context("failed to mount rootfs component".to_owned())
    };
    let bind = options.bind.is_some() || mount.kind == "bind";
    let mut flags = MsFlags::from_bits_retain(options.flags as _);
    if bind {
        let tree = options.bind == Some(crate::sys::mount::Extent::Tree);
        let bind = MsFlags::MS_BIND | if tree { MsFlags::MS_REC } else { MsFlags::empty() };
        nix_mount(Some(mount.source.as_str()), &target, NONE, bind, NONE).map_err(failed)?;
        if !flags.is_empty() {
            // A bind takes its flags by a second call only.
            flags |= MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            nix_mount(NONE, &target, NONE, flags, NONE).map_err(failed)?;
        }
        return Ok(());
    }
    let (directory, data) = shortened(&options.data);
    let kind = Some(mount.kind.as_str());
    let _within = directory.map(Within::enter).transpose()?;
    nix_mount(Some(mount.source.as_str()), &target, kind, flags, Some(data.as_str()))
        .map_err(failed)
}

const NONE: Option<&str> = None;

/// The kernel takes a page of options. An overlay of many layers says less when the directory that all
/// of them are in is the current one.
fn shortened(options: &[String]) -> (Option<PathBuf>, String) {
    const PAGE: usize = 4096;
    let data = options.join(",");
    let lower = |option: &String| option.strip_prefix("lowerdir=").map(str::to_owned);
    let Some(layers) = options.iter().find_map(lower).filter(|_| data.len() >= PAGE) else {
        return (None, data);
    };
    let layers: Vec<&Path> = layers.split(':').map(Path::new).collect();
    let Some(common) = common(&layers) else { return (None, data) };
    let short: Vec<String> = layers
        .iter()
        .map(|layer| layer.strip_prefix(&common).unwrap_or(layer).display().to_string())
        .collect();
    let short = format!("lowerdir={}", short.join(":"));
    let rest = options.iter().map(|o| if o.starts_with("lowerdir=") { &short } else { o });
    let data = rest.cloned().collect::<Vec<_>>().join(",");
    (Some(common), data)
}

/// The nearest directory above all of them.
fn common(layers: &[&Path]) -> Option<PathBuf> {
    let mut common = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(common) && *layer != common) {
        common = common.parent()?;
    }
    common.is_absolute().then(|| common.to_owned())
}

/// The current directory for a moment: there is one thread.
struct Within;

impl Within {
    fn enter(directory: PathBuf) -> Result<Self> {
        nix::unistd::chdir(&directory).os("chdir", directory.display())?;
        Ok(Self)
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        // The root is always there.
        let _ = nix::unistd::chdir("/");
    }
}

/// Whatever is mounted there, however often. None is fine, and so is no bundle.
pub fn unmount(bundle: &Path) -> Result<()> {
    let rootfs = directory(bundle);
    // A bundle belongs to the engine, but what is in its rootfs does not.
    let nofollow = MntFlags::UMOUNT_NOFOLLOW;
    loop {
        let result = match umount2(&rootfs, nofollow) {
            // Somebody looks at it just now: it goes when they have done.
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
    fn nothing_mounted_is_fine() {
        unmount(Path::new("/nonexistent/bundle")).unwrap();
    }
}
