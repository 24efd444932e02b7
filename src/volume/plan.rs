//! Turns `--volume` and `--tmpfs` into mounts. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use crate::error::{Error, Kind, Result};
use crate::path::clean;
use crate::spec::size;

/// Source of a `--volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Named(String),
    /// Path on the host: absolute, or relative to the caller's working directory.
    Host(PathBuf),
}

/// Value of a `--volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeOption {
    pub source: Source,
    pub destination: PathBuf,
    pub options: Vec<String>,
}

/// Parses `NAME:/PATH[:OPTIONS]` or `HOST:/PATH[:OPTIONS]`; options are separated by commas. A host path contains
/// a slash, or is `.` or `..`; a volume's name contains none.
///
/// # Errors
///
/// The text has another form, or an option is unknown.
pub fn volume(text: &str) -> Result<VolumeOption> {
    let wrong = |why: &str| {
        Error::new(Kind::Usage, format!("invalid value {text:?} for flag --volume: {why}"))
            .hint("use NAME:/PATH[:ro], /HOST:/PATH[:ro] or ./HOST:/PATH[:ro]")
    };
    let mut parts = text.splitn(3, ':');
    let (source, destination) = (parts.next().unwrap_or_default(), parts.next());
    let destination =
        destination.ok_or_else(|| wrong("the source or the destination is missing"))?;
    if !destination.starts_with('/') {
        return Err(wrong("the destination is not an absolute path"));
    }
    if clean(Path::new(destination)) == Path::new("/") {
        return Err(wrong("the destination is the root; use --layer for the root"));
    }
    let source = if source.contains('/') || [".", ".."].contains(&source) {
        Source::Host(source.into())
    } else {
        check_name(source).map_err(|e| wrong(&e.to_string()))?;
        Source::Named(source.to_owned())
    };
    let options = options(parts.next());
    Ok(VolumeOption { source, destination: destination.into(), options })
}

fn options(text: Option<&str>) -> Vec<String> {
    text.into_iter()
        .flat_map(|t| t.split(','))
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect()
}

impl VolumeOption {
    /// Returns the bind mount. `source`: path on the host. `mapped`: id-map the mount to the container's user
    /// namespace.
    pub fn mount(&self, source: &Path, mapped: bool) -> Mount {
        let mut options = vec!["rbind".to_owned()];
        if mapped {
            options.push("idmap".to_owned());
        }
        options.extend(self.options.iter().cloned());
        mount(&self.destination, "bind", source, options)
    }
}

/// Returns an error if two mounts of flags have one destination: the later mount would hide the earlier one.
///
/// # Errors
///
/// Two mounts have one destination.
pub fn check_places(mounts: &[Mount]) -> Result<()> {
    let places: Vec<_> = mounts.iter().map(|mount| clean(mount.destination())).collect();
    match places.iter().enumerate().find(|(at, place)| places[..*at].contains(place)) {
        Some((_, twice)) => Err(Error::new(
            Kind::Usage,
            format!("--volume and --tmpfs mount at {} twice", twice.display()),
        )),
        None => Ok(()),
    }
}

/// Parses `/PATH`, `/PATH:SIZE` or `/PATH:OPTIONS`.
///
/// # Errors
///
/// The text has another form.
pub fn tmpfs(text: &str) -> Result<Mount> {
    let (path, rest) = match text.split_once(':') {
        Some((path, rest)) => (path, Some(rest)),
        None => (text, None),
    };
    if !path.starts_with('/') {
        let text = format!("invalid value {text:?} for flag --tmpfs: not an absolute path");
        return Err(Error::new(Kind::Usage, text).hint("use /PATH[:SIZE] or /PATH:OPTIONS"));
    }
    let mut all: Vec<_> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    match rest.and_then(size::bytes).filter(|bytes| *bytes > 0) {
        Some(bytes) => all.push(format!("size={bytes}")),
        None => all.extend(options(rest)),
    }
    Ok(mount(Path::new(path), "tmpfs", Path::new("tmpfs"), all))
}

fn mount(destination: &Path, kind: &str, source: &Path, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

/// Checks a volume's name: a letter or digit, then letters, digits, `_`, `.` and `-`. It is one component of a path.
///
/// # Errors
///
/// The name has another form.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    let fine = name.len() <= 128
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'));
    if fine {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("invalid volume name {name:?}"))
        .hint("use a letter or digit, then letters, digits, `_`, `.` and `-`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_flags_are_parsed() {
        let wanted = volume("data:/var/lib:ro,nosuid").unwrap();
        assert_eq!(wanted.source, Source::Named("data".into()));
        let mount = wanted.mount(Path::new("/v/data"), true);
        assert_eq!(mount.destination(), Path::new("/var/lib"));
        assert_eq!(mount.options().as_deref().unwrap().join(","), "rbind,idmap,ro,nosuid");
        let wanted = volume("/srv:/srv").unwrap();
        assert_eq!(wanted.source, Source::Host("/srv".into()));
        assert_eq!(wanted.mount(Path::new("/srv"), false).options().as_deref().unwrap(), ["rbind"]);
        for relative in ["./x", "../x", "a/b", ".", ".."] {
            let wanted = volume(&format!("{relative}:/y")).unwrap();
            assert_eq!(wanted.source, Source::Host(relative.into()));
        }
        for bad in ["", "/data", "data", "data:x", "./data", ":/x", ".x:/x", "-x:/x"] {
            let error = volume(bad).unwrap_err();
            assert!(error.to_string().contains("--volume"), "{error}");
        }
    }

    #[test]
    fn tmpfs_flags_are_parsed() {
        let options = |text| tmpfs(text).unwrap().options().as_deref().unwrap().join(",");
        assert_eq!(options("/tmp"), "nosuid,nodev,noexec");
        assert_eq!(options("/tmp:64m"), "nosuid,nodev,noexec,size=67108864");
        assert_eq!(options("/tmp:mode=1777,exec"), "nosuid,nodev,noexec,mode=1777,exec");
        assert!(tmpfs("tmp").is_err());
    }
}
