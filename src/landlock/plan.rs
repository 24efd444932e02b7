//! Turns the annotation and the kernel's Landlock ABI version into a ruleset. Pure.

use std::path::Path;

use serde_json::{Map, Value};

use super::{PathRule, PortRule, Ruleset, fs, net, scope};
use crate::error::{Context, Error, Result};
use crate::path::c_path;
use crate::sys::Errno;
use crate::sys::landlock::Handled;

/// Planned ruleset.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// `None` if the kernel can restrict nothing of the request, and the mode is best-effort.
    pub ruleset: Option<Ruleset>,
    /// What the request asks for and the kernel cannot enforce.
    pub warning: Option<String>,
}

/// A restriction, the ABI version that supports it, and the kernel release that introduced that version.
struct Ability {
    bits: Handled,
    since: u32,
    linux: &'static str,
    word: &'static str,
}

const NOTHING: Handled = Handled { fs: 0, net: 0, scoped: 0 };

const fn ability(bits: Handled, since: u32, linux: &'static str, word: &'static str) -> Ability {
    Ability { bits, since, linux, word }
}

/// Restrictions, with those of ABI version 1 first.
const ABILITIES: [Ability; 8] = [
    ability(Handled { fs: 0x1fff, ..NOTHING }, 1, "5.13", "files"),
    ability(Handled { fs: fs::REFER, ..NOTHING }, 2, "5.19", "moves between directories"),
    ability(Handled { fs: fs::TRUNCATE, ..NOTHING }, 3, "6.2", "truncation of files"),
    ability(Handled { net: net::BIND_TCP, ..NOTHING }, 4, "6.7", "tcp bind"),
    ability(Handled { net: net::CONNECT_TCP, ..NOTHING }, 4, "6.7", "tcp connect"),
    ability(Handled { fs: fs::IOCTL_DEV, ..NOTHING }, 5, "6.10", "ioctl of devices"),
    ability(
        Handled { scoped: scope::ABSTRACT_UNIX_SOCKET, ..NOTHING },
        6,
        "6.12",
        "abstract unix sockets",
    ),
    ability(Handled { scoped: scope::SIGNAL, ..NOTHING }, 6, "6.12", "signals"),
];

/// Access rights of each word of `access`.
const ACCESS: [(&str, u64); 3] = [
    ("read", fs::READ_FILE | fs::READ_DIR),
    ("write", fs::WRITE_FILE | fs::CHANGE_DIR | fs::REFER | fs::TRUNCATE | fs::IOCTL_DEV),
    ("execute", fs::EXECUTE),
];

/// Plans the ruleset. `text` is the value of [`crate::spec::annotation::LANDLOCK`].
///
/// # Errors
///
/// The text is no valid ruleset, or needs a later version of Landlock.
pub fn plan(text: &str, version: std::result::Result<u32, Errno>) -> Result<Plan> {
    let mut wanted = read(text).context(|| crate::spec::annotation::LANDLOCK.to_owned())?;
    let version = match version {
        Ok(version) => version,
        Err(errno) if wanted.required => {
            return Err(Error::os("landlock_create_ruleset", "", errno)
                .context("the config requires Landlock, which the kernel does not support")
                .hint(
                    "use Linux 5.13 or later built with CONFIG_SECURITY_LANDLOCK, with landlock in the \
                     list of the boot parameter lsm=; or set \"mode\": \"best-effort\"",
                ));
        }
        Err(_) => {
            let warning =
                Some("landlock is not enforced: the kernel does not support it".to_owned());
            return Ok(Plan { ruleset: None, warning });
        }
    };
    let missing = wanted.limit_to(version);
    if missing.is_empty() {
        return Ok(Plan { ruleset: Some(wanted), warning: None });
    }
    let list: Vec<_> = missing.iter().map(|a| format!("{} (Linux {})", a.word, a.linux)).collect();
    let list = list.join(", ");
    if wanted.required {
        return Err(Error::config(format!(
            "the kernel's Landlock, version {version}, cannot restrict what the config requires: {list}"
        ))
        .hint("use a newer kernel, or set \"mode\": \"best-effort\""));
    }
    let warning = Some(format!("landlock version {version} does not restrict: {list}"));
    // The kernel rejects a ruleset that restricts nothing.
    Ok(Plan { ruleset: Some(wanted).filter(|rest| rest.handled != NOTHING), warning })
}

