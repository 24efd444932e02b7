//! `--device`: devices of the host, as the options of `docker run` name them.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use crate::cli::given::usage;
use crate::error::{Error, OsContext, Result};
use crate::spec::edit::Device;

/// The device that is meant, or all devices of a directory: `HOST[:CONTAINER][:rwm]`.
pub(super) fn find(text: &str) -> Result<Vec<Device>> {
    let (source, place, access) = parse(text)?;
    let what = || format!("invalid value {text:?} for flag --device");
    let found = fs::metadata(&source).map_err(|e| {
        let error = Error::io("stat", source.display(), &e).context(what());
        match source.starts_with("/") {
            true => error,
            false => error.hint("want /HOST[:/CONTAINER][:rwm], such as /dev/fuse"),
        }
    })?;
    if !found.is_dir() {
        let device = device(&source, &found, &place, access);
        let text = format!("{}: {} is not a device", what(), source.display());
        return device.map(|device| vec![device]).ok_or_else(|| usage(text));
    }
    let mut devices = Vec::new();
    all_of(&source, &place, access, &mut devices)?;
    if devices.is_empty() {
        return Err(usage(format!("{}: {} has no devices", what(), source.display())));
    }
    Ok(devices)
}

fn parse(text: &str) -> Result<(PathBuf, PathBuf, &str)> {
    const ALL: &str = "rwm";
    let parts: Vec<_> = text.split(':').collect();
    let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| ALL.contains(c));
    let (source, place, access) = match *parts {
        [source] => (source, source, ALL),
        [source, access] if is_access(access) => (source, source, access),
        [source, place] => (source, place, ALL),
        [source, place, access] if is_access(access) => (source, place, access),
        _ => ("", "", ""),
    };
    if source.is_empty() || !place.starts_with('/') {
        return Err(usage(format!(
            "invalid value {text:?} for flag --device: want /HOST[:/CONTAINER][:rwm]"
        )));
    }
    Ok((source.into(), place.into(), access))
}

fn device(source: &Path, found: &Metadata, place: &Path, access: &str) -> Option<Device> {
    let kind = match found.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let (major, minor) = (major(found.rdev()), minor(found.rdev()));
    let mut node = LinuxDevice::default();
    node.set_path(place.to_owned())
        .set_typ(kind)
        .set_major(i64::try_from(major).ok()?)
        .set_minor(i64::try_from(minor).ok()?)
        .set_file_mode(Some(found.mode() & 0o777))
        .set_uid(Some(found.uid()))
        .set_gid(Some(found.gid()));
    Some(Device { source: source.to_owned(), node, access: access.to_owned() })
}

/// Links in the directory are not followed.
fn all_of(source: &Path, place: &Path, access: &str, devices: &mut Vec<Device>) -> Result<()> {
    for entry in fs::read_dir(source).os("open", source.display())? {
        let entry = entry.os("read", source.display())?;
        let (source, place) = (entry.path(), place.join(entry.file_name()));
        let found = fs::symlink_metadata(&source).os("stat", source.display())?;
        if found.is_dir() {
            all_of(&source, &place, access, devices)?;
        } else {
            devices.extend(device(&source, &found, &place, access));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_access() {
        let found = |text: &str| {
            let devices = find(text).unwrap();
            assert_eq!(devices.len(), 1, "{text}");
            let Device { source, node, access } = &devices[0];
            let numbers = (node.major(), node.minor());
            assert_eq!((source.to_str(), numbers), (Some("/dev/zero"), (1, 5)), "{text}");
            (node.path().to_str().unwrap().to_owned(), access.clone())
        };
        let pair = |place: &str, access: &str| (place.to_owned(), access.to_owned());
        assert_eq!(found("/dev/zero"), pair("/dev/zero", "rwm"));
        assert_eq!(found("/dev/zero:r"), pair("/dev/zero", "r"));
        assert_eq!(found("/dev/zero:/dev/nil"), pair("/dev/nil", "rwm"));
        assert_eq!(found("/dev/zero:/dev/nil:wm"), pair("/dev/nil", "wm"));
        for (text, why) in [
            ("", "want /HOST"),
            (":", "want /HOST"),
            ("/dev/zero:", "want /HOST"),
            ("/dev/zero:nil", "want /HOST"),
            ("/dev/zero:/a:/b", "want /HOST"),
            ("/dev/zero:/a:r:w", "want /HOST"),
            ("/dev/none", "no such file or directory"),
            ("/etc/passwd", "/etc/passwd is not a device"),
            ("/etc", "/etc has no devices"),
            ("vendor.com/class=gpu:/x", "no such file or directory"),
        ] {
            let error = find(text).unwrap_err().to_string();
            assert!(error.contains("--device") && error.contains(why), "{text}: {error}");
        }
    }
}
