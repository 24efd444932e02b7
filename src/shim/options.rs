//! Decodes the runtime's options: `containerd.runc.v1.Options`, or containerd's `runtimeoptions.v1.Options` for the
//! configuration of an unknown runtime, which has the same options as TOML.
//!
//! Options belong to one container. They are stored in its bundle, because `delete` receives none.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::status::Status;
use super::wire::{Any, Message};
use crate::error::{Error, Result};
use crate::fs::record;
use crate::spec::grant::Rules;

/// Default directory for state, that of containerd's shim for runc.
const ROOT: &str = "/run/containerd/runc";
const FILE: &str = "options.json";
const RUNC: &str = "containerd.runc.v1.Options";
/// Type that clients of containerd 1.x send for a runtime other than `io.containerd.runc`, to name the owner of
/// streams.
const LEGACY: &str = "containerd.linux.runc.CreateOptions";
const GENERIC: &str = "runtimeoptions.v1.Options";

/// Options of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub shim_cgroup: String,
    pub io_uid: u32,
    pub io_gid: u32,
    /// Runtime's binary; if empty, `aril` beside the shim or in PATH.
    pub binary_name: String,
    /// State directory; if empty, [`ROOT`].
    pub root: String,
    pub systemd_cgroup: bool,
    /// `RootfsOnHost` in TOML, an option of Aril's shim: see [`super::inside`].
    pub rootfs_on_host: bool,
    /// `AllowAnnotations`, `DenyAnnotations`, `StrictAnnotations`: the runtime's options of these names.
    pub allow_annotations: Vec<String>,
    pub deny_annotations: Vec<String>,
    pub strict_annotations: bool,
}

impl Options {
    /// Decodes the options of a request.
    ///
    /// # Errors
    ///
    /// The type is unknown, or the message or TOML cannot be decoded.
    pub fn decode(any: &Any) -> std::result::Result<Self, Status> {
        // Clients may put a host before the name.
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Ok(Self::default());
        }
        if name == RUNC {
            return Self::decode_runc(&any.value);
        }
        if name == LEGACY {
            return Self::decode_legacy(&any.value);
        }
        if name.ends_with(GENERIC) {
            return Self::decode_generic(&any.value);
        }
        Err(Status::invalid(format!("options of unknown type {name:?}: expected {RUNC}")))
    }

    fn decode_runc(bytes: &[u8]) -> std::result::Result<Self, Status> {
        let message = Message::parse(bytes)?;
        Ok(Self {
            no_pivot_root: message.flag(1),
            no_new_keyring: message.flag(2),
            shim_cgroup: message.text(3)?.to_owned(),
            io_uid: message.number(4) as u32,
            io_gid: message.number(5) as u32,
            binary_name: message.text(6)?.to_owned(),
            root: message.text(7)?.to_owned(),
            systemd_cgroup: message.flag(9),
            ..Self::default()
        })
    }

    fn decode_legacy(bytes: &[u8]) -> std::result::Result<Self, Status> {
        let message = Message::parse(bytes)?;
        Ok(Self {
            no_pivot_root: message.flag(1),
            no_new_keyring: message.flag(8),
            shim_cgroup: message.text(9)?.to_owned(),
            io_uid: message.number(10) as u32,
            io_gid: message.number(11) as u32,
            ..Self::default()
        })
    }

    fn decode_generic(bytes: &[u8]) -> std::result::Result<Self, Status> {
        const LIMIT: usize = 1 << 20;
        let message = Message::parse(bytes)?;
        let (path, body) = (message.text(2)?, message.text(3)?);
        if !body.is_empty() || path.is_empty() {
            return Self::from_toml(body);
        }
        let text = record::read(Path::new(path), LIMIT)?;
        Self::from_toml(&String::from_utf8_lossy(&text))
    }

    /// Parses the flat table of options. Unknown keys are ignored.
    fn from_toml(text: &str) -> std::result::Result<Self, Status> {
        let mut options = Self::default();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line.is_empty() || line.starts_with(['#', '[']) {
                continue;
            }
            let wrong = || Status::invalid(format!("runtime options: cannot read {line:?}"));
            let (key, value) = line.split_once('=').ok_or_else(wrong)?;
            let mut value = value.trim().to_owned();
            while value.starts_with('[') && !value.ends_with(']') {
                value += lines.next().ok_or_else(wrong)?;
            }
            options.set(key.trim().trim_matches('"'), &value).ok_or_else(wrong)?;
        }
        options.rules()?;
        Ok(options)
    }

    /// Returns the rules of the operator for annotations.
    ///
    /// # Errors
    ///
    /// A pattern is no key or prefix of an annotation.
    pub fn rules(&self) -> Result<Rules> {
        let mut rules = Rules::default();
        self.allow_annotations.iter().try_for_each(|text| rules.allow(text))?;
        self.deny_annotations.iter().try_for_each(|text| rules.deny(text))?;
        if self.strict_annotations {
            rules.be_strict();
        }
        Ok(rules)
    }

    /// Returns the rules as options of the runtime's `create`.
    pub fn annotation_words(&self) -> impl Iterator<Item = String> {
        let words = |option: &'static str, keys: &[String]| {
            keys.iter().map(|key| format!("{option}={key}")).collect::<Vec<_>>()
        };
        let strict = self.strict_annotations.then(|| "--strict-annotations".to_owned());
        words("--allow-annotation", &self.allow_annotations)
            .into_iter()
            .chain(words("--deny-annotation", &self.deny_annotations))
            .chain(strict)
    }

    /// Sets an option. `None` if the value has the wrong type for the key.
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "NoPivotRoot" => self.no_pivot_root = value.parse().ok()?,
            "NoNewKeyring" => self.no_new_keyring = value.parse().ok()?,
            "ShimCgroup" => self.shim_cgroup = string(value)?,
            "IoUid" => self.io_uid = value.parse().ok()?,
            "IoGid" => self.io_gid = value.parse().ok()?,
            "BinaryName" => self.binary_name = string(value)?,
            "Root" => self.root = string(value)?,
            "SystemdCgroup" => self.systemd_cgroup = value.parse().ok()?,
            "RootfsOnHost" => self.rootfs_on_host = value.parse().ok()?,
            "AllowAnnotations" => self.allow_annotations = strings(value)?,
            "DenyAnnotations" => self.deny_annotations = strings(value)?,
            "StrictAnnotations" => self.strict_annotations = value.parse().ok()?,
            _ => {}
        }
        Some(())
    }

    /// Stores the options in the bundle.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn store(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::system(e.to_string()))?;
        record::write(&bundle.join(FILE), 0o600, &text)
    }

    /// Reads the stored options; the defaults if none were stored.
    pub fn load(bundle: &Path) -> Self {
        let text = record::read(&bundle.join(FILE), 1 << 16).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Returns the state root for the containers of a namespace of containerd.
    pub fn state_root(&self, namespace: &str) -> PathBuf {
        let root = if self.root.is_empty() { ROOT } else { &self.root };
        Path::new(root).join(namespace)
    }

    /// Returns the path of the runtime.
    ///
    /// # Errors
    ///
    /// No such program is found.
    pub fn binary(&self) -> Result<CString> {
        let name = if self.binary_name.is_empty() { "aril" } else { &self.binary_name };
        let found = find(name).ok_or_else(|| {
            Error::system(format!("exec: \"{name}\": executable file not found in $PATH"))
                .hint("set BinaryName in the options of the runtime to an absolute path")
        })?;
        CString::new(found.as_os_str().as_bytes()).map_err(|_| Error::config("BinaryName: NUL"))
    }
}

