//! Options of `create` and `run` that describe a container, with a config.json or without one.

mod device;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Arg;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};

use super::given::{Given, usage};
use super::network;
use super::spec::{For, document};
use super::table::{switch, value, values};
use super::value;
use crate::error::{Context, Error, OsContext, Result};
use crate::identity::account;
use crate::path::absolute;
use crate::rootfs::overlay::plan::lowers_of;
use crate::spec::defaults::thermal_throttles;
use crate::spec::edit::{DefaultSpec, Edits};
use crate::spec::grant::Policy;
use crate::spec::{self, Config, Extensions};
use crate::volume::plan::{Source, check_places, tmpfs, volume};
use crate::volume::{MountedVolume, Volumes};

pub fn flags() -> Vec<Arg> {
    vec![
        value(
            "rootfs",
            "DIR",
            "Run this root file system without a bundle, and leave it unchanged",
        ),
        values(
            "layer",
            "DIR",
            "Lower directory stacked on the rootfs; the last one is the topmost",
        ),
        value(
            "upper",
            "WHERE",
            "Upper directory: ephemeral, tmpfs or DIR/ to keep, each with [:SIZE]",
        ),
        switch("show-rootfs", "Also mount the overlay at rootfs in the bundle"),
        values("volume", "SOURCE:DIR[:ro]", "Mount a named volume, or a directory of the host")
            .short('v'),
        values("tmpfs", "DIR[:SIZE]", "Mount an empty tmpfs"),
        value("shm-size", "SIZE", "Size of /dev/shm"),
        values("device", "HOST[:DIR][:rwm]", "Add a device of the host, or those of a directory"),
        value("user", "USER[:GROUP]", "User, by number or by the image's name").short('u'),
        values("group-add", "GROUP", "Add a supplementary group, by number or the image's name"),
        value("hostname", "NAME", "Host name"),
        values("sysctl", "NAME=VALUE", "Set a sysctl of the container's namespaces"),
        values(
            "ulimit",
            "NAME=SOFT[:HARD]",
            "Set a resource limit of the process, such as nofile=1024",
        ),
        switch("init", "Run the command as a child of an init process that reaps orphans"),
        switch("read-only", "Mount the root file system read-only"),
        switch("tty", "Allocate a terminal").short('t'),
        values("cap-add", "CAP", "Add a capability, such as NET_ADMIN, or ALL").alias("cap"),
        values("cap-drop", "CAP", "Drop a capability, or ALL"),
        value("landlock", "FILE|JSON", "Confine the container by these rules: docs/landlock.md"),
    ]
    .into_iter()
    .chain(process_flags())
    .chain(super::resources::limit_flags())
    .collect()
}

/// Flags that `exec` has, too.
pub fn process_flags() -> [Arg; 3] {
    [
        values(
            "env",
            "NAME[=VALUE]",
            "Set an environment variable; without a value, copy the caller's",
        )
        .short('e'),
        values("env-file", "FILE", "Read environment variables from FILE, a line each"),
        value("workdir", "DIR", "Working directory").short('w').alias("cwd"),
    ]
}

/// Values of the options. Paths are absolute.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    pub rootfs: Option<PathBuf>,
    /// True if the command line names a bundle, too.
    pub bundle: bool,
    /// Lower directories, the lowest first.
    pub layers: Vec<PathBuf>,
    pub volumes: Vec<String>,
    pub tmpfs: Vec<String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub devices: Vec<String>,
    /// Landlock rules: a JSON document, or the path of a file with one.
    pub landlock: Option<String>,
    pub edits: Edits,
    /// Edits that the other options ask for.
    pub extensions: Extensions,
}