impl Ruleset {
    /// Removes what the kernel does not support, and returns it.
    fn limit_to(&mut self, version: u32) -> Vec<&'static Ability> {
        self.version = version;
        let lacks = |a: &&Ability| a.since > version;
        let missing: Vec<_> = ABILITIES.iter().filter(lacks).filter(|a| self.wants(a)).collect();
        for ability in ABILITIES.iter().filter(lacks) {
            let Handled { fs, net, scoped } = ability.bits;
            self.handled.fs &= !fs;
            self.handled.net &= !net;
            self.handled.scoped &= !scoped;
        }
        let handled = self.handled;
        self.paths.iter_mut().for_each(|rule| rule.access &= handled.fs);
        self.ports.iter_mut().for_each(|rule| rule.access &= handled.net);
        self.paths.retain(|rule| rule.access != 0);
        self.ports.retain(|rule| rule.access != 0);
        missing
    }

    fn wants(&self, ability: &Ability) -> bool {
        let Handled { fs, net, scoped } = ability.bits;
        self.handled.fs & fs != 0
            || self.handled.net & net != 0
            || self.handled.scoped & scoped != 0
    }
}

/// Parses the annotation into a ruleset for a kernel that supports everything.
fn read(text: &str) -> Result<Ruleset> {
    let document: Value =
        serde_json::from_str(text).map_err(|e| Error::config(format!("invalid JSON: {e}")))?;
    let fields = object(&document, "the annotation", &["fs", "tcp", "scope", "mode"])?;
    let mut ruleset = Ruleset {
        version: 0,
        handled: NOTHING,
        paths: Vec::new(),
        ports: Vec::new(),
        required: required(fields.get("mode"))?,
    };
    if let Some(rules) = fields.get("fs") {
        ruleset.handled.fs = ACCESS.iter().fold(0, |all, (_, bits)| all | bits);
        for rule in list(rules, "fs")? {
            ruleset.paths.extend(path_rules(rule)?);
        }
    }
    if let Some(tcp) = fields.get("tcp") {
        let tcp = object(tcp, "tcp", &["bind", "connect"])?;
        for (word, access) in [("bind", net::BIND_TCP), ("connect", net::CONNECT_TCP)] {
            let Some(ports) = tcp.get(word) else { continue };
            ruleset.handled.net |= access;
            for port in list(ports, word)? {
                ruleset.ports.push(PortRule { port: number(port, word)?, access });
            }
        }
    }
    for word in fields.get("scope").map(|words| list(words, "scope")).transpose()?.unwrap_or(&[]) {
        ruleset.handled.scoped |= match word.as_str() {
            Some("abstract-unix-socket") => scope::ABSTRACT_UNIX_SOCKET,
            Some("signal") => scope::SIGNAL,
            _ => return Err(wrong("scope", word, "abstract-unix-socket or signal")),
        };
    }
    if ruleset.handled == NOTHING {
        return Err(Error::config("nothing is restricted: give fs, tcp or scope"));
    }
    Ok(ruleset)
}

fn required(mode: Option<&Value>) -> Result<bool> {
    match mode.map(|mode| (mode, mode.as_str())) {
        None | Some((_, Some("best-effort"))) => Ok(false),
        Some((_, Some("required"))) => Ok(true),
        Some((mode, _)) => Err(wrong("mode", mode, "best-effort or required")),
    }
}

fn path_rules(rule: &Value) -> Result<Vec<PathRule>> {
    let fields = object(rule, "a rule of fs", &["paths", "access"])?;
    let (Some(paths), Some(access)) = (fields.get("paths"), fields.get("access")) else {
        return Err(Error::config("a rule of fs needs paths and access"));
    };
    let access = self::access(access)?;
    let rule = |path: &Value| match path.as_str() {
        Some(text) if text.starts_with('/') => {
            Ok(PathRule { path: c_path("landlock path", Path::new(text))?, access })
        }
        _ => Err(wrong("paths", path, "absolute paths, as the container sees them")),
    };
    list(paths, "paths")?.iter().map(rule).collect()
}

fn access(value: &Value) -> Result<u64> {
    let mut words = value.as_str().unwrap_or_default().split(',').map(str::trim);
    words.try_fold(0, |all, word| match ACCESS.iter().find(|(known, _)| *known == word) {
        Some((_, bits)) => Ok(all | bits),
        None => Err(wrong("access", value, "read, write or execute, separated by commas")),
    })
}

fn number(value: &Value, what: &str) -> Result<u16> {
    let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| wrong(what, value, "port numbers from 0 to 65535"))
}

fn object<'v>(value: &'v Value, what: &str, known: &[&str]) -> Result<&'v Map<String, Value>> {
    let fields = value.as_object().ok_or_else(|| wrong(what, value, "an object"))?;
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(fields),
        Some(key) => Err(Error::config(format!("{what} has no field {key:?}"))
            .hint(format!("the fields are {}", known.join(", ")))),
    }
}

