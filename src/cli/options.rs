//! The options of `create` and `run` that say what a container is, with a config.json or without one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Arg;

use super::given::{Given, usage};
use super::spec::{For, document};
use super::table::{switch, value, values};
use super::value::bytes;
use crate::error::{Context, Error, OsContext, Result};
use crate::identity::account;
use crate::lifecycle::create::NamedVolumes;
use crate::path::absolute;
use crate::rootfs::overlay::plan::lowers_of;
use crate::spec::edit::{Edits, Everyday};
use crate::spec::{self, Config, annotation};
use crate::volume::Volumes;
use crate::volume::plan::{Source, check_places, tmpfs, volume};

pub fn flags() -> Vec<Arg> {
    vec![
        value("rootfs", "DIR", "without a bundle: run this folder, which stays as it is"),
        values("layer", "DIR", "a folder that covers what is below it; the last is the topmost"),
        value(
            "upper",
            "WHERE",
            "what takes writes: ephemeral, tmpfs or a DIR/ to keep, all with [:SIZE]",
        ),
        switch("show-rootfs", "let the host see the layers as one, at rootfs in the bundle"),
        values("volume", "SOURCE:DIR[:ro]", "mount a named volume, or /DIR of the host").short('v'),
        values("tmpfs", "DIR[:SIZE]", "mount an empty tmpfs"),
        value("memory", "SIZE", "limit of memory, such as 512m; -1 for none").short('m'),
        value("cpus", "N", "limit of CPU time, in processors, such as 1.5"),
        value("pids", "N", "the most processes; -1 for no limit"),
        values("env", "NAME[=VALUE]", "set a variable, or take over the caller's").short('e'),
        value("workdir", "DIR", "the working directory").short('w'),
        value("user", "USER[:GROUP]", "the user, by number or by the image's name").short('u'),
        value("hostname", "NAME", "the host name"),
        switch("read-only", "a root that cannot be written"),
        switch("tty", "with a terminal").short('t'),
        values("cap-add", "CAP", "add a capability, such as NET_ADMIN, or ALL"),
        values("cap-drop", "CAP", "take a capability away, or ALL"),
        value("landlock", "FILE|JSON", "confine it by these rules: see docs/landlock.md"),
    ]
}

/// As typed; paths are absolute.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    pub rootfs: Option<PathBuf>,
    /// A bundle is named too.
    pub bundle: bool,
    pub volumes: Vec<String>,
    pub tmpfs: Vec<String>,
    pub user: Option<String>,
    /// A document, or the file that it is in.
    pub landlock: Option<String>,
    pub edits: Edits,
}

pub fn read(given: &Given, args: Vec<String>) -> Result<Options> {
    Ok(Options {
        rootfs: given.path("rootfs")?,
        bundle: given.raw("bundle").is_some(),
        volumes: given.texts("volume")?,
        tmpfs: given.texts("tmpfs")?,
        user: given.text("user")?,
        landlock: given.text("landlock")?,
        edits: Edits {
            args,
            layers: given.paths("layer")?,
            upper: given.text("upper")?.map(upper),
            show: given.switch("show-rootfs"),
            memory: given.parsed("memory", bytes, "a size such as 512m, or -1 for no limit")?,
            milli_cpus: given.parsed("cpus", thousandths, "a number such as 1.5")?,
            pids: given.parsed("pids", super::value::integer, "a number")?,
            env: given.texts("env")?.into_iter().filter_map(variable).collect(),
            workdir: given.raw("workdir").map(PathBuf::from),
            hostname: given.text("hostname")?,
            read_only: given.switch("read-only"),
            tty: given.switch("tty").then_some(true),
            cap_add: given.texts("cap-add")?,
            cap_drop: given.texts("cap-drop")?,
            ..Edits::default()
        },
    })
}

/// A directory is the caller's; the annotation's would be the bundle's.
fn upper(text: String) -> String {
    let path = Path::new(&text);
    match std::path::absolute(path) {
        Ok(path) if text.contains('/') && !text.starts_with('{') => {
            path.to_str().map_or(text.clone(), str::to_owned)
        }
        _ => text,
    }
}

fn variable(text: String) -> Option<String> {
    if text.contains('=') {
        return Some(text);
    }
    std::env::var(&text).ok().map(|value| format!("{text}={value}"))
}

/// `1.5` is 1500.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    let all = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)?;
    // The kernel's least quota is a millisecond of each 100.
    (10..=1_000_000_000).contains(&all).then_some(all)
}

