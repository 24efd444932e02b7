//! Plans [`Layers`] from the operator's grant, and [`Overlay`] from the layers and facts, without system calls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIdMapping;
use serde::Deserialize;

use super::super::plan::{host_path, ranges};
use super::{Layers, MOST_LOWERS, Overlay, Upper};
use crate::error::{Error, Result};
use crate::path::absolute;
use crate::rootfs::IdMap;
use crate::spec::{Extensions, annotation, size};
use crate::sys::mount::Extent;

/// Operator's grant and the facts that the overlay depends on.
#[derive(Debug, Clone, Copy)]
pub struct OverlayRequest<'a> {
    pub layers: Option<&'a str>,
    pub upper: Option<&'a str>,
    pub show: Option<&'a str>,
    /// `root.path`, absolute.
    pub root: &'a Path,
    pub bundle: &'a Path,
    /// Container's state directory.
    pub state_directory: &'a Path,
    /// True if root on the host makes the overlay. Otherwise root of the user namespace makes it.
    pub privileged: bool,
    /// Mappings of the container's user namespace.
    pub uid_mappings: &'a [LinuxIdMapping],
    pub gid_mappings: &'a [LinuxIdMapping],
    /// Owner of each lower directory. Empty if it is not needed.
    pub owners: &'a [u32],
}

/// Returns the lower directories, if there are layers.
///
/// # Errors
///
/// The text of the layers is invalid, names a directory twice, or names too many.
pub fn lowers_of(
    extensions: &Extensions,
    root: &Path,
    bundle: &Path,
) -> Result<Option<Vec<PathBuf>>> {
    choose(extensions.layers.as_deref(), extensions.upper.as_deref(), root, bundle)
}

fn choose(
    layers: Option<&str>,
    upper: Option<&str>,
    root: &Path,
    bundle: &Path,
) -> Result<Option<Vec<PathBuf>>> {
    match (layers, upper) {
        (None, None) => Ok(None),
        (Some(text), _) => lowers(text, bundle).map(Some),
        (None, Some(_)) => Ok(Some(vec![root.to_owned()])),
    }
}

/// Returns the layers, if there are any.
///
/// # Errors
///
/// An option is invalid, the upper directory overlaps with a layer, or the shown rootfs would cover a layer.
pub fn layers(request: &OverlayRequest<'_>) -> Result<Option<Layers>> {
    let show = boolean(annotation::SHOW, request.show)?;
    let Some(lowers) = choose(request.layers, request.upper, request.root, request.bundle)? else {
        return match show {
            true => Err(invalid(annotation::SHOW, "true", "the rootfs has no layers")),
            false => Ok(None),
        };
    };
    let upper = upper(request.upper.unwrap_or("ephemeral"), request)?;
    if let Some(directory) = upper.directory() {
        refuse_overlap(&lowers, directory, &upper)?;
    }
    let shown = show.then(|| request.bundle.join("rootfs"));
    if let Some(place) = shown.as_ref().filter(|place| lowers.iter().any(|l| l.starts_with(place)))
    {
        let text = format!("the mount would cover layer {}", place.display());
        return Err(invalid(annotation::SHOW, "true", &text));
    }
    Ok(Some(Layers { lowers, upper, shown }))
}

fn lowers(text: &str, bundle: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |why: &str| invalid(annotation::LAYERS, text, why);
    let names: Vec<String> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?
    } else {
        text.split(':').map(str::to_owned).collect()
    };
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(wrong("the name of a directory is empty"));
    }
    if names.len() > MOST_LOWERS {
        let why = format!("{} layers: the kernel supports at most {MOST_LOWERS}", names.len());
        return Err(Error::config(format!("annotation {}: {why}", annotation::LAYERS)));
    }
    let lowers: Vec<_> = names.iter().map(|name| absolute(bundle, Path::new(name))).collect();
    // The paths are clean, so equal paths have equal bytes.
    let mut seen = BTreeSet::new();
    match lowers.iter().find(|lower| !seen.insert(lower.as_os_str())) {
        Some(twice) => Err(wrong(&format!("layer {} is listed twice", twice.display()))),
        None => Ok(lowers),
    }
}

/// Directories of [`Upper::Given`] in the option.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    upper: PathBuf,
    work: PathBuf,
}

fn upper(text: &str, request: &OverlayRequest<'_>) -> Result<Upper> {
    if text.starts_with('{') {
        let Given { upper, work } = serde_json::from_str(text)
            .map_err(|e| invalid(annotation::UPPER, text, &e.to_string()))?;
        let of = |path: &Path| absolute(request.bundle, path);
        return Ok(Upper::Given { upper: of(&upper), work: of(&work) });
    }
    // A colon belongs to the path, except after the last slash if a size follows.
    let (kind, amount) = match text.rsplit_once("/:") {
        Some((directory, amount)) if bytes(amount).is_some() => {
            (&text[..=directory.len()], Some(amount))
        }
        _ if text.contains('/') => (text, None),
        _ => match text.split_once(':') {
            Some((kind, amount)) => (kind, Some(amount)),
            None => (text, None),
        },
    };
    let size = || match amount.map(bytes) {
        Some(None) => Err(invalid(annotation::UPPER, text, "want a size such as 64m")),
        other => Ok(other.flatten()),
    };
    match kind {
        "ephemeral" => {
            Ok(Upper::Ephemeral { directory: request.state_directory.to_owned(), size: size()? })
        }
        "tmpfs" => Ok(Upper::Tmpfs { size: size()? }),
        _ if kind.contains('/') => {
            Ok(Upper::Kept { directory: absolute(request.bundle, Path::new(kind)), size: size()? })
        }
        _ => Err(invalid(
            annotation::UPPER,
            text,
            "want ephemeral, tmpfs, tmpfs:SIZE, or a directory with a slash in its name",
        )),
    }
}