/// Reads the options of `create` and `run`.
///
/// # Errors
///
/// An option has an invalid value.
pub fn read(given: &Given, args: Vec<String>) -> Result<Options> {
    Ok(Options {
        rootfs: given.path("rootfs")?,
        bundle: given.raw("bundle").is_some(),
        layers: given.paths("layer")?,
        volumes: given.texts("volume")?,
        tmpfs: given.texts("tmpfs")?,
        user: given.text("user")?,
        groups: given.texts("group-add")?,
        devices: given.texts("device")?,
        landlock: given.text("landlock")?,
        edits: Edits {
            args,
            limits: limits(given)?,
            env: environment(given)?,
            workdir: given.raw("workdir").map(PathBuf::from),
            hostname: given.text("hostname")?,
            read_only: given.switch("read-only"),
            tty: given.switch("tty").then_some(true),
            cap_add: given.texts("cap-add")?,
            cap_drop: given.texts("cap-drop")?,
            rlimits: given.parsed_all("ulimit", value::ulimit, ULIMIT)?,
            sysctls: given.parsed_all("sysctl", value::assignment, "NAME=VALUE")?,
            shm_size: given.parsed("shm-size", size_of_shm, "a size such as 64m")?,
            ..Edits::default()
        },
        extensions: Extensions {
            upper: given.text("upper")?.map(upper),
            show: given.switch("show-rootfs").then(|| "true".to_owned()),
            userns: given.text("userns")?,
            ..network::extensions(given)?
        },
    })
}

const ULIMIT: &str = "NAME=SOFT[:HARD], such as nofile=1024:2048 (-1: unlimited)";

fn size_of_shm(text: &str) -> Option<u64> {
    value::bytes(text).and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// Resolves a directory from the caller's current directory. The annotation's would be relative to the bundle.
fn upper(text: String) -> String {
    let path = Path::new(&text);
    match std::path::absolute(path) {
        Ok(path) if text.contains('/') && !text.starts_with('{') => {
            path.to_str().map_or(text.clone(), str::to_owned)
        }
        _ => text,
    }
}

/// `None` without these options.
fn limits(given: &Given) -> Result<Option<Box<LinuxResources>>> {
    if super::resources::limit_flags()
        .iter()
        .all(|flag| given.raw(flag.get_id().as_str()).is_none())
    {
        return Ok(None);
    }
    let mut limits = super::resources::limits(given)?;
    limits.set_devices(None);
    Ok(Some(Box::new(limits)))
}

/// Reads the variables of `--env-file`, then those of `--env`.
pub(super) fn environment(given: &Given) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for file in given.texts("env-file")? {
        let text = std::fs::read_to_string(&file).os("read", &file)?;
        let lines = text.lines().map(str::trim_start);
        let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        variables.extend(named.map(str::to_owned).filter_map(variable));
    }
    variables.extend(given.texts("env")?.into_iter().filter_map(variable));
    Ok(variables)
}

#[expect(clippy::disallowed_methods, reason = "--env NAME copies the caller's variable")]
fn variable(text: String) -> Option<String> {
    if text.contains('=') {
        return Some(text);
    }
    std::env::var(&text).ok().map(|value| format!("{text}={value}"))
}

/// Parses a number of processors in thousandths: `1.5` is 1500.
pub(super) fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    let all = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)?;
    // The kernel's minimum quota is 1 ms of each 100 ms.
    (10..=1_000_000_000).contains(&all).then_some(all)
}

/// Config that the options make. `config` is `None` if the bundle's config.json is used unchanged.
#[derive(Debug, Default)]
pub struct Resolved {
    pub config: Option<Config>,
    pub extensions: Extensions,
    pub volumes: Vec<MountedVolume>,
    /// Config to use instead of the bundle's.
    pub bundle: Option<PathBuf>,
}

/// Location of a container's documents.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    pub bundle: &'a Path,
    /// `--config`.
    pub config: Option<&'a Path>,
}

impl Documents<'_> {
    fn load(&self) -> Result<Config> {
        match self.config {
            Some(file) => spec::load_file(file),
            None => spec::load(self.bundle),
        }
    }
}

