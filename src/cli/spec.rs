//! `aril spec`: writes a default config.json.
//!
//! The document is the text `config.json` beside this file, because users read and edit it: types would lose its order and
//! its short lines. Variants are edits of that text.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};

use crate::error::{Error, OsContext, Result};

/// Host and caller for which the document is made.
pub struct For {
    /// User and group of a rootless container.
    pub rootless: Option<(u32, u32)>,
    /// True on a cgroup v2 host: the default config then has a cgroup namespace, which hides the host's hierarchy.
    pub cgroup2: bool,
}

impl For {
    pub fn this_host(rootless: bool) -> Self {
        let cgroup2 =
            statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        Self { rootless: rootless.then(|| (geteuid().as_raw(), getegid().as_raw())), cgroup2 }
    }
}

/// Writes `config.json` to `bundle`.
///
/// # Errors
///
/// The file exists, or cannot be created.
pub fn write(bundle: &Path, target: &For) -> Result<()> {
    let path = bundle.join("config.json");
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::system("File config.json exists. Remove it first"));
        }
        opened => opened.os("open", path.display())?,
    };
    file.write_all(document(target).as_bytes()).os("write", path.display())
}

pub fn document(target: &For) -> String {
    let mut text = include_str!("config.json").to_owned();
    let mut edit = |(from, to): (&str, &str)| {
        debug_assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replacen(from, to, 1);
    };
    if target.cgroup2 {
        edit((LAST_NAMESPACE, "{ \"type\": \"mount\" },\n\t\t\t{ \"type\": \"cgroup\" }"));
    }
    if let Some((uid, gid)) = target.rootless {
        ROOTLESS.iter().for_each(|pair| edit(*pair));
        let only = |kind, id| {
            format!(
                "\"{kind}Mappings\": [{{ \"containerID\": 0, \"hostID\": {id}, \"size\": 1 }}],"
            )
        };
        edit((RESOURCES, &format!("{}\n\t\t{}", only("uid", uid), only("gid", gid))));
    }
    text
}

const LAST_NAMESPACE: &str = "{ \"type\": \"mount\" }";

const RESOURCES: &str =
    "\"resources\": { \"devices\": [{ \"allow\": false, \"access\": \"rwm\" }] },";

/// Edits the document for a user with one id. Such a user cannot configure a network, cannot mount sysfs without a network
/// namespace, and has no second id for a mount option.
const ROOTLESS: [(&str, &str); 3] = [
    ("{ \"type\": \"network\" }", "{ \"type\": \"user\" }"),
    (", \"gid=5\"", ""),
    (
        "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [",
        "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\"rbind\", ",
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value(rootless: Option<(u32, u32)>, cgroup2: bool) -> Value {
        serde_json::from_str(&document(&For { rootless, cgroup2 })).unwrap()
    }

    fn kinds(document: &Value) -> Vec<&str> {
        let all = document["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|n| n["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_specifications_types_read_it() {
        for rootless in [None, Some((7, 8))] {
            let text = document(&For { rootless, cgroup2: true });
            let spec: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(spec.version(), crate::spec::OCI_VERSION);
            assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
        }
    }

    #[test]
    fn a_cgroup_namespace_where_it_hides_something() {
        assert_eq!(kinds(&value(None, true)), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn rootless() {
        let document = value(Some((7, 8)), false);
        assert_eq!(kinds(&document), ["pid", "user", "ipc", "uts", "mount"]);
        let linux = &document["linux"];
        assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": 7, "size": 1}]));
        assert_eq!(linux["gidMappings"], json!([{"containerID": 0, "hostID": 8, "size": 1}]));
        assert_eq!(linux.get("resources"), None);
        let sys =
            document["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/sys");
        assert_eq!(
            *sys.unwrap(),
            json!({"destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        );
        assert!(!document.to_string().contains("gid=5"));
    }

    #[test]
    fn is_written_once() {
        let bundle = std::env::temp_dir().join(format!("aril-spec-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let target = For { rootless: None, cgroup2: false };
        let (first, second) = (write(&bundle, &target), write(&bundle, &target));
        let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
        std::fs::remove_dir_all(&bundle).unwrap();
        first.unwrap();
        assert_eq!(second.unwrap_err().to_string(), "File config.json exists. Remove it first");
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n"));
        let missing = write(&bundle.join("nope"), &target).unwrap_err().to_string();
        assert!(missing.ends_with("nope/config.json: no such file or directory"), "{missing}");
    }
}