fn bytes(amount: &str) -> Option<u64> {
    size::bytes(amount).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
}

/// Rejects an upper directory that contains a layer, or that a layer contains.
fn refuse_overlap(lowers: &[PathBuf], directory: &Path, upper: &Upper) -> Result<()> {
    let overlaps = |lower: &&PathBuf| lower.starts_with(directory) || directory.starts_with(lower);
    match lowers.iter().find(overlaps) {
        Some(lower) => {
            let why = format!("the directory overlaps with layer {}", lower.display());
            Err(invalid(annotation::UPPER, &upper.to_string(), &why))
        }
        None => Ok(()),
    }
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid(key, other, "want true or false")),
    }
}

fn invalid(key: &str, value: &str, why: &str) -> Error {
    let shown: String = value.chars().take(200).collect();
    Error::config(format!("annotation {key}={shown}: {why}"))
}

/// Returns the step, if there are layers.
///
/// # Errors
///
/// The errors of [`layers`], or an option needs root on the host.
pub fn overlay(request: &OverlayRequest<'_>) -> Result<Option<Overlay>> {
    let Some(layers) = layers(request)? else { return Ok(None) };
    if !request.privileged && layers.shown.is_some() {
        return Err(invalid(annotation::SHOW, "true", "only root can show a rootfs on the host"));
    }
    if !request.privileged && layers.upper.quota().is_some() {
        let text = layers.upper.to_string();
        return Err(invalid(
            annotation::UPPER,
            &text,
            "only root can limit an upper directory on a disk",
        )
        .hint("use tmpfs:SIZE, which needs no privileges"));
    }
    Ok(Some(Overlay {
        at: host_path(request.root)?,
        source: host_path(request.state_directory)?,
        tree: request.privileged.then_some(0),
        id_map: if request.privileged { id_map(request) } else { None },
        layers,
    }))
}

/// Returns the mapping of the layers. A layer whose directory belongs to an ID of the namespace's range was made for
/// that range. Other layers are id-mapped.
fn id_map(request: &OverlayRequest<'_>) -> Option<(IdMap, Vec<bool>)> {
    let (uids, gids) = (ranges(request.uid_mappings), ranges(request.gid_mappings));
    if uids.is_empty() || gids.is_empty() {
        return None;
    }
    let inside = |owner: u32| {
        uids.iter().any(|[_, host, size]| owner.checked_sub(*host).is_some_and(|at| at < *size))
    };
    let mapped: Vec<_> = request.owners.iter().map(|owner| !inside(*owner)).collect();
    let map = IdMap { extent: Extent::One, uids, gids };
    mapped.contains(&true).then_some((map, mapped))
}

#[cfg(test)]
pub(in crate::rootfs) mod tests {
    use super::*;