/// `state_directory` is the bundle of a container without one.
///
/// # Errors
///
/// A document cannot be read, or an option contradicts it.
pub fn resolve(
    options: Options,
    id: &str,
    documents: Documents,
    state_directory: &Path,
    policy: &Policy,
) -> Result<Resolved> {
    let Options { rootfs, bundle: named, layers, volumes, tmpfs: tmpfses, user, .. } = options;
    let (groups, devices) = (options.groups, options.devices);
    let (mut edits, mut extensions) = (options.edits, options.extensions);
    extensions.landlock = options.landlock.map(rules).transpose()?;
    if rootfs.is_some() && (named || documents.config.is_some()) {
        return Err(usage("--rootfs cannot be used together with --bundle or --config")
            .hint("a bundle has a rootfs of its own"));
    }
    let named_ids = user.is_some() || !groups.is_empty();
    let asked = rootfs.is_some() || named_ids || edits != Edits::default();
    if !asked && devices.is_empty() && layers.is_empty() && volumes.is_empty() && tmpfses.is_empty()
    {
        let config = documents.config.map(|_| documents.load()).transpose()?;
        return Ok(Resolved { config, extensions, ..Resolved::default() });
    }
    let bare = rootfs.is_some();
    let bundle = if bare { state_directory } else { documents.bundle };
    let config = match &rootfs {
        None => documents.load()?,
        Some(_) => {
            let target = For::this_host(!nix::unistd::geteuid().is_root());
            let mut config = spec::parse(document(&target).into_bytes())?;
            if extensions.userns.is_some()
                && let Some(linux) = config.spec.linux_mut()
            {
                // `lifecycle` chooses the ids.
                linux.set_uid_mappings(None).set_gid_mappings(None);
            }
            config
        }
    };
    let root = match rootfs {
        Some(folder) => real(&folder)?,
        None => {
            let root = config.spec.root().as_ref();
            root.map(|root| absolute(bundle, root.path())).unwrap_or_default()
        }
    };
    if bare {
        edits.default_spec = Some(DefaultSpec {
            root: root.clone(),
            name: id.to_owned(),
            masked: thermal_throttles(Path::new("/sys/devices/system/cpu")),
        });
        extensions.upper.get_or_insert_with(|| "ephemeral".to_owned());
    }
    // With both directories of the upper given, the root is only the mount point.
    let complete = extensions.upper.as_deref().is_some_and(|upper| upper.starts_with('{'));
    let below = if complete && !layers.is_empty() { vec![] } else { vec![root.clone()] };
    let annotations = config.spec.annotations().iter().flatten();
    let granted = policy.admit(annotations, &Extensions::default(), false)?.grant;
    let mut lowers = lowers_of(&granted, &root, bundle)?.unwrap_or(below);
    if !layers.is_empty() {
        lowers.extend(layers);
        extensions.layers = Some(list(&lowers)?);
    }
    if let Some(text) = user {
        let found = account::find(&text, &lowers);
        edits.user = Some(found.context(|| format!("find user {text:?}"))?);
    }
    edits.groups = account::groups(&groups, &lowers)?;
    for text in &devices {
        edits.devices.extend(device::find(text)?);
    }
    let mapped = nix::unistd::geteuid().is_root()
        && (extensions.userns.is_some()
            || granted.userns.is_some()
            || config.spec.linux().as_ref().is_some_and(|linux| linux.uid_mappings().is_some()));
    // A user namespace cannot make the node of a device.
    edits.binds_devices = extensions.userns.is_some()
        || granted.userns.is_some()
        || spec::has_namespace(&config.spec, LinuxNamespaceType::User);
    let named = mounts(&volumes, mapped, &mut edits)?;
    for text in &tmpfses {
        edits.mounts.push(tmpfs(text)?);
    }
    check_places(&edits.mounts)?;
    Ok(Resolved {
        config: Some(config.edited(&edits)?),
        extensions,
        volumes: named,
        bundle: bare.then(|| bundle.to_owned()),
    })
}

/// Encodes directories as `io.aril.rootfs.layers` has them: names may contain colons.
fn list(layers: &[PathBuf]) -> Result<String> {
    let names: Option<Vec<_>> = layers.iter().map(|layer| layer.to_str()).collect();
    let names = names.ok_or_else(|| Error::config("the name of a layer is not UTF-8"))?;
    serde_json::to_string(&names).map_err(|e| Error::config(format!("encode the layers: {e}")))
}

fn rules(given: String) -> Result<String> {
    if given.trim_start().starts_with('{') {
        return Ok(given);
    }
    std::fs::read_to_string(&given)
        .os("read", &given)
        .context(|| "load the rules of --landlock".to_owned())
}

