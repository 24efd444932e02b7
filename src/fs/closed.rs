//! Creates and checks directories and files for container content, which other users of the host must not reach.
//!
//! A container's root user decides the owners and modes of the files that it writes: a set-user-ID program, or a device
//! node that all users may open. If an unprivileged user of the host can reach such a file, the user can run or open it
//! (CVE-2021-41091, CVE-2021-41103, CVE-2024-25621). All directories and files for container content are created or
//! checked by the functions of this module, independent of the caller's umask and of the mode of an existing directory.
//!
//! A file is unreachable if one directory of its path is closed: owned by root or by the caller, and not searchable by
//! other users.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod};

use crate::error::{Error, OsContext, Result};
use crate::sys::{self, Errno, xattr};

/// Mode of directories that hold container content.
pub const DIRECTORY: u32 = 0o700;
/// Mode of files that hold container content.
const FILE: u32 = 0o600;

/// Creates `path`, a directory that only Aril uses, and its missing parents. Removes the permissions of other users if
/// it exists.
///
/// # Errors
///
/// `path` exists and is not a directory of the caller or of root, or an error of mkdir(2) or chmod(2).
pub fn directory(path: &Path) -> Result<()> {
    match create(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return close(path),
        other => other,
    }
    .os("mkdir", path.display())
}

/// Creates the directory `path`, which does not exist.
///
/// # Errors
///
/// An error of mkdir(2), `AlreadyExists` included.
pub fn create(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(DIRECTORY).create(path)
}

/// Removes the permissions of other users from the existing directory `path`, which only Aril uses.
fn close(path: &Path) -> Result<()> {
    let meta = fs::metadata(path).os("stat", path.display())?;
    if !meta.is_dir() {
        return Err(Error::os("mkdir", path.display(), Errno::EEXIST));
    }
    if !is_trusted(&meta) {
        return Err(owned_by_another(path, &meta));
    }
    tighten(path, &meta)
}

fn tighten(path: &Path, meta: &Metadata) -> Result<()> {
    match meta.mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => {
            let closed = Permissions::from_mode(mode & !0o077);
            fs::set_permissions(path, closed).os("chmod", path.display())
        }
    }
}

/// Checks an existing state root. `own` is true for the default one, whose permissions for other users are removed.
///
/// Another state root may be shared with other programs, so it is only checked that other users cannot write to it.
///
/// # Errors
///
/// Another user owns the directory or can write to it, and could replace the state of containers.
pub fn check_root(path: &Path, meta: &Metadata, own: bool) -> Result<()> {
    let what = |problem: String| Error::system(format!("state root {}: {problem}", path.display()));
    if !is_trusted(meta) {
        return Err(what(format!(
            "the directory belongs to user {}, which could replace state",
            meta.uid()
        ))
        .hint(format!(
            "chown {} to the calling user, or give --root another directory",
            path.display()
        )));
    }
    if meta.mode() & others(meta, 0o002) != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(what(format!("other users can write to the directory (mode {mode:04o})"))
            .hint(format!("chmod go-w {}, or give --root another directory", path.display())));
    }
    if own { tighten(path, meta) } else { Ok(()) }
}

/// Creates or checks `path`, a directory that the caller named for container content.
///
/// If other users can reach an existing directory, and it contains only entries named in `names`, which Aril created,
/// the permissions of other users are removed.
///
/// # Errors
///
/// Other users can reach the directory and it has other entries, or another user owns it.
pub fn named(path: &Path, names: &[&str]) -> Result<()> {
    match create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => return other.os("mkdir", path.display()),
    }
    if !is_reachable(path)? {
        return Ok(());
    }
    let meta = fs::metadata(path).os("stat", path.display())?;
    if !is_trusted(&meta) {
        return Err(owned_by_another(path, &meta));
    }
    for entry in fs::read_dir(path).os("open", path.display())? {
        let name = entry.os("read", path.display())?.file_name();
        if !names.iter().any(|own| name == **own) {
            return Err(reachable(path));
        }
    }
    tighten(path, &meta)
}

/// Checks `path`, a directory that the caller named. Does not change it.
///
/// # Errors
///
/// Other users of the host can reach the content of the directory.
pub fn check(path: &Path) -> Result<()> {
    if is_reachable(path)? { Err(reachable(path)) } else { Ok(()) }
}

/// Creates the file `path` for container content.
///
/// # Errors
///
/// An error of open(2), `AlreadyExists` included.
pub fn file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE)
        .open(path)
        .os("create", path.display())
}

/// Removes the permissions of other users from a layer's root directory, and stores `mode` in an extended attribute.
///
/// `mode` is the mode that the directory has for containers: the root of an overlay has the mode of its topmost layer.
///
/// # Errors
///
/// The file system does not support extended attributes, or an error of fchmod(2).
pub fn layer(directory: BorrowedFd<'_>, mode: u32) -> sys::Result<()> {
    let directory = readable(directory)?;
    let value = format!("{:04o}", mode & 0o7777);
    let mut set = Err(Errno::EOPNOTSUPP);
    for name in LAYER_MODE {
        set = set.or_else(|_| xattr::set(directory.as_fd(), name, value.as_bytes()));
    }
    set?;
    fchmod(&directory, Mode::from_bits_truncate(mode & DIRECTORY))
}