    pub(in crate::rootfs) fn request<'a>(
        layers: Option<&'a str>,
        upper: Option<&'a str>,
    ) -> OverlayRequest<'a> {
        OverlayRequest {
            layers,
            upper,
            show: None,
            root: Path::new("/b/rootfs"),
            bundle: Path::new("/b"),
            state_directory: Path::new("/run/aril/c"),
            privileged: true,
            uid_mappings: &[],
            gid_mappings: &[],
            owners: &[],
        }
    }

    fn refusal(layers: Option<&str>, upper: Option<&str>) -> String {
        super::layers(&request(layers, upper)).unwrap_err().to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(layers(&request(None, None)).unwrap(), None);
        let show = OverlayRequest { show: Some("true"), ..request(None, None) };
        assert!(layers(&show).unwrap_err().to_string().contains("has no layers"));
    }

    #[test]
    fn an_upper_alone_is_over_the_root() {
        let got = layers(&request(None, Some("tmpfs:64m"))).unwrap().unwrap();
        assert_eq!(got.lowers, [Path::new("/b/rootfs")]);
        assert_eq!(got.upper, Upper::Tmpfs { size: Some(64 << 20) });
        assert_eq!((got.upper.upper(), got.upper.is_volatile()), (None, true));
    }

    #[test]
    fn layers_are_a_list_from_the_lowest_up() {
        let got = layers(&request(Some("base:/x/app"), None)).unwrap().unwrap();
        assert_eq!(got.lowers, [Path::new("/b/base"), Path::new("/x/app")]);
        assert_eq!(got.upper.upper().unwrap(), Path::new("/run/aril/c/upper"));
        assert_eq!(got.upper.work().unwrap(), Path::new("/run/aril/c/work"));
        let got = layers(&request(Some(r#"["a:b","c"]"#), None)).unwrap().unwrap();
        assert_eq!(got.lowers, [Path::new("/b/a:b"), Path::new("/b/c")]);
    }

    #[test]
    fn a_kept_upper_is_a_directory() {
        let got = layers(&request(None, Some("./mine"))).unwrap().unwrap();
        assert_eq!(got.upper, Upper::Kept { directory: "/b/mine".into(), size: None });
        assert!(!got.upper.is_volatile());
        // The colon belongs to the path.
        let got = layers(&request(None, Some("/a:b"))).unwrap().unwrap();
        assert_eq!(got.upper, Upper::Kept { directory: "/a:b".into(), size: None });
        let got = layers(&request(None, Some("/a:5m"))).unwrap().unwrap();
        assert_eq!(got.upper, Upper::Kept { directory: "/a:5m".into(), size: None });
    }

    #[test]
    fn on_a_disk_a_quota_is_the_limit() {
        let got = layers(&request(None, Some("/mine/:5m"))).unwrap().unwrap();
        assert_eq!(got.upper, Upper::Kept { directory: "/mine".into(), size: Some(5 << 20) });
        assert_eq!(got.upper.quota(), Some((Path::new("/mine"), 5 << 20)));
        let got = layers(&request(None, Some("ephemeral:1g"))).unwrap().unwrap();
        assert_eq!(got.upper.quota(), Some((Path::new("/run/aril/c"), 1 << 30)));
        assert_eq!(got.upper.to_string(), "ephemeral, 1073741824 bytes");
        let rootless = OverlayRequest { privileged: false, ..request(None, Some("ephemeral:1g")) };
        assert!(overlay(&rootless).unwrap_err().to_string().contains("only root can limit"));
        let memory = OverlayRequest { upper: Some("tmpfs:1g"), ..rootless };
        assert_eq!(overlay(&memory).unwrap().unwrap().layers.upper.quota(), None);
    }

    #[test]
    fn both_directories_may_be_given() {
        let text = r#"{"upper":"/s/9/fs","work":"w"}"#;
        let got = layers(&request(Some("/s/1/fs"), Some(text))).unwrap().unwrap();
        assert_eq!(got.upper, Upper::Given { upper: "/s/9/fs".into(), work: "/b/w".into() });
        assert_eq!(got.upper.upper().unwrap(), Path::new("/s/9/fs"));
        assert!(!got.upper.is_volatile());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (layers, upper, why) in [
            (Some(""), None, "the name of a directory is empty"),
            (Some("a::b"), None, "the name of a directory is empty"),
            (Some("[]"), None, "the name of a directory is empty"),
            (Some("[1]"), None, "invalid type"),
            (Some("a:./a"), None, "layer /b/a is listed twice"),
            (None, Some("tmpfs:much"), "want a size such as 64m"),
            (None, Some("tmpfs:0"), "want a size such as 64m"),
            (None, Some("tmpfs:-1"), "want a size such as 64m"),
            (None, Some("mine"), "want ephemeral, tmpfs"),
            (None, Some("/b/rootfs/x"), "overlaps with layer"),
            (None, Some("/b"), "overlaps with layer"),
            (None, Some(r#"{"upper":"/u"}"#), "missing field `work`"),
        ] {
            let text = refusal(layers, upper);
            assert!(text.contains(why) && text.starts_with("annotation io.aril."), "{text}");
        }
        let many = vec!["x"; 501].join(":");
        assert!(refusal(Some(&many), None).contains("501 layers: the kernel supports at most 500"));
    }

    #[test]
    fn what_is_shown_must_not_cover_a_layer() {
        let show = OverlayRequest { show: Some("true"), ..request(None, Some("tmpfs")) };
        assert!(layers(&show).unwrap_err().to_string().contains("would cover layer"));
        let show = OverlayRequest { layers: Some("/image"), ..show };
        assert_eq!(layers(&show).unwrap().unwrap().shown.unwrap(), Path::new("/b/rootfs"));
        let maybe = OverlayRequest { show: Some("yes"), ..show };
        assert!(layers(&maybe).unwrap_err().to_string().contains("want true or false"));
    }

    #[test]
    fn owners_outside_the_range_are_mapped_into_it() {
        let ids: Vec<LinuxIdMapping> =
            serde_json::from_str(r#"[{"containerID":0,"hostID":100000,"size":65536}]"#).unwrap();
        let with = |owners| OverlayRequest {
            uid_mappings: &ids,
            gid_mappings: &ids,
            owners,
            ..request(None, None)
        };
        let (map, mapped) = id_map(&with(&[0, 100_000, 165_536])).unwrap();
        assert_eq!(map.uids, [[0, 100_000, 65536]]);
        assert_eq!(mapped, [true, false, true]);
        assert_eq!(id_map(&with(&[100_000])), None);
        assert_eq!(id_map(&OverlayRequest { uid_mappings: &[], ..with(&[0]) }), None);
    }
}