/// Resolves symlinks of a rootfs on the command line.
fn real(folder: &Path) -> Result<PathBuf> {
    let found = folder
        .canonicalize()
        .map_err(|e| Error::io("stat", folder.display(), &e).context("invalid rootfs"))?;
    require_root(&found)?;
    Ok(found)
}

/// Names a directory that is an image layout or a bundle, and was given as a root file system.
fn require_root(path: &Path) -> Result<()> {
    let has = |name: &str| path.join(name).exists();
    let looks_like_a_root = ["bin", "usr", "etc", "lib"].iter().any(|name| has(name));
    let (what, advice) = if path.is_file() {
        ("a file", "unpack it to a directory first: tar -C DIRECTORY -xf FILE")
    } else if looks_like_a_root {
        return Ok(());
    } else if has("oci-layout") || (has("index.json") && has("blobs")) {
        (
            "an OCI image layout",
            "unpack the image first: umoci unpack --image LAYOUT:TAG BUNDLE, then \
             aril run --rootfs BUNDLE/rootfs",
        )
    } else if has("manifest.json") {
        (
            "a saved image",
            "unpack the image first: skopeo copy docker-archive:FILE.tar oci:LAYOUT:TAG, then \
             umoci unpack --image LAYOUT:TAG BUNDLE, then aril run --rootfs BUNDLE/rootfs",
        )
    } else if has("config.json") && has("rootfs") {
        ("a bundle", "run it by --bundle, or its root file system by --rootfs BUNDLE/rootfs")
    } else {
        return Ok(());
    };
    let text = format!("invalid rootfs: {} is {what}, not a root file system", path.display());
    Err(Error::config(text).hint(advice))
}

fn mounts(texts: &[String], mapped: bool, edits: &mut Edits) -> Result<Vec<MountedVolume>> {
    let mut named: Vec<MountedVolume> = Vec::new();
    for text in texts {
        let wanted = volume(text)?;
        let mount = match &wanted.source {
            Source::Host(path) => {
                let path = std::path::absolute(path).os("getcwd", "")?;
                wanted.mount(&path, false)
            }
            Source::Named(name) => {
                let all = match named.first() {
                    Some(volume) => volume.all.clone(),
                    None => Volumes::of_the_caller()?,
                };
                let mount = wanted.mount(&all.source(name), mapped);
                if named.iter().all(|volume| volume.name != *name) {
                    named.push(MountedVolume { all, name: name.clone() });
                }
                mount
            }
        };
        edits.mounts.push(mount);
    }
    Ok(named)
}

impl Given {
    fn paths(&self, name: &str) -> Result<Vec<PathBuf>> {
        let absolute = |path: String| {
            std::path::absolute(OsString::from(path)).map_err(|e| Error::io("getcwd", "", &e))
        };
        self.texts(name)?.into_iter().map(absolute).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_in_thousandths() {
        for (text, n) in [("1", 1000), ("1.5", 1500), ("0.05", 50), ("0.125", 125), ("64", 64000)] {
            assert_eq!(thousandths(text), Some(n), "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "0", "0.001", "-1", "1.2345", "1e3", "99999999999999999999"]
        {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn an_upper_directory_is_the_callers() {
        assert_eq!(upper("tmpfs:1m".to_owned()), "tmpfs:1m");
        let here = std::env::current_dir().unwrap().join("kept");
        assert_eq!(upper("./kept".to_owned()), here.to_str().unwrap());
    }

    #[test]
    fn nothing_asked_is_the_bundle_as_it_is() {
        let (b, s) = (Path::new("/no/bundle"), Path::new("/no/state"));
        let b = Documents { bundle: b, config: None };
        let policy = Policy::default();
        let resolved = resolve(Options::default(), "c", b, s, &policy).unwrap();
        assert!(resolved.config.is_none() && resolved.volumes.is_empty());
        let hostname = Some("h".to_owned());
        let options =
            Options { edits: Edits { hostname, ..Edits::default() }, ..Options::default() };
        let error = resolve(options, "c", b, s, &policy).unwrap_err().to_string();
        assert!(error.contains("config.json not found in /no/bundle"), "{error}");
    }
}