/// Returns the mode that the root directory of a layer has for containers. `found` is its mode on disk.
pub fn layer_mode(directory: BorrowedFd<'_>, found: u32) -> u32 {
    let noted = |name: &CStr| {
        let mut value = [0; 8];
        let length = xattr::get(readable(directory).ok()?.as_fd(), name, &mut value).ok()?;
        u32::from_str_radix(std::str::from_utf8(value.get(..length)?).ok()?, 8).ok()
    };
    let noted =
        if found & 0o077 == 0 { LAYER_MODE.iter().find_map(|name| noted(name)) } else { None };
    noted.unwrap_or(found) & 0o7777
}

/// Names of the attribute in which [`layer`] stores the mode. A tmpfs supports only the second one before Linux 6.6.
const LAYER_MODE: [&CStr; 2] = [c"user.aril.mode", c"trusted.aril.mode"];

fn readable(directory: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(directory, c".", flags, Mode::empty())
}

/// Returns true if directories of the user `uid` are out of reach of unprivileged users of the host.
pub fn is_trusted_user(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Returns true if other users of the host can reach the content of the directory `path`.
fn is_reachable(path: &Path) -> Result<bool> {
    let real = fs::canonicalize(path).os("realpath", path.display())?;
    for directory in real.ancestors() {
        let meta = fs::metadata(directory).os("stat", directory.display())?;
        if is_trusted(&meta) && meta.mode() & others(&meta, 0o001) == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns `bit` for others and, unless the group is root's or the caller's, the same bit for the group.
fn others(meta: &Metadata, bit: u32) -> u32 {
    let own = meta.gid() == 0 || meta.gid() == nix::unistd::getegid().as_raw();
    if own { bit } else { bit | bit << 3 }
}

fn is_trusted(meta: &Metadata) -> bool {
    is_trusted_user(meta.uid())
}

fn owned_by_another(path: &Path, meta: &Metadata) -> Error {
    let text = format!("{} belongs to user {} of the host", path.display(), meta.uid());
    Error::system(format!("{text}, which could reach the files that containers write to it"))
        .hint(format!("chown {} to the calling user", path.display()))
}

fn reachable(path: &Path) -> Error {
    let text = format!("other users of the host can reach {}", path.display());
    Error::system(format!("{text}, and the set-user-ID programs and devices in it"))
        .hint(format!("chmod 700 {}, or one of its parent directories", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("aril-closed-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn make(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_of_arils_own_is_closed() {
        let place = Place::new("own");
        let deep = place.0.join("a/b");
        directory(&deep).unwrap();
        assert_eq!((mode(&deep), mode(&place.0.join("a"))), (0o700, 0o700));
        let loose = place.make("loose", 0o1777);
        directory(&loose).unwrap();
        assert_eq!(mode(&loose), 0o1700);
        fs::write(place.0.join("file"), "").unwrap();
        assert!(directory(&place.0.join("file")).is_err());
    }

    #[test]
    fn a_named_directory_is_closed_or_refused() {
        let place = Place::new("named");
        named(&place.0.join("new"), &[]).unwrap();
        assert_eq!(mode(&place.0.join("new")), 0o700);
        let known = place.make("known", 0o755);
        fs::create_dir(known.join("upper")).unwrap();
        named(&known, &["upper"]).unwrap();
        assert_eq!(mode(&known), 0o700);
        let shared = place.make("shared", 0o755);
        fs::create_dir(shared.join("photos")).unwrap();
        let error = named(&shared, &["upper"]).unwrap_err();
        assert!(error.to_string().contains("can reach /"), "{error}");
        assert_eq!((mode(&shared), shared.join("photos").exists()), (0o755, true));
        // The mode of a directory below a closed one does not change.
        let closed = place.make("closed", 0o700);
        fs::create_dir_all(closed.join("x/photos")).unwrap();
        named(&closed.join("x"), &[]).unwrap();
        check(&closed.join("x")).unwrap();
        assert!(check(&shared).is_err());
        let link = place.0.join("link");
        std::os::unix::fs::symlink(&shared, &link).unwrap();
        assert!(check(&link).is_err());
    }

    #[test]
    fn a_root_that_others_can_write_is_refused() {
        let place = Place::new("root");
        let check = |name: &str, mode, own| {
            let path = place.make(name, mode);
            check_root(&path, &fs::metadata(&path).unwrap(), own).map(|()| self::mode(&path))
        };
        assert_eq!(check("a", 0o755, false).unwrap(), 0o755);
        assert_eq!(check("b", 0o755, true).unwrap(), 0o700);
        for (name, mode) in [("c", 0o777), ("d", 0o1777), ("e", 0o702)] {
            let error = check(name, mode, false).unwrap_err();
            assert!(error.to_string().contains("other users can write"), "{error}");
            assert!(error.advice().unwrap().contains("chmod go-w"));
        }
    }

    #[test]
    fn a_layer_keeps_the_mode_that_containers_see() {
        let place = Place::new("layer");
        let path = place.make("x", 0o755);
        let opened = File::open(&path).unwrap();
        assert_eq!(layer_mode(opened.as_fd(), 0o755), 0o755);
        layer(opened.as_fd(), 0o1755).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(layer_mode(opened.as_fd(), 0o700), 0o1755);
        // A layer that was always closed has no stored mode.
        let path = place.make("y", 0o700);
        assert_eq!(layer_mode(File::open(&path).unwrap().as_fd(), 0o700), 0o700);
    }

    #[test]
    fn a_file_is_closed() {
        let place = Place::new("file");
        let path = place.0.join("x");
        file(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(file(&path).is_err());
    }
}