/// Parses a basic or a literal string of TOML, without escapes, which no path needs.
fn string(value: &str) -> Option<String> {
    ['"', '\''].iter().find_map(|quote| {
        let inner = value.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains(['\\', *quote])).then(|| inner.to_owned())
    })
}

/// Parses an array of strings.
fn strings(value: &str) -> Option<Vec<String>> {
    let inner = value.strip_prefix('[')?.strip_suffix(']')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner).trim();
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner.split(',').map(|item| string(item.trim())).collect()
}

/// Finds the binary; `aril` itself is beside the shim.
#[expect(clippy::disallowed_methods, reason = "containerd's search path")]
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into());
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).filter(|_| name == "aril");
    let path =
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/sbin:/usr/bin".into());
    let searched = std::env::split_paths(&path);
    beside
        .map(Path::to_owned)
        .into_iter()
        .chain(searched)
        .map(|d| d.join(name))
        .find(|f| f.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::wire::Writer;

    #[test]
    fn both_types_say_the_same() {
        let runc = Writer::new().bytes(6, "crun").bytes(7, "/r").number(9, 1).number(4, 5).finish();
        let runc =
            Options::decode(&Any::new("types.containerd.io/containerd.runc.v1.Options", runc));
        let toml = "# a comment\n[options]\nBinaryName = \"crun\"\n Root='/r'\nSystemdCgroup = true\nIoUid = 5\nOther = [1]\n";
        let generic = Writer::new().bytes(1, "x").bytes(3, toml).finish();
        let generic = Options::decode(&Any::new("runtimeoptions.v1.Options", generic));
        let runc = runc.unwrap();
        assert_eq!(runc.state_root("k8s.io"), Path::new("/r/k8s.io"));
        assert_eq!(generic.unwrap(), runc);
        assert_eq!(Options::decode(&Any::default()).unwrap(), Options::default());
    }

    #[test]
    fn annotations_are_the_operators_to_allow() {
        let toml = "AllowAnnotations = [\"io.aril.landlock\", 'io.aril.network.*',]\n\
                    DenyAnnotations = [\n  \"run.oci.*\"\n]\nStrictAnnotations = true\n";
        let options = Options::from_toml(toml).unwrap();
        let words: Vec<_> = options.annotation_words().collect();
        assert_eq!(
            words,
            [
                "--allow-annotation=io.aril.landlock",
                "--allow-annotation=io.aril.network.*",
                "--deny-annotation=run.oci.*",
                "--strict-annotations",
            ]
        );
        assert!(options.rules().is_ok());
        assert_eq!(Options::from_toml("AllowAnnotations = []").unwrap(), Options::default());
        for bad in
            ["AllowAnnotations = \"a\"", "AllowAnnotations = [a]", "AllowAnnotations = [\"a\""]
        {
            assert!(Options::from_toml(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_clients_of_containerd_1() {
        let legacy = Writer::new().number(1, 1).bytes(9, "/c").number(10, 5).number(11, 6);
        let legacy = Options::decode(&Any::new(LEGACY, legacy.finish())).unwrap();
        let expected = Options {
            no_pivot_root: true,
            shim_cgroup: "/c".into(),
            io_uid: 5,
            io_gid: 6,
            ..Options::default()
        };
        assert_eq!(legacy, expected);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let why = |toml: &str| Options::from_toml(toml).unwrap_err().message;
        assert_eq!(
            why("IoUid = \"five\""),
            "runtime options: cannot read \"IoUid = \\\"five\\\"\""
        );
        assert!(why("nonsense").contains("nonsense"));
        assert!(Options::decode(&Any::new("a.B", [])).unwrap_err().message.contains("a.B"));
    }

    #[test]
    fn a_bundle_without_options_has_the_defaults() {
        assert_eq!(Options::load(Path::new("/nonexistent")), Options::default());
        assert_eq!(Options::default().state_root("a"), Path::new("/run/containerd/runc/a"));
    }
}