fn list<'v>(value: &'v Value, what: &str) -> Result<&'v [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(what, value, "a list"))
}

fn wrong(what: &str, value: &Value, wanted: &str) -> Error {
    Error::config(format!("{what}: {value}: expected {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = r#"{"fs":[{"paths":["/usr","/etc/passwd"],"access":"read, execute"},
        {"paths":["/tmp"],"access":"write"}],"tcp":{"bind":[80],"connect":[443]},
        "scope":["abstract-unix-socket","signal"]}"#;

    fn required() -> String {
        ALL.replacen('{', r#"{"mode":"required","#, 1)
    }

    #[test]
    fn a_newer_kernel_enforces_all() {
        for version in [6, 7, 99] {
            let plan = plan(&required(), Ok(version)).unwrap();
            assert_eq!(plan.warning, None);
            let ruleset = plan.ruleset.unwrap();
            assert_eq!(ruleset.handled, Handled { fs: 0xffff, net: 3, scoped: 3 });
            let access: Vec<_> = ruleset.paths.iter().map(|rule| rule.access).collect();
            assert_eq!(access, [0b1101, 0b1101, 0xfff2 & !0b1100]);
            let port = |port, access| PortRule { port, access };
            assert_eq!(ruleset.ports, [port(80, 1), port(443, 2)]);
            assert!(ruleset.to_string().contains("files, tcp bind, tcp connect, abstract unix"));
        }
    }

    #[test]
    fn an_older_kernel_enforces_what_it_knows() {
        let plan = plan(ALL, Ok(3)).unwrap();
        let ruleset = plan.ruleset.unwrap();
        assert_eq!(ruleset.handled, Handled { fs: 0x7fff, net: 0, scoped: 0 });
        assert!(ruleset.ports.is_empty() && ruleset.paths[2].access & fs::IOCTL_DEV == 0);
        let warning = plan.warning.unwrap();
        assert_eq!(
            warning,
            "landlock version 3 does not restrict: tcp bind (Linux 6.7), tcp connect (Linux 6.7), \
             ioctl of devices (Linux 6.10), abstract unix sockets (Linux 6.12), signals (Linux 6.12)"
        );
    }

    #[test]
    fn a_missing_requirement_is_named() {
        let text = plan(&required(), Ok(5)).unwrap_err().to_string();
        assert!(
            text.ends_with("abstract unix sockets (Linux 6.12), signals (Linux 6.12)"),
            "{text}"
        );
        let text = plan(&required(), Err(Errno::ENOSYS)).unwrap_err().to_string();
        assert!(text.ends_with("landlock_create_ruleset: function not implemented"), "{text}");
        let nothing = plan(r#"{"scope":["signal"]}"#, Ok(5)).unwrap();
        assert!(nothing.ruleset.is_none() && nothing.warning.is_some());
        let none = plan(ALL, Err(Errno::ENOSYS)).unwrap();
        assert!(none.ruleset.is_none() && none.warning.is_some());
        // A restriction that is not requested need not be supported.
        let files = plan(r#"{"fs":[],"mode":"required"}"#, Ok(5)).unwrap();
        assert_eq!(files.ruleset.unwrap().handled.fs, 0xffff);
    }

    #[test]
    fn errors_name_what_is_invalid() {
        for (text, said) in [
            ("", "io.aril.landlock: invalid JSON"),
            ("[]", "the annotation: []: expected an object"),
            ("{}", "nothing is restricted"),
            (r#"{"files":[]}"#, "no field \"files\""),
            (r#"{"fs":{}}"#, "fs: {}: expected a list"),
            (r#"{"fs":[{"paths":["/a"]}]}"#, "needs paths and access"),
            (r#"{"fs":[{"paths":["a"],"access":"read"}]}"#, "paths: \"a\": expected absolute"),
            (r#"{"fs":[{"paths":["/a\u0000"],"access":"read"}]}"#, "landlock path"),
            (r#"{"fs":[{"paths":["/a"],"access":"rw"}]}"#, "access: \"rw\": expected read"),
            (r#"{"fs":[{"paths":["/a"],"access":3}]}"#, "access: 3: expected read"),
            (r#"{"tcp":{"bind":[65536]}}"#, "bind: 65536: expected port"),
            (r#"{"tcp":{"bind":["80"]}}"#, "bind: \"80\": expected port"),
            (r#"{"scope":["all"]}"#, "scope: \"all\": expected abstract"),
            (r#"{"fs":[],"mode":"strict"}"#, "mode: \"strict\": expected best-effort"),
        ] {
            let error = plan(text, Ok(7)).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