/// What `lifecycle` makes of them: nothing, if the bundle is as it should be.
#[derive(Debug, Default)]
pub struct Resolved {
    pub config: Option<Config>,
    pub volumes: Option<NamedVolumes>,
    /// In the place of the bundle's.
    pub bundle: Option<PathBuf>,
}

/// `state_directory` stands for the bundle where there is none; `userns`: ids will be chosen.
pub fn resolve(
    options: Options,
    id: &str,
    bundle: &Path,
    state_directory: &Path,
    userns: bool,
) -> Result<Resolved> {
    let Options { rootfs, bundle: named, volumes, tmpfs: tmpfses, user, landlock, mut edits } =
        options;
    edits.landlock = landlock.map(rules).transpose()?;
    if rootfs.is_some() && named {
        return Err(usage("--rootfs and --bundle cannot be used together")
            .hint("a bundle has a rootfs of its own"));
    }
    let asked = rootfs.is_some() || user.is_some() || edits != Edits::default();
    if !asked && volumes.is_empty() && tmpfses.is_empty() {
        return Ok(Resolved::default());
    }
    let bare = rootfs.is_some();
    let bundle = if bare { state_directory } else { bundle };
    let config = match &rootfs {
        None => spec::load(bundle)?,
        Some(_) => {
            let target = For::this_host(!nix::unistd::geteuid().is_root());
            spec::parse(document(&target).into_bytes())?
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
        edits.everyday = Some(Everyday { root: root.clone(), name: id.to_owned() });
        edits.upper.get_or_insert_with(|| "ephemeral".to_owned());
    }
    // Who gives both directories of the upper says all: the root is then only a place.
    let complete = edits.upper.as_deref().is_some_and(|upper| upper.starts_with('{'));
    let below = if complete && !edits.layers.is_empty() { vec![] } else { vec![root.clone()] };
    let mut lowers = lowers_of(&config.spec, &root, bundle)?.unwrap_or(below);
    if !edits.layers.is_empty() {
        lowers.append(&mut edits.layers);
        edits.layers.clone_from(&lowers);
    }
    if let Some(text) = user {
        let found = account::find(&text, &lowers);
        edits.user = Some(found.context(|| format!("find user {text:?}"))?);
    }
    let mapped = nix::unistd::geteuid().is_root()
        && (userns
            || annotation::value(&config.spec, annotation::USERNS).is_some()
            || config.spec.linux().as_ref().is_some_and(|linux| linux.uid_mappings().is_some()));
    let named = mounts(&volumes, mapped, &mut edits)?;
    for text in &tmpfses {
        edits.mounts.push(tmpfs(text)?);
    }
    check_places(&edits.mounts)?;
    Ok(Resolved {
        config: Some(config.edited(&edits)?),
        volumes: named,
        bundle: bare.then(|| bundle.to_owned()),
    })
}

fn rules(given: String) -> Result<String> {
    if given.trim_start().starts_with('{') {
        return Ok(given);
    }
    std::fs::read_to_string(&given)
        .os("read", &given)
        .context(|| "load the rules of --landlock".to_owned())
}

/// A rootfs is what it seems; on the command line a symlink to it is as good.
fn real(folder: &Path) -> Result<PathBuf> {
    folder
        .canonicalize()
        .map_err(|e| Error::io("stat", folder.display(), &e).context("invalid rootfs"))
}

fn mounts(texts: &[String], mapped: bool, edits: &mut Edits) -> Result<Option<NamedVolumes>> {
    let mut named: Option<NamedVolumes> = None;
    for text in texts {
        let wanted = volume(text)?;
        let mount = match &wanted.source {
            Source::Host(path) => wanted.mount(path, false),
            Source::Named(name) => {
                if named.is_none() {
                    let all = Volumes::of_the_caller()?;
                    named = Some(NamedVolumes { all, names: Vec::new() });
                }
                let Some(volumes) = &mut named else { continue };
                let mount = wanted.mount(&volumes.all.source(name), mapped);
                if !volumes.names.contains(name) {
                    volumes.names.push(name.clone());
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
        let resolved = resolve(Options::default(), "c", b, s, false).unwrap();
        assert!(resolved.config.is_none() && resolved.volumes.is_none());
        let hostname = Some("h".to_owned());
        let options =
            Options { edits: Edits { hostname, ..Edits::default() }, ..Options::default() };
        let error = resolve(options, "c", b, s, false).unwrap_err().to_string();
        assert!(error.contains("config.json not found in /no/bundle"), "{error}");
    }
}
